"""The trees of a FastRandomForest in a Java stream: millions of nodes, read as arrays.

Every node is an object of one class, so in the stream it is one of two records of fixed size, a question or a leaf, and
a tree is its records in preorder. Where nodes look like this they are read with NumPy; the few others (the first ones
of a file, which also describe classes) come from the general reader as objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.forest import LEAF, Forest, smallest_float32_not_below
from gpu_tomoclass.model.fiji.java_stream import (
    PRIMITIVES,
    SC_WRITE_METHOD,
    TC_ARRAY,
    TC_NULL,
    TC_OBJECT,
    TC_REFERENCE,
    JavaClass,
    JavaObject,
    JavaReader,
)

TREE_CLASS = "hr.irb.fastRandomForest.FastRandomTree"
MAX_CLASSES = 255
NODES_AT_ONCE = 1 << 15
MAX_MISFITS = 50  # a file of which so many nodes have another form is read in the general way


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes in preorder: a parent, its left subtree, its right subtree.

    Attributes
    ----------
    attribute : numpy.ndarray
        (n,) int32: what the node asks about, -1 for a leaf.
    split : numpy.ndarray
        (n,) float64: values below it go left.
    left_share : numpy.ndarray
        (n,) float64; 0 for leaves.
    votes : numpy.ndarray
        (n_leaves, n_classes) float64.
    """

    attribute: npt.NDArray[np.int32]
    split: npt.NDArray[np.float64]
    left_share: npt.NDArray[np.float64]
    votes: npt.NDArray[np.float64]


def joined(parts: Sequence[Nodes]) -> Nodes:
    """One after the other."""
    return Nodes(
        np.concatenate([p.attribute for p in parts]),
        np.concatenate([p.split for p in parts]),
        np.concatenate([p.left_share for p in parts]),
        np.concatenate([p.votes for p in parts]),
    )


# --- records of the stream -------------------------------------------------------------------------------------------


class _Record:
    """One kind of record: its layout, and the values that it must hold to be of this kind."""

    def __init__(self, java_class: JavaClass, arrays: dict[str, tuple[JavaClass, int] | None]) -> None:
        parts: list[tuple[Any, ...]] = []
        self.expected: dict[str, int] = {}
        self._add(parts, "tag", "u1", TC_OBJECT)
        self._add(parts, "class tag", "u1", TC_REFERENCE)
        self._add(parts, "class", ">i4", java_class.handle)
        for one in java_class.lineage():
            for code, name in one.fields:
                if code in PRIMITIVES:
                    parts.append((name, PRIMITIVES[code]))
                elif name not in arrays:  # the forest it belongs to, and settings that all nodes share
                    self._add(parts, f"{name} tag", "u1", TC_REFERENCE)
                    parts.append((f"{name} handle", ">i4"))
                elif (array := arrays[name]) is None:
                    self._add(parts, f"{name} tag", "u1", TC_NULL)
                else:
                    self._add(parts, f"{name} tag", "u1", TC_ARRAY)
                    self._add(parts, f"{name} class tag", "u1", TC_REFERENCE)
                    self._add(parts, f"{name} class", ">i4", array[0].handle)
                    self._add(parts, f"{name} length", ">i4", array[1])
                    if array[0].name == "[D":
                        parts.append((name, ">f8", (array[1],)))
        self.dtype = np.dtype(parts)
        self.size = self.dtype.itemsize

    def _add(self, parts: list[tuple[Any, ...]], name: str, dtype: str, value: int) -> None:
        parts.append((name, dtype))
        self.expected[name] = value

    def offset(self, name: str) -> int:
        assert self.dtype.fields is not None
        return self.dtype.fields[name][1]

    def at(self, buffer: npt.NDArray[np.uint8], positions: npt.NDArray[np.int64]) -> np.ndarray:
        """The records that begin at these bytes."""
        return buffer[positions[:, np.newaxis] + np.arange(self.size)].view(self.dtype)[:, 0]

    def fit(self, records: np.ndarray) -> npt.NDArray[np.bool_]:
        good = np.ones(records.size, dtype=bool)
        for name, value in self.expected.items():
            good &= records[name] == value
        return good


