"""Train a forest with scikit-learn on the CPU and turn its trees into :class:`~gpu_tomoclass.forest.arrays.Forest`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.forest.arrays import LEAF, Forest

CRITERIA = ("entropy", "gini")
FEW_ROWS = 50  # below this the out-of-bag error moves in steps of 2 % or more
FEW_ROWS_OF_A_CLASS = 5


@dataclass(frozen=True, eq=False)
class TrainedForest:
    """A forest and how its training went.

    Attributes
    ----------
    forest : Forest
        The columns of ``votes`` follow ``class_values``.
    class_values : tuple of int
        The label values met, ascending.
    class_counts : tuple of int
        Training rows of each.
    oob_error : float or None
        Share of rows that are misclassified by the trees that had not seen them; None if no row was ever left out.
    oob_confusion : numpy.ndarray
        (n_classes, n_classes) int64: rows of true class i that those trees call class j.
    n_never_out_of_bag : int
        Rows that every tree had seen; they are not in the two figures above.
    feature_importance : numpy.ndarray
        (n_features,) float64, share of the decrease of impurity, summing to 1 (all 0 if no tree split).
    settings : dict
        What to pass to :func:`train_forest` to get the same forest from the same rows.
    notes : tuple of str
        Sentences for the user.
    """

    forest: Forest
    class_values: tuple[int, ...]
    class_counts: tuple[int, ...]
    oob_error: float | None
    oob_confusion: npt.NDArray[np.int64]
    n_never_out_of_bag: int
    feature_importance: npt.NDArray[np.float64]
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()


def train_forest(
    values: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    *,
    n_trees: int = 200,
    max_features: int = 2,
    max_depth: int | None = None,
    min_samples_leaf: int = 1,
    criterion: str = "entropy",
    balance: bool = False,
    seed: int = 42,
    n_jobs: int | None = None,
    channels: Sequence[str] | None = None,
) -> TrainedForest:
    """Grow a random forest on labelled rows; the same rows and settings give the same arrays, whatever ``n_jobs``.

    The defaults are those of Trainable Weka Segmentation's FastRandomForest: 200 trees of unlimited depth on bootstrap
    samples, entropy, two random features tried per split and more where those two separate nothing. The trees are
    scikit-learn's, so they are not FastRandomForest's trees.

    NaN means "missing". scikit-learn learns for each split on which side missing values do better; the forest that
    is returned sends them both ways instead, as Weka does, so on rows with NaN it differs from scikit-learn's.

    Parameters
    ----------
    values : numpy.ndarray
        (n_rows, n_features) float32.
    labels : numpy.ndarray
        (n_rows,) integers 1..255; any subset of them.
    n_trees : int
    max_features : int
        Features tried per split; at most all of them.
    max_depth : int, optional
        Default unlimited.
    min_samples_leaf : int
        Smallest number of (bootstrap) rows in a leaf.
    criterion : {"entropy", "gini"}
    balance : bool
        Give every class the same total weight: a row of class c weighs n_rows / (n_classes * rows of c), in the splits
        and in the votes.
    seed : int
        0..4294967295.
    n_jobs : int, optional
        Threads; default one per usable core.
    channels : sequence of str, optional
        Names of the features, for messages.

    Raises
    ------
    DataError
        If there are no rows, fewer than two classes, labels outside 1..255, or infinite values.
    UsageError
        If a setting makes no sense.
    """
    values, labels = _checked_rows(values, labels, channels=channels)
    if criterion not in CRITERIA:
        raise UsageError(f"criterion {criterion!r} is unknown", do=f"choose one of {', '.join(CRITERIA)}")
    for name, number in (("n_trees", n_trees), ("max_features", max_features), ("min_samples_leaf", min_samples_leaf)):
        if number < 1:
            raise UsageError(f"{name} is {number}", do="give 1 or more")
    if max_depth is not None and max_depth < 1:
        raise UsageError(f"max_depth is {max_depth}", do="give 1 or more, or leave it out")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}", do="give a number from 0 to 4294967295")

    class_values, columns, counts = np.unique(labels, return_inverse=True, return_counts=True)
    classifier = RandomForestClassifier(
        n_estimators=n_trees,
        criterion=criterion,
        max_features=min(max_features, values.shape[1]),
        max_depth=max_depth,
        min_samples_leaf=min_samples_leaf,
        class_weight="balanced" if balance else None,
        bootstrap=True,
        oob_score=True,
        random_state=seed,
        n_jobs=-1 if n_jobs is None else n_jobs,
    )
    with warnings.catch_warnings():
        # Rows that are never out of bag are counted and excluded below.
        warnings.filterwarnings("ignore", message="Some inputs do not have OOB scores", category=UserWarning)
        classifier.fit(values, columns)

    error, confusion, n_never = _out_of_bag(classifier.oob_decision_function_, columns)
    return TrainedForest(
        forest=forest_from_sklearn(classifier),
        class_values=tuple(int(v) for v in class_values),
        class_counts=tuple(int(n) for n in counts),
        oob_error=error,
        oob_confusion=confusion,
        n_never_out_of_bag=n_never,
        feature_importance=classifier.feature_importances_,
        settings={
            "engine": "scikit-learn",
            "n_trees": n_trees,
            "max_features": max_features,
            "max_depth": max_depth,
            "min_samples_leaf": min_samples_leaf,
            "criterion": criterion,
            "balance": balance,
            "seed": seed,
        },
        notes=tuple(_notes(values, class_values, counts, n_never)),
    )


def forest_from_sklearn(classifier: RandomForestClassifier) -> Forest:
    """The same trees as arrays, exactly: equal leaves for every float32 value, equal votes.

    scikit-learn goes left when ``value <= t`` with a float64 ``t``. For float32 values that is ``value < s`` where
    ``s`` is the smallest float32 above ``t``. Nodes are numbered breadth first, so that siblings are neighbours.

    Parameters
    ----------
    classifier : sklearn.ensemble.RandomForestClassifier
        Fitted, one output.
    """
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("feature", "threshold", "child", "left_fraction", "votes")
    }
    roots = []
    n_nodes = n_leaves = 0
    for estimator in classifier.estimators_:
        tree = estimator.tree_
        order, left = _breadth_first(tree.children_left, tree.children_right)
        is_leaf = left == LEAF
        n_tree_leaves = int(is_leaf.sum())
        child = left + n_nodes
        child[is_leaf] = n_leaves + np.arange(n_tree_leaves)
        weight = tree.weighted_n_node_samples
        fraction = np.zeros(order.size)
        split = order[~is_leaf]
        fraction[~is_leaf] = weight[tree.children_left[split]] / weight[split]
        parts["feature"].append(np.where(is_leaf, LEAF, tree.feature[order]).astype(np.int32))
        parts["threshold"].append(np.where(is_leaf, np.float32(0), _smallest_above(tree.threshold[order])))
        parts["child"].append(child.astype(np.int32))
        parts["left_fraction"].append(fraction.astype(np.float32))
        parts["votes"].append(tree.value[order[is_leaf], 0, :])
        roots.append(n_nodes)
        n_nodes += order.size
        n_leaves += n_tree_leaves
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    # Grown to purity, nearly all votes are 0 or 1: half the bytes hold them as well.
    votes = arrays["votes"].astype(np.float32)
    if np.array_equal(votes, arrays["votes"]):
        arrays["votes"] = votes
    return Forest(**arrays, roots=np.array(roots, dtype=np.int64), n_features=classifier.n_features_in_)


def _breadth_first(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def _smallest_above(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The smallest float32 that is larger than each t; the largest float32 where there is none."""
    with np.errstate(over="ignore"):
        s = t.astype(np.float32)
    s = np.where(s > t, s, np.nextafter(s, np.float32(np.inf)))
    # scikit-learn splits "missing" from "present" at t = inf; all values but the largest float32 itself stay left.
    return np.minimum(s, np.finfo(np.float32).max)


