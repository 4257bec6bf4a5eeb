"""The disk an output goes to: its free space, and the error that says why a write failed."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.outputs.sizes import size_text

StrPath = str | PathLike[str]


def check_space(target: StrPath, needed_bytes: int) -> None:
    """Raise ResourceError if the disk of ``target`` (or of its nearest existing parent) has too little free space."""
    free = free_bytes(target)
    if free is not None and free < needed_bytes:
        raise ResourceError(
            f"needs {size_text(needed_bytes)}, and {size_text(free)} are free",
            where=target,
            do="free some space or write to another disk",
        )


def free_bytes(target: StrPath) -> int | None:
    """Free bytes for an ordinary user on the disk of ``target``; None where the system does not say."""
    folder = Path(target).absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    import shutil

    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def folder_bytes(folder: StrPath) -> int:
    """Bytes of all files below a folder."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


@contextlib.contextmanager
def writing(target: StrPath, *, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn an OSError inside the block into a ResourceError that names ``target``, needed and free bytes."""
    try:
        yield
    except OSError as error:
        raise write_error(error, target, needed_bytes=needed_bytes) from error


def write_error(error: OSError, target: StrPath, *, needed_bytes: int | None = None) -> ResourceError:
    """The ResourceError for a failed write to ``target``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = free_bytes(target)
        reason = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
        needed = f"; the output needs {size_text(needed_bytes)}" if needed_bytes is not None else ""
        left = f" and {size_text(free)} are free" if free is not None else ""
        return ResourceError(f"{reason}{needed}{left}", where=target, do="free some space or write to another disk")
    if error.errno == errno.EFBIG:
        return ResourceError("the file grew beyond what the disk or a limit allows", where=target, do="see ulimit -f")
    return ResourceError(f"cannot be written: {error.strerror or error}", where=target)