class TreeShortcut:
    """A shortcut of :class:`~gpu_tomoclass.model.fiji.java_stream.JavaReader` that reads whole subtrees as
    :class:`Nodes`."""

    def __init__(self) -> None:
        self._records: dict[tuple[int, int, int, int], tuple[_Record, _Record] | None] = {}
        self._buffer = np.empty(0, dtype=np.uint8)
        # The last node of another form. All subtrees that begin before it contain it and are not tried again.
        self._misfit_at = -1
        self._n_misfits = 0

    def __call__(self, reader: JavaReader, java_class: JavaClass) -> Nodes | None:
        if java_class.name != TREE_CLASS or reader.position <= self._misfit_at or self._n_misfits >= MAX_MISFITS:
            return None
        kinds = self._kinds(reader, java_class)
        if kinds is None:
            return None
        if not self._buffer.size:
            self._buffer = np.frombuffer(reader.data, dtype=np.uint8)
        parts: list[Nodes] = []
        position, missing, n_questions, n_leaves = reader.position, 1, 0, 0
        while missing:
            at, is_leaf, position, missing, cut = _walk(reader.data, position, missing, kinds)
            part = self._nodes(at, is_leaf, kinds)
            if part is None:
                return None
            if cut:
                reader.refuse_end()
            parts.append(part)
            n_leaves += int(is_leaf.sum())
            n_questions += int((~is_leaf).sum())
        # A question is an object and two arrays (shares, successors), a leaf an object and one array (votes).
        reader.skip(position - reader.position, n_handles=3 * n_questions + 2 * n_leaves)
        return joined(parts)

    def _kinds(self, reader: JavaReader, java_class: JavaClass) -> tuple[_Record, _Record] | None:
        """Types of questions and leaves from here on; None if that cannot be told yet."""
        numbers, trees = reader.classes.get("[D"), reader.classes.get(f"[L{TREE_CLASS};")
        if numbers is None or trees is None:
            return None
        kinds = self._of(java_class, numbers, trees, n_classes=1)
        if kinds is None:
            return None
        # Only a leaf tells how many classes there are; in preorder the first one comes before any right child.
        question, leaf = kinds
        position = reader.position
        kind_at, length_at = leaf.offset("m_ClassProbs tag"), leaf.offset("m_ClassProbs length")
        while reader.data[position + kind_at : position + kind_at + 1] == bytes([TC_NULL]):
            position += question.size
        n_classes = int.from_bytes(reader.data[position + length_at : position + length_at + 4], "big")
        if not 1 <= n_classes <= MAX_CLASSES:
            self._misfit(position)
            return None
        return self._of(java_class, numbers, trees, n_classes=n_classes)

    def _of(
        self, java_class: JavaClass, numbers: JavaClass, trees: JavaClass, *, n_classes: int
    ) -> tuple[_Record, _Record] | None:
        key = (java_class.handle, numbers.handle, trees.handle, n_classes)
        if key not in self._records:
            self._records[key] = _both(java_class, numbers, trees, n_classes=n_classes)
        return self._records[key]

    def _misfit(self, position: int) -> None:
        self._misfit_at = position
        self._n_misfits += 1

    def _nodes(
        self, at: npt.NDArray[np.int64], is_leaf: npt.NDArray[np.bool_], kinds: tuple[_Record, _Record]
    ) -> Nodes | None:
        """The nodes that begin at these bytes, or None, having noted the first that has another form."""
        question, leaf = kinds
        questions, leaves = question.at(self._buffer, at[~is_leaf]), leaf.at(self._buffer, at[is_leaf])
        good = np.empty(at.size, dtype=bool)
        good[~is_leaf] = question.fit(questions) & (questions["m_Attribute"] >= 0)
        good[is_leaf] = leaf.fit(leaves) & (leaves["m_Attribute"] == LEAF)
        if not good.all():
            self._misfit(int(at[good.argmin()]))
            return None
        attribute = np.full(at.size, LEAF, dtype=np.int32)
        split, left_share = np.zeros(at.size), np.zeros(at.size)
        attribute[~is_leaf] = questions["m_Attribute"]
        split[~is_leaf] = questions["m_SplitPoint"]
        left_share[~is_leaf] = questions["m_Prop"][:, 0]
        return Nodes(attribute, split, left_share, leaves["m_ClassProbs"].astype(np.float64))


