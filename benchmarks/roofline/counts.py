"""Work of launches: the PTX of small planes instruction by instruction; and the launches of a slab, noted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar, NamedTuple
from unittest import mock

import numpy as np
import ptx_access
import simulated_cupy
from bench_forest import training_rows
from bench_native import sample_plane
from ptx_machine import Machine
from ptx_memory import SECTOR, count_sectors
from sklearn.ensemble import RandomForestClassifier

from benchmarks.roofline.gpus import Gpu
from benchmarks.roofline.instructions import machine_classes
from gpu_tomoclass.classification.slabs import MAX_SLAB, MEMORY_SHARE
from gpu_tomoclass.device import Device
from gpu_tomoclass.device.base import Array
from gpu_tomoclass.device.dry import DryDevice
from gpu_tomoclass.features.accelerated import diffusion
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.forest.arrays import Forest
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn
from gpu_tomoclass.forest.labels_on_device import device_labels
from gpu_tomoclass.forest.predict_on_device import DeviceForest

SMALL_SHAPES = ((40, 64), (80, 128))  # four times the pixels, in blocks that are as full
EXECUTED = 6  # launches of a kernel with different numbers that are interpreted; later ones count as their mean

Row = dict[str, tuple[float, float]]


# -- counting ------------------------------------------------------------------------------------------------------
class CountingMachine(Machine):
    """Counts machine instructions by class; a launch like earlier ones is not executed but counts as their mean."""

    done: ClassVar[dict[tuple[Any, ...], dict[tuple[Any, ...], Counter[str]]]] = {}

    def __init__(
        self, kernel: Any, *, grid: Any, block: Any, arguments: Any, arrays: Any, counted: bool = True, given: int = 0
    ) -> None:
        super().__init__(
            kernel, grid=grid, block=block, arguments=arguments, arrays=arrays, counted=counted, given=given
        )
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
            self.counts["estimated"] = 1
        else:
            seen: dict[str, list[np.ndarray]] = {"load": [], "store": []}

            def counted(counts: Counter[str], kind: str, address: np.ndarray, warp: np.ndarray) -> None:
                count_sectors(counts, kind, address, warp)
                seen.setdefault(kind, []).append(np.unique(address // SECTOR))  # no access crosses a sector

            with mock.patch.object(ptx_access, "count_sectors", counted):
                super().run()
            for kind, sectors in seen.items():
                self.counts[f"moved {kind} sectors"] = np.unique(np.concatenate(sectors)).size if sectors else 0
            classes = machine_classes(self.kernel)
            for (at, end), n_warps in self._ran.items():
                for c, parts in zip(self.kernel.code[at:end], classes[at:end], strict=True):
                    for kind, n in parts.items():
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
    numbers: dict[str, int]  # scalar arguments

    @property
    def name(self) -> str:
        return f"{self.file}: {self.kernel}"

    @property
    def n_threads(self) -> int:
        return math.prod(self.grid) * math.prod(self.block)


class NotingDevice(DryDevice):
    """Notes launches and copies in their order, with the bytes of their arrays."""

    def __init__(self, gpu: Gpu | None = None) -> None:
        super().__init__("cuda")
        self.noted: list[Launch] = []
        if gpu is not None:
            self.shared_bytes, self.cluster_blocks = gpu.shared_bytes, gpu.cluster_blocks

    def copy(self, values: Array, target: Array) -> None:
        super().copy(values, target)
        self.noted.append(Launch("", "copy", (), (1, 1, 1), (1, 1, 1), values.nbytes, target.nbytes, {}))

    def _bind(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> Any:
        bound = super()._bind(file, name, defines)
        parameters = bound.signature.parameters

        def run(grid: Any, block: Any, values: list[Any]) -> None:
            n_bytes = {True: 0, False: 0}
            numbers = {}
            for parameter, value in zip(parameters, values, strict=True):
                if parameter.is_pointer:
                    n_bytes[parameter.is_const] += value.nbytes
                else:
                    numbers[parameter.name] = value
            self.noted.append(Launch(file, name, defines, grid, block, n_bytes[True], n_bytes[False], numbers))

        return type(bound)(bound.signature, bound.address_of, run)


# -- what is run ---------------------------------------------------------------------------------------------------
FOREST_ROWS = 5000  # then 200 trees have about 100,000 nodes


@cache
def standard_forest() -> Forest:
    """200 trees from so many rows."""
    values, labels = training_rows(FOREST_ROWS, 0.01, n_planes=1)
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


def jobs_at_once(plan: Iterable[Launch]) -> int:
    """Jobs of diffusion that run side by side, step by step; 0 where there are none."""
    return max((launch.grid[2] for launch in plan if launch.kernel == "diffusion_begin"), default=0)


def counts_of_small(part: str, shape: tuple[int, int], jobs: int) -> list[simulated_cupy.LaunchRecord]:
    """Launches on one small plane, interpreted; of diffusion with as many jobs at once as on a slab."""
    pixels = jobs * math.prod(shape) or diffusion.PIXELS_AT_ONCE
    with (
        mock.patch.object(simulated_cupy, "Machine", CountingMachine),
        mock.patch.object(diffusion, "PIXELS_AT_ONCE", pixels),
    ):
        device, cupy = simulated_cupy.ptx_device()
        cupy.launches.clear()
        CountingMachine.done = {}
        if part == "forest":
            run_forest(device, small_features(shape))
        else:
            run_family(device, part, sample_plane()[np.newaxis, : shape[0], : shape[1]].copy())
        return cupy.launches


def plan_of(part: str, shape: tuple[int, int, int], gpu: Gpu | None = None) -> list[Launch]:
    """Launches on a slab, noted."""
    device = NotingDevice(gpu)
    if part == "forest":
        run_forest(device, np.empty((252, math.prod(shape)), np.float32))
    else:
        run_family(device, part, np.empty(shape, np.float32))
    return device.noted


def slab_planes(gpu: Gpu, shape: tuple[int, int]) -> int:
    """As many as the classifier would choose."""
    allocated = []
    for nz in (1, 2):
        device = NotingDevice(gpu)
        FeatureEngine(device, FeatureBank.create("paper").blocks).compute(np.empty((nz, *shape), np.float32))
        forest = DeviceForest(standard_forest(), device)
        forest.probabilities(np.empty((252, nz * math.prod(shape)), np.float32))
        allocated.append(device.n_bytes)
    return max(1, min(MAX_SLAB, int(MEMORY_SHARE * gpu.memory) // (allocated[1] - allocated[0])))


@cache
def extended(part: str, jobs: int = 0) -> list[tuple[str, Row]]:
    """Of each launch of a part on one plane its name and, for each count, (per plane, per pixel).

    ``jobs``: :func:`jobs_at_once` on the slab that is meant.
    """
    small, larger = (counts_of_small(part, shape, jobs) for shape in SMALL_SHAPES)
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
