"""A volume as a folder of single-plane TIFF files, in natural order of their names (2 before 10)."""

from __future__ import annotations

import os
import re
from collections import Counter
from itertools import pairwise
from os import PathLike, fspath

import numpy as np

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.formats import TIFF_SUFFIXES
from gpu_tomoclass.volumes.reordered import ReorderedVolume
from gpu_tomoclass.volumes.stored_axes import order_notes, stored_order
from gpu_tomoclass.volumes.tiff.reader import open_tiff
from gpu_tomoclass.volumes.volume import Volume, ranges_text


def open_folder(
    path: str | PathLike[str],
    *,
    axes: str | None = None,
    channel: int | None = None,
    allow_missing_planes: bool = False,
) -> Volume:
    """Open a folder of single-plane TIFF files as a volume; arguments as
    :func:`gpu_tomoclass.volumes.opening.open_volume`.

    The header of every file is read. Gaps in the numbering are noted, not filled: nobody knows whether the plane was
    lost or never taken. With ``allow_missing_planes`` a file that cannot be read becomes a plane of zeros.

    Raises
    ------
    UsageError
        If ``axes`` or ``channel`` mean nothing for these files.
    DataError
        If a file is damaged, holds several planes, or differs from the others in size or type.
    """
    volume = FolderVolume(fspath(path), channel=channel, allow_missing_planes=allow_missing_planes)
    order = stored_order(axes, "zyx", where=volume.path)
    volume.notes.extend(order_notes(axes, "zyx", order))
    if order == "zyx":
        return volume
    if allow_missing_planes and order[0] != "z":
        raise UsageError(
            f"missing planes cannot be filled when the axes are {order}: each is a row of every plane",
            where=volume.path,
            do="leave out allow_missing_planes",
        )
    return ReorderedVolume(volume, order=order)


class FolderVolume(Volume):
    """The files of a folder as planes; made by :func:`open_folder`. No file stays open."""

    def __init__(self, path: str, *, channel: int | None, allow_missing_planes: bool) -> None:
        names = [name for name in os.listdir(path) if name.lower().endswith(TIFF_SUFFIXES) and name[0] != "."]
        names.sort(key=natural_key)
        self._channel = channel
        self._planes = [os.path.join(path, name) for name in names]
        forms: list[tuple[tuple[int, int, int], np.dtype] | None] = []
        examples: dict[tuple[tuple[int, int, int], np.dtype], Volume] = {}
        failure: DataError | None = None
        for file in self._planes:
            try:
                with open_tiff(file, channel=channel) as plane:
                    forms.append((plane.shape, plane.dtype))
                    examples.setdefault((plane.shape, plane.dtype), plane)
            except DataError as error:
                if not allow_missing_planes:
                    raise
                failure = failure or error
                forms.append(None)
        if not examples:
            raise DataError(f"none of {len(names)} files can be read; the first: {failure}", where=path)
        usual = Counter(form for form in forms if form is not None).most_common(1)[0][0]
        for file, form in zip(self._planes, forms, strict=True):
            if form is not None:
                _check_alike(file, form, usual, n_files=len(names))
        first, (shape, dtype) = examples[usual], usual
        super().__init__(
            path,
            shape=(len(names), shape[1], shape[2]),
            dtype=dtype,
            format=f"folder of {len(names)} TIFF files",
            voxel_size=first.voxel_size,
            notes=[*_numbering_notes(names), *(n for n in first.notes if not n.startswith("a single image"))],
            classes=first.classes,
            metadata=first.metadata,
            files=self._planes,
            allow_missing_planes=allow_missing_planes,
        )
        self.mark_missing(z for z, form in enumerate(forms) if form is None)

    def _read_plane(self, z: int) -> np.ndarray:
        try:
            plane = open_tiff(self._planes[z], channel=self._channel)
        except DataError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None  # so that network errors get new attempts
            raise
        with plane:
            if plane.shape[1:] != self.shape[1:] or plane.dtype != self.dtype or plane.shape[0] != 1:
                raise DataError(f"plane {z} has changed since the folder was opened", where=self._planes[z])
            return plane.plane(0)


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sort key in which numbers count as numbers: ``"a9.tif"`` before ``"a10.tif"``."""
    parts = re.split(r"([0-9]+)", name)
    # Odd positions are the digits. The name itself comes last, so that "1.tif" and "01.tif" have a fixed order.
    return (*((0, int(p)) if i % 2 else (1, p.lower()) for i, p in enumerate(parts)), (1, name))


def _check_alike(
    file: str,
    form: tuple[tuple[int, int, int], np.dtype],
    usual: tuple[tuple[int, int, int], np.dtype],
    *,
    n_files: int,
) -> None:
    if form[0][0] != 1:
        raise DataError(
            f"holds {form[0][0]} planes, and a folder of planes needs one per file", where=file, do="open it by itself"
        )
    if form != usual:
        mine, others = (f"{shape[1]} x {shape[2]} {dtype.name}" for shape, dtype in (form, usual))
        raise DataError(f"is {mine}, and most of the {n_files} files are {others}", where=file, do="move it away")


def _numbering_notes(names: list[str]) -> list[str]:
    """Sentences about gaps in the numbering and about names that do not belong to one sequence."""
    stems = [os.path.splitext(name)[0] for name in names]
    matches = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", stem) for stem in stems]
    patterns = Counter((m[1], m[3]) if m else None for m in matches)
    if len(names) == 1:
        return []
    if len(patterns) > 1 or None in patterns:
        some = ", ".join(names[:2])
        return [f"the file names are no single numbered sequence; they are read as {some}, ..., {names[-1]}"]
    numbers = [int(m[2]) for m in matches if m]
    steps = {b - a for a, b in pairwise(numbers)}
    step = min(steps)
    if step < 1:
        return [f"numbers occur twice in the file names (such as {names[0]}); each file is a plane of its own"]
    if len(steps) == 1:
        return []
    n_absent = (numbers[-1] - numbers[0]) // step + 1 - len(numbers)
    absent = f" ({ranges_text(set(range(numbers[0], numbers[-1], step)) - set(numbers))})" if n_absent < 10_000 else ""
    return [f"the numbering of the files has gaps: {n_absent} numbers are absent{absent}"]
