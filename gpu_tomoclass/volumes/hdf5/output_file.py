"""The file under an HDF5 file that is being written: it keeps its errors for us.

HDF5 cannot close a file after a write that failed: h5py raises RuntimeError, prints a line for every open object, and
the interpreter crashes at its end. So HDF5 never learns of a full disk; who writes asks :meth:`OutputFile.check`.
"""

from __future__ import annotations

import io
import os
from os import PathLike
from typing import Any


class OutputFile(io.RawIOBase):
    """A file object for h5py. After the first error nothing more is written, and what is read is zeros."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115  (closed by close)
        self._end = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error there was."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(self._end if whence == os.SEEK_END else offset)

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        self._end = max(self._end, self._file.tell() + size)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return size

    def readinto(self, buffer: Any, /) -> int:
        left = memoryview(buffer).cast("B")
        size = len(left)
        try:
            while left and (n := self._file.readinto(left)):
                left = left[n:]
        except OSError as error:
            self._error = self._error or error
        left[:] = bytes(len(left))
        return size

    def truncate(self, size: int | None = None, /) -> int:
        self._end = size = self._file.tell() if size is None else size
        try:
            if self._error is None:
                self._file.truncate(size)
        except OSError as error:
            self._error = error
        return size

    def flush(self) -> None:
        """Nothing is kept back: there is no buffer."""

    def close(self) -> None:
        """Close the file; of one that is closed nothing happens."""
        super().close()
        try:
            self._file.close()
        except OSError as error:  # some network file systems say only now that the disk is full
            self._error = self._error or error
