"""Forest prediction on a device that runs kernels: ``kernels/forest*.cu``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array, Device, Workspace
from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.forest.arrays import Forest
from gpu_tomoclass.forest.packing import (
    PlacedForest,
    RankedNodes,
    in_groups,
    likeliest_first,
    longest_group,
    place_forest,
    ranked_nodes,
    value_nodes,
)
from gpu_tomoclass.forest.walks import CpuRankWalk, CpuWalk, Tables, Walk

GPU_SHARED_BYTES = 48 * 1024  # per block, on every GPU
GPU_THREADS = 512  # per block: some rows of trees for a tile of pixels
GPU_TILES = (128, 64, 32)  # pixels; with 128, lanes never wait for each other's ranks
QUADS_STEP = 64  # the quadruples of nodes that a block holds are rounded up to it, so that few variants are compiled
TOP_STEP = 128  # places of the top of a tree in shared memory are rounded down to it, for the same reason
FEATURES_STEP = 32  # a tile's height is rounded up to it, so that few variants are compiled
CPU_TILE = 64  # pixels that a CPU thread takes down a large tree side by side: enough to hide the latency of a load
RANKS_PIXELS = 2048  # per block, which reads the tables of thresholds once
RANKS_THREADS = 256
LARGE_PIXELS = 1024  # that a CPU thread takes down a large tree at a time; their values stay in the second cache
BLOCKS_PER_THREAD = 4  # blocks of LARGE_PIXELS per CPU thread and launch
SCRATCH_BYTES = 1 << 28  # per launch; blocks have fewer pixels where there are many threads
STACK_BYTES = 512 * 1024  # per CPU thread
MISSING_BLOCKS = 64  # so many blocks of as many threads share the pixels with missing values on a GPU


class DeviceForest:
    """A forest in a device's memory.

    Not safe to share between threads; those of :meth:`for_thread` share what is large.

    Parameters
    ----------
    forest : Forest
    device : Device
        One that runs kernels.
    by_rank : bool
        Compare ranks (``forest.cu``) where the forest is small enough for that; else values (``forest_values.cu``).
    walk : {"questions", "steps", "gathers"}, optional
        How a CPU compares ranks; default what is the fastest on this processor.

    Raises
    ------
    ResourceError
        If the forest does not fit the packed nodes of the kernels (trees of more than millions of nodes with thousands
        of features, or more than 8 million different rows of votes).
    """

    def __init__(self, forest: Forest, device: Device, *, by_rank: bool = True, walk: str | None = None) -> None:
        self.forest, self.device = forest, device
        self._walk: Walk | None = None
        self._workspace = Workspace(device)
        if forest.used_features().size:
            placed = place_forest(forest)
            ranked = ranked_nodes(placed) if by_rank else None
            shape: GpuShape | None = None
            if ranked is not None and device.wants_gpu_plan:
                shape = gpu_shape(ranked, placed)
                if shape.quads:
                    placed = in_groups(placed, shape.rows, 4 * shape.quads)
                else:
                    placed = likeliest_first(placed, shape.top)
                ranked = ranked_nodes(placed)
                shape = shape if ranked is not None else None
            self._tables = Tables(
                roots=device.array(placed.roots),
                votes=device.array(placed.votes),
                left_fraction=device.array(placed.left_fractions()),
                rows=device.array(np.zeros(1, np.int32) if ranked is None else placed.rows()),
            )
            if ranked is None:
                self._walk = _ValueWalk(placed, device, self._tables, self._workspace)
            elif shape is None:
                self._walk = CpuRankWalk(placed, ranked, device, self._tables, self._workspace, walk=walk)
            else:
                self._walk = _RankWalk(placed, ranked, shape, device, self._tables, self._workspace)
            self._stack_depth = max(1, placed.depth)

    def for_thread(self, device: Device) -> DeviceForest:
        """The same arrays, which nothing writes, with scratch memory of its own.

        Parameters
        ----------
        device : Device
            Of a thread, :meth:`~gpu_tomoclass.device.base.Device.for_thread` of that of the forest, which must have
            been waited for.
        """
        twin = copy.copy(self)
        twin.device, twin._workspace = device, Workspace(device)
        twin._walk = None if self._walk is None else self._walk.for_thread(device, twin._workspace)
        return twin

    @property
    def n_bytes(self) -> int:
        """Memory that the device holds between calls besides the forest itself."""
        return self._workspace.n_bytes

    @property
    def shared_bytes(self) -> int:
        """Memory of the forest itself, on the device."""
        return 0 if self._walk is None else self._walk.n_bytes + sum(int(table.nbytes) for table in self._tables)

    @property
    def walk(self) -> str:
        """Walk through the trees: one of ``forest_walks.WALKS`` on a CPU; ``"ranks"``, ``"values"`` or ``"none"``."""
        return "none" if self._walk is None else self._walk.name

    def probabilities(self, features: Array, *, out: Array | None = None, want_labels: bool = False) -> Array:
        """Class probabilities of pixels, equal to :func:`gpu_tomoclass.forest.predict.predict_probabilities`.

        Parameters
        ----------
        features : array on the device
            (n_features, n_pixels) float32; NaN is a missing value.
        out : array on the device, optional
            To be filled and returned; default a new one.
        want_labels : bool
            Only the label of the largest matters: trees that cannot change it need not be asked, and what is returned
            are then the shares of the votes of the others. Its first largest is that of the probabilities.

        Returns
        -------
        array on the device
            (n_classes, n_pixels) float32.

        Raises
        ------
        ModelError
            If the number of features is not the forest's.
        """
        forest = self.forest
        if features.ndim != 2 or features.shape[0] != forest.n_features:
            raise ModelError(f"there are features {features.shape}, the forest was trained on {forest.n_features}")
        n_pixels = int(features.shape[1])
        probabilities = self.device.empty((forest.n_classes, n_pixels), np.float32) if out is None else out
        if n_pixels == 0:
            return probabilities
        if self._walk is None:  # only leaves: the same for every pixel, and perhaps no features at all
            total = forest.votes.astype(np.float64).sum(axis=0)
            share = (total / total.sum()).astype(np.float32)
            self.device.upload(np.repeat(share[:, None], n_pixels, axis=1), probabilities)
            return probabilities
        values = self._walk.launch(features, probabilities, want_labels=want_labels)
        self._launch_missing(self._walk, values, probabilities)
        return probabilities

    @property
    def takes_parts(self) -> bool:
        """Tell whether :meth:`take` may be given a few features at a time: on a GPU, if the forest compares ranks."""
        return isinstance(self._walk, _RankWalk)

    def take(self, features: Array, numbers: Sequence[int]) -> None:
        """Rank some features now, for :meth:`probabilities_of_taken`; then their array may be used for others.

        Parameters
        ----------
        features : array on the device
            (n, n_pixels) float32.
        numbers : sequence of int
            Of these features among all, rising.
        """
        self._rank_walk().rank(features, numbers)

    def probabilities_of_taken(self, n_pixels: int, *, out: Array, want_labels: bool = False) -> Array:
        """As :meth:`probabilities`, of pixels whose features all have been taken."""
        walk = self._rank_walk()
        ranks = walk.ranks(n_pixels)
        walk.walk(ranks, out, want_labels=want_labels)
        self._launch_missing(walk, ranks, out)
        return out

    def _rank_walk(self) -> _RankWalk:
        if not isinstance(self._walk, _RankWalk):
            raise ValueError("features are taken on a GPU, by forests that compare ranks")
        return self._walk

    def part(self, features: Array, start: int) -> npt.NDArray[Any]:
        """Answers of some features to the trees, which it replaces: on a CPU, for :meth:`probabilities_of_parts`.

        Parameters
        ----------
        features : array on the device
            (n, n_pixels) float32: number ``start`` and those that follow.
        start : int

        Returns
        -------
        numpy.ndarray
            Of the shape that :meth:`part_shape` tells: a byte per pixel and column of thresholds, or the features; the
            next call overwrites it.
        """
        return self._cpu_walk().part(features, start)

    def part_shape(self, start: int, stop: int, n_pixels: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of the :meth:`part` of features ``start`` to ``stop - 1``."""
        return self._cpu_walk().part_shape(start, stop, n_pixels)

    def probabilities_of_parts(
        self, parts: Iterable[tuple[int, int, npt.NDArray[Any]]], n_pixels: int, *, want_labels: bool = False
    ) -> Array:
        """As :meth:`probabilities`, from (start, stop, :meth:`part`) of all features that the forest uses."""
        walk = self._cpu_walk()
        probabilities = self._workspace.array("probabilities", (self.forest.n_classes, n_pixels), np.float32)
        known = walk.join(parts, n_pixels)
        walk.walk(known, probabilities, want_labels=want_labels)
        self._launch_missing(walk, known, probabilities)
        return probabilities

    def _cpu_walk(self) -> CpuWalk:
        if self.device.wants_gpu_plan or not isinstance(self._walk, CpuWalk):
            raise ValueError("features in parts are for a CPU, and for forests that ask for some")
        return self._walk

    def _launch_missing(self, walk: Walk, values: Array, probabilities: Array) -> None:
        if isinstance(walk, CpuRankWalk) and not np.isnan(probabilities[0]).any():
            return  # mostly so; and the kernel is compiled only where it is needed
        threads = MISSING_BLOCKS if self.device.wants_gpu_plan else 1
        stack = self._stack_depth, MISSING_BLOCKS * threads
        self.device.launch(
            "forest_missing.cu",
            "forest_missing",
            grid=(MISSING_BLOCKS,),
            block=(threads,),
            args={
                "values": values,
                "nodes": walk.nodes,
                "left_fraction": self._tables.left_fraction,
                "roots": self._tables.roots,
                "rows": self._tables.rows,
                "votes": self._tables.votes,
                "probabilities": probabilities,
                "stack_nodes": self._workspace.array("nodes to come back to", stack, np.int32),
                "stack_weights": self._workspace.array("weights to come back with", stack, np.float64),
                "n_trees": self.forest.n_trees,
                "n_pixels": int(probabilities.shape[1]),
            },
            defines=walk.missing_defines,
        )


