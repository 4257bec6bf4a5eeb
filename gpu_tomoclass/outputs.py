"""Outputs appear complete or not at all, and never in the place of an input.

Everything that is written goes through :func:`atomic`: a hidden temporary path beside the target, which gets the name
of the target when it is complete. A killed run leaves the hidden file behind; the next run with the same target on the
same machine removes it. Here, and only here, outputs are compared with inputs: those of the call, and those that the
user named for the whole command (:func:`protecting`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from gpu_tomoclass.errors import DataError, ResourceError, UsageError

StrPath = str | PathLike[str]

# A folder is replaced only when it is a store of ours to replace, never somebody's directory of other files.
_STORE_MARKS = ("zarr.json", ".zgroup", ".zarray")
SYNCS_AT_ONCE = 8
SYNC_EVERY = 32 * 2**20  # bytes of a growing file
_commands: list[_Command] = []  # those under way in this process, the innermost last


_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def size_text(n_bytes: int) -> str:
    """``"12.3 GB"``: decimal units, as ``df -H`` and file managers show."""
    value, unit = float(n_bytes), "bytes"
    for larger in ("KB", "MB", "GB", "TB", "PB", "EB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{n_bytes} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def size_bytes(text: str) -> int:
    """``"4G"``, ``"800 MB"`` or ``"1000000"`` as a number of bytes; decimal units, as disks and memory are sold.

    Raises
    ------
    ValueError
        If it is no size, or less than 1 byte.
    """
    given = text.strip().upper().removesuffix("B").strip()
    unit = given[-1:] if given[-1:] in _UNITS else ""
    try:
        size = int(float(given.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is not a size such as 4G or 800M") from error
    if size < 1:
        raise ValueError(f"{text!r} must be at least 1 byte")
    return size


class AtomicOutput:
    """An output under its temporary name; made by :func:`atomic`.

    As a context manager it gives :attr:`temporary`, and commits, or discards when the block fails.

    Attributes
    ----------
    target : pathlib.Path
    temporary : pathlib.Path
        Exists and is empty.
    """

    def __init__(self, target: Path, temporary: Path, *, inputs: tuple[StrPath, ...]) -> None:
        self.target, self.temporary, self._inputs = target, temporary, inputs

    def commit(self) -> None:
        """Sync to disk and give the output its name; see :func:`publish`."""
        try:
            refuse_inputs(self.target, self._inputs)
            publish(self.temporary, self.target)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove what was written."""
        discard(self.temporary)

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.commit()
            return
        self.discard()
        if isinstance(error, OSError):
            raise write_error(error, self.target) from error


def atomic(
    path: StrPath, *, inputs: Iterable[StrPath] = (), overwrite: bool = False, folder: bool = False
) -> AtomicOutput:
    """Begin an output: check that ``path`` can be written and make an empty temporary file or folder beside it.

    Parameters
    ----------
    path : str or path
        The final name. A missing parent folder is created.
    inputs : iterable of path
        What the output is made from; see :func:`refuse_inputs`.
    overwrite : bool
        Whether something of that name may be replaced, when the output is complete and not before.
    folder : bool
        The output is a folder (a Zarr store); an existing folder is replaced only if it is a Zarr store or empty.

    Raises
    ------
    UsageError
        If the output is an input.
    DataError
        If the target exists and ``overwrite`` is not set, or is a thing that must not be replaced.
    ResourceError
        If the folder cannot be created or written to.
    """
    target, sources = Path(path), tuple(inputs)
    check_output(target, inputs=sources, overwrite=overwrite, folder=folder)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(target)
        temporary = temporary_name(target)
        if folder:
            temporary.mkdir()
        else:
            temporary.open("xb").close()
    return AtomicOutput(target, temporary, inputs=sources)


