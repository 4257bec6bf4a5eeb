"""Comparison of labels with the truth, plane by plane: accuracy, Dice, IoU, volume fractions, borders, halo."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.labels.boundaries import HALO_DISTANCE, BoundaryDistances, HaloShare
from gpu_tomoclass.labels.image_tools import image_tools
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import PartVolume, Volume, VolumeLike, VoxelSize, open_volume


class Confusion:
    """Counts of (true class, predicted class), filled plane by plane; the scores are read from it at any time.

    Parameters
    ----------
    classes : sequence of int or LabelClass, optional
        The classes in the order of rows and columns. By default every label value met so far, in ascending order,
        except that a 0 met only in the prediction is no class: it means "not classified" and counts as wrong.
    names : dict of int to str, optional
        Names of label values; a LabelClass among ``classes`` brings its own.

    Notes
    -----
    With TP, FP, FN the voxels of a class that are right, wrongly given to it and missed:
    precision = TP / (TP + FP), recall = TP / (TP + FN), IoU = TP / (TP + FP + FN), Dice = 2 TP / (2 TP + FP + FN).
    A ratio 0 / 0 is NaN: for IoU and Dice this is a class absent from both sides. NaN is left out of means.
    Voxels whose true value is none of ``classes`` are refused, a predicted value that is none of them counts as wrong.
    """

    def __init__(
        self, classes: Sequence[int | LabelClass] | None = None, *, names: Mapping[int, str] | None = None
    ) -> None:
        self._chosen = None if classes is None else tuple(_value(c) for c in classes)
        self._names = dict(names or {}) | {c.value: c.name for c in classes or () if isinstance(c, LabelClass)}
        if self._chosen is not None and (len(set(self._chosen)) != len(self._chosen) or not self._chosen):
            raise UsageError(f"classes {self._chosen} are empty or repeat a value")
        self._counts = np.zeros((256, 256), np.int64)

    def update(self, truth: np.ndarray, predicted: np.ndarray, *, mask: np.ndarray | None = None) -> None:
        """Add a plane (or any arrays of one shape) of label values 0..255.

        Parameters
        ----------
        truth, predicted : arrays of one shape
            Whole numbers 0..255 of any type.
        mask : bool array of that shape, optional
            Only voxels where it is True count.

        Raises
        ------
        ModelError
            If the shapes differ.
        DataError
            If a value is no whole number of 0..255, or a true value is none of the chosen classes.
        """
        if truth.shape != predicted.shape or (mask is not None and mask.shape != truth.shape):
            shapes = [a.shape for a in (truth, predicted, mask) if a is not None]
            raise ModelError(f"labels, truth and mask must have one shape, not {shapes}")
        truth, predicted = as_labels(truth, what="truth"), as_labels(predicted, what="labels")
        if mask is not None:
            truth, predicted = truth[mask], predicted[mask]
        pairs = truth.ravel().astype(np.int64) * 256 + predicted.ravel()
        counts = np.bincount(pairs, minlength=65536).reshape(256, 256)
        if self._chosen is not None:
            others = sorted(set(np.flatnonzero(counts.sum(axis=1)).tolist()) - set(self._chosen))
            if others:
                raise DataError(
                    f"the truth holds values {others}, which are none of the classes {list(self._chosen)}",
                    do="give these values a class, or ignore them",
                )
        self._counts += counts

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of each row and column."""
        if self._chosen is not None:
            return self._chosen
        used = self._counts.sum(axis=1) + self._counts.sum(axis=0)
        used[0] = self._counts[0].sum()  # a 0 met only in the prediction is no class
        return tuple(np.flatnonzero(used).tolist())

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each class, "class 3" where none was given."""
        return tuple(self._names.get(value, f"class {value}") for value in self.values)

    @property
    def matrix(self) -> np.ndarray:
        """Voxels by true class (rows) and predicted class (columns): (n_classes, n_classes) int64."""
        values = list(self.values)
        return self._counts[np.ix_(values, values)]

    @property
    def total(self) -> int:
        """Voxels compared."""
        return int(self._counts.sum())

    @property
    def unclassified(self) -> np.ndarray:
        """Voxels of each true class whose predicted value is no class: (n_classes,) int64."""
        return self._true_counts - self.matrix.sum(axis=1)

    @property
    def accuracy(self) -> float:
        """Share of voxels with the right class."""
        return float(_ratio(np.trace(self.matrix), self.total))

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union (Jaccard index) per class."""
        right = np.diag(self.matrix)
        return _ratio(right, self._true_counts + self._predicted_counts - right)

    @property
    def dice(self) -> np.ndarray:
        """Dice coefficient (F1 score) per class."""
        return _ratio(2 * np.diag(self.matrix), self._true_counts + self._predicted_counts)

    @property
    def precision(self) -> np.ndarray:
        """Share of the voxels given to a class that belong to it."""
        return _ratio(np.diag(self.matrix), self._predicted_counts)

    @property
    def recall(self) -> np.ndarray:
        """Share of the voxels of a class that were given to it."""
        return _ratio(np.diag(self.matrix), self._true_counts)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur in the truth or in the labels."""
        return _mean(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur in the truth or in the labels."""
        return _mean(self.dice)

    @property
    def true_fractions(self) -> np.ndarray:
        """Share of each class in the compared voxels of the truth."""
        return _ratio(self._true_counts, self.total)

    @property
    def predicted_fractions(self) -> np.ndarray:
        """Share of each class in the compared voxels of the labels."""
        return _ratio(self._predicted_counts, self.total)

    @property
    def _true_counts(self) -> np.ndarray:
        return self._counts.sum(axis=1)[list(self.values)]

    @property
    def _predicted_counts(self) -> np.ndarray:
        return self._counts.sum(axis=0)[list(self.values)]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and lists for JSON; NaN becomes None."""
        columns = {
            "dice": self.dice,
            "iou": self.iou,
            "precision": self.precision,
            "recall": self.recall,
            "true_fraction": self.true_fractions,
            "predicted_fraction": self.predicted_fractions,
        }
        rows = [
            {"value": value, "name": name} | {key: _plain(column[i]) for key, column in columns.items()}
            for i, (value, name) in enumerate(zip(self.values, self.names, strict=True))
        ]
        return {
            "voxels": self.total,
            "unclassified": int(self.unclassified.sum()),
            "accuracy": _plain(self.accuracy),
            "mean_iou": _plain(self.mean_iou),
            "mean_dice": _plain(self.mean_dice),
            "classes": rows,
            "matrix": self.matrix.tolist(),
        }


def compare_volumes(
    labels: VolumeLike,
    truth: VolumeLike,
    *,
    planes: Iterable[int] | None = None,
    ignore: Iterable[int] = (),
    mapping: Mapping[int, int] | None = None,
    classes: Sequence[int | LabelClass] | None = None,
) -> Confusion:
    """Compare a label volume with the truth, one plane in memory at a time.

    Parameters
    ----------
    labels, truth : Volume, path or array
        Of one shape, label values 0..255.
    planes : iterable of int, optional
        Which planes to compare; all by default.
    ignore : iterable of int
        Values of the truth, as stored, whose voxels do not count; ``(0,)`` where 0 means "not labelled".
    mapping : dict, optional
        Value in the truth -> value in the labels, for truths numbered otherwise; values not in it stay.
    classes : sequence, optional
        As in `Confusion`. Names come from here, else from ``labels``, else from ``truth``.

    Raises
    ------
    ModelError
        If the shapes differ.
    DataError
        If a volume holds other values than whole numbers of 0..255.
    """
    labels, truth = open_volume(labels), open_volume(truth)
    confusion = Confusion(classes, names=_names(labels, truth))
    for _, true_plane, label_plane, mask in _plane_pairs(labels, truth, planes=planes, ignore=ignore, mapping=mapping):
        confusion.update(true_plane, label_plane, mask=mask)
    return confusion


@dataclass(frozen=True)
class Evaluation:
    """Labels compared with the truth.

    Attributes
    ----------
    confusion : Confusion
        Scores and volume fractions.
    boundaries : BoundaryDistances or None
        None if they were not asked for.
    halo : HaloShare or None
        None if it was not asked for.
    voxel_size : (z, y, x) in nm or None
    """

    confusion: Confusion
    boundaries: BoundaryDistances | None
    halo: HaloShare | None
    voxel_size: VoxelSize | None

    def numbering_hint(self) -> str:
        """Hint for a truth that numbers its classes from another value on; empty where it does not.

        If moving all values of the truth by one makes most voxels right and many more than as they are, that is
        what differs.
        """
        values = self.confusion.values
        matrix = {(t, p): n for t, row in zip(values, self.confusion.matrix.tolist(), strict=True)
                  for p, n in zip(values, row, strict=True)}  # fmt: skip
        true_values = [t for t in values if any(matrix[t, p] for p in values)]
        total = self.confusion.total
        for step in (1, -1):
            right = sum(matrix.get((t, t + step), 0) for t in true_values) / max(total, 1)
            if right > 0.5 and right > 2 * self.confusion.accuracy:
                pairs = ",".join(f"{t}:{t + step}" for t in true_values)
                return (
                    f"the truth numbers its classes from {min(true_values)}, the labels from {min(true_values) + step}:"
                    f" with --map {pairs} the accuracy is {100 * right:.2f} %"
                )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, strings and lists for JSON; NaN becomes None."""
        found = self.confusion.to_dict()
        if self.boundaries is not None:
            for row in found["classes"]:
                row["boundary"] = self.boundaries.of(row["value"])
        if self.halo is not None:
            found["halo"] = {
                "solid": self.halo.solid,
                "background": self.halo.background,
                "distance": self.halo.distance,
                "pixels": self.halo.pixels,
                "share": _plain(self.halo.share),
            }
        found["voxel_size_nm"] = None if self.voxel_size is None else list(self.voxel_size)
        return found


