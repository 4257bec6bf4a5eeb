"""Formats that other programs' libraries read for us: the extra ``formats``, imported when such a file is opened."""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.volumes.formats import named_format
from gpu_tomoclass.volumes.indexed import SLAB_BYTES, IndexedVolume
from gpu_tomoclass.volumes.place import with_origin
from gpu_tomoclass.volumes.stored_axes import check_declared, choose_axes
from gpu_tomoclass.volumes.tia_series import check_series_size
from gpu_tomoclass.volumes.units import LARGEST_PIXEL, MILLIMETRE, nanometres
from gpu_tomoclass.volumes.volume import Volume

_PLUGINS = {"dm": "digitalmicrograph", "ser": "tia"}  # names in RosettaSciIO
_REFUSALS = (
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    OverflowError,
    struct.error,
)
_HEADER_BYTES = 2**16


def _library(module: str, package: str, path: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ResourceError(
            f"is read by the package {package}, which is not installed",
            where=path,
            do="pip install 'gpu_tomoclass[formats]'",
        ) from error


class RosettaVolume(IndexedVolume):
    """One signal of a microscope's file, as RosettaSciIO reads it; made by :func:`open_microscope_file`."""

    def __init__(
        self,
        path: str,
        signal: dict[str, Any],
        *,
        format: str,
        axes: str | None,
        channel: int | None,
        notes: Sequence[str] = (),
    ) -> None:
        self._data = signal["data"]
        shape, dtype = tuple(int(n) for n in self._data.shape), np.dtype(self._data.dtype)
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise DataError(f"holds values of type {dtype}, which are no grey values", where=path)
        names = [""] * len(shape)
        sizes: list[float | None] = [None] * len(shape)
        origin: list[float | None] = [None] * len(shape)
        for position, axis in enumerate(signal["axes"]):
            at = int(axis.get("index_in_array", position))
            names[at] = str(axis.get("name") or "").lower()
            unit = nanometres(str(axis.get("units") or ""))
            if unit is not None:
                sizes[at] = abs(float(axis.get("scale", 0) or 0)) * unit
                # RosettaSciIO (0.15) gives the offset of a series in metres, whatever the unit.
                origin[at] = float(axis.get("offset", 0) or 0) * unit if format != "TIA series" else 0.0
        if "z" not in names and names.count("") == 1:  # the images of a series
            names[names.index("")] = "z"
        known = {"y", "x"} <= set(names) and len(set(names)) == len(names)
        stored = choose_axes(shape, names if known else None, axes=axes, channel=channel, where=path)
        ny, nx = (shape[stored.axis_of[letter]] for letter in "yx")
        check_declared("planes", ny * nx * dtype.itemsize, os.path.getsize(path), where=path)
        notes = list(notes)
        z, y = stored.axis_of.get("z"), sizes[stored.axis_of["y"]]
        if z is not None and sizes[z] is None and y is not None:
            sizes[z], origin[z] = y, 0.0
            notes.append(f"the file gives no spacing of planes: taken as the pixel size, {y:g} nm")
        super().__init__(
            path,
            stored_shape=shape,
            stored=stored,
            dtype=dtype,
            format=format,
            voxel_size=stored.sizes(sizes),
            notes=notes,
            metadata=with_origin({}, stored.place(origin)),
        )

    def _region(self, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
        try:
            return np.asarray(self._data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
        except _REFUSALS as error:
            raise DataError(f"planes cannot be read: {error}", where=self.path) from error


def open_microscope_file(
    path: str | PathLike[str], *, axes: str | None = None, series: int | None = None, channel: int | None = None
) -> Volume:
    """Open DigitalMicrograph (``.dm3``, ``.dm4``) or TIA (``.ser``) by RosettaSciIO.

    Raises
    ------
    ResourceError
        If the package is not installed.
    UsageError
        If ``axes``, ``series`` or ``channel`` does not fit.
    DataError
        If the file is damaged or holds several signals or no image.
    """
    name = fspath(path)
    row = named_format(name)
    reader = _library(f"rsciio.{_PLUGINS[row.kind]}", "rosettasciio", name)
    if row.kind == "ser":
        check_series_size(name)
    lazy = row.kind == "dm"  # RosettaSciIO would read all of a series for each plane
    notes = [] if lazy else ["the whole series is read into memory"]
    try:
        signals = [signal for signal in reader.file_reader(name, lazy=lazy) if np.ndim(signal["data"]) >= 2]
    except Exception as error:  # a damaged file makes it raise errors of any kind
        raise DataError(f"cannot be read by RosettaSciIO: {error}", where=name) from error
    if not signals or (series is None and len(signals) > 1):
        listed = "; ".join(f"{i}: {signal['data'].shape} {signal['data'].dtype}" for i, signal in enumerate(signals))
        do = "choose one with --series" if signals else None
        raise DataError(f"holds {len(signals)} images ({listed})" if signals else "holds no image", where=name, do=do)
    if not 0 <= (series or 0) < len(signals):
        raise UsageError(f"there is no series {series}, only 0 to {len(signals) - 1}", where=name)
    return RosettaVolume(name, signals[series or 0], format=row.name, axes=axes, channel=channel, notes=notes)


class ItkVolume(IndexedVolume):
    """An image that ITK reads, a run of planes at a time; made by :func:`open_itk_file`."""

    def __init__(self, path: str, *, format: str, axes: str | None, channel: int | None) -> None:
        itk = _library("SimpleITK", "SimpleITK", path)
        self._reader = itk.ImageFileReader()
        self._reader.SetFileName(path)
        self._array = itk.GetArrayFromImage
        try:
            self._reader.ReadImageInformation()
            shape = tuple(int(n) for n in self._reader.GetSize()[::-1])
            spacing = [float(n) for n in self._reader.GetSpacing()[::-1]]
            origin = [float(n) for n in self._reader.GetOrigin()[::-1]]
            direction = self._reader.GetDirection()
            kind = itk.GetPixelIDValueAsString(self._reader.GetPixelID())
        except _REFUSALS as error:
            raise DataError(f"is no readable {format} file: {_last_line(error)}", where=path) from error
        if self._reader.GetNumberOfComponents() != 1 or kind not in _ITK_TYPES:
            raise DataError(f"holds {kind}, which are no grey values", where=path)
        dtype = np.dtype(_ITK_TYPES[kind])
        stored = choose_axes(shape, None, axes=axes, channel=channel, where=path, what="image")
        ny, nx = (shape[stored.axis_of[letter]] for letter in "yx")
        check_declared("planes", ny * nx * dtype.itemsize, os.path.getsize(path), where=path)
        sizes, notes = stored.sizes([n * MILLIMETRE for n in spacing]), []
        if sizes is not None and max(sizes) > LARGEST_PIXEL:
            if spacing != [1.0] * len(spacing):
                notes.append(
                    f"voxel size ignored: {format} counts in mm, and the spacing is {spacing} (give --voxel-size)"
                )
            sizes = None
        if not np.allclose(direction, np.eye(len(shape)).ravel()):
            notes.append(f"its axes are turned in space (direction {', '.join(f'{n:g}' for n in direction)}), ignored")
        super().__init__(
            path,
            stored_shape=shape,
            stored=stored,
            dtype=dtype,
            thickness=max(1, min(shape[stored.axis_of.get("z", 0)], SLAB_BYTES // max(1, ny * nx * dtype.itemsize))),
            format=format,
            voxel_size=sizes,
            metadata={} if sizes is None else with_origin({}, stored.place([n * MILLIMETRE for n in origin])),
            notes=notes,
        )

    def _region(self, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
        self._reader.SetExtractIndex([int(a) for a in low[::-1]])
        self._reader.SetExtractSize([int(b - a) for a, b in zip(low, high, strict=True)][::-1])
        try:
            return np.asarray(self._array(self._reader.Execute()))
        except _REFUSALS as error:
            raise DataError(f"planes cannot be read: {_last_line(error)}", where=self.path) from error


_ITK_TYPES = {
    "8-bit signed integer": "int8",
    "8-bit unsigned integer": "uint8",
    "16-bit signed integer": "int16",
    "16-bit unsigned integer": "uint16",
    "32-bit signed integer": "int32",
    "32-bit unsigned integer": "uint32",
    "64-bit signed integer": "int64",
    "64-bit unsigned integer": "uint64",
    "32-bit float": "float32",
    "64-bit float": "float64",
}


def open_itk_file(path: str | PathLike[str], *, axes: str | None = None, channel: int | None = None) -> Volume:
    """Open NRRD (``.nrrd``), MetaImage (``.mha``) or NIfTI (``.nii``, ``.nii.gz``) by SimpleITK; one file, not two.

    Raises
    ------
    ResourceError
        If the package is not installed.
    UsageError
        If ``axes`` or ``channel`` does not fit.
    DataError
        If the file is damaged, holds no grey values, or keeps its voxels in another file.
    """
    name = fspath(path)
    format = named_format(name).name
    with open(name, "rb") as file:
        head = file.read(_HEADER_BYTES)
    lines = head.split(b"\n\n" if format == "NRRD" else b"LOCAL")[0].lower()
    elsewhere = (b"data file:" in lines or b"datafile:" in lines) if format == "NRRD" else False
    if elsewhere or (format == "MetaImage" and b"LOCAL" not in head):
        raise DataError("keeps its voxels in another file, which is not followed", where=name, do="save it as one file")
    return ItkVolume(name, format=format, axes=axes, channel=channel)


def _last_line(error: BaseException) -> str:
    return str(error).strip().rpartition("\n")[2].strip()
