"""A volume's future name, looked at before the work: what cannot be written is refused while nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from os import fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.outputs import StrPath, check_output, check_space
from gpu_tomoclass.volumes.formats import refuse_options, written_format


def volume_names(path: StrPath, *, channels: Sequence[str] = ()) -> list[str]:
    """The names of what :func:`create_volume` will make: of MRC one file for each channel."""
    return [fspath(path)] if not channels else written_format(path).writer_class().names(path, channels)


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

    Parameters as there; with ``shape`` also the room on the disk.

    Raises
    ------
    UsageError
        If the suffix, an option or the dtype is not one of the format, or the output is an input.
    DataError
        If something of that name exists and ``overwrite`` is not set, or must not be replaced.
    ResourceError
        If the folder cannot be written to or the disk has not the room.
    """
    dtype, row = np.dtype(dtype), written_format(path)
    unknown = {name: value for name, value in options.items() if name not in row.writer_options}
    refuse_options(path, format=row.name, options=unknown)
    writer = row.writer_class()
    writer.check(path, dtype=dtype, classes=classes, **options)
    for name in writer.names(path, channels):
        check_output(name, inputs=inputs, overwrite=overwrite, folder=row.is_folder)
    check_folder(path)
    if shape is not None:
        check_space(path, least_bytes(path, shape=shape, dtype=dtype, classes=classes, channels=channels))


def least_bytes(
    path: StrPath,
    *,
    shape: tuple[int, int, int],
    dtype: np.dtype[Any] | type[Any] | str,
    classes: Sequence[LabelClass] = (),
    channels: Sequence[str] = (),
) -> int:
    """Bytes that such an output needs on the disk, or, where it is compressed, at least needs."""
    writer = written_format(path).writer_class()
    n_channels = max(1, len(channels))
    return writer.least_bytes(shape=shape, dtype=np.dtype(dtype), n_channels=n_channels, is_labels=bool(classes))


def check_folder(path: StrPath) -> None:
    """Raise ResourceError unless something can be made in the folder of ``path``, or in the one it would be made in."""
    folder = Path(path).absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ResourceError("is a file, not a folder to write into", where=folder, do="choose another name")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ResourceError("cannot be written to: no permission", where=folder, do="choose another folder")