def _out_of_bag(votes: np.ndarray, columns: np.ndarray) -> tuple[float | None, npt.NDArray[np.int64], int]:
    """Error, confusion matrix, and number of rows without any out-of-bag vote."""
    n_classes = votes.shape[1]
    judged = votes.sum(axis=1) > 0
    truth, called = columns[judged], votes[judged].argmax(axis=1)
    confusion = np.bincount(truth * n_classes + called, minlength=n_classes**2).reshape(n_classes, n_classes)
    error = float((truth != called).mean()) if truth.size else None
    return error, confusion, int((~judged).sum())


def _checked_rows(
    values: np.ndarray, labels: np.ndarray, *, channels: Sequence[str] | None
) -> tuple[npt.NDArray[np.float32], np.ndarray]:
    values, labels = np.asarray(values), np.asarray(labels)
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise DataError(f"values {values.shape} and labels {labels.shape} are not (rows, features) and (rows,)")
    if values.size == 0:
        raise DataError(f"there is nothing to train on: {values.shape[0]} rows of {values.shape[1]} features")
    with np.errstate(over="ignore"):  # what overflows is infinite and refused just below
        values = np.ascontiguousarray(values, dtype=np.float32)
    infinite = np.isinf(values)
    if infinite.any():
        columns = np.flatnonzero(infinite.any(axis=0))
        names = [str(c) if channels is None else channels[c] for c in columns[:5]]
        more = f" and {columns.size - 5} more" if columns.size > 5 else ""
        n = int(infinite.any(axis=1).sum())
        raise DataError(
            f"{n} of {values.shape[0]} training rows have infinite values, in the channels {', '.join(names)}{more}",
            do="look for extreme voxels under the strokes, or leave these channels out",
        )
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels are {labels.dtype}, not integers")
    if labels.min() < 1 or labels.max() > 255:
        raise DataError(f"labels reach from {labels.min()} to {labels.max()}, not 1 to 255")
    if labels.min() == labels.max():
        raise DataError(
            f"all {labels.size} training rows are of class {labels.min()}", do="mark at least one other class"
        )
    return values, labels


def _notes(values: np.ndarray, class_values: np.ndarray, counts: np.ndarray, n_never: int) -> list[str]:
    notes = []
    n = values.shape[0]
    if n < FEW_ROWS:
        notes.append(f"only {n} training pixels: the out-of-bag error is a rough guess")
    for value, count in zip(class_values, counts, strict=True):
        if count < FEW_ROWS_OF_A_CLASS:
            notes.append(f"class {value} has only {count} training pixel{'s' if count > 1 else ''}")
    if n_never:
        notes.append(f"{n_never} of {n} training pixels were never out of bag and are not in the out-of-bag error")
    n_missing = int(np.isnan(values).any(axis=1).sum())
    if n_missing:
        notes.append(f"{n_missing} of {n} training pixels have missing values, which go both ways at a split")
    return notes
