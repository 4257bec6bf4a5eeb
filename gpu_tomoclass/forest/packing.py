"""A forest as the bytes that the kernels read: ``kernels/forest.cu`` (small nodes) and ``kernels/forest_values.cu``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.forest.arrays import LEAF, Forest, thresholds_of_flushed

QUIET_NAN = np.uint32(0x7FC00000)
MAX_ROWS = 1 << 23  # rows of votes that the sign and the free bits of a NaN can number
MAX_PLACES = 1 << 30  # two words each, counted by 31 bits
COLUMN_THRESHOLDS = 254  # ranks 0..254; 255 is a missing value
MAX_COLUMNS = 1024  # then 32 pixels of a GPU block are 32 KB
SMALL_FOREST = 4_000_000  # nodes; beyond, what follows need not be tried
NEVER = 255  # no rank is above it


@dataclass(frozen=True)
class PlacedForest:
    """A place in memory for each node, and the rows of votes.

    Attributes
    ----------
    forest : Forest
    place : numpy.ndarray
        (n_nodes,) int32.
    n_places : int
    roots : numpy.ndarray
        (n_trees,) int32, places.
    depth : int
        The largest number of questions between a root and a leaf.
    row_of_leaf : numpy.ndarray
        (n_leaves,) int32, by the leaf's row in ``forest.votes``.
    votes : numpy.ndarray
        (n_rows, n_classes) float64, the first n_classes rows for one class alone.
    """

    forest: Forest
    place: npt.NDArray[np.int32]
    n_places: int
    roots: npt.NDArray[np.int32]
    depth: int
    row_of_leaf: npt.NDArray[np.int32]
    votes: npt.NDArray[np.float64]

    def left_fractions(self) -> npt.NDArray[np.float32]:
        """(n_places,)."""
        fractions = np.zeros(self.n_places, np.float32)
        fractions[self.place] = self.forest.left_fraction
        return fractions

    def rows(self) -> npt.NDArray[np.int32]:
        """(n_places,): of each leaf its row of votes."""
        leaf = np.flatnonzero(self.forest.feature == LEAF)
        rows = np.zeros(self.n_places, np.int32)
        rows[self.place[leaf]] = self.row_of_leaf[self.forest.child[leaf]]
        return rows


@dataclass(frozen=True)
class RankedNodes:
    """Nodes of 4 bytes that ask for ranks.

    Attributes
    ----------
    feature_of_column : numpy.ndarray
        (n_columns,) int32; a multiple of four columns, and more than classes.
    thresholds : numpy.ndarray
        (n_columns, 2**steps) float32, ascending, then NaN.
    steps : int
    nodes : numpy.ndarray
        (n_places,) uint32.
    column_bits : int
    """

    feature_of_column: npt.NDArray[np.int32]
    thresholds: npt.NDArray[np.float32]
    steps: int
    nodes: npt.NDArray[np.uint32]
    column_bits: int

    @property
    def n_words(self) -> int:
        """Words of four ranks that a pixel has."""
        return self.feature_of_column.size // 4


def place_forest(forest: Forest) -> PlacedForest:
    """Places and rows of votes for a forest.

    Raises
    ------
    ResourceError
        If there are more nodes than the kernels can count.
    """
    if forest.n_nodes + forest.n_trees >= MAX_PLACES:
        raise ResourceError(
            f"the forest has {forest.n_nodes} nodes, the kernels hold {MAX_PLACES}",
            do="choose --device numpy, or train smaller trees",
        )
    row_of_leaf, votes = distinct_votes(forest.votes)
    place, n_places, depth = memory_order(forest)
    return PlacedForest(forest, place, n_places, place[forest.roots], depth, row_of_leaf, votes)


def longest_group(placed: PlacedForest, n_trees: int) -> int:
    """Places of the largest group of ``n_trees`` trees that lie behind each other."""
    return int(np.diff(placed.roots[::n_trees], append=placed.n_places).max())


def in_groups(placed: PlacedForest, n_trees: int, size: int) -> PlacedForest:
    """The same forest with every ``n_trees`` trees at a multiple of ``size`` places, not less than
    :func:`longest_group`."""
    first = placed.roots[::n_trees]
    number = np.arange(first.size)
    shift = (number * size - first).astype(np.int32)
    group_of_place = np.searchsorted(first, placed.place, side="right") - 1
    return replace(
        placed,
        place=placed.place + shift[group_of_place],
        roots=placed.roots + shift[np.arange(placed.roots.size) // n_trees],
        n_places=first.size * size,
    )


def likeliest_first(placed: PlacedForest, n_first: int) -> PlacedForest:
    """The same forest with the likeliest nodes of each tree at its first places, the others behind in their order.

    A node is as likely as the share of training weight that reached it. Siblings stay side by side and behind their
    parent. Each tree begins at a multiple of four places, and ``n_first`` places follow the start of the last one.

    Parameters
    ----------
    placed : PlacedForest
        As :func:`place_forest` makes it.
    n_first : int
        Places at the beginning of a tree, the free one and the root among them.
    """
    forest = placed.forest
    pairs_first = max(0, n_first // 2 - 1)  # the first two places are the free one and the root's
    reach = np.ones(forest.n_nodes)
    level = np.zeros(forest.n_nodes, np.int32)
    parents = forest.roots[forest.feature[forest.roots] != LEAF]
    while parents.size:
        left = forest.child[parents]
        reach[left] = reach[parents] * forest.left_fraction[parents]
        reach[left + 1] = reach[parents] * (1.0 - forest.left_fraction[parents])
        level[left] = level[left + 1] = level[parents] + 1
        below = np.concatenate([left, left + 1])
        parents = below[forest.feature[below] != LEAF]
    inner = np.flatnonzero(forest.feature != LEAF)
    left = forest.child[inner]
    tree = np.searchsorted(placed.roots, placed.place[inner], side="right") - 1
    # A pair is as likely as its parent, which is at least as likely as its own parent and on a smaller level.
    by_chance = np.lexsort((placed.place[left], level[inner], -reach[inner], tree))
    start_of_tree = np.searchsorted(tree[by_chance], np.arange(placed.roots.size))
    rank = np.empty(inner.size, np.int64)
    rank[by_chance] = np.arange(inner.size) - start_of_tree[tree[by_chance]]
    order = np.lexsort((placed.place[left], np.where(rank < pairs_first, rank, pairs_first), tree))
    n_pairs = np.bincount(tree, minlength=placed.roots.size)
    sizes = -(-(2 * n_pairs + 2) // 4) * 4
    starts = np.cumsum(sizes) - sizes
    number = np.empty(inner.size, np.int64)
    number[order] = np.arange(inner.size) - start_of_tree[tree[order]]
    place = np.empty(forest.n_nodes, np.int32)
    place[forest.roots] = starts + 1
    place[left] = starts[tree] + 2 + 2 * number
    place[left + 1] = place[left] + 1
    n_places = int(starts[-1] + max(int(sizes[-1]), n_first))
    return replace(placed, place=place, roots=place[forest.roots], n_places=n_places)


def distinct_votes(votes: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
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
        (n_leaves,) int32.
    rows : numpy.ndarray
        (n_rows, n_classes) float64.
    """
    n_classes = votes.shape[1]
    row = votes.argmax(axis=1).astype(np.int32)
    is_pure = votes.max(axis=1) == 1
    for c in range(n_classes):
        is_pure &= (votes[:, c] == 0) | (row == c)
    mixed = np.flatnonzero(~is_pure)
    others = votes[mixed].astype(np.float64)
    order = np.lexsort(others.T[::-1])  # several times faster than numpy.unique of rows
    others = others[order]
    is_new = np.ones(mixed.size, bool)
    is_new[1:] = (others[1:] != others[:-1]).any(axis=1)
    row[mixed[order]] = n_classes - 1 + np.cumsum(is_new)
    return row, np.concatenate([np.eye(n_classes), others[is_new]])


