"""A case from two files: a tomogram and its truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from gpu_tomoclass import Volume, default_classes, open_volume
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.studies.reproduction.case import Case


def given_case(
    name: str,
    title: str,
    volume: str,
    truth: str,
    *,
    names: tuple[str, ...],
    n_painted: int,
    share: float = 1.0,
    planes: tuple[int, int | None] | None = None,
) -> Case:
    """A case from two files.

    Parameters
    ----------
    name, title, volume, truth, names
        As of `Case`; the truth's values are 0.. or 1.. in the order of ``names``, from dark to bright.
    n_painted : int
        Planes that the operator paints on, evenly spaced.
    share : float
        Of the planes, from the first on, among which these are.
    planes : (start, stop), optional
        The planes that are judged, but for the painted ones; default all.

    Raises
    ------
    UsageError
        If the volume has too few planes.
    DataError
        If the files do not belong together.
    """
    with open_volume(volume) as grey, open_volume(truth) as labels:
        if grey.shape != labels.shape:
            raise DataError(f"is {labels.shape} (z, y, x), the volume {grey.shape}", where=truth)
        lowest = _lowest(labels, len(names))
        start, last = planes or (0, None)
        stop = grey.shape[0] if last is None else last
        among = start + round(share * (stop - start))
        if not 2 * n_painted <= among - start or stop > grey.shape[0]:
            raise UsageError(
                f"{grey.shape[0]} planes are too few to paint on {n_painted} and judge others", where=volume
            )
        edges = np.linspace(start, among, n_painted + 1)
        painted = tuple(int(z) for z in (edges[:-1] + edges[1:]) / 2)
        noise_area = quiet_place(labels.plane(painted[n_painted // 2]), lowest)
    return Case(
        name=name,
        title=title,
        volume=volume,
        truth=truth,
        classes=default_classes(names),
        painted=painted,
        judged=tuple(z for z in range(start, stop) if z not in painted),
        noise_area=noise_area,
        halo=(len(names), 1),
        lowest=lowest,
    )


def _lowest(labels: Volume, n_classes: int) -> int:
    """0 or 1: the value of the first class."""
    values: set[int] = set()
    for _, plane in labels.planes():
        values |= set(np.unique(plane).tolist())
    lowest = 0 if 0 in values else 1
    if not values <= set(range(lowest, lowest + n_classes)):
        raise DataError(
            f"holds values {sorted(values)[:10]}, not the {n_classes} classes 0 to {n_classes - 1} or 1 to {n_classes}",
            where=labels.path,
        )
    return lowest


def quiet_place(labels: npt.NDArray[np.uint8], value: int) -> tuple[int, int]:
    """x and y of the pixel of a class that is farthest from all other classes and from the border of the plane."""
    inside = np.pad(labels == value, 1)
    y, x = np.unravel_index(int(distance_transform_edt(inside).argmax()), inside.shape)
    return int(x) - 1, int(y) - 1
