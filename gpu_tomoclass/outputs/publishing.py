"""Outputs appear complete or not at all.

Everything that is written goes through :func:`atomic`: a hidden temporary path beside the target, which gets the name
of the target when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable
from os import fspath
from pathlib import Path
from types import TracebackType
from typing import Any

from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.outputs.disk import StrPath, write_error, writing
from gpu_tomoclass.outputs.hidden_names import discard, remove_stale, temporary_name
from gpu_tomoclass.outputs.inputs import STORE_MARKS, note_made, refuse_inputs
from gpu_tomoclass.outputs.removal import discard_later
from gpu_tomoclass.outputs.syncing import sync, sync_entry


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
        if not names or any(mark in names for mark in STORE_MARKS):
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

    A file is replaced in one step. A folder cannot be: the old one is moved aside first, so that at every moment one of
    the two is complete on disk, and removed in a thread, for which :func:`wait_for_removals` waits. ``synced`` are
    folders within, whose content is on disk already.

    Raises
    ------
    ResourceError
        If syncing or renaming fails; the old target and the temporary data are still there.
    """
    source, target = Path(temporary), Path(target)
    with writing(target):
        sync(source, synced)
        if source.is_dir() and os.path.lexists(target):
            _replace_folder(source, target)
        else:
            os.replace(source, target)
        sync_entry(target.parent)
    note_made(target)


def _replace_folder(source: Path, target: Path) -> None:
    aside = temporary_name(target).with_suffix(".old")
    os.rename(target, aside)
    try:
        os.rename(source, target)
    except BaseException:
        os.rename(aside, target)
        raise
    discard_later(aside)
