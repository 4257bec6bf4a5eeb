"""Outputs under a temporary name: a file that has its final name is complete.

A writer asks :func:`prepare_target` for a hidden temporary path beside the target, writes there, and calls
:func:`commit`, or :func:`discard` when something failed. A killed run leaves the hidden file behind; the next run with
the same target on the same machine removes it. File writes go inside ``with writing(target):`` so that a full disk is
one sentence instead of a traceback.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_tomoclass.errors import DataError, ResourceError

if TYPE_CHECKING:
    pass

StrPath = str | PathLike[str]

# A folder is replaced only when it is a store of ours to replace, never somebody's directory of other files.
_STORE_MARKS = ("zarr.json", ".zgroup", ".zarray")


def size_text(n_bytes: int) -> str:
    """``"12.3 GB"``: decimal units, as ``df -H`` and file managers show."""
    value, unit = float(n_bytes), "bytes"
    for larger in ("KB", "MB", "GB", "TB", "PB", "EB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{n_bytes} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def prepare_target(path: StrPath, *, overwrite: bool = False, folder: bool = False) -> Path:
    """Check that ``path`` can be written and create an empty temporary file (or folder) beside it.

    Parameters
    ----------
    path : str or path
        The final name. A missing parent folder is created.
    overwrite : bool
        Whether something of that name may be replaced (at :func:`commit`, not before).
    folder : bool
        The output is a folder (a Zarr store); an existing folder is replaced only if it is a Zarr store or empty.

    Returns
    -------
    pathlib.Path
        The temporary path; it exists and is empty.

    Raises
    ------
    DataError
        If the target exists and ``overwrite`` is not set, or is a thing that must not be replaced.
    ResourceError
        If the folder cannot be created or written to.
    """
    target = Path(path)
    check_overwrite(target, overwrite=overwrite, folder=folder)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        temporary = temporary_name(target)
        if folder:
            temporary.mkdir()
        else:
            temporary.open("xb").close()
    return temporary


def temporary_name(path: StrPath) -> Path:
    """A hidden name beside ``path`` that nobody else has; what is left there the next run with this target removes."""
    target = Path(path)
    # File systems allow 255 bytes for a name: a long target name is cut in the temporary one.
    stem = os.fsdecode(os.fsencode(target.name)[:150])
    return target.with_name(f".{stem}.{_owner()}-{uuid.uuid4().hex[:8]}.partial")


def check_overwrite(path: StrPath, *, overwrite: bool, folder: bool = False) -> None:
    """Raise DataError unless ``path`` is free or may be replaced (see :func:`prepare_target`)."""
    target = Path(path)
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise write_error(error, target) from error
    if not overwrite:
        raise DataError("exists already", where=target, do="choose another name or use --overwrite")
    if stat.S_ISLNK(mode) or (not folder and stat.S_ISREG(mode)):
        return
    if folder and stat.S_ISDIR(mode):
        names = os.listdir(target)
        if not names or any(mark in names for mark in _STORE_MARKS):
            return
        raise DataError("is a folder of other files, which is not replaced", where=target, do="choose another name")
    kind = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "not a regular file"
    raise DataError(f"is {kind}, which is not replaced", where=target, do="choose another name")


def commit(temporary: StrPath, target: StrPath, *, keep_on_error: bool = False) -> None:
    """Sync ``temporary`` to disk and give it the name ``target``, replacing what has that name.

    A file is replaced in one step. A folder cannot be: the old one is moved aside first and removed last, so that at
    every moment one of the two is complete on disk.

    Parameters
    ----------
    temporary, target : str or path
    keep_on_error : bool
        Leave the temporary data where they are if this fails, to try again later.

    Raises
    ------
    ResourceError
        If syncing or renaming fails; the old target is still there and the temporary data are removed.
    """
    source, target = Path(temporary), Path(target)
    try:
        with writing(target):
            _sync(source)
            if source.is_dir() and os.path.lexists(target):
                _replace_folder(source, target)
            else:
                os.replace(source, target)
            _sync_entry(target.parent)
    except BaseException:
        if not keep_on_error:
            discard(source)
        raise


def discard(temporary: StrPath) -> None:
    """Remove a temporary file or folder; silent when it is gone already."""
    path = Path(temporary)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


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
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


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


def _owner() -> str:
    return f"{socket.gethostname()[:40]}-{os.getpid()}"


def _remove_stale(target: Path) -> None:
    """Remove what killed processes of this machine left beside ``target``; a living process keeps its file."""
    if os.name != "posix":  # elsewhere os.kill(pid, 0) does not merely ask
        return
    start = f".{os.fsdecode(os.fsencode(target.name)[:150])}.{socket.gethostname()[:40]}-"
    for name in os.listdir(target.parent):
        if not (name.startswith(start) and name.endswith(".partial")):
            continue
        pid, _, token = name[len(start) : -len(".partial")].partition("-")
        if pid.isdigit() and len(token) == 8 and not _is_running(int(pid)):
            discard(target.parent / name)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _replace_folder(source: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name[:100]}.{_owner()}-{uuid.uuid4().hex[:8]}.old")
    os.rename(target, aside)
    try:
        os.rename(source, target)
    except BaseException:
        os.rename(aside, target)
        raise
    discard(aside)


def _sync(path: Path) -> None:
    """fsync a file, or every file and folder below a folder."""
    if not path.is_dir():
        _sync_entry(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            _sync_entry(Path(folder, name))
        _sync_entry(Path(folder))


def _sync_entry(path: Path) -> None:
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


def product_name(output: str | PathLike[str], product: str) -> str:
    """``labels.ome.zarr`` and ``"probabilities"`` -> ``labels_probabilities.ome.zarr``."""
    path = fspath(output).rstrip("/\\")
    lower = path.lower()
    for suffix in (".ome.zarr", ".ome.tiff", ".ome.tif"):
        if lower.endswith(suffix):
            return f"{path[: -len(suffix)]}_{product}{path[-len(suffix) :]}"
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}_{product}{dot}{suffix}" if dot else f"{path}_{product}"
