"""A random forest as plain arrays, checked once at construction so that no walk through it can loop or leave it.

Nodes of a tree are contiguous, the root first. Node ``i`` is a leaf where ``feature[i] == -1``; then ``child[i]`` is
its row in ``votes``. Otherwise a pixel goes to node ``child[i]`` when ``value < threshold[i]`` and to ``child[i] + 1``
when not; a missing value (NaN) goes both ways, with the weights ``left_fraction[i]`` and ``1 - left_fraction[i]`` (the
rule of Weka's FastRandomForest). The probability of a class is its sum of votes over the trees, divided by the sum
over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import ModelError, UsageError

LEAF = -1
# Beyond these a sum over trees could overflow, or vanish, in float64.
MAX_VOTE = float(np.finfo(np.float32).max)
MIN_VOTE_SUM = float(np.finfo(np.float32).tiny)

# Per array: accepted dtypes, number of axes, and what the first axis counts.
FIELDS: dict[str, tuple[tuple[str, ...], int]] = {
    "feature": (("int32",), 1),
    "threshold": (("float32",), 1),
    "child": (("int32",), 1),
    "left_fraction": (("float32",), 1),
    "votes": (("float32", "float64"), 2),
    "roots": (("int64",), 1),
}
NODE_FIELDS = ("feature", "threshold", "child", "left_fraction")


@dataclass(frozen=True, eq=False)
class Forest:
    """A forest; the arrays are read-only views of what was given.

    Attributes
    ----------
    feature : numpy.ndarray
        (n_nodes,) int32: the feature that the node asks about, -1 for a leaf.
    threshold : numpy.ndarray
        (n_nodes,) float32, finite; 0 for leaves.
    child : numpy.ndarray
        (n_nodes,) int32: the left child (the right one follows it), or the leaf's row in ``votes``.
    left_fraction : numpy.ndarray
        (n_nodes,) float32, 0..1: share of the training weight that went left.
    votes : numpy.ndarray
        (n_leaves, n_classes) float32 or float64, >= 0, no row without votes.
    roots : numpy.ndarray
        (n_trees,) int64: the first node of each tree, ascending from 0.
    n_features : int
        Features that a pixel must bring.

    Raises
    ------
    ModelError
        Naming array, index and value, if the arrays are not a forest.
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    child: npt.NDArray[np.int32]
    left_fraction: npt.NDArray[np.float32]
    votes: npt.NDArray[Any]
    roots: npt.NDArray[np.int64]
    n_features: int

    def __post_init__(self) -> None:
        for name in FIELDS:
            array = np.ascontiguousarray(getattr(self, name)).view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self.validate()

    @property
    def n_nodes(self) -> int:
        """Nodes of all trees, leaves included."""
        return self.feature.shape[0]

    @property
    def n_trees(self) -> int:
        return self.roots.shape[0]

    @property
    def n_leaves(self) -> int:
        return self.votes.shape[0]

    @property
    def n_classes(self) -> int:
        return self.votes.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in FIELDS)

    @property
    def depth(self) -> int:
        """The largest number of questions between a root and a leaf."""
        level, nodes = -1, self.roots
        while nodes.size:
            level += 1
            left = self.child[nodes[self.feature[nodes] != LEAF]].astype(np.int64)
            nodes = np.concatenate([left, left + 1])
        return level

    def question_shares(self) -> npt.NDArray[np.float64]:
        """By how much of the training weight of its tree each node is asked, (n_nodes,); a root 1, a leaf 0."""
        share = np.zeros(self.n_nodes)
        share[self.roots] = 1.0
        level = self.roots
        while level.size:
            asking = level[self.feature[level] != LEAF]
            left = self.child[asking].astype(np.int64)
            share[left] = share[asking] * self.left_fraction[asking]
            share[left + 1] = share[asking] - share[left]
            level = np.concatenate([left, left + 1])
        share[self.feature == LEAF] = 0.0
        return share

    def used_features(self) -> npt.NDArray[np.int64]:
        """The features that some node asks about, ascending, (n_used,) int64."""
        asked = np.zeros(self.n_features, dtype=bool)
        asked[self.feature[self.feature != LEAF]] = True
        return np.flatnonzero(asked)

    def restricted(self, columns: npt.ArrayLike) -> Forest:
        """The same forest for pixels that bring only some of the features.

        Parameters
        ----------
        columns : array of int
            (n_columns,) the features brought, in the order in which they are brought; all used ones among them.

        Raises
        ------
        UsageError
            If a column is no feature, comes twice, or a used feature is missing.
        """
        kept = np.asarray(columns, dtype=np.int64)
        if kept.ndim != 1 or np.unique(kept).size != kept.size:
            raise UsageError(f"columns must be a list of different features, not {kept.tolist()}")
        if kept.size and not (kept.min() >= 0 and kept.max() < self.n_features):
            raise UsageError(
                f"columns reach from {kept.min()} to {kept.max()}, the forest has {self.n_features} features"
            )
        row = np.full(self.n_features, LEAF, dtype=np.int32)
        row[kept] = np.arange(kept.size, dtype=np.int32)
        missing = [int(f) for f in self.used_features() if row[f] == LEAF]
        if missing:
            raise UsageError(f"the forest uses features that the columns leave out: {_some(missing)}")
        feature = np.where(self.feature == LEAF, np.int32(LEAF), row[self.feature] if self.n_features else self.feature)
        return Forest(feature, self.threshold, self.child, self.left_fraction, self.votes, self.roots, kept.size)

    def validate(self) -> None:
        """Check everything that prediction relies on; called at construction.

        Raises
        ------
        ModelError
            Naming array, index and value.
        """
        self._check_shapes()
        self._check_values()
        self._check_structure()

    def _check_shapes(self) -> None:
        for name, (dtypes, n_axes) in FIELDS.items():
            array = getattr(self, name)
            if array.dtype not in dtypes:  # numpy compares a dtype with its name
                _refuse(f"{name} is {array.dtype}, not {' or '.join(dtypes)}")
            if array.ndim != n_axes:
                _refuse(f"{name} has {array.ndim} axes, not {n_axes}")
        for name in NODE_FIELDS:
            n = getattr(self, name).shape[0]
            if n != self.n_nodes:
                _refuse(f"{name} has {n} nodes, feature has {self.n_nodes}")
        if not 0 < self.n_nodes < 2**31:
            _refuse(f"there are {self.n_nodes} nodes, not 1 to 2147483647")
        if self.n_trees < 1:
            _refuse("there is no tree")
        if self.n_classes < 2:
            _refuse(f"votes are for {self.n_classes} classes, and a forest has at least 2")
        if self.n_features < 0:
            _refuse(f"n_features is {self.n_features}")

    def _check_values(self) -> None:
        _require(np.isfinite(self.threshold), "threshold", self.threshold, "must be finite")
        fraction = self.left_fraction
        _require((fraction >= 0) & (fraction <= 1), "left_fraction", fraction, "must be within 0..1")
        in_range = (self.feature >= LEAF) & (self.feature < self.n_features)
        _require(in_range, "feature", self.feature, f"must be -1 (leaf) or below {self.n_features}")
        votes = self.votes
        _require((votes >= 0) & (votes <= MAX_VOTE), "votes", votes, "must be finite and not negative")
        total = votes.sum(axis=1, dtype=np.float64)
        _require(total >= MIN_VOTE_SUM, "votes", total, "a leaf must vote for something")

    def _check_structure(self) -> None:
        """Every node but the roots has exactly one parent, before it and in its own tree; so the trees are trees."""
        roots = self.roots
        _require((roots >= 0) & (roots < self.n_nodes), "roots", roots, f"must be within 0..{self.n_nodes - 1}")
        _require(np.diff(roots, prepend=-1) > 0, "roots", roots, "must be ascending")
        if roots[0] != 0:
            _refuse(f"roots[0] is {roots[0]}; the first tree begins at node 0")
        is_leaf = self.feature == LEAF

        parent = np.flatnonzero(~is_leaf)
        left = self.child[parent].astype(np.int64)
        end = np.repeat(np.append(roots[1:], self.n_nodes), np.diff(roots, append=self.n_nodes))[parent]
        _require(left > parent, "child", left, "must come after its parent", index=parent)
        _require(left + 1 < end, "child", left, "must stay in its tree", index=parent)
        n_parents = np.bincount(left, minlength=self.n_nodes)
        n_parents[1:] += n_parents[:-1].copy()  # the right child has the same parent
        n_parents[roots] += 1  # a root counts as reached, so that 1 is right for every node
        _require(n_parents == 1, "number of ways to node", n_parents, "must be 1")

        leaf = np.flatnonzero(is_leaf)
        row = self.child[leaf].astype(np.int64)
        _require((row >= 0) & (row < self.n_leaves), "child", row, f"votes has {self.n_leaves} rows", index=leaf)
        n_uses = np.bincount(row, minlength=self.n_leaves)
        _require(n_uses == 1, "number of leaves of votes", n_uses, "a row of votes must belong to one leaf")