def evaluate_volumes(
    labels: VolumeLike,
    truth: VolumeLike,
    *,
    planes: Iterable[int] | None = None,
    ignore: Iterable[int] = (),
    mapping: Mapping[int, int] | None = None,
    classes: Sequence[int | LabelClass] | None = None,
    boundaries: bool = True,
    halo: tuple[int, int] | None = None,
    halo_distance: float = HALO_DISTANCE,
    device: Device | str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """`compare_volumes`, and where the borders lie; one plane in memory at a time.

    Parameters
    ----------
    labels, truth, planes, ignore, mapping, classes
        As in `compare_volumes`. Lengths in nm are by the voxel size of the labels, else of the truth.
    boundaries : bool
        Whether to measure distances between borders, see `BoundaryDistances`; it takes most of the time.
    halo : (solid, background), optional
        Label values of the two classes whose border may have a halo, see `HaloShare`.
    halo_distance : float
        In pixels.
    device : str or Device, optional
        ``"cuda"``: distances are computed on the GPU, by cuCIM; default: the CPU.
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    ResourceError
        If the GPU or cuCIM is missing where it is asked for.
    """
    labels, truth = open_volume(labels), open_volume(truth)
    chosen = list(range(labels.shape[0]) if planes is None else planes)
    voxel_size = labels.voxel_size or truth.voxel_size
    tools = image_tools(device)
    found = Evaluation(
        confusion=Confusion(classes, names=_names(labels, truth)),
        boundaries=BoundaryDistances(voxel_size, tools=tools) if boundaries else None,
        halo=None if halo is None else HaloShare(*halo, distance=halo_distance, tools=tools),
        voxel_size=voxel_size,
    )
    pairs = _plane_pairs(labels, truth, planes=chosen, ignore=ignore, mapping=mapping)
    for i, (_, true_plane, label_plane, mask) in enumerate(pairs):
        if progress is not None:
            progress(i, len(chosen))
        for part in (found.confusion, found.boundaries, found.halo):
            if part is not None:
                part.update(true_plane, label_plane, mask=mask)
    if progress is not None:
        progress(len(chosen), len(chosen))
    return found


def same_planes(
    labels: Volume, truth: Volume, planes: tuple[int, int | None] | None = None
) -> tuple[Volume, Volume, list[str]]:
    """Both volumes with the planes that are to be compared, and notes about which these are.

    Labels of some planes only are those planes of the truth: ``planes``, or what their provenance says.

    Raises
    ------
    UsageError
        If ``planes`` are not in the volumes, or do not go with their depths.
    """
    n_labels, n_truth = labels.shape[0], truth.shape[0]
    if planes is not None:
        start, stop = planes[0], n_truth if planes[1] is None else planes[1]
        part = PartVolume(truth, start, stop)
        if n_labels == n_truth:
            return PartVolume(labels, start, stop), part, []
        if n_labels != stop - start:
            raise UsageError(
                f"has {n_labels} planes, the truth {n_truth}, and {start}:{stop} are {stop - start}",
                where=labels.path,
                do="give the planes of the truth that the labels are",
            )
        return labels, part, []
    settings = labels.metadata.get("settings")
    made = settings.get("planes") if isinstance(settings, dict) else None
    if n_labels != n_truth and isinstance(made, list) and len(made) == 2:
        start, stop = made
        if stop - start == n_labels and start >= 0 and stop <= n_truth:
            note = f"{labels.path} was made of planes {start}:{stop}: compared with these planes of {truth.path}"
            return labels, PartVolume(truth, start, stop), [note]
    return labels, truth, []


def _names(labels: Volume, truth: Volume) -> dict[int, str]:
    return {c.value: c.name for c in (*truth.classes, *labels.classes)}


def _plane_pairs(
    labels: Volume,
    truth: Volume,
    *,
    planes: Iterable[int] | None,
    ignore: Iterable[int],
    mapping: Mapping[int, int] | None,
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Number, truth (numbered as the labels) and labels of each plane, and a mask where something is ignored."""
    if labels.shape != truth.shape:
        raise ModelError(
            f"is {labels.shape} (z, y, x), the truth {truth.path} is {truth.shape}",
            where=labels.path,
            do="compare volumes of the same region and voxel size",
        )
    table = np.arange(256, dtype=np.uint8)
    for stored, value in (mapping or {}).items():
        if not (0 <= stored <= 255 and 0 <= value <= 255):
            raise UsageError(f"mapping {stored} to {value}: label values are 0 to 255")
        table[stored] = value
    ignored = list(ignore)
    for z in range(labels.shape[0]) if planes is None else planes:
        true_plane = as_labels(truth.plane(z), what=f"{truth.path}: plane {z}")
        label_plane = as_labels(labels.plane(z), what=f"{labels.path}: plane {z}")
        yield z, table[true_plane], label_plane, ~np.isin(true_plane, ignored) if ignored else None


def _value(c: int | LabelClass) -> int:
    value = c.value if isinstance(c, LabelClass) else c
    if not 0 <= value <= 255:
        raise UsageError(f"class value {value} is not 0 to 255")
    return value


def as_labels(plane: np.ndarray, *, what: str) -> np.ndarray:
    """The plane as uint8, if it holds nothing but whole numbers of 0..255."""
    if plane.dtype == np.uint8 or plane.size == 0:
        return plane.astype(np.uint8, copy=False)
    with np.errstate(invalid="ignore"):  # NaN to uint8; found by the comparison below
        small = plane.astype(np.uint8)
    if not np.array_equal(small, plane):
        raise DataError(
            f"holds values {plane.min()} to {plane.max()} of type {plane.dtype}",
            where=what,
            do="label volumes hold whole numbers of 0 to 255; is this a label volume?",
        )
    return small


def _ratio(part: Any, whole: Any) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)


def _mean(scores: np.ndarray) -> float:
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if defined.size else float("nan")


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
