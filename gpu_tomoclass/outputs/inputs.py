"""Inputs, in whose place no output comes: those of the call, and those that the user named for the whole command.

Here, and only here, outputs are compared with inputs.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from os import fspath
from pathlib import Path

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs.disk import StrPath

# A folder is replaced only when it is a store of ours to replace, never somebody's directory of other files.
STORE_MARKS = ("zarr.json", ".zgroup", ".zarray")
_commands: list[_Command] = []  # those under way in this process, the innermost last


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


def note_made(path: Path) -> None:
    """Count a published output among those of the commands under way."""
    for command in _commands:
        command.made.append(path)


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
        has_marks = folder == root.parent and any((folder / mark).exists() for mark in (*STORE_MARKS, ".zattrs"))
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
