"""Ways of a CPU down the trees of a forest, and which of them is the fastest on this processor.

``questions``: every question of a tree is asked of every pixel, as comparisons of vectors of bytes
(``kernels/forest_cpu.cu``). ``steps``: a few pixels walk side by side, one by one; ``gathers``: a tile of pixels walks
as vectors (both ``kernels/forest.cu``). What they cost is measured once per processor, on a forest of random questions.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array, Device, Workspace
from gpu_tomoclass.forest.arrays import LEAF, Forest
from gpu_tomoclass.forest.cells import CELLS, CellTables, cell_tables
from gpu_tomoclass.forest.packing import PlacedForest, RankedNodes, place_forest, ranked_nodes
from gpu_tomoclass.forest.questions import (
    LEAVES,
    TILE,
    VECTOR,
    LeafNumbers,
    all_questions,
    number_leaves,
    trees_for_labels,
)

WALKS = ("questions", "steps", "gathers")
TILES = {"questions": TILE, "steps": 64, "gathers": 64}  # pixels; their ranks stay in the first two caches
QUESTIONS_TILES = 4  # per block: pixels that are asked more than others fill tiles of their own
SUMS_BYTES = 256 * 1024  # of a block's pixels, on the stack
VOTES_AS_QUESTIONS = 16  # what it costs to add four votes of a leaf
WORDS_STEP = 16  # the columns, in words of four, are rounded up to it, so that few variants are compiled
MOST_WORDS_STEP = 64  # forest_cpu.cu has room for so many times a number
RANKS_PIXELS = 2048  # per block, which reads the thresholds of four columns once
RANKS_TOGETHER = 64
SLOTS_STEP = 16  # for the same reason
# The forest that is measured: about as deep as the trees of a few thousand training rows.
MODEL_TREES, MODEL_DEPTH, MODEL_FEATURES, MODEL_PIXELS = 40, 8, 100, 8192
REPEATS = 5


class Tables(NamedTuple):
    """Tables that all kinds of nodes need, on the device."""

    roots: Array
    votes: Array
    left_fraction: Array
    rows: Array  # votes by place; one zero where nodes hold them


class Walk(ABC):
    """Down the trees, with arrays that may be shared and a workspace that may not."""

    _device: Device
    _workspace: Workspace
    _arrays: tuple[str, ...]
    name: str
    nodes: Array
    missing_defines: dict[str, int | str]

    @property
    def n_bytes(self) -> int:
        """Of the arrays."""
        return sum(int(getattr(self, name).nbytes) for name in self._arrays)

    def for_thread(self, device: Device, workspace: Workspace) -> Self:
        """With the same arrays."""
        twin = copy.copy(self)
        twin._device, twin._workspace = device, workspace
        return twin

    def launch(self, features: Array, probabilities: Array, *, want_labels: bool) -> Array:
        """Fill the probabilities; what ``forest_missing.cu`` reads, values or ranks."""
        known = self.known(features)
        self.walk(known, probabilities, want_labels=want_labels)
        return known

    @abstractmethod
    def known(self, features: Array) -> Array:
        """All that the trees ask of pixels with these features: values or ranks."""

    @abstractmethod
    def walk(self, known: Array, probabilities: Array, *, want_labels: bool) -> None:
        """Fill the probabilities."""


class CpuWalk(Walk):
    """On a CPU also from a few features at a time: what the trees ask of them is kept instead of the features."""

    @abstractmethod
    def part(self, features: Array, start: int) -> npt.NDArray[Any]:
        """Those of features (n, n_pixels), number ``start`` and the next; of the workspace, or the features."""

    @abstractmethod
    def part_shape(self, start: int, stop: int, n_pixels: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Of the :meth:`part` of features ``start`` to ``stop - 1``."""

    @abstractmethod
    def join(self, parts: Iterable[tuple[int, int, npt.NDArray[Any]]], n_pixels: int) -> Array:
        """Join what :meth:`known` makes of all features, from (start, stop, part) of all that the trees ask for."""


