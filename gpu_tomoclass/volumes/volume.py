"""A volume: a 3-D image on disk or in memory, axes z, y, x, read plane by plane.

This room does no arithmetic: a plane comes out exactly as stored (native byte order, C-contiguous), or an error names
file and plane. Inputs are opened read-only. Opening reads headers only, so a 100 GB volume opens at once.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import math
import operator
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Self

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError

VoxelSize = tuple[float, float, float]  # (z, y, x) in nm

# A network file system may answer these for a moment; anything else will not get better by waiting.
_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ECONNRESET, errno.EHOSTDOWN, errno.ENOTCONN}
_RETRY_PAUSES = (0.1, 0.5, 2.0)  # seconds


class NoSuchPlaneError(UsageError, IndexError):
    """There is no plane of this number."""


class Volume(abc.ABC):
    """A readable volume.

    ``volume[z]`` is a plane (ny, nx), ``volume[a:b]`` planes (b - a, ny, nx), ``volume[a:b, 100:200, 50:80]`` a part of
    them, ``numpy.asarray(volume)`` all of it; ``for plane in volume`` goes through the planes.

    A format's reader passes these, with ``files`` (those whose size and time tell whether the volume changed; by
    default the file at ``path``) and ``allow_missing_planes`` (fill what cannot be read with zeros), and implements
    :meth:`_read_plane`; new attempts after network errors and the checks are done here.

    Attributes
    ----------
    path : str
        As the user gave it (``file.h5::/path`` included).
    shape : tuple of int
        (nz, ny, nx).
    dtype : numpy.dtype
        Of the planes, native byte order.
    format : str
        What was understood, for people: ``"ImageJ TIFF"``, ``"MRC mode 1"``, ``"OME-Zarr 0.4"``.
    axes : str
        Axes as stored, slowest first: ``"ZYX"``, ``"CYX"``.
    voxel_size : tuple of float or None
        (z, y, x) in nm; None where the file does not say.
    notes : list of str
        Sentences the user should see: an assumption made, a header corrected, planes missing.
    missing_planes : set of int
        Planes that could not be read and were filled with zeros (only with ``allow_missing_planes``).
    classes : tuple of LabelClass
        Class names and colours that the file carries; empty if none.
    metadata : dict
        Anything else worth keeping (provenance of a file we wrote).
    reading : dict or None
        What :func:`open_volume` was told beside the path, to open it again elsewhere; None if made otherwise.
    bin : (int, int, int)
        Stored voxels along z, y and x that were averaged to one; 1 each but for ``open_volume(bin=..)``.
    full_shape : (int, int, int)
        Shape as stored.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        format: str,
        axes: str = "ZYX",
        voxel_size: VoxelSize | None = None,
        notes: Sequence[str] = (),
        classes: Sequence[LabelClass] = (),
        metadata: Mapping[str, Any] | None = None,
        files: Sequence[str | PathLike[str]] | None = None,
        allow_missing_planes: bool = False,
    ) -> None:
        if min(shape) < 1:
            raise DataError(f"holds no voxels: its shape (z, y, x) is {shape}", where=path)
        self.path = fspath(path)
        self.shape = self.full_shape = shape
        self.bin = (1, 1, 1)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.format = format
        self.axes = axes
        self.voxel_size = voxel_size
        self.notes = list(notes)
        self.missing_planes: set[int] = set()
        self.classes = tuple(classes)
        self.metadata = dict(metadata or {})
        self.reading: dict[str, Any] | None = None
        self.allow_missing_planes = allow_missing_planes
        self._lock = threading.RLock()
        self._missing_note = ""
        if files is None:  # the file of file.h5::/path; none for a volume that lives in memory
            file = self.path if os.path.exists(self.path) else self.path.partition("::")[0]
            files = (file,) if os.path.exists(file) else ()
        self._stamps = {fspath(name): _stamp(fspath(name)) for name in files}

    @abc.abstractmethod
    def _read_plane(self, z: int) -> np.ndarray:
        """Plane z as stored, shape (ny, nx); a failure is a DataError that names the plane, or an OSError."""

    def _reopen(self) -> None:  # noqa: B027  (not every format holds a file open)
        """Open the file again after a network error; called before each new attempt."""

    def plane(self, z: int) -> np.ndarray:
        """Plane ``z``: (ny, nx), ``dtype``, C-contiguous.

        Raises
        ------
        UsageError
            If there is no plane z.
        DataError
            If the plane cannot be read as the header declares it.
        """
        if not 0 <= z < self.shape[0]:
            raise NoSuchPlaneError(f"there is no plane {z}, only 0 to {self.shape[0] - 1}", where=self.path)
        return self._guarded(z, lambda: self._read_plane(z), shape=self.shape[1:])

    def rows(self, z: int, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of plane ``z``; formats that can read less than a plane do so."""
        return self.plane(z)[start:stop]

    def planes(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """(z, plane) for z in range(start, stop, step)."""
        for z in range(start, self.shape[0] if stop is None else stop, step):
            yield z, self.plane(z)

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (plane for _, plane in self.planes())

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> np.ndarray:
        """Planes, or a part of them, as an array of ``dtype``; only the planes asked for are read.

        Raises
        ------
        UsageError
            If there is no such plane, or the index is more than numbers and slices; it is an IndexError too.
        DataError
            If a plane cannot be read.
        """
        index = key if isinstance(key, tuple) else (key,)
        if len(index) > 3 or not all(isinstance(part, slice) or hasattr(part, "__index__") for part in index):
            raise NoSuchPlaneError(
                f"{key!r} is no index of numbers and slices (z, y, x)",
                where=self.path,
                do="index numpy.asarray(volume)",
            )
        planes, inside = index[0], index[1:]
        if not isinstance(planes, slice):
            z = operator.index(planes)
            return self.plane(z + self.shape[0] if -self.shape[0] <= z < 0 else z)[inside]
        numbers = range(self.shape[0])[planes]
        like = np.broadcast_to(np.empty((), self.dtype), self.shape[1:])[inside]
        part = np.empty((len(numbers), *like.shape), self.dtype)
        for i, z in enumerate(numbers):
            part[i] = self.plane(z)[inside]
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("planes are read from a file: an array of them is always a copy")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def __repr__(self) -> str:
        facts = [f"{' x '.join(map(str, self.shape))} (z, y, x) {self.dtype.name}"]
        facts.append("voxel size unknown" if self.voxel_size is None else f"voxel {voxel_text(self.voxel_size)}")
        if self.classes:
            facts.append("classes " + ", ".join(f"{c.value} {c.name}" for c in self.classes))
        if self.format != self.path:
            facts.append(self.format)
        return f"<Volume {self.path}: {', '.join(facts)}>"

    def files(self) -> list[str]:
        """The files whose size and time tell whether the volume has changed."""
        return list(self._stamps)

    def inputs(self) -> list[str]:
        """The names in whose place no output may come; see :func:`gpu_tomoclass.outputs.refuse_inputs`."""
        return [self.path, *self.files()]

    def check_unchanged(self) -> None:
        """Raise DataError if a file of the volume has another size or modification time than at opening."""
        for name, stamp in self._stamps.items():
            try:
                now = _stamp(name)
            except DataError as error:
                raise DataError("disappeared during the run", where=name) from error
            if now != stamp:
                raise DataError(
                    f"changed during the run: {stamp[0]} bytes at opening, {now[0]} now, modified {_time_text(now[1])}",
                    where=name,
                    do="repeat the run when the file is complete",
                )

    def fingerprint(self) -> dict[str, Any]:
        """Marks that tell this volume from another, ready for JSON.

        Name (without folder), size in bytes and newest modification time of its files at opening, shape, dtype, and
        the CRC-32 of the first, middle and last plane (little-endian, so the same on every machine). Three planes
        are read. A voxel size that the user gave is in it too.
        """
        nz = self.shape[0]
        given = self.metadata.get("voxel_size_given")
        little = self.dtype.newbyteorder("<")
        return {
            "name": os.path.basename(self.path.rstrip("/\\")),
            "size": sum(size for size, _ in self._stamps.values()),
            "mtime_ns": max((mtime for _, mtime in self._stamps.values()), default=0),
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "crc32": [zlib.crc32(self.plane(z).astype(little, copy=False).tobytes()) for z in (0, nz // 2, nz - 1)],
            **({} if given is None else {"voxel_size_given": given}),
        }

    def _guarded(self, z: int, read: Callable[[], np.ndarray], *, shape: tuple[int, ...]) -> np.ndarray:
        """``read()`` with new attempts after network errors, checked, or zeros where missing planes are allowed."""
        try:
            stored = self._attempt(z, read)
            if stored.shape != shape or stored.dtype.newbyteorder("=") != self.dtype:
                found, declared = f"{stored.dtype} {stored.shape}", f"{self.dtype} {shape}"
                raise DataError(f"plane {z} is {found}, not {declared} as declared", where=self.path)
            return np.ascontiguousarray(stored, dtype=self.dtype)
        except DataError:
            if not self.allow_missing_planes:
                raise
            self.mark_missing([z])
            return np.zeros(shape, self.dtype)

    def _attempt(self, z: int, read: Callable[[], np.ndarray]) -> np.ndarray:
        for pause in (*_RETRY_PAUSES, None):
            try:
                return read()
            except OSError as error:
                if pause is None or error.errno not in _TRANSIENT:
                    tries = f" after {len(_RETRY_PAUSES) + 1} attempts" if error.errno in _TRANSIENT else ""
                    reason = error.strerror or str(error)
                    raise DataError(f"plane {z} cannot be read{tries}: {reason}", where=self.path) from error
            time.sleep(pause)
            with contextlib.suppress(OSError):  # the next attempt reports it
                self._reopen()
        raise AssertionError("the last attempt returns or raises")

    def mark_missing(self, planes: Iterable[int]) -> None:
        """Record planes that are filled with zeros, and keep the one note about them up to date."""
        with self._lock:
            self.missing_planes.update(planes)
            if self._missing_note in self.notes:
                self.notes.remove(self._missing_note)
            if self.missing_planes:
                n, which = len(self.missing_planes), ranges_text(self.missing_planes)
                self._missing_note = f"{n} of {self.shape[0]} planes cannot be read and are filled with zeros: {which}"
                self.notes.append(self._missing_note)

    def close(self) -> None:  # noqa: B027  (not every format holds a file open)
        """Release the file; the volume cannot be read afterwards."""

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # perhaps it was never opened
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class VolumeWriter(abc.ABC):
    """A volume being written plane by plane, in any order of planes unless the format says otherwise.

    The data go to a hidden temporary name beside the target. Leaving the ``with`` block normally checks that every
    plane was written, syncs and renames; leaving it by an exception removes the temporary data and keeps any older
    file of that name. So a file with the final name is always complete.
    """

    path: str
    shape: tuple[int, int, int]

    @classmethod
    @abc.abstractmethod
    def check(
        cls, path: str | PathLike[str], *, dtype: np.dtype[Any], classes: Sequence[LabelClass] = (), **options: Any
    ) -> None:
        """Raise UsageError for what the format cannot hold; ``options`` are those that only this format knows."""

    @classmethod
    def names(cls, path: str | PathLike[str], channels: Sequence[str]) -> list[str]:
        """The names that :meth:`finish` gives to an output ``path`` with these channels."""
        return [fspath(path)]

    @classmethod
    def least_bytes(
        cls, *, shape: tuple[int, int, int], dtype: np.dtype[Any], n_channels: int = 1, is_labels: bool = False
    ) -> int:
        """Bytes that an output needs on the disk at least; without compression all of its voxels'."""
        return math.prod(shape) * n_channels * dtype.itemsize

    def outputs(self) -> tuple[str, ...]:
        """The names that :meth:`finish` gives; more than one where a format holds one image per file."""
        return (fspath(self.path),)

    @abc.abstractmethod
    def write_plane(self, z: int, plane: np.ndarray) -> None:
        """Write plane z: (ny, nx), or (n_channels, ny, nx) where the volume was created with channels."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Complete the file and give it its name."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Remove what was written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()


def checked_voxel_size(size: float | Sequence[float]) -> VoxelSize:
    """(z, y, x) in nm, of one number or of three.

    Raises
    ------
    UsageError
        Unless they are finite and positive.
    """
    try:
        numbers = tuple(float(n) for n in (size if isinstance(size, Iterable) else (size,) * 3))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(math.isfinite(n) and n > 0 for n in numbers):
        raise UsageError(f"the voxel size {size!r} is not one or three (z, y, x) positive numbers of nm")
    return numbers[0], numbers[1], numbers[2]


def voxel_text(size: VoxelSize) -> str:
    """``"0.55 nm"``, or ``"1.1 x 0.55 x 0.55 nm"`` where they differ."""
    numbers = [f"{n:g}" for n in size]
    return f"{numbers[0] if len(set(numbers)) == 1 else ' x '.join(numbers)} nm"


def ranges_text(numbers: Iterable[int]) -> str:
    """``"1, 3 to 7, 9"``; long lists are cut after ten runs."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    words = [str(a) if a == b else f"{a} and {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs[:10]]
    return ", ".join(words) + (", ..." if len(runs) > 10 else "")


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=path) from error
    return status.st_size, status.st_mtime_ns


def _time_text(mtime_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(mtime_ns / 1e9))
