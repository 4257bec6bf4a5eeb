"""One resolution of an image on disk, filled plane by plane: chunks are encoded and written here.

The library takes 3 ms of Python for a chunk, which keep the GIL; this takes a quarter of that, most of it without the
GIL, so that several threads write at the same time. The bytes are the library's (a test compares).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numcodecs
import numpy as np

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.outputs import sync_entry
from gpu_tomoclass.volumes.ome_zarr.array import ZarrArray, read_node

if TYPE_CHECKING:
    import zarr

BLOSC = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)
Stamp = tuple[tuple[int, int, int], ...]


class Level:
    """An array (nz, ny, nx) or (n_channels, nz, ny, nx) that is not sharded, its chunks one plane thick.

    Different planes may be written and read by several threads or processes.

    Parameters
    ----------
    folder : Path
        Of the array.
    array : zarr.Array
        It, as :func:`gpu_tomoclass.volumes.ome_zarr.store.create_array` made it.

    Attributes
    ----------
    synced : set of str
        Folders of planes that are on disk, whatever happens to the machine.
    """

    def __init__(self, folder: Path, array: zarr.Array[Any]) -> None:
        self.folder, self.shape, self.dtype = os.fspath(folder), tuple(array.shape), np.dtype(array.dtype)
        self.synced: set[str] = set()
        self._file_dtype = self.dtype.newbyteorder("<")
        self._is_v2 = array.metadata.zarr_format == 2
        self._tile = array.chunks[-2:]
        self._tiles = [range(-(-n // t)) for n, t in zip(self.shape[-2:], self._tile, strict=True)]
        self._lock = threading.Lock()
        self._reader: ZarrArray | None = None

    @property
    def n_planes(self) -> int:
        return int(self.shape[-3])

    def write(self, start: int, planes: np.ndarray, *, sync: bool = False) -> None:
        """Planes ``start`` and following: (n, ny, nx), or (n_channels, n, ny, nx).

        With ``sync`` they are on disk when this returns, and named in :attr:`synced`.
        """
        for i in range(planes.shape[-3]):
            plane = planes[..., i, :, :].reshape(-1, *planes.shape[-2:])
            for folder, values in zip(self._folders(start + i), plane, strict=True):
                for y, x in itertools.product(*self._tiles):
                    self._write_chunk(f"{folder}/{y}", f"{folder}/{y}/{x}", self._encoded(values, y, x), sync=sync)
                if sync:
                    for y in self._tiles[0]:
                        sync_entry(Path(f"{folder}/{y}"))
                    sync_entry(Path(folder))
                    self.synced.add(folder)

    def read(self, z: int) -> np.ndarray:
        """Plane z: (ny, nx), or (n_channels, ny, nx).

        Raises
        ------
        DataError
            If a chunk is missing or damaged.
        """
        with self._lock:
            if self._reader is None:
                node = read_node(Path(self.folder))
                if node is None:
                    raise DataError("is no array any more", where=self.folder)
                self._reader = ZarrArray(node)
        start, stop = [0] * len(self.shape), list(self.shape)
        start[-3], stop[-3] = z, z + 1
        return self._reader.region(start, stop).reshape(*self.shape[:-3], *self.shape[-2:])

    def stamp(self, z: int) -> Stamp | None:
        """Identity, length and time of the files of plane z, by which a change of them shows; None if one is gone."""
        with contextlib.suppress(OSError):
            found = (
                os.stat(f"{folder}/{y}/{x}") for folder in self._folders(z) for y, x in itertools.product(*self._tiles)
            )
            return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)
        return None

    def _folders(self, z: int) -> list[str]:
        """Of plane z, one for each channel."""
        base = self.folder if self._is_v2 else f"{self.folder}/c"
        return [f"{base}/{c}/{z}" for c in range(self.shape[0])] if len(self.shape) == 4 else [f"{base}/{z}"]

    def _encoded(self, values: np.ndarray, y: int, x: int) -> bytes:
        height, width = self._tile
        part = values[y * height : (y + 1) * height, x * width : (x + 1) * width]
        if part.shape != self._tile:  # chunks at the edge are whole, too
            part = np.pad(part, [(0, t - n) for t, n in zip(self._tile, part.shape, strict=True)])
        data = BLOSC.encode(np.ascontiguousarray(part, self._file_dtype))
        return bytes(data) if self._is_v2 else data + int(google_crc32c.value(bytes(data))).to_bytes(4, "little")

    @staticmethod
    def _write_chunk(folder: str, path: str, data: bytes, *, sync: bool) -> None:
        temporary = f"{path}.{os.urandom(8).hex()}.partial"  # workers on other machines write here, too
        try:
            file = open(temporary, "wb")  # noqa: SIM115  (closed below; buffered: a file without may write a part only)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            file = open(temporary, "wb")  # noqa: SIM115
        try:
            with file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
