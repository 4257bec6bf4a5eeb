"""Predicted times of every kernel on GPUs that nobody has measured yet, from what is compiled, counted and launched.

    python benchmarks/roofline.py [--families a,b] [--volume 850,400,400]

Launches: the families' own code on a device that only notes them, slab by slab as the classifier would choose slabs.
Work: the PTX of the same launches on two small planes, instruction by instruction, extended by the number of pixels.
Registers and shared memory: NVRTC for each architecture. Time of a launch: the largest of what its memory traffic, its
instructions by class, its shared memory and its longest chain of dependent steps need. Everything here is a prediction;
no GPU has run anything. Writes benchmarks/results/roofline.md and .json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest import mock

import numpy as np
from bench_forest import training_rows
from bench_native import sample_plane
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass import __version__
from gpu_tomoclass.accelerated.engine import FeatureEngine, accelerated_family
from gpu_tomoclass.accelerated.forest import DeviceForest
from gpu_tomoclass.accelerated.labels import device_labels
from gpu_tomoclass.classifier import MAX_SLAB, MEMORY_SHARE
from gpu_tomoclass.device import Device
from gpu_tomoclass.device.base import Array
from gpu_tomoclass.device.cuda import OPTIONS
from gpu_tomoclass.device.dry import DryDevice
from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.forest.arrays import Forest
from gpu_tomoclass.forest.train import forest_from_sklearn
from gpu_tomoclass.kernels import kernel_source

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "kernels"))  # NVRTC, the interpreter of PTX and the table of limits
import budget  # noqa: E402
import nvrtc  # noqa: E402
import simulated_cupy  # noqa: E402
from ptx_machine import Machine  # noqa: E402

RESULTS = HERE / "results"
SMALL_SHAPES = ((40, 64), (80, 128))  # four times the pixels, in blocks that are as full
EXECUTED = 6  # launches of a kernel with different numbers that are interpreted; later ones count as their mean
GOAL_RATIO = 3.0  # of a kernel to its floor


# -- GPUs ----------------------------------------------------------------------------------------------------------
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
        "RTX 4090", 89, 128, 2.52e9, 1.008e12, 24e9, 25e9, _rates(fp32=128, fp64=2, convert64=2),
        "NVIDIA Ada GPU architecture (2022): 1.008 TB/s, 82.6 TFLOPS float32, 1.3 TFLOPS float64, PCIe 4.0 x16",
    ),
)  # fmt: skip
ASSUMPTIONS = (
    "Rates by class are those of the table of arithmetic throughput in the CUDA C++ Programming Guide, at boost clock;"
    " four warp instructions issue per clock and multiprocessor; shared and global accesses, shuffles and votes go"
    " through one unit, one warp instruction or wavefront per clock; a global access is a wavefront per 4 sectors.",
    "Each array that a launch is given is read or written once per launch, at 90 % of the bandwidth, and never found in"
    " L2; what a launch reads again it finds in a cache. A launch cannot move more than the sectors it asks for.",
    "A PTX instruction is one machine instruction, except those of the table EXPANDED; moves, parameters and"
    " conversions between pointers are none.",
    "Latencies, of one warp: 4 cycles per instruction with two in flight; 24 per shared and 200 per global access"
    " (between a hit in L1 and device memory), four in flight; 30 per barrier. Warps that do not fit come in waves.",
    "The gap between launches is 1.5 microseconds; the host needs 20 microseconds for each, while the GPU works.",
    "A slab has as many planes as the classifier would choose with all memory free; the last one counts by its planes.",
)
DRAM_EFFICIENCY = 0.9
ISSUE_PER_CLOCK = 4
GAP_SECONDS = 1.5e-6
HOST_SECONDS = 20e-6


# -- instructions --------------------------------------------------------------------------------------------------
# What the assembler makes of one PTX instruction, where it is more than one; counts by class.
EXPANDED: dict[str, dict[str, float]] = {
    "div.f32": {"fp32": 8, "special": 1, "integer": 3},
    "rcp.f32": {"fp32": 3, "special": 1, "integer": 2},
    "sqrt.f32": {"fp32": 6, "special": 1, "integer": 3},
    "div.f64": {"fp64": 9, "special": 1, "integer": 8},
    "rcp.f64": {"fp64": 5, "special": 1, "integer": 5},
    "sqrt.f64": {"fp64": 10, "special": 1, "integer": 6},
    "div.int": {"integer": 18, "special": 1, "convert": 2},
    "rem.int": {"integer": 18, "special": 1, "convert": 2},
    "div.int64": {"integer": 70, "special": 1, "convert": 2},
    "rem.int64": {"integer": 70, "special": 1, "convert": 2},
    "mul.int64": {"integer": 3},
    "mad.int64": {"integer": 4},
}
FREE = {"mov", "cvta", "ld.param"}
SPECIAL = {"ex2", "lg2", "sin", "cos", "tanh"}
USEFUL = ("fp32", "fp64", "special", "convert", "convert64")  # what the arithmetic of a formula consists of


def instruction_classes(op: str, mods: tuple[str, ...], types: tuple[str, ...]) -> dict[str, float]:
    """Machine instructions by class."""
    of = types[-1] if types else ""
    if op in FREE or (op == "ld" and "param" in mods):
        return {}
    if op in ("ld", "st", "atom", "red", "shfl", "vote", "match", "ldu", "redux", "activemask"):
        return {"access": 1}
    if op in ("bra", "ret", "exit", "bar", "barrier", "membar", "fence"):
        return {"control": 1}
    if op == "cvt":
        return _conversion(types)
    if op in SPECIAL or (op in ("rcp", "rsqrt", "sqrt", "div") and "approx" in mods):
        return {"special": 1}
    if of in ("f32", "f64"):
        if op in ("selp", "setp", "min", "max", "abs", "neg", "copysign", "testp", "set", "slct") and of == "f32":
            return {"integer": 1}  # these run where integers do
        return EXPANDED.get(f"{op}.{of}", {"fp32" if of == "f32" else "fp64": 1})
    wide = of in ("b64", "u64", "s64") and "wide" not in mods
    if wide:
        return EXPANDED.get(f"{op}.int64", {"integer": 2})
    if op in ("popc", "clz", "bfind", "brev"):
        return {"special": 1}
    return EXPANDED.get(f"{op}.int", {"integer": 1})


def _conversion(types: tuple[str, ...]) -> dict[str, float]:
    kinds, sizes = [t[0] for t in types], [int(t[1:]) for t in types]
    if "f" not in kinds:
        return {"integer": 1}
    return {"convert64": 1} if max(sizes) == 64 else {"convert": 1}


# -- counting ------------------------------------------------------------------------------------------------------
class CountingMachine(Machine):
    """Counts machine instructions by class; a launch like earlier ones is not executed but counts as their mean."""

    done: ClassVar[dict[tuple[Any, ...], dict[tuple[Any, ...], Counter[str]]]] = {}

    def __init__(self, kernel: Any, *, grid: Any, block: Any, arguments: Any, arrays: Any) -> None:
        super().__init__(kernel, grid=grid, block=block, arguments=arguments, arrays=arrays)
        self._like = (id(kernel), tuple(block))
        self._numbers = (tuple(grid), *(a.item() for a in arguments if not isinstance(a, str)))
        self._n_blocks = math.prod(grid)
        self._ran: Counter[tuple[int, int]] = Counter()

    def run(self) -> None:
        known = self.done.setdefault(self._like, {})
        if self._numbers in known:
            self.counts = known[self._numbers]
        elif len(known) >= EXECUTED:
            mean = self._n_blocks / sum(math.prod(numbers[0]) for numbers in known)
            self.counts = Counter({key: mean * n for key, n in sum(known.values(), Counter()).items()})
        else:
            super().run()
            for (at, end), n_warps in self._ran.items():
                for c in self.kernel.code[at:end]:
                    for kind, n in instruction_classes(c.op, c.mods, c.types).items():
                        self.counts[f"class {kind}"] += n * n_warps
                    self.counts["global accesses"] += n_warps * (
                        c.op == "ld" and c.space("shared", "global") == "global"
                    )
            known[self._numbers] = self.counts

    def _run_block(self, at: int, end: int, lanes: np.ndarray) -> None:
        self._ran[at, end] += int(np.unique(self.threads.warp[lanes]).size)
        super()._run_block(at, end, lanes)


class Launch(NamedTuple):
    """One launch, or one copy (kernel ``"copy"``), of a plan."""

    file: str
    kernel: str
    defines: tuple[tuple[str, str], ...]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    read: int  # bytes of the arrays
    written: int

    @property
    def name(self) -> str:
        return f"{self.file}: {self.kernel}"

    @property
    def n_threads(self) -> int:
        return math.prod(self.grid) * math.prod(self.block)


class NotingDevice(DryDevice):
    """Notes launches and copies in their order, with the bytes of their arrays."""

    def __init__(self) -> None:
        super().__init__("cuda")
        self.noted: list[Launch] = []

    def copy(self, values: Array, target: Array) -> None:
        super().copy(values, target)
        self.noted.append(Launch("", "copy", (), (1, 1, 1), (1, 1, 1), values.nbytes, target.nbytes))

    def _bind(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> Any:
        bound = super()._bind(file, name, defines)
        parameters = bound.signature.parameters

        def run(grid: Any, block: Any, values: list[Any]) -> None:
            n_bytes = {True: 0, False: 0}
            for parameter, value in zip(parameters, values, strict=True):
                if parameter.is_pointer:
                    n_bytes[parameter.is_const] += value.nbytes
            self.noted.append(Launch(file, name, defines, grid, block, n_bytes[True], n_bytes[False]))

        return type(bound)(bound.signature, bound.address_of, run)


# -- what is run ---------------------------------------------------------------------------------------------------
@cache
def standard_forest() -> Forest:
    """200 trees from 5,000 rows, about 100,000 nodes."""
    values, labels = training_rows(5000, 0.01, n_planes=1)
    classifier = RandomForestClassifier(200, criterion="entropy", max_features=2, random_state=42, n_jobs=2)
    return forest_from_sklearn(classifier.fit(values, labels))


@cache
def small_features(shape: tuple[int, int]) -> np.ndarray:
    bank = FeatureBank.create("paper")
    return bank.compute(sample_plane()[: shape[0], : shape[1]]).reshape(bank.n_channels, -1)


def run_family(device: Device, family: str, planes: np.ndarray) -> None:
    """All blocks of a family on a slab."""
    blocks = [block for block in FeatureBank.create("paper").blocks if block.family == family]
    FeatureEngine(device, blocks).compute(planes)


def run_forest(device: Device, features: np.ndarray) -> None:
    forest = standard_forest()
    found = DeviceForest(forest, device).probabilities(device.array(features))
    values = device.array(np.arange(1, forest.n_classes + 1, dtype=np.uint8))
    device_labels(device, found, values=values, out=device.empty(features.shape[1], np.uint8))


def counts_of_small(part: str, shape: tuple[int, int]) -> list[simulated_cupy.LaunchRecord]:
    """Launches on one small plane, interpreted."""
    with mock.patch.object(simulated_cupy, "Machine", CountingMachine):
        device, cupy = simulated_cupy.ptx_device()
        cupy.launches.clear()
        CountingMachine.done = {}
        if part == "forest":
            run_forest(device, small_features(shape))
        else:
            run_family(device, part, sample_plane()[np.newaxis, : shape[0], : shape[1]].copy())
        return cupy.launches


def plan_of(part: str, shape: tuple[int, int, int]) -> list[Launch]:
    """Launches on a slab, noted."""
    device = NotingDevice()
    if part == "forest":
        run_forest(device, np.empty((252, math.prod(shape)), np.float32))
    else:
        run_family(device, part, np.empty(shape, np.float32))
    return device.noted


def slab_planes(gpu: Gpu, shape: tuple[int, int]) -> int:
    """As many as the classifier would choose."""
    allocated = []
    for nz in (1, 2):
        device = NotingDevice()
        FeatureEngine(device, FeatureBank.create("paper").blocks).compute(np.empty((nz, *shape), np.float32))
        forest = DeviceForest(standard_forest(), device)
        forest.probabilities(np.empty((252, nz * math.prod(shape)), np.float32))
        allocated.append(device.n_bytes)
    return max(1, min(MAX_SLAB, int(MEMORY_SHARE * gpu.memory) // (allocated[1] - allocated[0])))


# -- prediction ----------------------------------------------------------------------------------------------------
Row = dict[str, tuple[float, float]]


@cache
def extended(part: str) -> list[tuple[str, Row]]:
    """Of each launch of a part on one plane its name and, for each count, (per plane, per pixel)."""
    small, larger = (counts_of_small(part, shape) for shape in SMALL_SHAPES)
    names = [[f"{launch.file}: {launch.kernel}" for launch in launches] for launches in (small, larger)]
    if names[0] != names[1]:
        raise RuntimeError(f"{part} launches other kernels on a plane of another size")
    n, m = (math.prod(shape) for shape in SMALL_SHAPES)
    rows = []
    for name, a, b in zip(names[0], small, larger, strict=True):
        row: Row = {}
        for key in a.counts.keys() | b.counts.keys():
            first, second = float(a.counts[key]), float(b.counts[key])
            per_pixel = (second - first) / (m - n)
            # Planes that do not fill a block may cost less per pixel when larger, never less than nothing.
            row[key] = (first - per_pixel * n, per_pixel) if 0 <= per_pixel * n <= first else (0.0, second / m)
        rows.append((name, row))
    return rows


@dataclass
class Prediction:
    """Seconds of one launch on one GPU, and of what they consist."""

    name: str
    seconds: float
    bound: str
    floor: float
    floor_of: str
    occupancy: float
    registers: int
    shared: int
    spills: int


@cache
def resources(file: str, kernel: str, defines: tuple[tuple[str, str], ...], architecture: int) -> nvrtc.Resources:
    options = (*OPTIONS, *(f"-D{name}={value}" for name, value in defines))
    return nvrtc.resources(kernel_source(file).text, options, architecture)[kernel]


def predict(launch: Launch, row: Row, gpu: Gpu, *, nz: int, n_pixels: int) -> Prediction:
    """A launch on a slab of ``nz`` planes of ``n_pixels``."""
    counts = Counter({key: nz * (fixed + slope * n_pixels) for key, (fixed, slope) in row.items()})
    used = resources(launch.file, launch.kernel, launch.defines, gpu.architecture)
    threads = math.prod(launch.block)
    resident = budget.occupancy(gpu.architecture, registers=used.registers, shared=used.shared, threads=threads)
    warps_per_block, n_blocks = math.ceil(threads / 32), math.prod(launch.grid)
    at_once = max(1, round(resident * budget.LIMITS[gpu.architecture][0] / warps_per_block))
    n_warps = n_blocks * warps_per_block
    clocks = gpu.multiprocessors * gpu.clock  # multiprocessor cycles per second

    read = min(launch.read, 32 * counts["load sectors"])
    written = min(launch.written, 32 * counts["store sectors"])
    parts = {kind: counts[f"class {kind}"] * 32 / rate / clocks for kind, rate in gpu.per_clock.items()}
    parts["issue"] = sum(v for k, v in counts.items() if k.startswith("class ")) / ISSUE_PER_CLOCK / clocks
    wavefronts = counts["shared wavefronts"] + (counts["load sectors"] + counts["store sectors"]) / 4
    parts["accesses"] = max(wavefronts, counts["class access"]) / clocks
    parts["memory"] = (read + written) / (DRAM_EFFICIENCY * gpu.bandwidth)

    n_instructions = sum(v for k, v in counts.items() if k.startswith("class ")) / n_warps
    cycles = 2 * n_instructions + 6 * counts["shared wavefronts needed"] / n_warps
    cycles += 50 * counts["global loads"] / n_warps + 30 * counts["barriers"] / n_blocks
    waves = math.ceil(n_blocks / (at_once * gpu.multiprocessors))
    parts["latency"] = waves * cycles / gpu.clock

    bound = max(parts, key=lambda kind: parts[kind])
    useful = {kind: counts[f"class {kind}"] * 32 / gpu.per_clock[kind] / clocks for kind in USEFUL}
    arithmetic = max(useful.values())
    memory = (read + written) / gpu.bandwidth
    return Prediction(
        launch.name, parts[bound] + GAP_SECONDS, bound, max(arithmetic, memory),
        "arithmetic" if arithmetic > memory else "memory", resident, used.registers, used.shared, used.spills,
    )  # fmt: skip


def predict_copy(launch: Launch, gpu: Gpu) -> Prediction:
    seconds = (launch.read + launch.written) / gpu.bandwidth
    return Prediction("copy", seconds / DRAM_EFFICIENCY + GAP_SECONDS, "memory", seconds, "memory", 1.0, 0, 0, 0)


def predicted_launches(part: str, gpu: Gpu, *, nz: int, shape: tuple[int, int]) -> Iterator[Prediction]:
    """Every launch of a part on a slab."""
    rows = iter(extended(part))
    for launch in plan_of(part, (nz, *shape)):
        if launch.kernel == "copy":
            yield predict_copy(launch, gpu)
            continue
        name, row = next(rows)
        if name != launch.name:
            raise RuntimeError(f"{part} launches {launch.name} on a slab and {name} on a small plane")
        yield predict(launch, row, gpu, nz=nz, n_pixels=math.prod(shape))


# -- tables --------------------------------------------------------------------------------------------------------
@dataclass
class KernelTotal:
    """One kernel of one part over a whole volume."""

    part: str
    kernel: str
    launches: int = 0
    seconds: float = 0.0
    floor: float = 0.0
    bound: str = ""
    floor_of: str = ""
    occupancy: float = 1.0
    registers: int = 0
    shared: int = 0
    spills: int = 0

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor if self.floor else math.inf


def volume_totals(part: str, gpu: Gpu, *, slab: int, volume: tuple[int, int, int]) -> list[KernelTotal]:
    """Sums over the slabs of a volume, kernel by kernel."""
    n_slabs, share = math.ceil(volume[0] / slab), volume[0] / slab
    totals: dict[str, KernelTotal] = {}
    longest: dict[str, float] = {}
    for p in predicted_launches(part, gpu, nz=slab, shape=volume[1:]):
        total = totals.setdefault(p.name, KernelTotal(part, p.name))
        total.launches += n_slabs
        total.seconds += share * p.seconds
        total.floor += share * p.floor
        total.spills = max(total.spills, p.spills)
        if p.seconds >= longest.get(p.name, 0.0):  # the launch that says what bounds the kernel
            longest[p.name] = p.seconds
            total.bound, total.floor_of, total.occupancy = p.bound, p.floor_of, p.occupancy
            total.registers, total.shared = p.registers, p.shared
    return list(totals.values())


def predicted_gpu(gpu: Gpu, parts: list[str], volume: tuple[int, int, int]) -> dict[str, Any]:
    """Everything about one GPU, ready for JSON."""
    slab = min(volume[0], slab_planes(gpu, volume[1:]))
    kernels = [total for part in parts for total in volume_totals(part, gpu, slab=slab, volume=volume)]
    n_voxels = math.prod(volume)
    of_gpu, of_host = sum(k.seconds for k in kernels), HOST_SECONDS * sum(k.launches for k in kernels)
    transfers = {"h2d": 4 * n_voxels / gpu.host_bandwidth, "d2h": n_voxels / gpu.host_bandwidth}
    return {
        "gpu": asdict(gpu),
        "slab_planes": slab,
        "kernels_s": of_gpu,
        "launching_s": of_host,
        **{f"{way}_s": seconds for way, seconds in transfers.items()},
        "total_s": max(of_gpu, of_host) + sum(transfers.values()),
        "parts_s": {part: sum(k.seconds for k in kernels if k.part == part) for part in parts},
        "kernels": [{**vars(k), "ratio": k.ratio} for k in sorted(kernels, key=lambda k: -k.seconds)],
    }


def markdown(stored: dict[str, Any]) -> str:
    """The tables as text."""
    found = stored["predictions"]
    names = [p["gpu"]["name"] for p in found]
    z, y, x = stored["volume"]
    lines = [
        "# Predicted times on GPUs",
        "",
        f"Predicted, not measured: {z} planes of {y} x {x}, {stored['n_channels']} channels, 200 trees."
        f" Made by `benchmarks/roofline.py` with NVRTC {stored['nvrtc']}; gpu_tomoclass {stored['gpu_tomoclass']}.",
        "",
        "The floor of a kernel is what its launches' arrays need at full bandwidth, or their floating-point arithmetic"
        " and conversions at the full rate, whichever is more. Integers, comparisons and addresses are not in it:"
        " kernels that count and compare (forest, entropy, median, Kuwahara) are above theirs by what those take.",
        "",
        "| predicted seconds | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for label, key in (("all", "total_s"), ("kernels", "kernels_s"), ("host, launching meanwhile", "launching_s"),
                       ("to the GPU", "h2d_s"), ("from the GPU", "d2h_s")):  # fmt: skip
        lines.append(f"| {label} | " + " | ".join(f"{p[key]:.2f}" for p in found) + " |")
    lines.append("| planes in a slab | " + " | ".join(str(p["slab_planes"]) for p in found) + " |")
    for part in found[0]["parts_s"]:
        lines.append(f"| {part} | " + " | ".join(f"{p['parts_s'][part]:.2f}" for p in found) + " |")
    for p in found:
        lines += [
            "",
            f"## {p['gpu']['name']}, by kernel (predicted)",
            "",
            "| part | kernel | launches | seconds | bound by | x floor | floor | occupancy | registers | shared |",
            "|---|---|---:|---:|---|---:|---|---:|---:|---:|",
        ]
        for k in p["kernels"]:
            kernel = k["kernel"].replace(": ", " ")
            lines.append(
                f"| {k['part']} | {kernel} | {k['launches']} | {k['seconds']:.3f} | {k['bound']}"
                f" | {k['ratio']:.1f} | {k['floor_of']} | {k['occupancy']:.2f} | {k['registers']} | {k['shared']} |"
            )
        high = [k for k in p["kernels"] if k["ratio"] > GOAL_RATIO]
        lines += [
            "",
            f"Above {GOAL_RATIO:g} x the floor: {len(high)} kernels, {sum(k['seconds'] for k in high):.2f} s.",
        ]
    lines += ["", "## Assumptions", ""]
    lines += [f"- {text}" for text in ASSUMPTIONS]
    lines += [f"- {p['gpu']['name']}: {p['gpu']['source']}." for p in found]
    lines += ["- More than one machine instruction, by class: " + "; ".join(
        f"{op} {', '.join(f'{n} {kind}' for kind, n in parts.items())}" for op, parts in EXPANDED.items()
    ) + "."]  # fmt: skip
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    bank = FeatureBank.create("paper")
    families = ["original", *bank.families]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join([*families, "forest"]))
    parser.add_argument("--volume", default="850,400,400")
    parser.add_argument("--output", type=Path, default=RESULTS / "roofline.json")
    given = parser.parse_args(arguments)
    z, y, x = (int(n) for n in given.volume.split(","))
    parts = [p for p in given.families.split(",") if p == "forest" or accelerated_family(p) is not None]
    for part in parts:
        extended(part)
        print(f"{part}: {len(extended(part))} launches counted", flush=True)
    stored = {
        "what": "predicted by benchmarks/roofline.py; nothing was measured on a GPU",
        "gpu_tomoclass": __version__,
        "nvrtc": nvrtc.version(),
        "volume": (z, y, x),
        "n_channels": bank.n_channels,
        "assumptions": ASSUMPTIONS,
        "predictions": [predicted_gpu(gpu, parts, (z, y, x)) for gpu in GPUS],
    }
    text = markdown(stored)
    given.output.write_text(json.dumps(stored, indent=1) + "\n")
    given.output.with_suffix(".md").write_text(text)
    print(text)
    for p in stored["predictions"]:
        high = [k for k in p["kernels"] if k["ratio"] > GOAL_RATIO]
        print(f"{p['gpu']['name']}: predicted {p['total_s']:.1f} s; above {GOAL_RATIO:g} x floor: {len(high)} kernels")


if __name__ == "__main__":
    main()
