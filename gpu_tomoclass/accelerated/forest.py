"""Forest prediction by ``kernels/forest.cu`` on a device that runs kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.base import Array, Device
from gpu_tomoclass.errors import ModelError, ResourceError
from gpu_tomoclass.forest.arrays import LEAF, Forest

QUIET_NAN = np.uint32(0x7FC00000)
MAX_ROWS = 1 << 23  # of votes: what the sign and the free bits of a NaN can count
SHARED_BYTES = 48 * 1024  # of a block, on every GPU
FEATURES_STEP = 32  # the tile's height is rounded up to it, so that few variants are compiled
MISSING_BLOCKS = 64  # of this many threads each, on a GPU; they share the pixels with missing values
LANES = 32  # pixels of a block on a GPU: a warp's width, so that the tile has no bank conflicts
FLIGHT = 16  # pixels that a CPU thread walks side by side; measured: 8 to 32 are equal within 5 %
LARGE_TREE = 128 * 1024  # bytes of nodes; above, 4096 pixels at a time are 1.4 times as fast as 256
STACK_BYTES = 512 * 1024


class DeviceForest:
    """A forest in a device's memory.

    Parameters
    ----------
    forest : Forest
    device : Device
        One that runs kernels.

    Raises
    ------
    ResourceError
        If the forest does not fit the packed nodes of the kernel (trees of more than millions of nodes with thousands
        of features, or more than 8 million different rows of votes).
    """

    def __init__(self, forest: Forest, device: Device) -> None:
        self.forest, self.device = forest, device
        self._offset_bits = 32 - max(1, (forest.n_features - 1).bit_length())
        row_of_leaf, votes = distinct_votes(forest.votes)
        place, n_places = memory_order(forest)
        self._nodes = device.array(
            packed_nodes(forest, row_of_leaf, place=place, n_places=n_places, offset_bits=self._offset_bits)
        )
        self._votes = device.array(votes)
        self._roots = device.array(place[forest.roots].astype(np.int32))
        left_fraction = np.zeros(n_places, np.float32)
        left_fraction[place] = forest.left_fraction
        self._left_fraction = device.array(left_fraction)
        self._only_leaves = forest.used_features().size == 0
        self._missing_threads = MISSING_BLOCKS if device.wants_gpu_plan else 1
        self._stack_arrays: tuple[Array, Array] | None = None

    def probabilities(self, features: Array) -> Array:
        """Class probabilities of pixels, equal to :func:`gpu_tomoclass.forest.predict.predict_probabilities`.

        Parameters
        ----------
        features : array on the device
            (n_features, n_pixels) float32; NaN is a missing value.

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
        if n_pixels == 0:
            return self.device.empty((forest.n_classes, 0), np.float32)
        if self._only_leaves:  # the same for every pixel, and perhaps no features at all
            total = forest.votes.astype(np.float64).sum(axis=0)
            return self.device.array(np.repeat((total / total.sum()).astype(np.float32)[:, None], n_pixels, axis=1))
        probabilities = self.device.empty((forest.n_classes, n_pixels), np.float32)
        plan = self.plan(n_pixels)
        shared = {
            "features": features,
            "nodes": self._nodes,
            "roots": self._roots,
            "votes": self._votes,
            "probabilities": probabilities,
            "n_trees": forest.n_trees,
            "n_pixels": n_pixels,
        }
        per_block = plan["LANES"] * plan["PIXELS"]
        self.device.launch(
            "forest.cu",
            "forest",
            grid=(-(-n_pixels // per_block),),
            block=(plan["LANES"], plan["ROWS"]),
            args={**shared, "n_features": forest.n_features},
            defines=plan,
        )
        stack_nodes, stack_weights = self._stacks()
        self.device.launch(
            "forest.cu",
            "forest_missing",
            grid=(MISSING_BLOCKS,),
            block=(self._missing_threads,),
            args={
                **shared,
                "left_fraction": self._left_fraction,
                "stack_nodes": stack_nodes,
                "stack_weights": stack_weights,
            },
            defines=plan,
        )
        return probabilities

    def plan(self, n_pixels: int) -> dict[str, int]:
        """Compile-time parameters of the kernel for this forest and device; see ``kernels/forest.cu``."""
        shape = self._gpu_plan() if self.device.wants_gpu_plan else self._cpu_plan(n_pixels)
        return {"CLASSES": self.forest.n_classes, "OFFSET_BITS": self._offset_bits, **shape}

    def _gpu_plan(self) -> dict[str, int]:
        n_classes, rounded = self.forest.n_classes, self._rounded_features()
        rows = 16
        while rows > 1 and LANES * rows * n_classes * 8 > SHARED_BYTES // 2:
            rows //= 2
        needed = LANES * (4 * max(rounded, 2 * rows * n_classes) + 4)
        return {
            "LANES": LANES,
            "ROWS": rows,
            "PIXELS": 1,
            "FLIGHT": 1,
            "FEATURES": rounded if needed <= SHARED_BYTES else 0,  # 0: from device memory, through its caches
        }

    def _cpu_plan(self, n_pixels: int) -> dict[str, int]:
        """Small trees: a tile that fits the second-level cache beside a tree. Large trees: many pixels per tree, so
        that nodes come from main memory seldom; their features are read where they are."""
        bytes_per_tree = 8 * self.forest.n_nodes // self.forest.n_trees
        is_large = bytes_per_tree > LARGE_TREE or self.forest.n_features > 512
        pixels = 4096 if is_large else 256
        # On the stack of a thread: two numbers of 8 bytes per pixel and class. And every thread should get some blocks.
        enough = max(1, n_pixels // (4 * getattr(self.device, "threads", 1)))
        while pixels > FLIGHT and (16 * pixels * self.forest.n_classes > STACK_BYTES or pixels > max(enough, 256)):
            pixels //= 2
        features = 0 if is_large else self._rounded_features()
        return {"ONE_THREAD": 1, "LANES": 1, "ROWS": 1, "PIXELS": pixels, "FLIGHT": FLIGHT, "FEATURES": features}

    def _rounded_features(self) -> int:
        return -(-self.forest.n_features // FEATURES_STEP) * FEATURES_STEP

    def _stacks(self) -> tuple[Array, Array]:
        """Of ``forest_missing``: as deep as the forest, one per thread."""
        if self._stack_arrays is None:
            shape = (max(1, self.forest.depth), MISSING_BLOCKS * self._missing_threads)
            self._stack_arrays = self.device.empty(shape, np.uint32), self.device.empty(shape, np.float64)
        return self._stack_arrays


def distinct_votes(votes: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The different rows of votes, and for each leaf which of them is its own.

    Most leaves of a deep forest vote for one class alone, so a handful of rows stays in the first cache where millions
    would not.

    Parameters
    ----------
    votes : numpy.ndarray
        (n_leaves, n_classes).

    Returns
    -------
    row_of_leaf : numpy.ndarray
        (n_leaves,) int64.
    rows : numpy.ndarray
        (n_rows, n_classes) float64.
    """
    n_classes = votes.shape[1]
    row = votes.argmax(axis=1)
    is_pure = votes.max(axis=1) == 1
    for c in range(n_classes):
        is_pure &= (votes[:, c] == 0) | (row == c)
    mixed = np.flatnonzero(~is_pure)
    others, number = np.unique(votes[mixed].astype(np.float64), axis=0, return_inverse=True)
    row[mixed] = n_classes + number.reshape(-1)
    return row, np.concatenate([np.eye(n_classes), others])


def memory_order(forest: Forest) -> tuple[npt.NDArray[np.int64], int]:
    """A place for each node, such that a walk stays in few cache lines.

    Siblings lie side by side at an even place, behind them everything below the sibling that more of the training
    weight went to, then everything below the other: the likelier way down a tree is the next place in memory.

    Returns
    -------
    place : numpy.ndarray
        (n_nodes,) int64.
    n_places : int
        One more per tree than nodes, for the even places.
    """
    levels = [forest.roots]
    while True:
        nodes = levels[-1][forest.feature[levels[-1]] != LEAF]
        if not nodes.size:
            break
        left = forest.child[nodes].astype(np.int64)
        levels.append(np.concatenate([left, left + 1]))
    below = np.zeros(forest.n_nodes, dtype=np.int64)  # nodes below each node
    for level in reversed(levels):
        parent = level[forest.feature[level] != LEAF]
        left = forest.child[parent]
        below[parent] = below[left] + below[left + 1] + 2

    place = np.empty(forest.n_nodes, dtype=np.int64)
    children_at = np.empty(forest.n_nodes, dtype=np.int64)
    n_places = below[forest.roots] + 2  # a free place, the root, and the rest
    place[forest.roots] = np.cumsum(n_places) - n_places + 1
    children_at[forest.roots] = place[forest.roots] + 1
    for level in levels:
        parent = level[forest.feature[level] != LEAF]
        left = forest.child[parent]
        at = children_at[parent]
        place[left], place[left + 1] = at, at + 1
        left_first = forest.left_fraction[parent] >= 0.5
        children_at[left] = at + 2 + np.where(left_first, 0, below[left + 1])
        children_at[left + 1] = at + 2 + np.where(left_first, below[left], 0)
    return place, int(n_places.sum())


def packed_nodes(
    forest: Forest,
    row_of_leaf: npt.NDArray[np.int64],
    *,
    place: npt.NDArray[np.int64],
    n_places: int,
    offset_bits: int,
) -> npt.NDArray[np.uint32]:
    """Nodes of 8 bytes as ``kernels/forest.cu`` describes them: (n_places, 2) uint32.

    Raises
    ------
    ResourceError
        If a distance between nodes or the number of rows does not fit its bits.
    """
    if row_of_leaf.max() >= MAX_ROWS:
        raise ResourceError(
            f"the forest has {int(row_of_leaf.max()) + 1} different rows of votes, the kernel holds {MAX_ROWS}",
            do="choose --device numpy, or train with larger leaves",
        )
    inner, leaf = np.flatnonzero(forest.feature != LEAF), np.flatnonzero(forest.feature == LEAF)
    offset = place[forest.child[inner]] - place[inner]
    reach = int(offset.max(initial=0))
    if reach >= 1 << offset_bits:
        raise ResourceError(
            f"children are up to {reach} nodes away, beside {forest.n_features} features the kernel holds"
            f" {(1 << offset_bits) - 1}",
            do="choose --device numpy, or train smaller trees",
        )
    nodes = np.zeros((n_places, 2), dtype=np.uint32)
    nodes[place[inner], 0] = forest.threshold[inner].view(np.uint32)
    feature = forest.feature[inner].astype(np.uint32)
    nodes[place[inner], 1] = feature << np.uint32(offset_bits) | offset.astype(np.uint32)
    row = row_of_leaf[forest.child[leaf]].astype(np.uint32)
    nodes[place[leaf], 0] = QUIET_NAN | (row & np.uint32(0x3FFFFF)) | row >> np.uint32(22) << np.uint32(31)
    return nodes
