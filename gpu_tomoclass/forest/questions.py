"""A forest as the list of questions that ``kernels/forest_cpu.cu`` asks of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.forest.arrays import LEAF, Forest
from gpu_tomoclass.forest.packing import PlacedForest, RankedNodes

TILE = 256  # pixels; their ranks stay in the second cache, and a question is read once for all of them
VECTOR = 64  # bytes at a time; a place of answers is counted in these
LEAVES = 256  # of a tree: their numbers are bytes
MAX_COUNTED_TREES = 65535  # counted by 16 bits
MAX_SLOTS = (512 - LEAVES) // (TILE // VECTOR)  # places are counted by 9 bits
PADDED = 4  # the votes of a leaf are a multiple of so many doubles
# Where labels are clear, the first class leads by this share of the votes that a tree typically gives.
LEAST_LEAD = 0.6
ROUNDING = 1e-6  # of all votes: a lead beyond it is one in float32, too


@dataclass(frozen=True)
class LeafNumbers:
    """Numbers of leaves below :data:`LEAVES` in each tree; leaves of equal votes share one.

    Attributes
    ----------
    of_leaf : numpy.ndarray
        (n_nodes,) int64, by node; 0 for questions.
    first : numpy.ndarray
        (n_trees,) int32: rows of ``votes`` before those of the tree.
    votes : numpy.ndarray
        (n_rows, n_classes rounded up) float64.
    are_classes : bool
        Each leaf votes once, for the class of its number.
    """

    of_leaf: npt.NDArray[np.int64]
    first: npt.NDArray[np.int32]
    votes: npt.NDArray[np.float64]
    are_classes: bool


@dataclass(frozen=True)
class Questions:
    """A forest as ``kernels/forest_cpu.cu`` describes it.

    Attributes
    ----------
    questions : numpy.ndarray
        (n_questions, 2) uint32.
    first : numpy.ndarray
        (n_trees + 1,) int32.
    n_slots : int
    """

    questions: npt.NDArray[np.uint32]
    first: npt.NDArray[np.int32]
    n_slots: int


def number_leaves(placed: PlacedForest) -> LeafNumbers | None:
    """Numbers of the leaves; None if a tree has more different ones than a byte counts."""
    forest = placed.forest
    n_rows, n_classes = placed.votes.shape
    leaf = np.flatnonzero(forest.feature == LEAF)
    row = placed.row_of_leaf[forest.child[leaf]].astype(np.int64)
    of_leaf = np.zeros(forest.n_nodes, np.int64)
    if n_rows == n_classes and n_classes <= LEAVES and forest.n_trees <= MAX_COUNTED_TREES:
        of_leaf[leaf] = row
        return LeafNumbers(of_leaf, np.zeros(forest.n_trees, np.int32), np.zeros((1, PADDED)), True)
    tree = np.searchsorted(forest.roots, leaf, side="right") - 1
    different, number = np.unique(tree * n_rows + row, return_inverse=True)
    first = np.searchsorted(different, np.arange(forest.n_trees + 1) * n_rows)
    if int(np.diff(first).max()) > LEAVES:
        return None
    of_leaf[leaf] = number.reshape(-1) - first[tree]
    votes = np.zeros((different.size, -(-n_classes // PADDED) * PADDED))
    votes[:, :n_classes] = placed.votes[different % n_rows]
    return LeafNumbers(of_leaf, first[:-1].astype(np.int32), votes, False)


def all_questions(placed: PlacedForest, ranked: RankedNodes, numbers: LeafNumbers) -> Questions | None:
    """The questions of all trees, those below before those above; None if a tree is too deep for the slots.

    The side that needs more slots is answered first, so that a tree of n leaves needs at most 1 + log2(n) of them.
    """
    forest = placed.forest
    child, is_inner = forest.child, forest.feature != LEAF
    levels = _questions_by_level(forest)
    need = np.zeros(forest.n_nodes, np.int32)  # slots that the answer of a node takes
    below = np.zeros(forest.n_nodes, np.int32)  # questions of a node and below it
    for asking in reversed(levels):
        left = child[asking]
        of_left, of_right = need[left], need[left + 1]
        need[asking] = np.where(of_left != of_right, np.maximum(of_left, of_right), of_left + 1)
        below[asking] = below[left] + below[left + 1] + 1
    n_questions = np.maximum(below[forest.roots], 1)  # a leaf alone is a question whose answers are the same
    first = np.concatenate([[0], np.cumsum(n_questions)]).astype(np.int32)
    at = np.zeros(forest.n_nodes, np.int32)
    slot = np.zeros(forest.n_nodes, np.int32)
    at[forest.roots] = first[1:] - 1
    for asking in levels:
        left = child[asking]
        left_first = need[left] >= need[left + 1]
        early, late = np.where(left_first, left, left + 1), np.where(left_first, left + 1, left)
        at[late], at[early] = at[asking] - 1, at[asking] - 1 - below[late]
        # The answer of the first stays while the second is found.
        slot[late], slot[early] = slot[asking] + is_inner[early], slot[asking]
    n_slots = int(max(1, need[forest.roots].max()))
    if n_slots > MAX_SLOTS:
        return None
    own = (LEAVES + slot * (TILE // VECTOR)).astype(np.uint32)
    place = np.where(is_inner, own | np.uint32(512), numbers.of_leaf.astype(np.uint32))
    words = np.zeros((int(first[-1]), 2), np.uint32)
    alone = forest.roots[~is_inner[forest.roots]]
    words[at[alone], 0] = 254
    words[at[alone], 1] = place[alone] | place[alone] << np.uint32(10) | np.uint32(LEAVES << 20)
    inner = np.flatnonzero(is_inner)
    node = ranked.nodes[placed.place[inner]]
    k = np.uint32(255) - (node >> np.uint32(ranked.column_bits) & np.uint32(255))
    column = node & np.uint32((1 << ranked.column_bits) - 1)
    left = child[inner]
    words[at[inner], 0] = column << np.uint32(8) | k
    words[at[inner], 1] = place[left] | place[left + 1] << np.uint32(10) | own[inner] << np.uint32(20)
    return Questions(words, first, n_slots)


def trees_for_labels(forest: Forest) -> tuple[int, float]:
    """Number of trees that are asked before pixels are left alone, and the lead beyond which their labels are certain.

    A tree that votes for one class alone changes a lead by its most votes at most. Beyond that the lead must remain
    one when probabilities are rounded to float32.
    """
    best, least = forest.votes.max(axis=1).astype(np.float64), forest.votes.min(axis=1).astype(np.float64)
    leaf = np.flatnonzero(forest.feature == LEAF)
    row = forest.child[leaf]
    first = np.searchsorted(leaf, forest.roots)
    most = np.maximum.reduceat((best - least)[row], first)
    most_in_all = np.maximum.reduceat(forest.votes.sum(axis=1, dtype=np.float64)[row], first).sum()
    to_come = np.append(np.cumsum(most[::-1])[::-1], 0.0)[1:] * (1 + ROUNDING) + (
        0.0 if (forest.votes == (best[:, None] == forest.votes)).all() else ROUNDING * most_in_all
    )
    typical = LEAST_LEAD * float(np.median(best)) * np.arange(1, forest.n_trees + 1)
    enough = np.flatnonzero(to_come <= typical)
    n = int(enough[0]) + 1 if enough.size else forest.n_trees
    return n, float(to_come[n - 1])


def _questions_by_level(forest: Forest) -> list[npt.NDArray[np.int32]]:
    """Nodes that ask, roots first."""
    levels: list[npt.NDArray[np.int32]] = []
    nodes: npt.NDArray[np.int32] = forest.roots.astype(np.int32)
    while nodes.size:
        asking = nodes[forest.feature[nodes] != LEAF]
        levels.append(asking)
        left = forest.child[asking]
        nodes = np.concatenate([left, left + 1])
    return levels
