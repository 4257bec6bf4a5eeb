"""The GPUs of ``benchmarks/roofline``: data sheet numbers, and what is assumed about every one of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """Data sheet numbers. ``per_clock``: results per clock cycle and multiprocessor by class of instruction."""

    name: str
    architecture: int
    multiprocessors: int
    clock: float  # Hz, boost
    bandwidth: float  # bytes per second of device memory
    memory: float  # bytes
    host_bandwidth: float  # bytes per second over PCIe, one way
    per_clock: dict[str, int]
    source: str
    has_clusters: bool = True  # where the architecture has any

    @property
    def cluster_blocks(self) -> int:
        """Blocks that may form a cluster; 0 where we ask for none."""
        return 16 if self.has_clusters and self.architecture in (90, 100) else 0

    @property
    def shared_bytes(self) -> int:
        """Shared memory that a block may be given."""
        return {80: 163, 89: 99, 90: 227, 100: 227}[self.architecture] * 1024


def _rates(*, fp32: int, fp64: int, convert64: int) -> dict[str, int]:
    return {"fp32": fp32, "fp64": fp64, "integer": 64, "special": 16, "convert": 16, "convert64": convert64}


GPUS = (
    Gpu(
        "A100 SXM 40 GB", 80, 108, 1.41e9, 1.555e12, 40e9, 25e9, _rates(fp32=64, fp64=32, convert64=16),
        "NVIDIA A100 data sheet (2020): 1.555 TB/s, 19.5 TFLOPS float32, 9.7 TFLOPS float64, PCIe 4.0 x16",
    ),
    Gpu(
        "H100 SXM 80 GB", 90, 132, 1.98e9, 3.35e12, 80e9, 50e9, _rates(fp32=128, fp64=64, convert64=16),
        "NVIDIA H100 data sheet (2023): 3.35 TB/s, 67 TFLOPS float32, 34 TFLOPS float64, PCIe 5.0 x16",
    ),
    Gpu(
        "H200 SXM 141 GB", 90, 132, 1.98e9, 4.8e12, 141e9, 50e9, _rates(fp32=128, fp64=64, convert64=16),
        "NVIDIA H200 data sheet (2024): 4.8 TB/s, 141 GB, otherwise as H100",
    ),
    Gpu(
        "B200 SXM 180 GB", 100, 148, 1.965e9, 8.0e12, 180e9, 50e9, _rates(fp32=128, fp64=64, convert64=16),
        "NVIDIA Blackwell data sheets (2024): 8 TB/s, 180 GB, 75 TFLOPS float32, 37 TFLOPS float64, PCIe 5.0 x16",
    ),
    Gpu(
        "L40S 48 GB", 89, 142, 2.52e9, 0.864e12, 48e9, 25e9, _rates(fp32=128, fp64=2, convert64=2),
        "NVIDIA L40S data sheet (2023): 864 GB/s, 91.6 TFLOPS float32, PCIe 4.0 x16",
    ),
    Gpu(
        "RTX 4090", 89, 128, 2.52e9, 1.008e12, 24e9, 25e9, _rates(fp32=128, fp64=2, convert64=2),
        "NVIDIA Ada GPU architecture (2022): 1.008 TB/s, 82.6 TFLOPS float32, 1.3 TFLOPS float64, PCIe 4.0 x16",
    ),
)  # fmt: skip
ASSUMPTIONS = (
    "Rates by class are those of the table of arithmetic throughput in the CUDA C++ Programming Guide, at boost clock;"
    " of the four warp instructions that can issue per clock and multiprocessor 3.2 do; shared and global accesses,"
    " shuffles and votes go through one unit, one warp instruction or wavefront per clock; a global access is a"
    " wavefront per 4 sectors.",
    "Each sector of 32 bytes that a launch touches moves once, at 90 % of the bandwidth, and is never found in L2; what"
    " a launch reads again it finds in a cache. What it is given and does not touch does not move (jobs that are"
    " done).",
    "A PTX instruction is one machine instruction, except those of the table EXPANDED and pairs that the assembler"
    " joins (LEA, IMAD, IADD3, LOP3); moves, parameters and conversions between pointers are none. Counted like this,"
    " most kernels whose loops the assembler does not unroll have 0.85 to 1.25 times the integer instructions of"
    " their machine code.",
    "Latencies, of one warp: 4 cycles per instruction with two in flight; 24 per shared and 200 per global access"
    " (between a hit in L1 and device memory), four in flight; 30 per barrier. Warps that do not fit come in waves.",
    "Nodes of large forests are read one after the other, each from L2: 270 cycles per step of a warp, and"
    " the sectors that a warp touches in a tree at the L2 bandwidth, of which 5.5 TB/s are assumed on an H100, in"
    " proportion to multiprocessors and clock elsewhere. A warp's later steps find a sector of its earlier ones in L1:"
    " 63 % of the sectors of all steps are new, counted for 100,000 training rows.",
    "Across planes each family is counted for itself, of a slab between two others with its whole halo, sigma 1 to 8"
    " (our own families: 1 and 2); families that share derivatives, blurs or sums take less together. Counts per voxel"
    " are fitted to those of small volumes at sigma 1 to 4, as multiples of taps, rows and voxels of balls;"
    " those have a larger share of borders, where lanes diverge.",
    "Where blocks form clusters, each has a multiprocessor for itself, and one cluster fewer runs at a time than"
    " would fill the GPU (7 of 16 blocks on an H100: multiprocessors come in groups of different sizes). At each"
    " barrier of a cluster its multiprocessors stand 500 cycles, a guess.",
    "The gap between launches is 1.5 microseconds; the host needs 70 microseconds for each, while the GPU works.",
    "A slab has as many planes as one thread of the classifier would choose with all memory free; the last one counts"
    " by its planes. With two slabs at a time, as `classify` has them, a slab is half as large where memory is the"
    " limit.",
)
DRAM_EFFICIENCY = 0.9
L2_BYTES_PER_CLOCK = 5.5e12 / (132 * 1.98e9)  # and multiprocessor
L2_LATENCY, HIDDEN_LATENCY = 270, 50  # cycles per global access: where each waits for the one before, and elsewhere
NEW_SECTORS = 0.63
WALKS = ("forest_values",)  # kernels whose addresses come from what was read before
ISSUE_PER_CLOCK = 3.2
GAP_SECONDS = 1.5e-6
HOST_SECONDS = 70e-6