def _both(
    java_class: JavaClass, numbers: JavaClass, trees: JavaClass, *, n_classes: int
) -> tuple[_Record, _Record] | None:
    """The records of questions and leaves; None if the class is not stored in the way that this module knows."""
    lineage = java_class.lineage()
    names = [name for one in lineage for _, name in one.fields]
    arrays = [name for name in names if name in ("m_ClassProbs", "m_Prop", "m_Successors")]
    if (
        any(one.flags & SC_WRITE_METHOD for one in lineage)
        or arrays != ["m_ClassProbs", "m_Prop", "m_Successors"]
        or names[-1] != "m_Successors"
        or {("I", "m_Attribute"), ("D", "m_SplitPoint")} - set(lineage[-1].fields)
        or len(set(names)) != len(names)
    ):
        return None
    question = _Record(java_class, {"m_ClassProbs": None, "m_Prop": (numbers, 2), "m_Successors": (trees, 2)})
    leaf = _Record(java_class, {"m_ClassProbs": (numbers, n_classes), "m_Prop": None, "m_Successors": None})
    return question, leaf


def _walk(
    data: bytes, position: int, missing: int, kinds: tuple[_Record, _Record]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], int, int, bool]:
    """Where the next nodes begin and which are leaves, as long as ``missing`` ones are announced by a parent.

    Returns also the byte behind them, the number still missing, and whether the data end before that.
    """
    question, leaf = kinds
    sizes = (question.size, leaf.size)
    kind_at = leaf.offset("m_ClassProbs tag")
    end = len(data)
    at: list[int] = []
    is_leaf: list[bool] = []
    while missing and len(at) < NODES_AT_ONCE:
        ends_here = position + kind_at < end and data[position + kind_at] != TC_NULL
        after = position + sizes[ends_here]
        if after > end:
            return np.array(at, dtype=np.int64), np.array(is_leaf, dtype=bool), position, missing, True
        at.append(position)
        is_leaf.append(ends_here)
        position = after
        missing += -1 if ends_here else 1
    return np.array(at, dtype=np.int64), np.array(is_leaf, dtype=bool), position, missing, False


# --- from nodes to a forest ------------------------------------------------------------------------------------------


def forest_of(trees: Sequence[Any], *, n_features: int, n_classes: int) -> Forest:
    """The trees, as the reader gave them, in the arrays of :class:`~gpu_tomoclass.forest.arrays.Forest`.

    Nothing is rounded: a threshold is the smallest float32 that is not below Weka's split point, which for float32
    values is the same question. In each tree the children of a node get the next two free numbers, in preorder.

    Raises
    ------
    ModelError
        If something is no tree, is used twice, or asks about a feature that there is not.
    """
    parts: list[Nodes] = []
    n_nodes = np.zeros(len(trees), dtype=np.int64)
    seen: set[int] = set()
    for i, tree in enumerate(trees):
        of_tree = _preorder(tree, n_classes=n_classes, tree=i, seen=seen)
        n_nodes[i] = sum(part.attribute.size for part in of_tree)
        parts.extend(of_tree)
    nodes = joined(parts)
    return _forest(nodes, n_nodes, n_features=n_features)


