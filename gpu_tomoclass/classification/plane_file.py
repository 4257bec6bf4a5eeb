"""Finished planes of a product in one file, compressed, each at its own place, until the output is complete.

For outputs that are no store of planes themselves. One file per plane would take longer to remove than to write. Each
channel of a plane has a slot as long as the worst case of the compressor, so that planes can be written in any order,
by threads and by processes on other machines (slots begin at pages of 4096 bytes, which network file systems write as a
whole); what a slot does not need is a hole and takes no room on the disk. A channel of 2 GiB or more is compressed in
pieces, one after the other.
"""

from __future__ import annotations

import json
import math
import os
from os import PathLike, fspath
from typing import Any

import numcodecs
import numpy as np

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes import decode, encoded_limit

PAGE = 4096
LENGTH_BYTES = 8
PIECE = 2**31 - 2**20  # bytes at once: fewer than Blosc takes, and than Linux reads (2 GiB - 4096)
BLOSC = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=numcodecs.Blosc.SHUFFLE)
SUFFIX = ".planes"


class PlaneFile:
    """Planes (ny, nx), or (n_channels, ny, nx); made by :meth:`create`, or opened again by its path.

    Raises
    ------
    DataError
        If the file is not one that :meth:`create` made.
    OSError
        If it cannot be read.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = fspath(path)
        with open(self.path, "rb") as file:
            header = file.read(PAGE)
        try:
            content = json.loads(header.rstrip(b"\0"))
            self._shape = tuple(int(n) for n in content["plane"])
            self._n_channels, dtype = int(content["channels"]), np.dtype(content["dtype"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"is no file of planes: {error}", where=self.path) from error
        self._dtype = dtype.newbyteorder("<")
        n, most = math.prod(self._shape), PIECE // dtype.itemsize
        self._pieces = [slice(first, min(first + most, n)) for first in range(0, n, most)]  # of a flat channel
        room = sum(LENGTH_BYTES + encoded_limit((s.stop - s.start) * dtype.itemsize) for s in self._pieces)
        self._slot = -(-room // PAGE) * PAGE

    @classmethod
    def create(
        cls, path: str | PathLike[str], *, plane: tuple[int, int], dtype: np.dtype[Any], n_channels: int = 0
    ) -> PlaneFile:
        """An empty file for planes (ny, nx) of ``n_channels`` (0: without channels)."""
        header = json.dumps({"plane": plane, "dtype": dtype.name, "channels": n_channels}).encode()
        with open(path, "xb") as file:
            file.write(header.ljust(PAGE, b"\0"))
        return cls(path)

    def write(self, start: int, planes: np.ndarray) -> None:
        """Planes ``start`` and following: (n, ny, nx), or (n_channels, n, ny, nx)."""
        descriptor = os.open(self.path, os.O_WRONLY)  # closed after each slab: other machines see it then
        try:
            for i in range(planes.shape[-3]):
                for c, channel in enumerate(planes[..., i, :, :].reshape(-1, *self._shape)):
                    flat, at = np.ascontiguousarray(channel, self._dtype).reshape(-1), self._at(start + i, c)
                    for piece in self._pieces:
                        data = BLOSC.encode(flat[piece])
                        record = memoryview(len(data).to_bytes(LENGTH_BYTES, "little") + data)
                        while record:
                            n = os.pwrite(descriptor, record, at)
                            record, at = record[n:], at + n
        finally:
            os.close(descriptor)

    def read(self, z: int) -> np.ndarray:
        """Plane z.

        Raises
        ------
        DataError
            If it was not written, or is damaged.
        """
        channels = []
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            for c in range(max(1, self._n_channels)):
                at, pieces = self._at(z, c), []
                for piece in self._pieces:
                    n_bytes = (piece.stop - piece.start) * self._dtype.itemsize
                    length = int.from_bytes(os.pread(descriptor, LENGTH_BYTES, at), "little")
                    if not 0 < length <= encoded_limit(n_bytes):
                        raise DataError(f"holds no plane {z}", where=self.path)
                    try:
                        data = decode(os.pread(descriptor, length, at + LENGTH_BYTES), ("blosc",), n_bytes)
                    except ValueError as error:
                        raise DataError(f"plane {z} is damaged: {error}", where=self.path) from error
                    pieces.append(np.frombuffer(data, self._dtype))
                    at += LENGTH_BYTES + length
                channel = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
                channels.append(channel.reshape(self._shape))
        finally:
            os.close(descriptor)
        return np.stack(channels) if self._n_channels else channels[0]

    def _at(self, z: int, channel: int) -> int:
        return PAGE + (z * max(1, self._n_channels) + channel) * self._slot
