"""Work of families across planes: counted on small volumes, extended by results, taps and voxels of balls.

A slab with its halo is too large for the interpreter of PTX. But a thread's work depends on little: the half-width of a
Gaussian's kernel, or the rows and voxels of a ball. So launches at small sigmas are interpreted, and the counts of
each kernel per result fitted as sums of non-negative multiples of these; the launches of the real slab say what theirs
are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from unittest import mock

import numpy as np
import simulated_cupy
from bench_native import sample_plane
from scipy.optimize import nnls

from benchmarks.roofline.counts import CountingMachine, Launch, NotingDevice
from benchmarks.roofline.gpus import Gpu
from gpu_tomoclass.classification.slabs import MAX_SLAB, MEMORY_SHARE
from gpu_tomoclass.device import Device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.block import FeatureBlock, halo
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.reference.volume_ball import BallRow, ball_rows
from gpu_tomoclass.features.reference.volume_source import CUBES

SMALL_VOLUME = (8, 16, 128)  # results: whole blocks of every kernel
LINES_VOLUME = (2, 8, 128)  # of the median, where a warp has a line; a voxel of that takes many steps
SMALL_SIGMAS = {"gaussian": (1.0, 4.0), "ball": (1.0, 2.0, 3.0), "median_3d": (1.0, 2.0, 3.0, 4.0)}
BALLS = ("volume_runs", "volume_extremes", "volume_sums", "volume_median")

Work = tuple[float, ...]


@cache
def volume_bank() -> FeatureBank:
    """Sigma 1..8, as users get them."""
    return FeatureBank.create("weka-3d")


def volume_families() -> list[str]:
    """Names of the families across planes."""
    return list(volume_bank().families)


@cache
def balls() -> dict[int, tuple[BallRow, ...]]:
    """The balls that are used, by their number of rows."""
    radii = {
        *SMALL_SIGMAS["ball"],
        *SMALL_SIGMAS["median_3d"],
        *(float(b.sigma) for b in volume_bank().blocks if b.sigma),
    }
    return {len(rows): rows for rows in (ball_rows(radius, CUBES) for radius in sorted(radii))}


def ball_work(launch: Launch) -> tuple[float, float]:
    """Rows and voxels of a launch's ball, on average over the rows of a plane: some lie outside of it."""
    ny = launch.numbers["ny"]
    inside = [(max(0, ny - abs(row.dy)) / ny, 2 * row.width + 1) for row in balls()[int(launch.numbers["n_rows"])]]
    return sum(share for share, _ in inside), sum(share * width for share, width in inside)


def tables_read(launch: Launch) -> int:
    """Bytes of the tables that a launch of ``volume_extremes`` reads: those of 2^k voxels that fit one of its rows."""
    n_tables = max(2 * max(row.width for row in rows) + 1 for rows in balls().values()).bit_length()
    used = {(2 * row.width + 1).bit_length() for row in balls()[int(launch.numbers["n_rows"])]}
    return launch.read * len(used) // n_tables


def work_of(launch: Launch) -> Work:
    """What a result's work grows with; the first is 1, for what each has."""
    if launch.kernel == "volume_extremes":
        return 1.0, ball_work(launch)[0]
    if launch.kernel in ("volume_sums", "volume_median"):
        return 1.0, *ball_work(launch)
    if launch.kernel == "volume_median_lines":
        n_rows, n_voxels = ball_work(launch)
        return 1.0, math.ceil(n_rows / 32), n_voxels / 32 / float(launch.numbers["n_steps"])
    if launch.kernel == "derivatives_x":
        return 1.0, float(launch.numbers["stride"] - 1)
    if launch.kernel.startswith("volume_") and "half" in launch.numbers:
        return 1.0, float(launch.numbers["half"])
    return (1.0,)


def results_of(launch: Launch, n_voxels: int) -> int:
    """Voxels of a launch's result: those of a volume with its margins, the slab's of a kernel for planes."""
    if not launch.kernel.startswith(("volume_", "derivatives_x")):
        return n_voxels
    n_arrays = {"volume_sums": 2, "volume_eigenvalues": 3}.get(launch.kernel, 1)
    return launch.written // (4 * n_arrays)


def items_of(launch: Launch) -> float:
    """Values that counts are given for: those written; of the kernel that makes three figures of a slab, those read."""
    return (launch.read if launch.kernel == "volume_levels_of_parts" else launch.written) / 4


