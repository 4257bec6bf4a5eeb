"""Rectangles as ImageJ ROIs: a zip that Fiji's ROI Manager opens."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike

import numpy as np
from roifile import ROI_OPTIONS, ROI_TYPE, ImagejRoi

from gpu_tomoclass.outputs import atomic


@dataclass(frozen=True)
class Rectangle:
    """A rectangle on plane ``z`` (from 0): rows ``y`` to ``y + height - 1``, columns ``x`` to ``x + width - 1``."""

    name: str
    z: int
    y: int
    x: int
    height: int
    width: int


def save_rectangles(path: str | PathLike[str], rectangles: Iterable[Rectangle], *, overwrite: bool = False) -> None:
    """Write a ROI zip; a ROI lies on slice z + 1, as ImageJ counts.

    Raises
    ------
    DataError
        If the file exists and ``overwrite`` is not set.
    """
    with atomic(path, overwrite=overwrite) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for r in rectangles:
            corners = [[r.x, r.y], [r.x + r.width, r.y], [r.x + r.width, r.y + r.height], [r.x, r.y + r.height]]
            roi = ImagejRoi.frompoints(np.array(corners), name=r.name)
            roi.roitype, roi.n_coordinates, roi.integer_coordinates = ROI_TYPE.RECT, 0, None
            roi.top, roi.left, roi.bottom, roi.right = r.y, r.x, r.y + r.height, r.x + r.width
            roi.position, roi.options = r.z + 1, ROI_OPTIONS(0)
            archive.writestr(zipfile.ZipInfo(f"{r.name}.roi"), roi.tobytes())
