"""Classes of grey by thresholds: those of multi-Otsu, or given ones; a volume is streamed plane by plane."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume, VolumeWriter, check_volume_target, create_volume

BINS = 256
LEVELS = (2, 6)
# The library tries every set of thresholds: 2.5 s for five levels of 256 bins, 77 s for six. Six get half the bins.
FEWER_BINS_FROM = 6
MOST_CLASSES = 255

Planes = Callable[[], Iterable[npt.NDArray[Any]]]


@dataclass(frozen=True)
class GreyHistogram:
    """Counts of grey values: ``counts[i]`` are from ``edges[i]`` on and below ``edges[i + 1]``.

    The last bin has its upper edge, too. Where values are whole numbers, edges lie half way between them and all bins
    hold the same number of grey levels.
    """

    counts: npt.NDArray[np.int64]
    edges: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Thresholded:
    """The thresholds used, ascending, and how many voxels each class got, by label value."""

    thresholds: tuple[float, ...]
    voxels: dict[int, int]


def grey_histogram(image: npt.NDArray[Any], *, bins: int = BINS) -> GreyHistogram:
    """The histogram of an image of any shape; raises as :func:`otsu_thresholds`."""
    return _histogram(lambda: [image], image.dtype, bins=bins, where=None)


def volume_histogram(volume: Volume, *, bins: int = BINS, progress: Progress | None = None) -> GreyHistogram:
    """The histogram of all voxels: read once where they are integers of 8 or 16 bits, twice where not.

    Parameters
    ----------
    volume : Volume
    bins : int
        At most.
    progress : callable, optional
        Called with (planes read, planes to read in all).

    Raises
    ------
    DataError
        If a voxel is not finite, or voxels are no numbers with an order.
    """
    nz = volume.shape[0]
    total = nz if _is_small_integer(volume.dtype) else 2 * nz
    read = 0

    def planes() -> Iterator[npt.NDArray[Any]]:
        nonlocal read
        for _, plane in volume.planes():
            if progress is not None:
                progress(read, total)
            yield plane
            read += 1

    return _histogram(planes, volume.dtype, bins=bins, where=volume.path)


def _is_small_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _histogram(planes: Planes, dtype: np.dtype[Any], *, bins: int, where: str | None) -> GreyHistogram:
    if dtype.kind not in "iuf":
        raise DataError(f"voxels are {dtype}, not integers or floats", where=where)
    if _is_small_integer(dtype):
        lowest = int(np.iinfo(dtype).min)
        exact = np.zeros(2 ** (8 * dtype.itemsize), np.int64)
        for plane in planes():
            exact += np.bincount(plane.ravel().astype(np.int64) - lowest, minlength=len(exact))
        found = np.flatnonzero(exact)
        edges = _edges(int(found[0]) + lowest, int(found[-1]) + lowest, dtype, bins=bins)
        # Every bin begins at a whole number plus a half, so it takes whole grey levels.
        starts = (edges[:-1] + 0.5).astype(np.int64) - lowest
        return GreyHistogram(np.add.reduceat(exact[: int(found[-1]) + 1], starts), edges)
    limits = [_finite_limits(plane, where) for plane in planes()]
    edges = _edges(min(low for low, _ in limits), max(high for _, high in limits), dtype, bins=bins)
    counts = np.zeros(len(edges) - 1, np.int64)
    for plane in planes():
        counts += np.bincount(_digitize(plane, edges[1:-1]).ravel(), minlength=len(counts))
    return GreyHistogram(counts, edges)


def _finite_limits(plane: npt.NDArray[Any], where: str | None) -> tuple[float, float]:
    low, high = plane.min(), plane.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("voxels are NaN or infinite, which belong to no class", where=where)
    return low.item(), high.item()


def _edges(low: float, high: float, dtype: np.dtype[Any], *, bins: int) -> npt.NDArray[np.float64]:
    if dtype.kind in "iu":
        width = -(-(int(high) - int(low) + 1) // bins)
        n = -(-(int(high) - int(low) + 1) // width)
        return low - 0.5 + width * np.arange(n + 1, dtype=np.float64)
    return np.linspace(low, high, bins + 1) if high > low else np.array([low, low])


def _digitize(image: npt.NDArray[Any], thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Number of the ascending thresholds that a value has reached."""
    return np.searchsorted(thresholds, image, side="right")


def otsu_thresholds(image: npt.NDArray[Any] | GreyHistogram, *, levels: int) -> npt.NDArray[np.float64]:
    """Thresholds between classes of grey by multi-Otsu: the variance between the classes is the largest.

    scikit-image's ``threshold_multiotsu`` (Liao, Chen and Chung, J. Inf. Sci. Eng. 17 (2001) 713-727) on a histogram of
    at most 256 bins (128 for 6 levels), whatever the depth of the image.

    Parameters
    ----------
    image : ndarray or GreyHistogram
        Of any shape and finite; see :func:`volume_histogram` for a volume on disk.
    levels : int
        2 to 6 classes.

    Returns
    -------
    ndarray
        (levels - 1,) float64, ascending; a value belongs to the class above a threshold if it is equal or larger. They
        are edges of bins: half way between two grey levels where the image has up to 256 of them.

    Raises
    ------
    UsageError
        If levels are not 2 to 6.
    DataError
        If a value is not finite, or there are fewer different grey values than levels.
    """
    from skimage.filters import threshold_multiotsu

    check_levels(levels)
    histogram = image if isinstance(image, GreyHistogram) else grey_histogram(image)
    counts, edges = histogram.counts, histogram.edges
    if levels >= FEWER_BINS_FROM and len(counts) > BINS // 2:
        counts = np.add.reduceat(counts, range(0, len(counts), 2))
        edges = np.append(edges[:-1:2], edges[-1])
    occupied = np.count_nonzero(counts)
    if occupied < levels:
        raise DataError(f"{occupied} different grey values cannot make {levels} classes", do="use fewer --levels")
    shares = counts / counts.sum()
    # Indices in place of grey values: the last bin of each class but the highest comes back.
    last = threshold_multiotsu(classes=levels, hist=(shares, np.arange(len(shares))))
    return edges[last + 1]