def _run(device: Device, blocks: list[FeatureBlock], shape: tuple[int, int, int], *, filled: bool) -> None:
    """Blocks on a slab with its whole halo on both sides."""
    reach = halo(blocks)
    nz, ny, nx = shape
    planes = np.empty((nz + 2 * reach, ny, nx), np.float32)
    if filled:
        plane = sample_plane()
        planes[:] = [plane[i : i + ny, 3 * i : 3 * i + nx] for i in range(len(planes))]
    place = Place.with_halo(reach, reach + nz, depth=len(planes), halo=reach)
    FeatureEngine(device, blocks).compute(planes, place=place)


def _blocks(family: str, sigmas: tuple[float, ...] | None = None) -> list[FeatureBlock]:
    if sigmas is None:
        return [block for block in volume_bank().blocks if block.family == family]
    blocks = FeatureBank.create([family], sigmas={family: sigmas}).blocks
    return [block for block in blocks if block.family == family]


def volume_plan(family: str, shape: tuple[int, int, int]) -> list[Launch]:
    """Launches on a slab of so many results, noted."""
    device = NotingDevice()
    _run(device, _blocks(family), shape, filled=False)
    return device.noted


def volume_slab(gpu: Gpu, shape: tuple[int, int]) -> int:
    """Planes that the classifier would choose with all of these families."""
    one, two = (_allocated((nz, *shape)) for nz in (1, 2))
    fixed = 2 * one - two
    return max(1, min(MAX_SLAB, int(MEMORY_SHARE * gpu.memory - fixed) // (two - one)))


@cache
def _allocated(shape: tuple[int, int, int]) -> int:
    """Bytes for so many results of all families."""
    device = NotingDevice()
    _run(device, list(volume_bank().blocks), shape, filled=False)
    return device.n_bytes


Key = tuple[str, str, tuple[tuple[str, str], ...]]


def key_of(launch: Launch) -> Key:
    """What launches must agree in to be compared: not the sizes of tiles that kernels for planes are compiled for."""
    is_across = launch.kernel.startswith(("volume_", "derivatives_x"))
    return launch.file, launch.kernel, launch.defines if is_across else ()


@cache
def samples(family: str) -> dict[Key, list[tuple[Work, Counter[str]]]]:
    """Of each kernel the interpreted launches: what the work grows with, and counts per result."""
    shape = LINES_VOLUME if family == "median_3d" else SMALL_VOLUME
    is_ball = any(launch.kernel in BALLS for launch in volume_plan(family, shape))
    found: dict[Key, list[tuple[Work, Counter[str]]]] = defaultdict(list)
    for sigma in SMALL_SIGMAS.get(family, SMALL_SIGMAS["ball" if is_ball else "gaussian"]):
        # With one sigma at a time, kernels that are launched often are interpreted at every sigma.
        blocks = _blocks(family, (1.0, sigma) if family.startswith("difference") else (sigma,))
        noting = NotingDevice()
        _run(noting, blocks, shape, filled=False)
        noted = [launch for launch in noting.noted if launch.kernel != "copy"]
        with mock.patch.object(simulated_cupy, "Machine", CountingMachine):
            device, cupy = simulated_cupy.ptx_device()
            cupy.launches.clear()
            CountingMachine.done = {}
            _run(device, blocks, shape, filled=True)
        for launch, record in zip(noted, cupy.launches, strict=True):
            if record.counts["estimated"] and launch.kernel.startswith(("volume_", "derivatives_x")):
                continue
            per_result = Counter({key: n / items_of(launch) for key, n in record.counts.items()})
            found[key_of(launch)].append((work_of(launch), per_result))
    return dict(found)


@cache
def fitted(family: str, key: Key) -> dict[str, np.ndarray]:
    """Of each count of a kernel its non-negative multiples of what the work grows with."""
    works = np.array([work for work, _ in samples(family)[key]])
    counts = [per_result for _, per_result in samples(family)[key]]
    names = set().union(*counts)
    return {name: nnls(works, np.array([c[name] for c in counts], np.float64))[0] for name in names}


def volume_launches(family: str, shape: tuple[int, int, int]) -> Iterator[tuple[Launch, Counter[str]]]:
    """Every launch of a family on a slab with its counts; those of copies are empty."""
    met: Counter[Key] = Counter()
    for launch in volume_plan(family, shape):
        if launch.kernel == "copy":
            yield launch, Counter()
            continue
        key = key_of(launch)
        n_results, work = items_of(launch), work_of(launch)
        if len(work) > 1:
            per_result = {name: float(at @ np.array(work)) for name, at in fitted(family, key).items()}
        else:  # the launches come in the same order as those of the small volume
            known = samples(family)[key]
            per_result = dict(known[min(met[key], len(known) - 1)][1])
        met[key] += 1
        counts = Counter({name: n * n_results for name, n in per_result.items()})
        if launch.kernel == "volume_extremes":
            launch = launch._replace(read=tables_read(launch))
        yield launch, counts
