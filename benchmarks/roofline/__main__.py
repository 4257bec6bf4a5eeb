"""Predicted times of every kernel on GPUs that nobody has measured yet, from what is compiled, counted and launched.

    python benchmarks/roofline [--families a,b] [--volume 850,400,400]

Launches: the families' own code on a device that only notes them, slab by slab as the classifier would choose slabs.
Work: the PTX of the same launches on two small planes, instruction by instruction, extended by the number of pixels;
across planes on small volumes, extended by voxels, taps and the sizes of balls.
Registers and shared memory: NVRTC for each architecture. Time of a launch: the largest of what its memory traffic, its
instructions by class, its shared memory and its longest chain of dependent steps need. Everything here is a prediction;
no GPU has run anything. Writes benchmarks/results/roofline.md and .json.

The GPUs are in ``gpus.py``, PTX to machine instructions in ``instructions.py``, the counting in ``counts.py``
(across planes: ``volumes.py``), what a kernel must do at least in ``floors.py``, the text in ``report.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "benchmarks"),
    str(ROOT / "tests" / "kernels"),
]  # there: NVRTC, interpreter, limits
import budget  # noqa: E402
import nvrtc  # noqa: E402

from benchmarks.roofline import counts as counting  # noqa: E402
from benchmarks.roofline.clusters import (  # noqa: E402
    barrier_seconds,
    cluster_counts,
    cluster_launch,
    clusters_at_once,
)
from benchmarks.roofline.counts import (  # noqa: E402
    Launch,
    extended,
    jobs_at_once,
    plan_of,
    slab_planes,
    standard_forest,
)
from benchmarks.roofline.floors import necessary_seconds  # noqa: E402
from benchmarks.roofline.gpus import (  # noqa: E402
    ASSUMPTIONS,
    DRAM_EFFICIENCY,
    GAP_SECONDS,
    GPUS,
    HIDDEN_LATENCY,
    HOST_SECONDS,
    ISSUE_PER_CLOCK,
    L2_BYTES_PER_CLOCK,
    L2_LATENCY,
    NEW_SECTORS,
    WALKS,
    Gpu,
)
from benchmarks.roofline.instructions import USEFUL  # noqa: E402
from benchmarks.roofline.report import GOAL_RATIO, above_the_floor, markdown  # noqa: E402
from benchmarks.roofline.shipping import table  # noqa: E402
from benchmarks.roofline.volumes import (  # noqa: E402
    results_of,
    samples,
    volume_families,
    volume_launches,
    volume_slab,
)
from gpu_tomoclass import __version__  # noqa: E402
from gpu_tomoclass.device.cuda import OPTIONS  # noqa: E402
from gpu_tomoclass.device.sources import kernel_source  # noqa: E402
from gpu_tomoclass.features.bank import FeatureBank  # noqa: E402
from gpu_tomoclass.features.engine import accelerated_family  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"


@dataclass
class Prediction:
    """Seconds of one launch on one GPU, and of what they consist."""

    name: str
    seconds: float
    bound: str
    floors: dict[str, float]  # seconds that the arrays, the arithmetic and the comparisons need at least
    occupancy: float
    registers: int
    shared: int
    spills: int


@cache
def resources(file: str, kernel: str, defines: tuple[tuple[str, str], ...], architecture: int) -> nvrtc.Resources:
    options = (*OPTIONS, *(f"-D{name}={value}" for name, value in defines))
    return nvrtc.resources(kernel_source(file).text, options, architecture)[kernel]


def predict(launch: Launch, counts: Counter[str], gpu: Gpu, *, n_results: int) -> Prediction:
    """A launch with these counts, of so many pixels or voxels."""
    waiting, multiprocessors = 0.0, gpu.multiprocessors
    if cluster_launch(launch):
        waiting = barrier_seconds(launch, gpu)
        multiprocessors = launch.grid[0] * clusters_at_once(gpu, launch.grid[0])
    used = resources(launch.file, launch.kernel, launch.defines, gpu.architecture)
    threads = math.prod(launch.block)
    shared = used.shared + int(dict(launch.defines).get("SHARED_BYTES", 0))
    resident = budget.occupancy(gpu.architecture, registers=used.registers, shared=shared, threads=threads)
    warps_per_block, n_blocks = math.ceil(threads / 32), math.prod(launch.grid)
    at_once = max(1, round(resident * budget.LIMITS[gpu.architecture][0] / warps_per_block))
    n_warps = n_blocks * warps_per_block
    clocks = multiprocessors * gpu.clock  # multiprocessor cycles per second

    read = min(launch.read, 32 * counts["moved load sectors"])
    written = min(launch.written, 32 * counts["moved store sectors"])
    parts = {kind: counts[f"class {kind}"] * 32 / rate / clocks for kind, rate in gpu.per_clock.items()}
    parts["issue"] = sum(v for k, v in counts.items() if k.startswith("class ")) / ISSUE_PER_CLOCK / clocks
    wavefronts = counts["shared wavefronts"] + (counts["load sectors"] + counts["store sectors"]) / 4
    parts["accesses"] = max(wavefronts, counts["class access"]) / clocks
    parts["memory"] = (read + written) / (DRAM_EFFICIENCY * gpu.bandwidth)

    n_instructions = sum(v for k, v in counts.items() if k.startswith("class ")) / n_warps
    cycles = 2 * n_instructions + 6 * counts["shared wavefronts needed"] / n_warps
    is_walk = launch.kernel in WALKS
    cycles += (L2_LATENCY if is_walk else HIDDEN_LATENCY) * counts["global accesses"] / n_warps
    cycles += 30 * counts["barriers"] / n_blocks
    if is_walk:
        parts["L2"] = 32 * NEW_SECTORS * counts["load sectors"] / (L2_BYTES_PER_CLOCK * clocks)
    waves = math.ceil(n_blocks / (at_once * multiprocessors))
    parts["latency"] = waves * cycles / gpu.clock

    bound = max(parts, key=lambda kind: parts[kind])
    floors = {
        "memory": (read + written) / gpu.bandwidth,
        "arithmetic": max(counts[f"class {kind}"] * 32 / gpu.per_clock[kind] / clocks for kind in USEFUL),
        "comparisons": necessary_seconds(
            launch, n_results=n_results, integer_rate=gpu.per_clock["integer"], clocks=clocks
        ),
    }
    return Prediction(
        launch.name,
        parts[bound] + waiting + GAP_SECONDS,
        bound,
        floors,
        resident,
        used.registers,
        shared,
        used.spills,
    )


def predict_copy(launch: Launch, gpu: Gpu) -> Prediction:
    seconds = (launch.read + launch.written) / gpu.bandwidth
    return Prediction("copy", seconds / DRAM_EFFICIENCY + GAP_SECONDS, "memory", {"memory": seconds}, 1.0, 0, 0, 0)


def predicted_launches(part: str, gpu: Gpu, *, nz: int, shape: tuple[int, int]) -> Iterator[Prediction]:
    """Every launch of a part on a slab."""
    if part in volume_families():
        for launch, counts in volume_launches(part, (nz, *shape)):
            if launch.kernel == "copy":
                yield predict_copy(launch, gpu)
            else:
                yield predict(launch, counts, gpu, n_results=results_of(launch, nz * math.prod(shape)))
        return
    plan = plan_of(part, (nz, *shape), gpu)
    known = extended(part, jobs_at_once(plan))
    if any(cluster_launch(launch) for launch in plan):  # the others are those of the plain way
        names = {launch.name for launch in plan}
        known = [(name, row) for name, row in known if name in names]
    rows = iter(known)
    for launch in plan:
        if launch.kernel == "copy":
            yield predict_copy(launch, gpu)
            continue
        if cluster_launch(launch):
            yield predict(launch, cluster_counts(launch), gpu, n_results=nz * math.prod(shape))
            continue
        name, row = next(rows)
        if name != launch.name:
            raise RuntimeError(f"{part} launches {launch.name} on a slab and {name} on a small plane")
        n_pixels = math.prod(shape)
        counts = Counter({key: nz * (fixed + slope * n_pixels) for key, (fixed, slope) in row.items()})
        yield predict(launch, counts, gpu, n_results=nz * n_pixels)


# -- totals --------------------------------------------------------------------------------------------------------
@dataclass
class KernelTotal:
    """One kernel of one part over a whole volume."""

    part: str
    kernel: str
    launches: int = 0
    seconds: float = 0.0
    floor: float = 0.0
    memory_floor: float = 0.0
    bound: str = ""
    floor_of: str = ""
    occupancy: float = 1.0
    registers: int = 0
    shared: int = 0
    spills: int = 0

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor if self.floor else math.inf

    @property
    def memory_ratio(self) -> float:
        """To the time that only the bytes of its arrays need."""
        return self.seconds / self.memory_floor if self.memory_floor else math.inf


def volume_totals(part: str, gpu: Gpu, *, slab: int, volume: tuple[int, int, int]) -> list[KernelTotal]:
    """Sums over the slabs of a volume, kernel by kernel."""
    n_slabs, share = math.ceil(volume[0] / slab), volume[0] / slab
    totals: dict[str, KernelTotal] = {}
    longest: dict[str, float] = {}
    for p in predicted_launches(part, gpu, nz=slab, shape=volume[1:]):
        total = totals.setdefault(p.name, KernelTotal(part, p.name))
        total.launches += n_slabs
        total.seconds += share * p.seconds
        total.floor += share * max(p.floors.values())
        total.memory_floor += share * p.floors["memory"]
        total.spills = max(total.spills, p.spills)
        if p.seconds >= longest.get(p.name, 0.0):  # the launch that says what bounds the kernel
            longest[p.name] = p.seconds
            total.bound, total.floor_of = p.bound, max(p.floors, key=lambda kind: p.floors[kind])
            total.occupancy, total.registers, total.shared = p.occupancy, p.registers, p.shared
    return list(totals.values())


def predicted_gpu(gpu: Gpu, parts: list[str], volume: tuple[int, int, int]) -> dict[str, Any]:
    """Everything about one GPU, ready for JSON."""
    slab, across_slab = (min(volume[0], of_gpu(gpu, volume[1:])) for of_gpu in (slab_planes, volume_slab))
    across = set(volume_families())
    kernels = [
        total
        for part in parts
        for total in volume_totals(part, gpu, slab=across_slab if part in across else slab, volume=volume)
    ]
    n_voxels = math.prod(volume)
    large_planes = {}
    if gpu.cluster_blocks and "anisotropic_diffusion" in parts:
        plain = volume_totals("anisotropic_diffusion", replace(gpu, has_clusters=False), slab=slab, volume=volume)
        large_planes["anisotropic_diffusion"] = {
            "seconds": sum(k.seconds for k in plain),
            "launches": sum(k.launches for k in plain),
        }
    of_run = [k for k in kernels if k.part not in across]  # of a run with the paper's channels
    of_gpu, of_host = sum(k.seconds for k in of_run), HOST_SECONDS * sum(k.launches for k in of_run)
    transfers = {"h2d": 4 * n_voxels / gpu.host_bandwidth, "d2h": n_voxels / gpu.host_bandwidth}
    return {
        "gpu": asdict(gpu),
        "cluster_blocks": gpu.cluster_blocks,
        "shared_bytes": gpu.shared_bytes,
        "slab_planes": slab,
        "across_slab_planes": across_slab,
        "across_s": sum(k.seconds for k in kernels if k.part in across),
        "kernels_s": of_gpu,
        "large_planes": large_planes,  # of the same volume, by kernels for planes that do not fit a cluster
        "launching_s": of_host,
        **{f"{way}_s": seconds for way, seconds in transfers.items()},
        "total_s": max(of_gpu, of_host) + sum(transfers.values()),
        "parts_s": {part: sum(k.seconds for k in kernels if k.part == part) for part in parts},
        "kernels": [
            {**vars(k), "ratio": k.ratio, "memory_ratio": k.memory_ratio}
            for k in sorted(kernels, key=lambda k: -k.seconds)
        ],
    }


def main(arguments: list[str] | None = None) -> None:
    bank = FeatureBank.create("paper")
    families = ["original", *bank.families, *volume_families()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join([*families, "forest"]))
    parser.add_argument("--volume", default="850,400,400")
    parser.add_argument("--output", type=Path, default=RESULTS / "roofline.json")
    parser.add_argument("--forest-rows", type=int, default=counting.FOREST_ROWS, help="that the forest is grown from")
    parser.add_argument(
        "--ship", type=Path, help="also write what was counted to the table of gpu-tomoclass plan --gpu"
    )
    given = parser.parse_args(arguments)
    counting.FOREST_ROWS = given.forest_rows
    z, y, x = (int(n) for n in given.volume.split(","))
    parts = [p for p in given.families.split(",") if p == "forest" or accelerated_family(p) is not None]
    for part in parts:
        n_counted = sum(map(len, samples(part).values())) if part in volume_families() else len(extended(part))
        print(f"{part}: {n_counted} launches counted", flush=True)
    stored = {
        "what": "predicted by benchmarks/roofline; nothing was measured on a GPU",
        "gpu_tomoclass": __version__,
        "nvrtc": nvrtc.version(),
        "volume": (z, y, x),
        "n_channels": bank.n_channels,
        "forest_rows": given.forest_rows,
        "forest_nodes": standard_forest().n_nodes if "forest" in parts else None,
        "assumptions": ASSUMPTIONS,
        "predictions": [predicted_gpu(gpu, parts, (z, y, x)) for gpu in GPUS],
    }
    text = markdown(stored)
    given.output.write_text(json.dumps(stored, indent=1) + "\n")
    given.output.with_suffix(".md").write_text(text)
    if given.ship is not None:
        forest = standard_forest()
        earlier = json.loads(given.ship.read_text()) if given.ship.exists() else None
        given.ship.write_text(table(stored, n_trees=forest.n_trees, n_nodes=forest.n_nodes, earlier=earlier))
    print(text)
    for p in stored["predictions"]:
        high = above_the_floor(p)
        print(f"{p['gpu']['name']}: predicted {p['total_s']:.1f} s; above {GOAL_RATIO:g} x floor: {len(high)} kernels")


if __name__ == "__main__":
    main()
