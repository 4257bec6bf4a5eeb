"""Arrays in files: NumPy's ``.npy``, and raw voxels whose shape and type the user gives."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.indexed import IndexedVolume
from gpu_tomoclass.volumes.stored_axes import choose_axes
from gpu_tomoclass.volumes.volume import Volume


class MappedVolume(IndexedVolume):
    """A volume in an uncompressed array at a place in a file, mapped into memory region by region.

    Parameters
    ----------
    stored_shape : sequence of int
    dtype : numpy.dtype
        With its byte order.
    offset : int
        Bytes before the array.
    fortran : bool
        Whether the first axis is the fastest.
    axes, channel
        As :func:`gpu_tomoclass.volumes.opening.open_volume`.
    """

    def __init__(
        self,
        path: str,
        *,
        stored_shape: Sequence[int],
        dtype: np.dtype[Any],
        offset: int,
        fortran: bool = False,
        format: str,
        axes: str | None,
        channel: int | None,
        notes: Sequence[str] = (),
    ) -> None:
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise DataError(f"holds values of type {dtype}, which are no grey values", where=path)
        self._place = {"dtype": dtype, "offset": offset, "shape": tuple(stored_shape), "order": "F" if fortran else "C"}
        n_bytes, size = math.prod(int(n) for n in stored_shape) * dtype.itemsize, os.path.getsize(path)
        if offset + n_bytes > size:
            raise DataError(
                f"an array of shape {tuple(stored_shape)} and type {dtype.name} from byte {offset} on needs "
                f"{offset + n_bytes} bytes, the file has {size}",
                where=path,
                do="check shape, type and offset, or copy it again",
            )
        if offset + n_bytes < size:
            notes = [*notes, f"the file has {size - offset - n_bytes} bytes behind the array, ignored"]
        stored = choose_axes(stored_shape, None, axes=axes, channel=channel, where=path)
        super().__init__(path, stored_shape=stored_shape, stored=stored, dtype=dtype, format=format, notes=notes)

    def _region(self, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
        wanted = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        try:
            return np.array(np.memmap(self.path, mode="r", **self._place)[wanted])  # type: ignore[call-overload]
        except ValueError as error:  # shorter than when it was opened
            raise DataError(f"cannot be read: {error}", where=self.path) from error


def open_npy(path: str | PathLike[str], *, axes: str | None = None, channel: int | None = None) -> Volume:
    """Open an array that ``numpy.save`` wrote; objects (pickles) are never loaded.

    Raises
    ------
    UsageError
        If ``axes`` or ``channel`` does not fit.
    DataError
        If the header is damaged, the file too short, or it holds no volume.
    """
    name = fspath(path)
    try:
        with open(name, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            offset = file.tell()
    except (ValueError, TypeError, SyntaxError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"has a damaged NumPy header: {error}", where=name) from error
    return MappedVolume(
        name,
        stored_shape=shape,
        dtype=dtype,
        offset=offset,
        fortran=fortran,
        format="NumPy array",
        axes=axes,
        channel=channel,
    )


def open_raw(
    path: str | PathLike[str],
    *,
    shape: Sequence[int] | None,
    dtype: Any,
    offset: int | None = None,
    axes: str | None = None,
    channel: int | None = None,
) -> Volume:
    """Open voxels without a header, of the shape (slowest axis first) and type that the user gives.

    Raises
    ------
    UsageError
        If the shape or the type is missing or makes no sense.
    DataError
        If the file is shorter than that.
    """
    name = fspath(path)
    if not os.path.isfile(name):
        raise UsageError("there is no such file", where=name)
    if shape is None or dtype is None:
        raise UsageError(
            "raw voxels need a shape and a type", where=name, do="give both: --shape 850,400,400 --dtype uint16"
        )
    try:
        kind = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise UsageError(f"dtype {dtype!r} is no type of NumPy", where=name, do="for example uint16 or >f4") from error
    try:
        sizes = [operator.index(n) for n in shape]
    except TypeError:
        sizes = []
    if min(sizes, default=0) < 1 or (offset or 0) < 0:
        raise UsageError(f"shape {tuple(shape)} and offset {offset} make no sense", where=name)
    text = f"raw voxels, {kind.name}, from byte {offset or 0} on"
    return MappedVolume(
        name, stored_shape=sizes, dtype=kind, offset=offset or 0, format=text, axes=axes, channel=channel
    )