def memory_order(forest: Forest) -> tuple[npt.NDArray[np.int32], int, int]:
    """A place for each node, such that a walk stays in few cache lines.

    Siblings lie side by side at an even place, behind them everything below the sibling that more of the training
    weight went to, then everything below the other: the likelier way down a tree is the next place in memory.

    Returns
    -------
    place : numpy.ndarray
        (n_nodes,) int32.
    n_places : int
        One more per tree than nodes, for the even places.
    depth : int
    """
    parents = []  # one array per level
    nodes = forest.roots.astype(np.int32)
    while nodes.size:
        parents.append(nodes[forest.feature[nodes] != LEAF])
        left = forest.child[parents[-1]]
        nodes = np.concatenate([left, left + 1])
    below = np.zeros(forest.n_nodes, dtype=np.int32)  # nodes below each node
    for parent in reversed(parents):
        left = forest.child[parent]
        below[parent] = below[left] + below[left + 1] + 2

    place = np.empty(forest.n_nodes, dtype=np.int32)
    children_at = np.empty(forest.n_nodes, dtype=np.int32)
    n_places = below[forest.roots] + np.int32(2)  # a free place, the root, and the rest
    place[forest.roots] = np.cumsum(n_places) - n_places + 1
    children_at[forest.roots] = place[forest.roots] + 1
    for parent in parents:
        left = forest.child[parent]
        at = children_at[parent]
        place[left], place[left + 1] = at, at + 1
        left_first = forest.left_fraction[parent] >= 0.5
        children_at[left] = at + 2 + np.where(left_first, 0, below[left + 1])
        children_at[left + 1] = at + 2 + np.where(left_first, below[left], 0)
    return place, int(n_places.sum()), len(parents) - 1


