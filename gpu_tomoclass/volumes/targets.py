"""A volume's future name, looked at before the work: what cannot be written is refused while nothing is lost."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from os import fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import ResourceError, UsageError
from gpu_tomoclass.outputs import StrPath, check_output, check_space
from gpu_tomoclass.volumes.formats import TIFF_SUFFIXES, refuse_options

WRITABLE = (*TIFF_SUFFIXES, ".mrc", ".rec", ".map", ".zarr")


def written_format(path: StrPath) -> str:
    """``"tiff"``, ``"mrc"`` or ``"zarr"``, by the suffix of a name to be written.

    Raises
    ------
    UsageError
        If the suffix names none of them.
    """
    name = fspath(path).rstrip("/\\")
    suffix = os.path.splitext(name)[1].lower()
    if not os.path.basename(name) or suffix not in WRITABLE:
        raise UsageError(
            f"the suffix {suffix!r} names no format that can be written", where=path, do="use .ome.zarr, .tif or .mrc"
        )
    return "zarr" if suffix == ".zarr" else "tiff" if suffix in TIFF_SUFFIXES else "mrc"


def volume_names(path: StrPath, *, channels: Sequence[str] = ()) -> list[str]:
    """The names of what :func:`create_volume` will make: of MRC one file for each channel."""
    if not channels or written_format(path) != "mrc":
        return [fspath(path)]
    from gpu_tomoclass.volumes.mrc.mrc import channel_paths

    return [str(name) for name in channel_paths(path, channels)]


def check_volume_target(
    path: StrPath,
    *,
    dtype: np.dtype[Any] | type[Any] | str,
    shape: tuple[int, int, int] | None = None,
    classes: Sequence[LabelClass] = (),
    channels: Sequence[str] = (),
    inputs: Iterable[StrPath] = (),
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Raise what :func:`gpu_tomoclass.volumes.opening.create_volume` would raise; nothing is created.

    Parameters as there; with ``shape`` also the room on the disk, for formats whose size is known beforehand.

    Raises
    ------
    UsageError
        If the suffix, an option or the dtype is not one of the format, or the output is an input.
    DataError
        If something of that name exists and ``overwrite`` is not set, or must not be replaced.
    ResourceError
        If the folder cannot be written to or the disk has not the room.
    """
    dtype, kind = np.dtype(dtype), written_format(path)
    if kind == "zarr":
        from gpu_tomoclass.volumes.ome_zarr.writer import check_zarr_options

        check_zarr_options(path, dtype, **{"ome_version": "0.4", "sharded": False, **options})
    else:
        refuse_options(path, format=kind.upper(), options=options)
    if kind == "tiff":
        from gpu_tomoclass.volumes.tiff.writer import check_tiff_dtype

        check_tiff_dtype(path, dtype)
    elif kind == "mrc":
        from gpu_tomoclass.volumes.mrc.mrc import mode_for

        mode_for(dtype, classes, fspath(path))
    for name in volume_names(path, channels=channels):
        check_output(name, inputs=inputs, overwrite=overwrite, folder=kind == "zarr")
    check_folder(path)
    if shape is not None and kind != "zarr":
        check_space(path, math.prod(shape) * max(1, len(channels)) * dtype.itemsize)


def check_folder(path: StrPath) -> None:
    """Raise ResourceError unless something can be made in the folder of ``path``, or in the one it would be made in."""
    folder = Path(path).absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ResourceError("is a file, not a folder to write into", where=folder, do="choose another name")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError("cannot be written to: no permission", where=folder, do="choose another folder")