class _RankWalk(Walk):
    """``forest_ranks.cu``, then ``forest.cu`` on a GPU: bytes are compared."""

    name = "ranks"
    _arrays = ("nodes", "_thresholds")

    def __init__(
        self,
        placed: PlacedForest,
        ranked: RankedNodes,
        shape: GpuShape,
        device: Device,
        tables: Tables,
        workspace: Workspace,
    ) -> None:
        self._device, self._tables, self._workspace = device, tables, workspace
        self._n_trees, self._ranked = placed.forest.n_trees, ranked
        self.nodes = device.array(ranked.nodes)
        self._n_features = placed.forest.n_features
        self._thresholds = device.array(ranked.thresholds)
        n_classes = placed.forest.n_classes
        self._tile, self._rows = tile, rows = shape.tile, shape.rows
        layout = {"WORDS": ranked.n_words, "TILE": tile}
        packing = {"CLASSES": n_classes, "COLUMN_BITS": ranked.column_bits, **layout}
        self._walk_defines = {**packing, "ROWS": rows, "QUADS": shape.quads, "TOP": shape.top}
        passes = {"THREADS": RANKS_THREADS, "PASSES": RANKS_PIXELS // RANKS_THREADS}
        self._ranks_defines = {"STEPS": ranked.steps, **passes, **layout}
        self.missing_defines = {**packing, "VALUE": "unsigned char", "NODE": "unsigned", "BY_RANK": 1}

    def known(self, features: Array) -> Array:
        return self.rank(features, range(len(features)))

    def rank(self, features: Array, numbers: Sequence[int]) -> Array:
        """Ranks of all features, of which those of these numbers are found now."""
        n_pixels = int(features.shape[1])
        ranks, constant = self.ranks(n_pixels), self._workspace.constant
        rows_of = np.full(self._n_features, -1, np.int32)
        rows_of[np.asarray(numbers)] = np.arange(len(numbers))
        rows = rows_of[self._ranked.feature_of_column]
        columns = np.flatnonzero(rows >= 0).astype(np.int32)
        if columns.size:
            of_launch = columns.tobytes()
            self._device.launch(
                "forest_ranks.cu",
                "forest_ranks",
                grid=(-(-n_pixels // RANKS_PIXELS) * -(-columns.size // 4),),
                block=(RANKS_THREADS,),
                args={
                    "features": features,
                    "columns": constant(("columns", of_launch), lambda: columns),
                    "rows": constant(("rows", of_launch, rows[columns].tobytes()), lambda: rows[columns]),
                    "thresholds": self._thresholds,
                    "ranks": ranks,
                    "n_columns_in_all": columns.size,
                    "n_pixels": n_pixels,
                },
                defines=self._ranks_defines,
            )
        return ranks

    def ranks(self, n_pixels: int) -> Array:
        """Room for all ranks of so many pixels; holds what was ranked last."""
        n_tiles = -(-n_pixels // self._tile)
        return self._workspace.array("ranks", (n_tiles, 4 * self._ranked.n_words, self._tile), np.uint8)

    def walk(self, known: Array, probabilities: Array, *, want_labels: bool) -> None:
        self._device.launch(
            "forest.cu",
            "forest",
            grid=(len(known),),
            block=(self._tile, self._rows),
            args={
                "ranks": known,
                "nodes": self.nodes,
                "roots": self._tables.roots,
                "rows": self._tables.rows,
                "votes": self._tables.votes,
                "probabilities": probabilities,
                "n_trees": self._n_trees,
                "n_pixels": int(probabilities.shape[1]),
            },
            defines=self._walk_defines,
        )


class _ValueWalk(CpuWalk):
    """``forest_values.cu`` or ``forest_values_cpu.cu``: values are compared."""

    name = "values"
    _arrays = ("nodes",)

    def __init__(self, placed: PlacedForest, device: Device, tables: Tables, workspace: Workspace) -> None:
        self._device, self._tables, self._workspace = device, tables, workspace
        self._forest = placed.forest
        nodes, offset_bits = value_nodes(placed)
        self.nodes = device.array(nodes)
        self._common: dict[str, int | str] = {"CLASSES": placed.forest.n_classes, "OFFSET_BITS": offset_bits}
        style = {} if device.wants_gpu_plan else {"ONE_THREAD": 1}
        self.missing_defines = {**self._common, **style, "VALUE": "float", "NODE": "uint2", "BY_RANK": 0}

    def known(self, features: Array) -> Array:
        return features

    def part(self, features: Array, start: int) -> npt.NDArray[Any]:
        return np.asarray(features)

    def part_shape(self, start: int, stop: int, n_pixels: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (stop - start, n_pixels), np.dtype(np.float32)

    def join(self, parts: Iterable[tuple[int, int, npt.NDArray[Any]]], n_pixels: int) -> Array:
        features = self._workspace.array("joined features", (self._forest.n_features, n_pixels), np.float32)
        features[...] = 0  # those that the trees do not ask for
        for start, stop, part in parts:
            features[start:stop] = part
        return features

    def walk(self, known: Array, probabilities: Array, *, want_labels: bool) -> None:
        args = {
            "features": known,
            "nodes": self.nodes,
            "roots": self._tables.roots,
            "votes": self._tables.votes,
            "probabilities": probabilities,
            "n_features": self._forest.n_features,
            "n_trees": self._forest.n_trees,
            "n_pixels": int(known.shape[1]),
        }
        if self._device.wants_gpu_plan:
            self._launch_gpu(args)
        else:
            self._launch_cpu(args)

    def _launch_gpu(self, args: dict[str, Any]) -> None:
        lanes = GPU_TILES[-1]
        rows = _gpu_rows(lanes, self._forest.n_classes)
        rounded = -(-self._forest.n_features // FEATURES_STEP) * FEATURES_STEP
        fits = 4 * lanes * (rounded + 1) <= GPU_SHARED_BYTES
        defines = {
            **self._common,
            "LANES": lanes,
            "ROWS": rows,
            "FEATURES": rounded if fits else 0,  # 0: from device memory, through its caches
        }
        self._device.launch(
            "forest_values.cu",
            "forest_values",
            grid=(-(-args["n_pixels"] // lanes),),
            block=(lanes, rows),
            args=args,
            defines=defines,
        )

    def _launch_cpu(self, args: dict[str, Any]) -> None:
        n_pixels, n_features, n_classes = args["n_pixels"], self._forest.n_features, self._forest.n_classes
        n_blocks = BLOCKS_PER_THREAD * self._device.threads
        pixels = LARGE_PIXELS
        while pixels > CPU_TILE and (
            4 * n_features * pixels * n_blocks > SCRATCH_BYTES  # beside each thread's own:
            or 8 * (n_classes + 1) * pixels > STACK_BYTES
            or pixels * n_blocks >= 2 * n_pixels  # every thread should get some blocks
        ):
            pixels //= 2
        tiles = self._workspace.array("tiles", (n_blocks, n_features, pixels), np.float32)
        for first in range(0, n_pixels, pixels * n_blocks):
            self._device.launch(
                "forest_values_cpu.cu",
                "forest_values_cpu",
                grid=(min(n_blocks, -(-(n_pixels - first) // pixels)),),
                block=(1,),
                args={**args, "tiles": tiles, "first_pixel": first},
                defines={**self._common, "ONE_THREAD": 1, "LANES": CPU_TILE, "PIXELS": pixels},
            )


class GpuShape(NamedTuple):
    """A block of ``forest.cu`` on a GPU.

    Pixels; rows of threads; quadruples of nodes in shared memory, which are whole trees, one for each row (0: they do
    not fit), else places of the top of each.
    """

    tile: int
    rows: int
    quads: int
    top: int


def gpu_shape(ranked: RankedNodes, placed: PlacedForest) -> GpuShape:
    """The most pixels whose ranks fit shared memory; then, if they still fit, a tree for each row of threads."""
    columns, n_classes = 4 * ranked.n_words, placed.forest.n_classes
    tile = next(tile for tile in GPU_TILES if tile * (columns + 1) <= GPU_SHARED_BYTES)
    rows = _gpu_rows(tile, n_classes)
    quads = -(-longest_group(placed, rows) // (4 * QUADS_STEP)) * QUADS_STEP
    used = tile * max(columns, 8 * rows * n_classes if rows > 1 else 0) + tile
    if used + 16 * quads <= GPU_SHARED_BYTES:
        return GpuShape(tile, rows, quads, 0)
    top = max(0, GPU_SHARED_BYTES - used) // (4 * rows * TOP_STEP) * TOP_STEP
    return GpuShape(tile, rows, 0, top)


def _gpu_rows(lanes: int, n_classes: int) -> int:
    """Rows of threads that share a tile's trees: the sums of more than one must fit shared memory."""
    rows = GPU_THREADS // lanes
    while rows > 1 and lanes * (8 * rows * n_classes + 4) > GPU_SHARED_BYTES:
        rows //= 2
    return rows
