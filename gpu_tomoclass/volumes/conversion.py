"""Volumes into other volumes: turned, thinned; and what a volume file is, for people. Never holds a whole volume."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError, StoppedError, UsageError
from gpu_tomoclass.outputs import folder_bytes
from gpu_tomoclass.volumes.opening import create_volume, open_volume
from gpu_tomoclass.volumes.place import moved, with_place
from gpu_tomoclass.volumes.reordered import ReorderedVolume
from gpu_tomoclass.volumes.volume import Volume

Progress = Callable[[int, int], None]

# What the axes z, y, x of the input become, for each place of the tilt axis: see reslice.
TILT_ORDERS = {"z": "zyx", "y": "yzx", "x": "yxz"}


def describe_volume(volume: Volume) -> dict[str, Any]:
    """Description of a volume, ready for JSON; reads one plane.

    Returns
    -------
    dict
        ``path``, ``format``, ``shape`` (z, y, x), ``axes`` as stored, ``dtype``, ``voxel_size_nm`` (z, y, x) or None,
        ``size_on_disk`` in bytes, ``classes`` ("value: name"), ``metadata``, ``missing_planes``, ``sampled_plane``
        (index of the middle plane), its ``min``, ``max`` and ``mean`` (finite voxels; None if there are none),
        ``non_finite`` (their number in that plane), ``notes``.
    """
    z = volume.shape[0] // 2
    plane = volume.plane(z)
    finite = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane.ravel()
    return {
        "path": volume.path,
        "format": volume.format,
        "shape": list(volume.shape),
        "axes": volume.axes,
        "dtype": volume.dtype.name,
        "voxel_size_nm": None if volume.voxel_size is None else [float(f"{v:.6g}") for v in volume.voxel_size],
        "size_on_disk": size_on_disk(volume),
        "classes": [f"{c.value}: {c.name}" for c in volume.classes],
        "metadata": volume.metadata,
        "missing_planes": sorted(volume.missing_planes),
        "sampled_plane": z,
        "min": finite.min().item() if finite.size else None,
        "max": finite.max().item() if finite.size else None,
        "mean": float(finite.mean(dtype=np.float64)) if finite.size else None,
        "non_finite": int(plane.size - finite.size),
        "notes": list(volume.notes),
    }


def volume_statistics(volume: Volume, *, progress: Progress | None = None) -> dict[str, Any]:
    """Range and mean of all planes, or the voxels of each value of a label volume; one plane in memory at a time.

    Returns
    -------
    dict
        ``min``, ``max``, ``mean`` of the finite voxels (None if there are none), ``non_finite`` (their number), and for
        uint8 volumes with at most 32 values ``voxels`` (name, or "value k" -> number).
    """
    low, high, total, n, non_finite = np.inf, -np.inf, 0.0, 0, 0
    counts = np.zeros(256, np.int64)
    nz = volume.shape[0]
    for z, plane in volume.planes():
        finite = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane.ravel()
        if finite.size:
            low, high = min(low, finite.min().item()), max(high, finite.max().item())
            total += float(finite.sum(dtype=np.float64))
            n += finite.size
        non_finite += plane.size - finite.size
        if plane.dtype == np.uint8:
            counts += np.bincount(plane.ravel(), minlength=256)
        if progress is not None:
            progress(z + 1, nz)
    found: dict[str, Any] = {
        "min": low if n else None, "max": high if n else None, "mean": total / n if n else None,
        "non_finite": non_finite,
    }  # fmt: skip
    values = np.flatnonzero(counts).tolist()
    if values and len(values) <= 32:
        names = {c.value: c.name for c in volume.classes}
        found["voxels"] = {names.get(value, f"value {value}"): int(counts[value]) for value in values}
    return found


def open_any_channel(path: str | PathLike[str], **reading: Any) -> Volume:
    """Open a volume; of one with several channels the first, with a note, where none was chosen.

    Parameters and errors as :func:`gpu_tomoclass.volumes.opening.open_volume`.
    """
    try:
        return open_volume(path, **reading)
    except DataError as error:
        if reading.get("channel") is not None:
            raise
        try:
            volume = open_volume(path, **{**reading, "channel": 0})
        except (DataError, UsageError):
            raise error from None
        volume.notes.append("it has several channels: this is the first; --channel chooses another")
        return volume


def size_on_disk(volume: Volume) -> int:
    """Bytes of the file, or of all files in the folder of the volume."""
    if not os.path.isdir(volume.path):
        return sum(os.path.getsize(name) for name in volume.files())
    return folder_bytes(volume.path)


def reslice(
    volume: Volume,
    path: str | PathLike[str],
    *,
    tilt_axis: str,
    overwrite: bool = False,
    progress: Progress | None = None,
    memory_bytes: int = 2**30,
) -> None:
    """Write the volume with the tilt axis along z, so that each plane shows the missing wedge.

    The axes are exchanged, nothing is flipped or interpolated:

    ========= ================================ ==================================================================
    tilt axis output                           orientation
    ========= ================================ ==================================================================
    z         ``in[z, y, x]``                  a copy
    y         ``in.transpose(1, 0, 2)``        planes are [z, x]; the mirror image, as Fiji's Reslice from the top;
                                               done twice it gives the input again
    x         ``in.transpose(2, 0, 1)``        planes are [z, y]; a rotation, handedness is kept; done three times
                                               it gives the input again
    ========= ================================ ==================================================================

    Parameters
    ----------
    volume : Volume
    path : str or path
        The new volume, see :func:`gpu_tomoclass.volumes.opening.create_volume`.
    tilt_axis : {"x", "y", "z"}
        The axis of the input along which the tilt axis lies.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes in all).
    memory_bytes : int
        Memory for planes that are collected in one pass over the input, see :mod:`gpu_tomoclass.volumes.reordered`.

    ``metadata["reslice"]`` of the output lists the tilt axes of this and earlier calls.

    Raises
    ------
    UsageError
        If the axis is unknown, or the output is the input.
    DataError
        If a plane cannot be read, or the output exists.
    ResourceError
        If the disk is full.
    """
    if tilt_axis not in TILT_ORDERS:
        raise UsageError(f"tilt axis {tilt_axis!r} is unknown", do="choose x, y or z")
    turned = (
        volume if tilt_axis == "z" else ReorderedVolume(volume, order=TILT_ORDERS[tilt_axis], slab_bytes=memory_bytes)
    )
    metadata = {**volume.metadata, "reslice": [*volume.metadata.get("reslice", ()), tilt_axis]}
    if tilt_axis != "z":
        metadata.pop("substack", None)  # its planes are no planes of the output
    copy_planes(turned, path, planes=range(turned.shape[0]), metadata=metadata, overwrite=overwrite, progress=progress)


def substack(
    volume: Volume,
    path: str | PathLike[str],
    *,
    every: int = 15,
    start: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write planes ``start``, ``start + every``, ...: the stack that a person marks strokes on.

    ``metadata["substack"]`` of the output is ``{"every", "start", "nz"}``, so that strokes on its plane k are found on
    plane ``start + k * every`` of the volume, which has ``nz`` planes.

    Parameters
    ----------
    volume : Volume
    path : str or path
        The new volume, see :func:`gpu_tomoclass.volumes.opening.create_volume`.
    every : int
        Distance of the planes that are kept; the voxel size along z grows by it.
    start : int, optional
        The first plane kept, by default ``every // 2``.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    UsageError
        If no plane would be kept, or the output is the input.
    DataError
        If a plane cannot be read, or the output exists.
    ResourceError
        If the disk is full.
    """
    nz = volume.shape[0]
    if every < 1:
        raise UsageError(f"every {every} planes makes no sense", do="give 1 or more")
    first = every // 2 if start is None else start
    if not 0 <= first < nz:
        raise UsageError(
            f"plane {first}, the first to keep, is not in the volume, which has planes 0 to {nz - 1}",
            where=volume.path,
            do="give another start or every",
        )
    metadata = {**volume.metadata, "substack": {"every": every, "start": first, "nz": nz}}
    copy_planes(
        volume,
        path,
        planes=range(first, nz, every),
        metadata=metadata,
        spacing=every,
        overwrite=overwrite,
        progress=progress,
    )