def _preorder(root: Any, *, n_classes: int, tree: int, seen: set[int]) -> list[Nodes]:
    parts: list[Nodes] = []
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            _refuse(tree, "a node has two parents")
        if isinstance(node, Nodes):
            seen.add(id(node))
            if node.votes.shape[1] != n_classes:
                _refuse(tree, f"a leaf votes for {node.votes.shape[1]} classes, not {n_classes}")
            parts.append(node)
            continue
        if not (isinstance(node, JavaObject) and node.name == TREE_CLASS):
            _refuse(tree, f"a node is {_kind(node)}, not {TREE_CLASS}")
        seen.add(id(node))
        get = node.fields.get
        attribute, split, votes, share, successors = map(
            get, ("m_Attribute", "m_SplitPoint", "m_ClassProbs", "m_Prop", "m_Successors")
        )
        if attribute == LEAF:
            if not _is_numbers(votes, n_classes):
                _refuse(tree, f"a leaf does not hold {n_classes} votes")
            parts.append(Nodes(np.array([LEAF], np.int32), np.zeros(1), np.zeros(1), votes[np.newaxis]))
        else:
            if type(attribute) is not int or not isinstance(split, float):
                _refuse(tree, f"a node lacks the attribute or the split point ({attribute!r:.20}, {split!r:.20})")
            if not _is_numbers(share, 2) or not (isinstance(successors, list) and len(successors) == 2):
                _refuse(tree, "a node that asks does not have two successors and their shares")
            asks = Nodes(np.array([attribute], np.int32), np.array([split]), share[:1], np.empty((0, n_classes)))
            parts.append(asks)
            stack.extend(successors[::-1])
    return parts


def _is_numbers(value: Any, n: int) -> TypeGuard[npt.NDArray[np.float64]]:
    return isinstance(value, np.ndarray) and value.dtype == np.float64 and value.shape == (n,)


def _kind(value: Any) -> str:
    return f"of the class {value.name:.80}" if isinstance(value, JavaObject) else type(value).__name__


def _forest(nodes: Nodes, n_nodes: npt.NDArray[np.int64], *, n_features: int) -> Forest:
    is_leaf = nodes.attribute == LEAF
    tree = np.repeat(np.arange(n_nodes.size), n_nodes)
    roots = np.concatenate([[0], np.cumsum(n_nodes)[:-1]])
    questions = np.flatnonzero(~is_leaf)
    bad = questions[np.isnan(nodes.split[questions])]
    if bad.size:
        _refuse(int(tree[bad[0]]), "a split point is not a number")
    # New numbers: the k-th question of a tree, in preorder, has the children 1 + 2k and 2 + 2k.
    before = np.cumsum(~is_leaf) - ~is_leaf  # questions before this node, of all trees
    left = roots[tree] + 1 + 2 * (before - before[roots][tree])
    number = roots[tree]  # number of every node; those of the roots are right already
    number[questions + 1] = left[questions]
    right = _right_children(is_leaf, tree)
    number[right] = left[questions] + 1

    feature = np.full(is_leaf.size, LEAF, dtype=np.int32)
    threshold, fraction = np.zeros(is_leaf.size, np.float32), np.zeros(is_leaf.size, np.float32)
    child = np.empty(is_leaf.size, dtype=np.int64)
    at = number[questions]
    feature[at] = nodes.attribute[questions]
    threshold[at] = smallest_float32_not_below(nodes.split[questions])
    with np.errstate(over="ignore"):  # Forest refuses what is not within 0..1
        fraction[at] = nodes.left_share[questions].astype(np.float32)
    child[at] = left[questions]
    leaves = number[is_leaf]
    order = np.argsort(leaves)
    child[leaves[order]] = np.arange(leaves.size)
    return Forest(
        feature=feature,
        threshold=threshold,
        child=child.astype(np.int32),
        left_fraction=fraction,
        votes=nodes.votes[order],
        roots=roots,
        n_features=n_features,
    )


def _right_children(is_leaf: npt.NDArray[np.bool_], tree: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The right child of each question; all in preorder.

    Count +1 for a question and -1 for a leaf. The left subtree of a question ends at the first leaf behind it at which
    the count is one less than at the question; the right child follows. Questions and such leaves of one level
    alternate. The last leaf of a tree ends no left subtree; it alone has level 0.
    """
    count = np.cumsum(np.where(is_leaf, -1, 1)) + tree  # every tree ends one below where it began
    level = count + is_leaf
    order = np.argsort(level, kind="stable")
    order = order[level[order] > 0]
    question, last = order[0::2], order[1::2]
    return last[np.argsort(question)] + 1


def _refuse(tree: int, what: str) -> NoReturn:
    raise ModelError(f"tree {tree} of the Fiji classifier is not valid: {what}")
