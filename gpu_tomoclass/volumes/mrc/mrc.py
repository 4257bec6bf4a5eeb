"""Volumes in MRC files (.mrc, .rec, .map, .st, .ali), read and written plane by plane."""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.outputs import AtomicOutput, SyncAhead, atomic, check_output, check_space, discard, writing
from gpu_tomoclass.volumes.mrc import header as mrc_header
from gpu_tomoclass.volumes.place import with_place
from gpu_tomoclass.volumes.reordered import ReorderedVolume
from gpu_tomoclass.volumes.stored_axes import order_notes, stored_order
from gpu_tomoclass.volumes.volume import Volume, VolumeWriter, VoxelSize


def open_mrc(path: str | PathLike[str], *, axes: str | None = None, allow_missing_planes: bool = False) -> Volume:
    """Open an MRC file, reading its header only.

    Parameters
    ----------
    path : str or path
    axes : str, optional
        Order in which the stored axes (slowest first) are to be read, a permutation of ``"zyx"``; by default what
        the header's ``mapc``, ``mapr``, ``maps`` say.
    allow_missing_planes : bool
        Read planes behind the end of a truncated file as zeros and list them in ``missing_planes``.

    Raises
    ------
    UsageError
        If the file does not exist or ``axes`` is no permutation of ``"zyx"``.
    DataError
        If the file is truncated, compressed, not MRC, or of a mode that is not a grey-value image.
    """
    stored = MrcVolume(fspath(path), axes=axes, allow_missing_planes=allow_missing_planes)
    return in_volume_order(stored)


def in_volume_order(stored: MrcVolume) -> Volume:
    """The volume with axes z, y, x of one whose axes are in the order of the file."""
    if stored.order == "zyx":
        return stored
    volume = ReorderedVolume(stored, order=stored.order)
    if stored.order[0] == "z":  # planes stay planes: one set, so that what is missing there is missing here
        volume.missing_planes = stored.missing_planes
    return volume