def write_json(path: StrPath, content: Any, *, inputs: Iterable[StrPath] = (), overwrite: bool = False) -> None:
    """Write a JSON file for machines; it appears complete or not at all, see :func:`atomic`."""
    import json  # this module is imported by every command, --help too

    with atomic(path, inputs=inputs, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def temporary_name(path: StrPath) -> Path:
    """A hidden name beside ``path`` that nobody else has; what is left there the next run with this target removes."""
    target = Path(path)
    return target.with_name(f".{_stem(target)}.{_owner()}-{os.urandom(4).hex()}.partial")


def _stem(target: Path) -> str:
    """File systems allow 255 bytes for a name: a long target name is cut in the temporary one."""
    return os.fsdecode(os.fsencode(target.name)[:150])


def check_output(
    path: StrPath, *, inputs: Iterable[StrPath] = (), overwrite: bool = False, folder: bool = False
) -> None:
    """Raise what :func:`atomic` would raise: before the work rather than after it."""
    target = Path(path)
    refuse_inputs(target, inputs)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        above = next(part for part in target.parents if os.path.lexists(part))
        raise ResourceError("is a file, not a folder to write into", where=above, do="choose another name") from error
    except OSError as error:
        raise write_error(error, target) from error
    if not overwrite:
        raise DataError("exists already", where=target, do="choose another name or use --overwrite")
    if stat.S_ISLNK(mode):  # the link is replaced, not what it leads to; but never /dev/stdout
        with contextlib.suppress(OSError):
            mode = target.stat().st_mode
        if stat.S_ISLNK(mode) or stat.S_ISDIR(mode):
            return
    if not folder and stat.S_ISREG(mode):
        return
    if folder and stat.S_ISDIR(mode):
        names = os.listdir(target)
        if not names or any(mark in names for mark in _STORE_MARKS):
            return
        raise DataError("is a folder of other files, which is not replaced", where=target, do="choose another name")
    kind = "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "not a regular file"
    raise DataError(f"is {kind}, which is not replaced", where=target, do="choose another name")


def check_suffix(path: StrPath, *suffixes: str) -> None:
    """Raise UsageError unless the name ends in one of the suffixes: no file is of another kind than its name says."""
    if not fspath(path).lower().endswith(suffixes):
        raise UsageError(f"the name must end in {' or '.join(suffixes)}, which is what is written", where=path)


def publish(temporary: StrPath, target: StrPath, *, synced: Collection[str] = ()) -> None:
    """Sync ``temporary`` to disk and give it the name ``target``, replacing what has that name.

    A file is replaced in one step. A folder cannot be: the old one is moved aside first and removed last, so that at
    every moment one of the two is complete on disk. ``synced`` are folders within, whose content is on disk already.

    Raises
    ------
    ResourceError
        If syncing or renaming fails; the old target and the temporary data are still there.
    """
    source, target = Path(temporary), Path(target)
    with writing(target):
        _sync(source, synced)
        if source.is_dir() and os.path.lexists(target):
            _replace_folder(source, target)
        else:
            os.replace(source, target)
        sync_entry(target.parent)
    for command in _commands:
        command.made.append(target)


def discard(temporary: StrPath) -> None:
    """Remove a temporary file or folder; silent when it is gone already."""
    path = Path(temporary)
    if path.is_dir() and not path.is_symlink():
        import shutil

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


def _host() -> str:
    import socket

    return socket.gethostname()[:40]


def _owner() -> str:
    return f"{_host()}-{os.getpid()}"


def remove_stale(target: StrPath) -> None:
    """Remove what killed processes of this machine left beside ``target``; a living process keeps its files."""
    for path, ending in leftovers(target):
        if ending == "old" and not os.path.lexists(target):
            os.rename(path, target)  # killed between the two renames of a folder: the old one is still the output
        else:
            discard(path)


def leftovers(target: StrPath) -> Iterator[tuple[Path, str]]:
    """(path, ``"partial"`` or ``"old"``) of what processes of this machine that have ended left beside ``target``."""
    if os.name != "posix":  # elsewhere os.kill(pid, 0) does not merely ask
        return
    target = Path(target)
    start = f".{_stem(target)}.{_host()}-"
    for name in sorted(os.listdir(target.parent)):
        rest, _, ending = name.rpartition(".")
        if not name.startswith(start) or ending not in ("partial", "old"):
            continue
        pid, _, token = rest[len(start) :].partition("-")
        if pid.isdigit() and len(token) == 8 and not _is_running(int(pid)):
            yield target.parent / name, ending


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _replace_folder(source: Path, target: Path) -> None:
    aside = temporary_name(target).with_suffix(".old")
    os.rename(target, aside)
    try:
        os.rename(source, target)
    except BaseException:
        os.rename(aside, target)
        raise
    discard(aside)


def _sync(path: Path, synced: Collection[str]) -> None:
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


# --- outputs and inputs ----------------------------------------------------------------------------------------------


class _Command:
    """Paths that the user named for one command."""

    def __init__(self) -> None:
        self.inputs: list[StrPath] = []
        self.outputs: list[StrPath] = []
        self.made: list[Path] = []


@contextlib.contextmanager
def protecting(*inputs: StrPath) -> Iterator[None]:
    """Within the block, no output takes the place of these inputs, nor of those named by :func:`protect`."""
    command = _Command()
    command.inputs += inputs
    _commands.append(command)
    try:
        yield
    finally:
        _commands.remove(command)


def outputs_made() -> tuple[Path, ...]:
    """Outputs that the command under way has published, in this order; each once."""
    return tuple(dict.fromkeys(_commands[-1].made)) if _commands else ()


def protect(path: StrPath) -> None:
    """Name an input of the command under way; outside :func:`protecting` nothing happens."""
    if _commands:
        _commands[-1].inputs.append(path)


def claim(path: StrPath) -> None:
    """Name an output of the command under way.

    Raises
    ------
    UsageError
        If another output has that name.
    """
    if not _commands:
        return
    for other in _commands[-1].outputs:
        if os.path.realpath(path) == os.path.realpath(other) or _same(_status(path), _status(other)):
            raise UsageError("is named for two outputs", where=path, do="choose another name for one of them")
    _commands[-1].outputs.append(path)


def refuse_inputs(path: StrPath, inputs: Iterable[StrPath] = ()) -> None:
    """Raise UsageError if writing ``path`` would change an input, by whatever name.

    Refused are the input itself (also by way of symbolic and hard links), a place inside an input folder or inside the
    Zarr store that an input is part of, and a folder that holds an input. Inputs that do not exist, such as the name of
    a volume in memory, stand in nobody's way.

    Parameters
    ----------
    path : str or path
        A file or folder to be written.
    inputs : iterable of path
        ``file.h5::/dataset`` means the file. Those of :func:`protecting` are added.
    """
    named = [*inputs, *(name for command in _commands for name in command.inputs)]
    target = _status(path)
    around = [_status(folder) for folder in Path(os.path.abspath(path)).parents]
    around += [_status(folder) for folder in Path(os.path.realpath(path)).parents]
    seen, folders = set[str](), set[str]()
    for name in named:
        file = os.path.realpath(_file_of(name))
        if file in seen or not os.path.lexists(file):
            continue
        do = "choose another name"
        if file == os.path.realpath(path) or _same(target, _status(file)):
            other = os.path.abspath(path) != os.path.abspath(_file_of(name))
            known = f"is the input {fspath(name)} by another name" if other else "is the input"
            raise UsageError(f"{known}, which is never changed", where=path, do=do)
        seen.add(file)
        if os.path.dirname(file) in folders and not os.path.isdir(file):  # one of many planes in a folder
            continue
        folders.add(os.path.dirname(file))
        if any(_same(target, _status(folder)) for folder in Path(file).parents):
            raise UsageError(f"holds the input {fspath(name)}, which is never changed", where=path, do=do)
        root = _root_of(Path(file))
        status = _status(root)
        if status is not None and stat.S_ISDIR(status.st_mode) and any(_same(status, folder) for folder in around):
            raise UsageError(f"lies inside the input {root}, which is never changed", where=path, do=do)
        if _same(target, status):
            raise UsageError(f"holds the input {fspath(name)}, which is never changed", where=path, do=do)


def _file_of(name: StrPath) -> str:
    """The file of ``file.h5::/dataset``."""
    text = fspath(name)
    return text if os.path.lexists(text) else text.partition("::")[0]


def _root_of(path: Path) -> Path:
    """The store that a path inside a Zarr store belongs to; other paths as they are."""
    root = path
    for folder in path.parents:
        has_marks = folder == root.parent and any((folder / mark).exists() for mark in (*_STORE_MARKS, ".zattrs"))
        if has_marks or folder.suffix.lower() == ".zarr":
            root = folder
    return root


def _status(path: StrPath) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _same(a: os.stat_result | None, b: os.stat_result | None) -> bool:
    return a is not None and b is not None and os.path.samestat(a, b)
