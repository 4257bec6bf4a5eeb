"""Cross-validation that keeps strokes together: how good a forest is on pixels that it has not seen.

Neighbouring pixels of a stroke have nearly the same features. A forest that has seen a half of a stroke knows the
other half, so splitting pixels at random (as the out-of-bag error does) flatters it. Here whole groups are held out:
connected strokes, planes, or volumes; see docs/quality.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.forest import DeviceForest, Forest, grow_forest, predict_classes, predict_probabilities
from gpu_tomoclass.labels import Confusion
from gpu_tomoclass.training.rows import GROUPINGS, TrainingRows
from gpu_tomoclass.types import Progress

FOLDS = 5  # unless given, or as many as there are groups
PERMUTATIONS = 3  # per family and fold; the mean of their losses is the importance

Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]  # rows to grow on, rows held out


@dataclass(frozen=True)
class CrossValidation:
    """Result of a cross-validation: what held-out rows say about forests of these settings.

    Attributes
    ----------
    grouping : {"stroke", "plane", "volume"}
        What was kept together.
    n_groups, n_folds : int
    confusion : Confusion
        Of all held-out rows, each once; precision, recall and Dice are read from it.
    fold_accuracy : list of float
        Share of right rows in each fold.
    predicted : numpy.ndarray
        (n_rows,) uint8: the class of each row by the forest that had not seen its group.
    oob_error : float or None
        Of a forest grown on all rows; usually too good, because strokes are not kept together.
    importance : dict
        Per family how much the accuracy on held-out rows falls when all channels of the family are permuted among
        these rows, largest first; empty if it was not asked for.
    notes : list of str
    """

    grouping: str
    n_groups: int
    n_folds: int
    confusion: Confusion
    fold_accuracy: Sequence[float]
    predicted: npt.NDArray[np.uint8]
    oob_error: float | None
    importance: dict[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "grouping": self.grouping,
            "groups": self.n_groups,
            "folds": self.n_folds,
            "fold_accuracy": list(self.fold_accuracy),
            "oob_error": self.oob_error,
            "importance": dict(self.importance),
            "notes": list(self.notes),
            **self.confusion.to_dict(),
        }


def cross_validate(
    rows: TrainingRows,
    *,
    grouping: str = "stroke",
    n_folds: int | None = None,
    importance: bool = False,
    device: Device | str = "auto",
    seed: int = 42,
    progress: Progress | None = None,
    **forest_options: Any,
) -> CrossValidation:
    """Hold out each group once, grow a forest on the others, and see what it makes of the group.

    Parameters
    ----------
    rows : TrainingRows
    grouping : {"stroke", "plane", "volume"}
    n_folds : int, optional
        Groups are dealt to so many folds (5, or as many as there are groups), such that the
        folds resemble each other in their classes.
    importance : bool
        Also measure the importance of each family.
    device : str or Device
        Where rows are predicted; ``"auto"`` is the first that works. Forests are grown on the CPU unless the
        engine is cuml.
    seed : int
        Of the folds, the forests and the permutations.
    progress : callable, optional
        Called with (forests done, forests in all).
    **forest_options
        Of :func:`gpu_tomoclass.forest.grow.grow_forest`.

    Raises
    ------
    DataError
        If there are too few groups, or a class is marked in one fold only.
    UsageError
        If the grouping is unknown or there are fewer than two folds.
    """
    device = choose_device(device)
    groups = rows.groups(checked_grouping(grouping))
    folds = make_folds(rows, groups, grouping=grouping, n_folds=n_folds, seed=seed)
    classes = marked_classes(rows)
    families = family_channels(rows.bank)
    predicted = np.zeros(len(rows.labels), dtype=np.uint8)
    lost = dict.fromkeys(families, 0.0)
    fold_accuracy = []
    for done, (seen, held_out) in enumerate(folds):
        if progress is not None:
            progress(done, len(folds) + 1)
        trained = grow_forest(rows.values[seen], rows.labels[seen], seed=seed, **forest_options)
        predict = class_predictor(trained.forest, trained.class_values, device=device)
        features = np.ascontiguousarray(rows.values[held_out].T)
        predicted[held_out] = predict(features)
        right = int((predicted[held_out] == rows.labels[held_out]).sum())
        fold_accuracy.append(right / held_out.size)
        if importance:
            for family, n_right in _permuted(features, rows.labels[held_out], families, predict=predict, seed=seed):
                lost[family] += right - n_right
    if progress is not None:
        progress(len(folds), len(folds) + 1)
    whole = grow_forest(rows.values, rows.labels, seed=seed, **forest_options)
    if progress is not None:
        progress(len(folds) + 1, len(folds) + 1)
    confusion = Confusion(classes)
    confusion.update(rows.labels, predicted)
    of_family = {family: n / len(rows.labels) for family, n in lost.items()} if importance else {}
    return CrossValidation(
        grouping=grouping,
        n_groups=int(np.unique(groups).size),
        n_folds=len(folds),
        confusion=confusion,
        fold_accuracy=fold_accuracy,
        predicted=predicted,
        oob_error=whole.oob_error,
        importance=dict(sorted(of_family.items(), key=lambda item: -item[1])),
        notes=list(dict.fromkeys([*rows.notes, *whole.notes])),
    )


def make_folds(
    rows: TrainingRows, groups: npt.NDArray[np.int64], *, grouping: str, n_folds: int | None, seed: int
) -> list[Fold]:
    """(rows to grow on, rows held out) for each fold; no group is on both sides.

    Raises
    ------
    DataError
        If there are too few groups, or all of a class's are in one fold, so that no forest would know it.
    UsageError
        If there are fewer than two folds.
    """
    if n_folds is not None and n_folds < 2:
        raise UsageError(f"{n_folds} folds cannot be told apart", do="give 2 or more")
    n_groups = np.unique(groups).size
    if n_folds is None:
        n_folds = max(2, min(FOLDS, n_groups))
    if n_groups < n_folds:
        raise DataError(
            f"the marked pixels are on {_count(n_groups, grouping)}, {n_folds} folds need as many",
            do="mark more, use fewer --folds" + ("" if grouping == "stroke" else ", or group by strokes"),
        )
    from sklearn.model_selection import StratifiedGroupKFold

    with warnings.catch_warnings():
        # Classes with fewer groups than folds are in some folds only; what is too few is found below.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        folds = list(splitter.split(rows.labels, rows.labels, groups))
    folds = [(seen, held_out) for seen, held_out in folds if held_out.size]
    for seen, _ in folds:
        unknown = np.setdiff1d(rows.labels, rows.labels[seen])
        if unknown.size:
            name = next(c.name for c in rows.classes if c.value == unknown[0])
            n = np.unique(groups[rows.labels == unknown[0]]).size
            raise DataError(
                f"class {name} is marked on {_count(n, grouping)}, all in one fold: no forest that has not seen them"
                " would know the class",
                do=f"mark {name} on more {grouping}s" + ("" if grouping == "stroke" else ", or group by strokes"),
            )
    return folds


def _count(n: int, grouping: str) -> str:
    return f"{n} {grouping}{'' if n == 1 else 's'}"


def class_predictor(
    forest: Forest, class_values: Sequence[int], *, device: Device
) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.uint8]]:
    """A function (n_features, n_rows) float32 -> (n_rows,) uint8 class values."""
    values = np.array(class_values, dtype=np.uint8)
    if not device.runs_kernels:
        return lambda features: predict_classes(predict_probabilities(forest, features), values)
    on_device = DeviceForest(forest, device)
    return lambda features: predict_classes(
        device.numpy(on_device.probabilities(device.array(np.ascontiguousarray(features)))), values
    )


def family_channels(bank: FeatureBank) -> dict[str, list[int]]:
    """The channels of each family, ``original`` included, in the order of the bank."""
    channels: dict[str, list[int]] = {}
    for block in bank.blocks:
        channels.setdefault(block.family, []).extend(range(block.start, block.stop))
    return channels


def marked_classes(rows: TrainingRows) -> tuple[LabelClass, ...]:
    """The classes that have rows."""
    marked = set(np.unique(rows.labels).tolist())
    return tuple(c for c in rows.classes if c.value in marked)


def checked_grouping(grouping: str) -> str:
    """The grouping, if there is such a one."""
    if grouping not in GROUPINGS:
        raise UsageError(f"grouping {grouping!r} is unknown", do=f"choose one of {', '.join(GROUPINGS)}")
    return grouping


def _permuted(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    families: dict[str, list[int]],
    *,
    predict: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.uint8]],
    seed: int,
) -> Iterator[tuple[str, float]]:
    """Per family the mean number of right rows when its channels come from other rows, all from the same one."""
    for family, channels in families.items():
        random = np.random.default_rng(seed)
        changed = features.copy()
        right = 0
        for _ in range(PERMUTATIONS):
            changed[channels] = features[channels][:, random.permutation(labels.size)]
            right += int((predict(changed) == labels).sum())
        yield family, right / PERMUTATIONS