def breadth_first(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Old node numbers in breadth-first order, and for each the new number of its left child (-1 for a leaf)."""
    levels, children = [np.zeros(1, dtype=np.int64)], []
    n_numbered = 1
    while levels[-1].size:
        level = levels[-1]
        split = left[level] != LEAF
        inner = level[split]
        new = np.full(level.size, LEAF, dtype=np.int64)
        new[split] = n_numbered + 2 * np.arange(inner.size)
        children.append(new)
        levels.append(np.stack([left[inner], right[inner]], axis=1).ravel())
        n_numbered += levels[-1].size
    return np.concatenate(levels), np.concatenate(children)


def smallest_above(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The smallest float32 that is larger than each t; the largest float32 where there is none."""
    with np.errstate(over="ignore"):
        s = t.astype(np.float32)
    s = np.where(s > t, s, np.nextafter(s, np.float32(np.inf)))
    # scikit-learn splits "missing" from "present" at t = inf; all values but the largest float32 itself stay left.
    return np.minimum(s, np.finfo(np.float32).max)


def thresholds_of_flushed(thresholds: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Thresholds for which ``value < threshold`` is what it was if the value's denormals had been zeros.

    GPUs count denormal numbers, those nearer to 0 than the smallest normal float32, as zeros, of features and of
    thresholds; compared with these thresholds they are zeros everywhere. scikit-learn's ``value <= 0`` is one that
    would else ask for "less than the smallest denormal", which a GPU takes for "less than 0". The one denormal in the
    result stands for "not even a denormal below 0", and its own flushed value, 0, says the same to a GPU.
    """
    tiny = np.finfo(np.float32).tiny
    below = np.nextafter(-tiny, np.float32(0))
    raised = np.where((thresholds > 0) & (thresholds < tiny), tiny, thresholds)
    return np.where((raised <= 0) & (raised > -tiny), below, raised)


def _require(
    good: npt.NDArray[np.bool_], field: str, values: np.ndarray, rule: str, *, index: np.ndarray | None = None
) -> None:
    """ModelError for the first value that is not good; ``index`` gives the node of each value."""
    if good.all():
        return
    at = tuple(int(i[0]) for i in np.nonzero(~good))
    named = at if index is None else (int(index[at[0]]),)
    _refuse(f"{field}[{', '.join(map(str, named))}] is {values[at]}: {rule}")


def _refuse(what: str) -> NoReturn:
    raise ModelError(f"the forest is not valid: {what}")


def _some(items: Sequence[int], *, limit: int = 10) -> str:
    return ", ".join(map(str, items[:limit])) + (", .." if len(items) > limit else "")