def value_nodes(placed: PlacedForest) -> tuple[npt.NDArray[np.uint32], int]:
    """Nodes of 8 bytes as ``kernels/forest_values.cu`` describes them.

    Returns
    -------
    nodes : numpy.ndarray
        (n_places, 2) uint32.
    offset_bits : int

    Raises
    ------
    ResourceError
        If a distance between nodes or the number of rows does not fit its bits.
    """
    forest, place = placed.forest, placed.place
    n_rows = placed.votes.shape[0]
    if n_rows > MAX_ROWS:
        raise ResourceError(
            f"the forest has {n_rows} different rows of votes, the kernel holds {MAX_ROWS}",
            do="choose --device numpy, or train with larger leaves",
        )
    offset_bits = 32 - max(1, (forest.n_features - 1).bit_length())
    inner, leaf = np.flatnonzero(forest.feature != LEAF), np.flatnonzero(forest.feature == LEAF)
    at = place[inner]
    offset = place[forest.child[inner]] - at
    reach = int(offset.max(initial=0))
    if reach >= 1 << offset_bits:
        raise ResourceError(
            f"children are up to {reach} nodes away, beside {forest.n_features} features the kernel holds"
            f" {(1 << offset_bits) - 1}",
            do="choose --device numpy, or train smaller trees",
        )
    nodes = np.zeros((placed.n_places, 2), dtype=np.uint32)
    nodes[at, 0] = thresholds_of_flushed(forest.threshold[inner]).view(np.uint32)
    nodes[at, 1] = forest.feature[inner].astype(np.uint32) << np.uint32(offset_bits) | offset.astype(np.uint32)
    row = placed.row_of_leaf[forest.child[leaf]].astype(np.uint32)
    nodes[place[leaf], 0] = QUIET_NAN | (row & np.uint32(0x3FFFFF)) | row >> np.uint32(22) << np.uint32(31)
    return nodes, offset_bits


def ranked_nodes(placed: PlacedForest) -> RankedNodes | None:
    """Nodes of 4 bytes as ``kernels/forest.cu`` describes them; None for a forest that has too many different
    thresholds or too large trees for that."""
    forest, place = placed.forest, placed.place
    if forest.n_nodes > SMALL_FOREST:
        return None
    inner, leaf = np.flatnonzero(forest.feature != LEAF), np.flatnonzero(forest.feature == LEAF)
    feature, threshold = forest.feature[inner], thresholds_of_flushed(forest.threshold[inner])
    order = np.lexsort((threshold, feature))
    is_new = np.ones(inner.size, dtype=bool)
    is_new[1:] = (np.diff(feature[order]) != 0) | (np.diff(threshold[order]) != 0)
    distinct_feature, distinct_threshold = feature[order][is_new], threshold[order][is_new]
    rank = np.arange(distinct_feature.size) - np.searchsorted(distinct_feature, distinct_feature)
    k = rank % COLUMN_THRESHOLDS
    column = np.cumsum(k == 0) - 1
    n_used = int(column[-1]) + 1
    n_columns = -(-max(n_used, forest.n_classes + 1) // 4) * 4
    offset = place[forest.child[inner]] - place[inner]
    column_bits = (n_columns - 1).bit_length()
    # The right child's distance is one more.
    if n_columns > MAX_COLUMNS or int(offset.max()) + 1 >= 1 << (24 - column_bits):
        return None

    steps = int(k.max() + 1).bit_length()
    # Columns that fill the last word see a feature that is asked for anyway, and their ranks are 0.
    feature_of_column = np.full(n_columns, distinct_feature[0], dtype=np.int32)
    feature_of_column[column] = distinct_feature
    thresholds = np.full((n_columns, 1 << steps), np.nan, dtype=np.float32)
    thresholds[column, k] = distinct_threshold
    distinct = np.empty(inner.size, dtype=np.int64)
    distinct[order] = np.cumsum(is_new) - 1
    nodes = np.zeros(placed.n_places, dtype=np.uint32)
    first, second = np.uint32(column_bits), np.uint32(column_bits + 8)
    below = np.uint32(NEVER) - k[distinct].astype(np.uint32)
    nodes[place[inner]] = offset.astype(np.uint32) << second | below << first | column[distinct].astype(np.uint32)
    nodes[place[leaf]] = np.minimum(placed.row_of_leaf[forest.child[leaf]], forest.n_classes).astype(np.uint32)
    return RankedNodes(feature_of_column, thresholds, steps, nodes, column_bits)
