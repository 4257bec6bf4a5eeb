"""Files and folders sent to the disk, so that a power failure leaves no empty file with a final name."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Collection
from pathlib import Path
from typing import IO

SYNCS_AT_ONCE = 8
SYNC_EVERY = 32 * 2**20  # bytes of a growing file


def sync(path: Path, synced: Collection[str]) -> None:
    """fsync a file, or every file and folder below a folder; several at a time, which a disk does in one go."""
    if not path.is_dir():
        sync_entry(path)
        return
    entries: list[Path] = []
    for folder, inner, names in os.walk(path):
        inner[:] = [name for name in inner if os.path.join(folder, name) not in synced]
        entries += [Path(folder, name) for name in names]
        entries.append(Path(folder))
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(SYNCS_AT_ONCE, len(entries))) as pool:
        list(pool.map(sync_entry, entries))


class SyncAhead:
    """Sends a file that grows to the disk now and then, so that little is left to be sent when it is complete."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._n_bytes, self._lock = file, 0, threading.Lock()

    def wrote(self, n_bytes: int) -> None:
        """So many bytes more have been written; may be called by several threads."""
        with self._lock:
            self._n_bytes += n_bytes
            if self._n_bytes < SYNC_EVERY:
                return
            self._n_bytes = 0
        with contextlib.suppress(OSError, ValueError):  # closed by now; and at the end an error is one
            os.fsync(self._file.fileno())


def sync_entry(path: Path) -> None:
    """Send one file, or the names in one folder, to the disk."""
    if path.is_dir() and os.name != "posix":  # folders cannot be opened elsewhere
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without fsync on folders
            raise
    finally:
        os.close(descriptor)