class MrcVolume(Volume):
    """The sections of an MRC file as planes, in the order of the file; made by :func:`open_mrc`.

    Attributes
    ----------
    order : str
        What the stored axes are, slowest first, in lower case; ``shape`` and ``voxel_size`` are in this order.

    Where ``path`` is a compressed file, ``unpacked`` is where its bytes are.
    """

    def __init__(self, path: str, *, axes: str | None, allow_missing_planes: bool, unpacked: str | None = None) -> None:
        self._data = path if unpacked is None else unpacked
        n_bytes = os.path.getsize(self._data)
        with open(self._data, "rb") as file:
            raw = file.read(mrc_header.HEADER_BYTES)
        header, swap = mrc_header.read_header(raw, n_bytes, path)
        mode, self._offset = int(header["mode"]), mrc_header.HEADER_BYTES + int(header["nsymbt"])
        ours = mrc_header.read_own_header(self._data, header)
        dtype, notes = mrc_header.plane_dtype(header, swap, ours)
        declared, more = mrc_header.declared_order(header, path)
        self.order = stored_order(axes, declared, where=path)
        voxel_size, size_notes = mrc_header.stored_voxel_size(header, declared)
        pixel = mrc_header.fei_pixel_size(self._data, header, swap)
        if pixel is not None and (voxel_size is None or all(math.isclose(n, 0.1, rel_tol=1e-6) for n in voxel_size)):
            voxel_size, size_notes = (pixel,) * 3, [f"voxel size {pixel:g} nm from FEI's extended header"]
        notes = [*mrc_header.stamp_notes(header, swap), *notes]
        super().__init__(
            path,
            shape=(int(header["nz"]), int(header["ny"]), int(header["nx"])),
            dtype=np.dtype(dtype),
            format=f"MRC mode {mode} ({np.dtype(dtype)})",
            axes=self.order.upper(),
            voxel_size=voxel_size,
            notes=[*notes, *more, *order_notes(axes, declared, self.order), *size_notes],
            classes=tuple(LabelClass.from_dict(c) for c in ours.get("classes", ())),
            metadata=with_place(ours.get("metadata") or {}, mrc_header.stored_place(header, swap)),
            allow_missing_planes=allow_missing_planes,
        )
        self._packed, self._file_dtype = mode == 101, np.dtype(dtype).newbyteorder(swap)
        nx = self.shape[2]
        self._row_bytes = (nx + 1) // 2 if self._packed else nx * self._file_dtype.itemsize
        self._check_length(n_bytes)

    def _check_length(self, n_bytes: int) -> None:
        n_planes, plane_bytes = self.shape[0], self.shape[1] * self._row_bytes
        expected = self._offset + n_planes * plane_bytes
        if n_bytes > expected:
            self.notes.append(
                f"the file has {n_bytes - expected} bytes behind the image ({n_bytes} instead of {expected}), ignored"
            )
        if n_bytes >= expected:
            return
        extended = self._offset - mrc_header.HEADER_BYTES
        if extended and n_bytes == expected - extended:
            raise DataError(
                f"its header counts {extended} bytes of extended header (nsymbt), and exactly these are missing: "
                "they were cut off, and the planes are whole",
                where=self.path,
                do="set nsymbt (bytes 93 to 96 of the file) to 0, with mrcfile for example",
            )
        complete = max(0, n_bytes - self._offset) // plane_bytes
        found = (
            f"is truncated: expected {expected} bytes, found {n_bytes} ({complete} of {n_planes} planes are complete)"
        )
        # With less than a thousandth of the planes it is the header that is wrong.
        usable = complete * 1000 >= n_planes and self.order[0] == "z"
        if self.allow_missing_planes and usable:
            self.notes.append(f"the file {found}")
            self.mark_missing(range(complete, n_planes))
            return
        if self.order[0] != "z":
            raise DataError(f"{found}, and z is not the slowest of its axes ({self.axes})", where=self.path)
        more = ", or fill the missing planes with zeros: --allow-missing-planes" if usable else ""
        raise DataError(found, where=self.path, do=f"copy it again{more}")

    def rows(self, z: int, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of plane ``z``; only these are read."""
        if not (0 <= z < self.shape[0] and 0 <= start <= stop <= self.shape[1]):
            return super().rows(z, start, stop)
        return self._guarded(z, lambda: self._read_rows(z, start, stop), shape=(stop - start, self.shape[2]))

    def _read_plane(self, z: int) -> np.ndarray:
        return self._read_rows(z, 0, self.shape[1])

    def _read_rows(self, z: int, start: int, stop: int) -> np.ndarray:
        n_bytes = (stop - start) * self._row_bytes
        offset = self._offset + (z * self.shape[1] + start) * self._row_bytes
        raw = np.fromfile(self._data, np.uint8, n_bytes, offset=offset)
        if raw.size != n_bytes:
            raise DataError(f"plane {z} ends after {raw.size} of {n_bytes} bytes", where=self.path)
        if not self._packed:
            return raw.view(self._file_dtype).reshape(stop - start, -1)
        pairs = raw.reshape(stop - start, -1, 1)  # the low four bits come first; each row starts in a new byte
        return np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(stop - start, -1)[:, : self.shape[2]]


class MrcWriter(VolumeWriter):
    """Writes a volume as MRC, or one MRC file per channel.

    Parameters
    ----------
    path : str or path
        With channels, ``out.mrc`` becomes ``out_<channel>.mrc`` for each; see ``paths``.
    shape : tuple of int
        (nz, ny, nx).
    dtype : dtype
        int8 (mode 0), int16 (1), float32 (2), uint16 (6), float16 (12), or uint8: mode 0 for labels (``classes`` given,
        values up to 127, which are the same signed and unsigned), else mode 6, because readers disagree about the sign.
    voxel_size : tuple of float or None
        (z, y, x) in nm.
    classes : sequence of LabelClass
    channels : sequence of str
        Names, or none; with channels, planes are (n_channels, ny, nx).
    metadata : mapping
        Kept as JSON in the extended header.
    overwrite : bool

    Raises
    ------
    UsageError
        If MRC cannot hold ``dtype``.
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
        self.path, self.shape = fspath(path), shape
        self.paths = [Path(name) for name in self.names(path, channels)]
        self._has_channels = bool(channels)
        mode = mode_for(np.dtype(dtype), classes, self.path)
        for target in self.paths:  # all of them, before anything is written
            check_output(target, inputs=inputs, overwrite=overwrite)
        file_dtype = np.dtype(mrc_header.MODE_DTYPES[mode])
        n_bytes = mrc_header.HEADER_BYTES + int(np.prod(shape, dtype=object)) * file_dtype.itemsize
        check_space(self.path, n_bytes * len(self.paths))
        self._files: list[_MrcFile] = []
        try:
            names: Sequence[str | None] = channels or [None]
            for target, channel in zip(self.paths, names, strict=True):
                content: dict[str, Any] | None = None
                if classes or metadata or channel is not None:
                    content = {"dtype": str(np.dtype(dtype)), "classes": [c.to_dict() for c in classes]}
                    content |= {"metadata": dict(metadata or {}), "channel": channel}
                header, extended = mrc_header.make_header(
                    shape=shape, mode=mode, voxel_size=voxel_size, classes=tuple(classes), content=content
                )
                if np.dtype(dtype) == np.int8:
                    mrc_header.stamp_signed_bytes(header)
                output = atomic(target, inputs=inputs, overwrite=overwrite)
                self._files.append(_MrcFile(output, header, extended, dtype=np.dtype(dtype)))
        except BaseException:
            self.discard()
            raise

    @classmethod
    def check(
        cls, path: str | PathLike[str], *, dtype: np.dtype[Any], classes: Sequence[LabelClass] = (), **options: Any
    ) -> None:
        mode_for(dtype, classes, fspath(path))

    @classmethod
    def names(cls, path: str | PathLike[str], channels: Sequence[str]) -> list[str]:
        """One file for each channel."""
        return [str(name) for name in channel_paths(path, channels)] if channels else [fspath(path)]

    def outputs(self) -> tuple[str, ...]:
        return tuple(map(str, self.paths))

    def write_plane(self, z: int, plane: np.ndarray) -> None:
        """Write plane z: (ny, nx), or (n_channels, ny, nx) with channels."""
        planes = plane if self._has_channels else plane[np.newaxis]
        expected = (len(self._files), *self.shape[1:])
        if planes.shape != expected:
            found = f"plane {z} has shape {plane.shape}"
            raise UsageError(f"{found}, not {expected if self._has_channels else expected[1:]}", where=self.path)
        if not 0 <= z < self.shape[0]:
            raise UsageError(f"there is no plane {z}, only 0 to {self.shape[0] - 1}", where=self.path)
        for file, channel_plane in zip(self._files, planes, strict=True):
            file.write_plane(z, channel_plane)

    def finish(self) -> None:
        """Write the header statistics, check that every plane was written, and rename all files."""
        done: list[Path] = []
        try:
            for file in self._files:
                file.complete()
            for file in self._files:
                file.output.commit()
                done.append(file.target)
        except BaseException:
            for target in done:  # some channels without the others would look like a finished output
                discard(target)
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written."""
        for file in self._files:
            with contextlib.suppress(OSError):  # of data still in the buffer, on a full disk
                file.file.close()
            file.output.discard()


class _MrcFile:
    """One MRC file under its temporary name."""

    def __init__(self, output: AtomicOutput, header: np.ndarray, extended: bytes, *, dtype: np.dtype[Any]) -> None:
        self.output, self.target, self.header, self.dtype = output, output.target, header, dtype
        self.file_dtype = np.dtype(mrc_header.MODE_DTYPES[int(header["mode"])]).newbyteorder("<")
        self.offset = mrc_header.HEADER_BYTES + len(extended)
        # Per plane: count, minimum, maximum, mean and sum of squared deviations of the finite values.
        self.statistics = np.full((int(header["nz"]), 5), np.nan)
        try:
            with writing(self.target):
                self.file = open(output.temporary, "r+b")  # noqa: SIM115 - closed by complete or discard
                self.file.write(header.tobytes() + extended)
                self.sync, self.lock = SyncAhead(self.file), threading.Lock()
        except BaseException:
            output.discard()
            raise

    def write_plane(self, z: int, plane: np.ndarray) -> None:
        if plane.dtype.newbyteorder("=") != self.dtype:
            raise UsageError(f"plane {z} is {plane.dtype}, the file was created as {self.dtype}", where=self.target)
        if self.file_dtype == np.int8 and self.dtype == np.uint8 and plane.max() > 127:
            raise UsageError(f"label {plane.max()} in plane {z} is not one of the classes", where=self.target)
        data = np.ascontiguousarray(plane, dtype=self.file_dtype)
        with writing(self.target), self.lock:
            self.file.seek(self.offset + z * data.nbytes)
            self.file.write(data.data)
        self.sync.wrote(data.nbytes)
        values = data.ravel()
        if data.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            values = values[finite]
        if values.size:
            mean = values.mean(dtype=np.float64)
            squares = np.square(values - mean).sum()
            self.statistics[z] = values.size, values.min(), values.max(), mean, squares
        else:
            self.statistics[z] = 0, np.inf, -np.inf, 0, 0

    def complete(self) -> None:
        missing = np.flatnonzero(np.isnan(self.statistics[:, 0]))
        if missing.size:
            raise UsageError(
                f"{missing.size} of {len(self.statistics)} planes were not written, the first is {missing[0]}",
                where=self.target,
            )
        count, low, high, mean, squares = self.statistics.T
        if count.any():
            total = np.average(mean, weights=count)
            variance = (squares.sum() + (count * np.square(mean - total)).sum()) / count.sum()
            self.header["dmin"], self.header["dmax"], self.header["dmean"] = low.min(), high.max(), total
            self.header["rms"] = np.sqrt(variance)
        else:  # MRC2014: not determined
            self.header["dmin"], self.header["dmax"], self.header["dmean"], self.header["rms"] = 0, -1, -2, -1
        with writing(self.target):
            self.file.seek(0)
            self.file.write(self.header.tobytes())
            self.file.close()


def channel_paths(path: str | PathLike[str], channels: Sequence[str]) -> list[Path]:
    """``out_<channel>.mrc`` beside ``out.mrc`` for each channel, with characters unfit for file names replaced by _."""
    target, paths = Path(path), []
    for i, channel in enumerate(channels):
        name = re.sub(r"[^\w.+-]+", "_", channel).strip("_.") or str(i)
        name = os.fsencode(name)[:80].decode(errors="ignore")  # a file name has at most 255 bytes
        candidate = target.with_name(f"{target.stem}_{name}{target.suffix}")
        if candidate in paths:
            candidate = target.with_name(f"{target.stem}_{name}_{i}{target.suffix}")
        paths.append(candidate)
    return paths


def mode_for(dtype: np.dtype[Any], classes: Sequence[LabelClass], path: str) -> int:
    if dtype == np.uint8:
        return 0 if classes and max(c.value for c in classes) <= 127 else 6
    modes = {np.dtype(name): mode for mode, name in mrc_header.MODE_DTYPES.items() if mode != 101}
    mode = modes.get(dtype.newbyteorder("="))
    if mode is None:
        raise UsageError(
            f"MRC cannot hold {dtype}, only int8, uint8, int16, uint16, float16 and float32",
            where=path,
            do="write .ome.zarr or .tif instead",
        )
    return mode