def convert(
    volume: Volume,
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **format_options: Any,
) -> None:
    """Write the volume in the format that the suffix of ``path`` names; values, voxel size and metadata stay.

    Parameters
    ----------
    volume : Volume
    path : str or path
        The new volume, see :func:`gpu_tomoclass.volumes.opening.create_volume`.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes in all).
    should_stop : callable, optional
        Asked before each plane; once True, StoppedError is raised and nothing is left.
    **format_options
        Of :func:`gpu_tomoclass.volumes.opening.create_volume`.

    Raises
    ------
    UsageError
        If the format cannot hold the data, or the output is the input.
    DataError
        If a plane cannot be read, or the output exists.
    ResourceError
        If the disk is full.
    """
    copy_planes(
        volume,
        path,
        planes=range(volume.shape[0]),
        metadata=volume.metadata,
        overwrite=overwrite,
        progress=progress,
        should_stop=should_stop,
        **format_options,
    )


def copy_planes(
    volume: Volume,
    path: str | PathLike[str],
    *,
    planes: Iterable[int],
    metadata: dict[str, Any],
    spacing: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    **format_options: Any,
) -> None:
    """Write the given planes of a volume to a new one, with its dtype, voxel size and classes.

    ``spacing`` is the distance of the planes in z, by which the voxel size grows. Raises as :func:`substack`.
    """
    kept = list(planes)
    size = volume.voxel_size
    place = moved(volume.metadata, first=kept[0], voxel_size=size, spacing=spacing)
    writer = create_volume(
        path,
        shape=(len(kept), *volume.shape[1:]),
        dtype=volume.dtype,
        voxel_size=None if size is None else (size[0] * spacing, size[1], size[2]),
        classes=volume.classes if volume.dtype == np.uint8 else (),
        metadata=with_place(metadata, place),
        overwrite=overwrite,
        inputs=volume.inputs(),
        **format_options,
    )
    with writer:
        for done, z in enumerate(kept):
            if should_stop():
                raise StoppedError(f"stopped after {done} of {len(kept)} planes", where=path, do="run it again")
            writer.write_plane(done, volume.plane(z))
            if progress is not None:
                progress(done + 1, len(kept))
        volume.check_unchanged()
