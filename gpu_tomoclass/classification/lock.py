"""The lock of a folder that one process writes; the system releases it when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from gpu_tomoclass.errors import ResourceError

LOCK = "lock"


@contextlib.contextmanager
def held(folder: Path, *, what: str) -> Iterator[str]:
    """Make the folder and hold its lock; what the lock says of the holder.

    Another run may remove the folder between the two: then its lock is nobody's, and a new folder is made.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                owner = stack.enter_context(locked(folder / LOCK, what=what))
            except FileNotFoundError:
                continue
            if holds_lock(folder / LOCK, owner):
                yield owner
                return


def holds_lock(lock: Path, owner: str) -> bool:
    """Tell whether a lock says that this is the holder; what it says tells every run from any other."""
    try:
        return lock.read_text(encoding="utf-8") == owner
    except (OSError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def locked(file: Path, *, what: str) -> Iterator[str]:
    """Hold a lock that the system releases when this process ends, however it ends; what it says of the holder.

    Raises
    ------
    ResourceError
        If another process holds it; says which.
    """
    import fcntl

    with open(file, "a+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            owner = handle.read(500).decode(errors="replace").strip() or "another process"
            raise ResourceError(
                f"is being written by {owner}", where=what, do="wait for it, or choose another output"
            ) from None
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        handle.truncate(0)
        handle.write(holder.encode())
        handle.flush()
        os.fsync(handle.fileno())  # workers on other machines read it
        yield holder
