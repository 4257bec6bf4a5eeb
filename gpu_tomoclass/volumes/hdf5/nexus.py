"""Volumes written as NeXus files (.nxs), by the application definition NXtomoproc (nexusformat.org).

``/entry/data`` (NXdata) holds ``data`` with the positions ``z``, ``y``, ``x`` of voxels in nm; its attribute ``axes``
says in which order they are stored, slowest first. Around it stands what the definition requires: title, source
(electrons), sample, and the process with program, version, date and raw file. Class names and metadata are JSON in
``/entry/reconstruction/parameters/gpu_tomoclass``, a field that other programs pass over.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from os import PathLike, fspath
from typing import Any

import h5py
import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import atomic, check_output, check_space, writing
from gpu_tomoclass.volumes.hdf5.output_file import OutputFile
from gpu_tomoclass.volumes.place import position
from gpu_tomoclass.volumes.volume import VolumeWriter, VoxelSize

OURS = "/entry/reconstruction/parameters/gpu_tomoclass"


class NexusWriter(VolumeWriter):
    """Writes a volume as NXtomoproc.

    Parameters
    ----------
    path : str or path
    shape : tuple of int
        (nz, ny, nx).
    dtype : dtype
        Whole numbers or floats. Labels (``classes`` given) are stored with deflate, a plane to a chunk; all else plain.
    voxel_size : tuple of float or None
        (z, y, x) in nm; without it positions are numbers of voxels.
    classes : sequence of LabelClass
    channels : sequence of str
        Names, or none; with channels, planes are (n_channels, ny, nx), and the first stored axis is ``channel``.
    metadata : mapping
    overwrite : bool

    Raises
    ------
    UsageError
        If ``dtype`` is no number.
    DataError, ResourceError
        As :func:`~gpu_tomoclass.outputs.atomic`.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any] | type | str,
        voxel_size: VoxelSize | None = None,
        classes: Sequence[LabelClass] = (),
        channels: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        inputs: Sequence[str] = (),
    ) -> None:
        self.path, self.shape, self._dtype = fspath(path), shape, np.dtype(dtype)
        self.check(path, dtype=self._dtype)
        check_output(path, inputs=inputs, overwrite=overwrite)
        n = max(1, len(channels))
        check_space(path, self.least_bytes(shape=shape, dtype=self._dtype, n_channels=n, is_labels=bool(classes)))
        self._is_written = np.zeros(shape[0], bool)
        self._n_channels = len(channels)
        self._output = atomic(path, inputs=inputs, overwrite=overwrite)
        try:
            with writing(self.path):
                self._below = OutputFile(self._output.temporary)
                self._file = h5py.File(self._below, "w")
                content = {"classes": [c.to_dict() for c in classes], "metadata": dict(metadata or {})}
                self._data = self._lay_out(content, voxel_size=voxel_size, channels=channels)
                self._below.check()
        except BaseException:
            self.discard()
            raise

    @classmethod
    def check(
        cls, path: str | PathLike[str], *, dtype: np.dtype[Any], classes: Sequence[LabelClass] = (), **options: Any
    ) -> None:
        if np.dtype(dtype).kind not in "iuf":
            raise UsageError(f"NeXus volumes hold numbers, not {dtype}", where=path)

    @classmethod
    def least_bytes(
        cls, *, shape: tuple[int, int, int], dtype: np.dtype[Any], n_channels: int = 1, is_labels: bool = False
    ) -> int:
        """Of labels, which are compressed, the index of chunks alone."""
        whole = super().least_bytes(shape=shape, dtype=dtype, n_channels=n_channels)
        return 32 * shape[0] if is_labels else whole

    def _lay_out(
        self, content: dict[str, Any], *, voxel_size: VoxelSize | None, channels: Sequence[str]
    ) -> h5py.Dataset:
        file, metadata = self._file, content["metadata"]
        file.attrs["default"] = "entry"
        entry = _group(file, "entry", "NXentry")
        entry.attrs["default"] = "data"
        made_by, _, version = str(metadata.get("made_by", "gpu_tomoclass")).partition(" ")
        raw = metadata.get("input", {}).get("name") if isinstance(metadata.get("input"), dict) else None
        entry["title"] = os.path.basename(self.path)
        entry["definition"] = "NXtomoproc"
        source = _group(_group(entry, "instrument", "NXinstrument"), "source", "NXsource")
        for name, text in (("type", "Electron Source"), ("name", "electron microscope"), ("probe", "electron")):
            source[name] = text
        _group(entry, "sample", "NXsample")["name"] = str(raw or os.path.basename(self.path))
        process = _group(entry, "reconstruction", "NXprocess")
        for name, text in (("program", made_by), ("version", version or "unknown"), ("date", _now())):
            process[name] = text
        _group(process, "parameters", "NXparameters")["raw_file"] = str(raw or "unknown")
        file[OURS] = json.dumps(content)
        group = _group(entry, "data", "NXdata")
        group.attrs["signal"] = "data"
        size, unit = (voxel_size, "nm") if voxel_size is not None else ((1.0, 1.0, 1.0), "pixel")
        origin = position(metadata, voxel_size) or [0.0, 0.0, 0.0]
        for axis, n, step, first in zip("zyx", self.shape, size, origin, strict=True):
            group[axis] = first + step * np.arange(n)
            group[axis].attrs["units"] = unit
        names = ["z", "y", "x"]
        if channels:
            names.insert(0, "channel")
            group["channel"] = list(channels)
        group.attrs["axes"] = names
        stored = (len(channels), *self.shape) if channels else self.shape
        packed: dict[str, Any] = {"chunks": (1, *self.shape[1:]), "compression": "gzip"} if content["classes"] else {}
        data = group.create_dataset("data", stored, self._dtype, **packed)
        if voxel_size is not None:  # also where an axis has one position, and so no step
            data.attrs["element_size_um"] = [edge / 1000 for edge in voxel_size]
        data.attrs.update({"transform": "none", "offset": 0.0, "scaling": 1.0})
        return data

    def write_plane(self, z: int, plane: np.ndarray) -> None:
        """Write plane z: (ny, nx), or (n_channels, ny, nx) with channels."""
        expected = (self._n_channels, *self.shape[1:]) if self._n_channels else self.shape[1:]
        if plane.shape != expected:
            raise UsageError(f"plane {z} has shape {plane.shape}, not {expected}", where=self.path)
        if not 0 <= z < self.shape[0]:
            raise UsageError(f"there is no plane {z}, only 0 to {self.shape[0] - 1}", where=self.path)
        if plane.dtype.newbyteorder("=") != self._dtype.newbyteorder("="):
            raise UsageError(f"plane {z} is {plane.dtype}, the file was created as {self._dtype}", where=self.path)
        with writing(self.path):
            self._data[(slice(None), z) if self._n_channels else z] = plane
            self._below.check()
        self._is_written[z] = True

    def finish(self) -> None:
        """Check that every plane was written, and rename."""
        missing = np.flatnonzero(~self._is_written)
        if missing.size:
            self.discard()
            what = f"{missing.size} of {self.shape[0]} planes were not written, the first is {missing[0]}"
            raise UsageError(what, where=self.path)
        try:
            with writing(self.path):
                self._close()
                self._below.check()
        except BaseException:
            self.discard()
            raise
        self._output.commit()

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(AttributeError):  # it was not made
            self._close()
        self._output.discard()

    def _close(self) -> None:
        self._file.close()
        self._below.close()


def _group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