def check_levels(levels: int) -> None:
    """UsageError unless multi-Otsu is done for so many classes."""
    if not LEVELS[0] <= levels <= LEVELS[1]:
        raise UsageError(f"multi-Otsu for {levels} levels", do=f"choose {LEVELS[0]} to {LEVELS[1]}")


def threshold_labels(image: npt.NDArray[Any], thresholds: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Classes of grey: 1 below the first threshold, one more for every threshold that a value reaches.

    Parameters
    ----------
    image : ndarray
        Of any shape, without NaN.
    thresholds : sequence of float
        Ascending, 1 to 254 of them.

    Returns
    -------
    ndarray
        uint8 of the same shape, 1 to len(thresholds) + 1.

    Raises
    ------
    UsageError
        If the thresholds do not ascend, are not finite, or are too many or none.
    """
    return (_digitize(image, checked_thresholds(thresholds)) + 1).astype(np.uint8)


def checked_thresholds(thresholds: Sequence[float] | npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """As an array; raises as :func:`threshold_labels`."""
    values = np.asarray(thresholds, np.float64)
    if not 1 <= values.size < MOST_CLASSES or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
        raise UsageError(f"thresholds {values.tolist()}", do=f"give 1 to {MOST_CLASSES - 1} ascending numbers")
    return values


def write_otsu(
    volume: Volume,
    output: str | PathLike[str],
    *,
    levels: int = 3,
    thresholds: Sequence[float] | None = None,
    names: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    **format_options: Any,
) -> Thresholded:
    """Label a volume by grey-level thresholds: multi-Otsu over all its voxels, or those that are given.

    Parameters
    ----------
    volume : Volume
        Integers, or finite floats. Read two or three times (once with given thresholds), one plane at a time.
    output : str or path
        uint8 label volume of classes 1..k, from dark to bright.
    levels : int
        2 to 6; unused if thresholds are given.
    thresholds : sequence of float, optional
        Ascending; a voxel of a threshold's value belongs to the class above it.
    names : sequence of str
        Of the classes, from dark to bright; default ``grey 1`` and so on.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes to read in all).
    **format_options
        Of :func:`gpu_tomoclass.volumes.opening.create_volume`.

    Returns
    -------
    Thresholded

    Raises
    ------
    UsageError
        If levels, thresholds or names make no sense, or the output is the input.
    DataError
        If a voxel is not finite, grey values are too few, a plane cannot be read, or the output exists.
    ResourceError
        If the disk is full.
    """
    target: dict[str, Any] = {"inputs": volume.inputs(), "overwrite": overwrite, **format_options}
    check_volume_target(output, dtype=np.uint8, shape=volume.shape, **target)
    n_classes = levels if thresholds is None else len(checked_thresholds(thresholds)) + 1
    if thresholds is None:
        check_levels(levels)
    if names and len(names) != n_classes:
        raise UsageError(f"{len(names)} names for {n_classes} classes", do="name all, from dark to bright")
    nz = volume.shape[0]
    passes = 0 if thresholds is not None else 1 if _is_small_integer(volume.dtype) else 2

    def histogram_progress(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total + nz)

    def create(made: dict[str, Any]) -> VolumeWriter:
        return create_volume(
            output,
            shape=volume.shape,
            dtype=np.uint8,
            voxel_size=volume.voxel_size,
            classes=default_classes(names or [f"grey {i + 1}" for i in range(n_classes)]),
            metadata={**volume.metadata, "thresholds": {"made_by": f"gpu_tomoclass {__version__}", **made}},
            **target,
        )

    if thresholds is None:
        create({}).discard()  # a name that will not do is found before the work, not after it
        values = otsu_thresholds(volume_histogram(volume, progress=histogram_progress), levels=levels)
    else:
        values = checked_thresholds(thresholds)
    method = "given" if thresholds is not None else f"multi-Otsu of {levels} levels"
    with create({"method": method, "values": values.tolist()}) as writer:
        counts = np.zeros(256, np.int64)
        for z, plane in volume.planes():
            if thresholds is not None and plane.dtype.kind == "f":
                _finite_limits(plane, volume.path)
            labels = threshold_labels(plane, values)
            counts += np.bincount(labels.ravel(), minlength=256)
            writer.write_plane(z, labels)
            if progress is not None:
                progress(passes * nz + z + 1, (passes + 1) * nz)
        volume.check_unchanged()
    return Thresholded(tuple(values.tolist()), {c: int(counts[c]) for c in range(1, n_classes + 1)})