class CpuRankWalk(CpuWalk):
    """``forest_ranks_cpu.cu``, then one of the :data:`WALKS`.

    Parameters
    ----------
    placed : PlacedForest
    ranked : RankedNodes
    device : Device
    tables : Tables
    workspace : Workspace
    walk : str, optional
        Default the fastest; one that cannot hold the forest becomes ``"steps"``.
    """

    def __init__(
        self,
        placed: PlacedForest,
        ranked: RankedNodes,
        device: Device,
        tables: Tables,
        workspace: Workspace,
        *,
        walk: str | None = None,
    ) -> None:
        self._device, self._tables, self._workspace = device, tables, workspace
        self._n_trees = placed.forest.n_trees
        self._ranked = ranked
        self._n_columns = int(np.count_nonzero(~np.isnan(ranked.thresholds[:, 0])))
        numbers = number_leaves(placed)
        walk = fastest_walk(placed, walk_costs(device), numbers=numbers) if walk is None else walk
        asked = all_questions(placed, ranked, numbers) if walk == "questions" and numbers is not None else None
        self.name = walk if walk != "questions" or asked is not None else "steps"
        self._tile, self._tiles = TILES[self.name], 1
        self.nodes = device.array(ranked.nodes)
        self._feature_of_column = device.array(ranked.feature_of_column)
        self._cells = CellTables(*(device.array(table) for table in cell_tables(ranked.thresholds)))
        step = WORDS_STEP if asked is None else 1
        self._n_words = -(-ranked.n_words // step) * step
        self._arrays = ("nodes", "_feature_of_column")
        layout = {"WORDS": self._n_words, "TILE": self._tile, "ONE_THREAD": 1}
        passes = {"PIXELS": RANKS_TOGETHER, "PASSES": RANKS_PIXELS // RANKS_TOGETHER}
        self._ranks_defines = {"CELLS": CELLS, **passes, "TILE": self._tile, "ONE_THREAD": 1}
        n_classes = placed.forest.n_classes
        self._defines = {"CLASSES": n_classes, **layout}
        packing: dict[str, int | str] = {**self._defines, "COLUMN_BITS": ranked.column_bits}
        self.missing_defines = {**packing, "VALUE": "unsigned char", "NODE": "unsigned", "BY_RANK": 1}
        if asked is not None and numbers is not None:
            self._questions, self._first = device.array(asked.questions), device.array(asked.first)
            self._first_leaf, self._votes = device.array(numbers.first), device.array(numbers.votes)
            self._arrays += ("_questions", "_first", "_first_leaf", "_votes")
            sums = TILE * (2 * n_classes if numbers.are_classes else 8 * numbers.votes.shape[1])
            self._tiles = max(1, min(QUESTIONS_TILES, SUMS_BYTES // sums))
            self._for_labels = trees_for_labels(placed.forest)
            self._defines |= {
                "WORDS": -(-ranked.n_words // MOST_WORDS_STEP) * MOST_WORDS_STEP,
                "SLOTS": -(-asked.n_slots // SLOTS_STEP) * SLOTS_STEP,
                "TILES": self._tiles,
                "VECTOR": VECTOR,
                "LEAVES": LEAVES,
                "COUNTED": int(numbers.are_classes),
            }
        else:
            self._defines |= {"COLUMN_BITS": ranked.column_bits, "GATHERS": int(self.name == "gathers")}

    @property
    def n_bytes(self) -> int:
        return super().n_bytes + sum(int(table.nbytes) for table in self._cells)

    def known(self, features: Array) -> Array:
        """(n_tiles, n_columns, tile) uint8, of the workspace."""
        ranks = self._ranks(int(features.shape[1]))
        self._rank(features, self._feature_of_column, self._cells, ranks)
        ranks[:, self._feature_of_column.size :] = 0  # what fills the words up has no thresholds
        return ranks

    def part(self, features: Array, start: int) -> npt.NDArray[Any]:
        """(n_words, n_tiles, 4, tile) uint8."""
        n, n_pixels = features.shape
        shape, dtype = self.part_shape(start, start + n, n_pixels)
        ranks = self._workspace.array("ranks of a part", shape, dtype)
        columns = self._columns(start, start + n)
        for first, of_word in zip(columns[::4], ranks, strict=True):
            # The last word is filled up with its own first column.
            four = np.array([c if c in columns else first for c in range(first, first + 4)])
            numbers = self._ranked.feature_of_column[four] - np.int32(start)
            cells, constant = self._cells.of(four), self._workspace.constant
            self._rank(
                features,
                constant(("features of columns", start, first), numbers.copy),
                CellTables(*(constant((name, start, first), table.copy) for name, table in cells._asdict().items())),
                of_word,
            )
        return np.asarray(ranks)

    def part_shape(self, start: int, stop: int, n_pixels: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        n_words = -(-len(self._columns(start, stop)) // 4)
        return (n_words, -(-n_pixels // self._tile), 4, self._tile), np.dtype(np.uint8)

    def join(self, parts: Iterable[tuple[int, int, npt.NDArray[Any]]], n_pixels: int) -> Array:
        ranks = self._ranks(n_pixels)
        ranks[:, self._n_columns :] = 0  # they have no thresholds
        for start, stop, part in parts:
            columns = self._columns(start, stop)
            for of_word, first in zip(part, columns[::4], strict=True):
                n = min(4, columns.stop - first)
                ranks[:, first : first + n] = of_word[:, :n]
        return ranks

    def _columns(self, start: int, stop: int) -> range:
        """Those of features ``start`` to ``stop - 1``."""
        of_columns = self._ranked.feature_of_column[: self._n_columns]
        first, last = np.searchsorted(of_columns, (start, stop))
        return range(int(first), int(last))

    def _ranks(self, n_pixels: int) -> Array:
        n_tiles = -(-n_pixels // self._tile)
        return self._workspace.array("ranks", (n_tiles, 4 * self._n_words, self._tile), np.uint8)

    def _rank(self, features: Array, feature_of_column: Array, cells: CellTables, ranks: Array) -> None:
        """Fill (n_tiles, columns, tile): the first columns, as many as have cells."""
        n_pixels, n_words = int(features.shape[1]), feature_of_column.size // 4
        self._device.launch(
            "forest_ranks_cpu.cu",
            "forest_ranks_cpu",
            grid=(-(-n_pixels // RANKS_PIXELS) * n_words,),
            block=(1,),
            args={
                "features": features,
                "feature_of_column": feature_of_column,
                **cells._asdict(),
                "ranks": ranks,
                "n_words": n_words,
                "n_words_of_tile": ranks.shape[1] // 4,
                "n_keys": cells.keys.shape[1],
                "n_pixels": n_pixels,
            },
            defines=self._ranks_defines,
        )

    def walk(self, known: Array, probabilities: Array, *, want_labels: bool) -> None:
        args = {
            "ranks": known,
            "probabilities": probabilities,
            "n_trees": self._n_trees,
            "n_pixels": int(probabilities.shape[1]),
        }
        if self.name == "questions":
            n_of_all, to_come = self._for_labels if want_labels else (self._n_trees, 0.0)
            file, kernel = "forest_cpu.cu", "forest_cpu"
            args |= {
                "questions": self._questions,
                "first_question": self._first,
                "first_leaf": self._first_leaf,
                "votes": self._votes,
                "n_words": self._n_words,
                "n_of_all": n_of_all,
                "most_to_come": to_come,
            }
        else:
            file, kernel = "forest.cu", "forest"
            tables = self._tables
            args |= {"nodes": self.nodes, "roots": tables.roots, "rows": tables.rows, "votes": tables.votes}
        grid = (-(-len(known) // self._tiles),)
        self._device.launch(file, kernel, grid=grid, block=(1,), args=args, defines=self._defines)


def fastest_walk(placed: PlacedForest, costs: dict[str, float], *, numbers: LeafNumbers | None) -> str:
    """The walk that should take the least time; ``costs`` as :func:`walk_costs` gives them."""
    forest = placed.forest
    work = {"questions": np.inf} | expected_steps(forest)
    if numbers is not None:
        votes = 0 if numbers.are_classes else VOTES_AS_QUESTIONS * forest.n_trees * (numbers.votes.shape[1] // 4)
        work["questions"] = float(np.count_nonzero(forest.feature != LEAF) + votes)
    return min(WALKS, key=lambda walk: costs[walk] * work[walk])


def expected_steps(forest: Forest) -> dict[str, float]:
    """Questions that a pixel meets in all trees, and the deepest pixel of a tile, if they go left as often as training
    rows did, each by chance."""
    steps = {"steps": 0.0, "gathers": 0.0}
    level, tree, share = forest.roots, np.arange(forest.n_trees), np.ones(forest.n_trees)
    while level.size:
        asks = forest.feature[level] != LEAF
        level, tree, share = level[asks], tree[asks], share[asks]
        reached = np.minimum(np.bincount(tree, weights=share, minlength=forest.n_trees), 1)
        steps["steps"] += float(reached.sum())
        steps["gathers"] += float((1 - (1 - reached) ** TILES["gathers"]).sum())
        left, left_share = forest.child[level].astype(np.int64), share * forest.left_fraction[level]
        level, tree = np.concatenate([left, left + 1]), np.concatenate([tree, tree])
        share = np.concatenate([left_share, share - left_share])
    return steps


def walk_costs(device: Device) -> dict[str, float]:
    """Nanoseconds per pixel and question (``questions``) or step (the others), on one thread of this processor."""
    return device.figures("walks down a forest, 2", lambda: measured_costs(device.with_threads(1)), keys=WALKS)


def describe_walks(device: Device) -> str:
    """A sentence on the walk that this processor prefers, and what each of them costs."""
    placed, costs = place_forest(model_forest(np.random.default_rng(0))), walk_costs(device)
    per_tree = round(np.count_nonzero(placed.forest.feature != LEAF) / placed.forest.n_trees)
    measured = ", ".join(f"{walk} {costs[walk]:.3g}" for walk in WALKS)
    walk = fastest_walk(placed, costs, numbers=number_leaves(placed))
    return f"trees of {per_tree} questions are walked by {walk} here (ns per pixel and question or step: {measured})"


def measured_costs(device: Device) -> dict[str, float]:
    """:func:`walk_costs`, measured now; the fastest of some runs, so that a busy moment does not count."""
    random = np.random.default_rng(5)
    forest = model_forest(random)
    placed = place_forest(forest)
    ranked = ranked_nodes(placed)
    assert ranked is not None
    values = device.array(random.random((MODEL_FEATURES, MODEL_PIXELS), dtype=np.float32))
    probabilities = device.empty((forest.n_classes, MODEL_PIXELS), np.float32)
    work = {"questions": float(np.count_nonzero(forest.feature != LEAF))}
    work |= expected_steps(forest)
    tables = Tables(*(device.array(a) for a in (placed.roots, placed.votes, placed.left_fractions(), placed.rows())))
    walks = {name: CpuRankWalk(placed, ranked, device, tables, Workspace(device), walk=name) for name in WALKS}
    ranks = {name: walk.known(values) for name, walk in walks.items()}
    seconds = dict.fromkeys(WALKS, np.inf)
    for _ in range(REPEATS):
        for name, walk in walks.items():
            began = time.perf_counter()
            walk.walk(ranks[name], probabilities, want_labels=False)
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return {name: float(1e9 * seconds[name] / (work[name] * MODEL_PIXELS)) for name in WALKS}


def model_forest(random: np.random.Generator) -> Forest:
    """Trees whose leaves lie between half of and twice :data:`MODEL_DEPTH`, with pure leaves of three classes."""
    features: list[int] = []
    children: list[int] = []
    roots: list[int] = []
    n_leaves = 0
    for _ in range(MODEL_TREES):
        start = len(features)
        roots.append(start)
        level = [(start, 0)]
        features.append(LEAF)
        children.append(0)
        while level:
            below = []
            for node, depth in level:
                goes_on = depth < MODEL_DEPTH // 2 or (depth < 2 * MODEL_DEPTH and random.random() < 0.47)
                if not goes_on:
                    children[node] = n_leaves
                    n_leaves += 1
                    continue
                features[node], children[node] = int(random.integers(MODEL_FEATURES)), len(features)
                below += [(len(features), depth + 1), (len(features) + 1, depth + 1)]
                features += [LEAF, LEAF]
                children += [0, 0]
            level = below
    is_leaf = np.array(features) == LEAF
    return Forest(
        feature=np.array(features, np.int32),
        threshold=np.where(is_leaf, 0, random.random(is_leaf.size)).astype(np.float32),
        child=np.array(children, np.int32),
        left_fraction=np.where(is_leaf, 0, 0.5).astype(np.float32),
        votes=np.eye(3)[random.integers(3, size=n_leaves)],
        roots=np.array(roots, np.int64),
        n_features=MODEL_FEATURES,
    )
