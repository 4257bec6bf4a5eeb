"""Arguments and results of every way of growing a forest: checked rows, checked settings, a forest with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.forest.arrays import Forest

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
        The engine and what to pass to it to get the same forest from the same rows.
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


def check_settings(
    *, n_trees: int, max_features: int, max_depth: int | None, min_samples_leaf: int, criterion: str, seed: int
) -> None:
    """Raise a UsageError for a setting that makes no sense."""
    if criterion not in CRITERIA:
        raise UsageError(f"criterion {criterion!r} is unknown", do=f"choose one of {', '.join(CRITERIA)}")
    for name, number in (("n_trees", n_trees), ("max_features", max_features), ("min_samples_leaf", min_samples_leaf)):
        if number < 1:
            raise UsageError(f"{name} is {number}", do="give 1 or more")
    if max_depth is not None and max_depth < 1:
        raise UsageError(f"max_depth is {max_depth}", do="give 1 or more, or leave it out")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed}", do="give a number from 0 to 4294967295")


def out_of_bag(votes: np.ndarray, columns: np.ndarray) -> tuple[float | None, npt.NDArray[np.int64], int]:
    """Error, confusion matrix, and number of rows without any out-of-bag vote."""
    n_classes = votes.shape[1]
    judged = votes.sum(axis=1) > 0
    truth, called = columns[judged], votes[judged].argmax(axis=1)
    confusion = np.bincount(truth * n_classes + called, minlength=n_classes**2).reshape(n_classes, n_classes)
    error = float((truth != called).mean()) if truth.size else None
    return error, confusion, int((~judged).sum())


def checked_rows(
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


def training_notes(values: np.ndarray, class_values: np.ndarray, counts: np.ndarray, n_never: int) -> list[str]:
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
