"""The folder of an unfinished run: whose run it is, what may lie in it, and how it goes.

``run.json`` tells the run from any other. When all outputs have their names, the folder is renamed to a hidden name and
removed; ``run.json`` goes last. So a run that was killed while it tidied up still says that it was complete.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_tomoclass.classification.journal import JOURNAL
from gpu_tomoclass.classification.lock import LOCK
from gpu_tomoclass.classification.plane_file import SUFFIX
from gpu_tomoclass.classification.products import KNOWN_PRODUCTS
from gpu_tomoclass.errors import DataError, ModelError
from gpu_tomoclass.outputs import discard, leftovers, temporary_name

RUN = "run.json"
UNFINISHED = ".new"  # ends the name of a store that is being restored
MODEL = "model.tcm"  # for workers elsewhere, see cluster.py


def empty_folder(folder: Path) -> None:
    """Remove what an earlier run has left, but for the lock.

    Raises
    ------
    DataError
        If other files lie there; nothing is removed then.
    """
    entries = [entry for entry in folder.iterdir() if entry.name != LOCK]
    of_stores = ("", SUFFIX, UNFINISHED, SUFFIX + UNFINISHED)
    endings = (*of_stores, ".assembled", ".finished")  # the last two of earlier versions
    ours = {
        RUN,
        JOURNAL,
        f"{RUN}.new",
        MODEL,
        *(name + ending for name in KNOWN_PRODUCTS for ending in endings),
    }
    if foreign := sorted(entry.name for entry in entries if entry.name not in ours):
        raise DataError(
            f"holds files that are not of an interrupted run: {', '.join(foreign[:3])}",
            where=folder,
            do="move them away, or choose another output",
        )
    for entry in sorted(entries, key=lambda entry: entry.name != RUN):  # first what says that there is a run
        discard(entry)


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Say whose the folder is; done last, so that all else in it is whole."""
    temporary = folder / f"{RUN}.new"
    temporary.write_bytes(_content(run))
    os.replace(temporary, folder / RUN)


def check_same_run(folder: Path, run: dict[str, Any]) -> None:
    """Raise ModelError, which names what differs, if the folder is of another run; DataError if it does not say."""
    file = folder / RUN
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"the interrupted run cannot be read: {error}", where=file, do="use --restart to begin anew"
        ) from error
    differences = [f"{name} was {_short(then)}, is {_short(now)}" for name, then, now in _differences(before, run)]
    if differences:
        raise ModelError(
            f"holds an interrupted run of another kind: {'; '.join(differences[:4])}",
            where=folder,
            do="repeat the earlier command to finish it, use --restart to throw it away, or name another output",
        )


def remove_folder(folder: Path, output: str) -> None:
    """The folder goes in one step; what a kill leaves of it under hidden names, the next run understands."""
    hidden, last = temporary_name(output), temporary_name(output)
    with contextlib.suppress(OSError):
        os.rename(folder, hidden)
        for entry in hidden.iterdir():
            if entry.name != RUN:
                discard(entry)
        if (hidden / RUN).exists():
            os.rename(hidden / RUN, last)
        hidden.rmdir()
    discard(hidden)
    discard(last)


def finished_before(folder: Path, output: str, run: dict[str, Any]) -> Path | None:
    """``run.json`` of this very run, which was killed when all was done but the tidying up."""
    if folder.exists() or not folder.parent.is_dir():
        return None
    size = len(_content(run))
    for path, _ in leftovers(output):
        file = path / RUN if path.is_dir() else path
        with contextlib.suppress(OSError, ValueError):
            # Most of what lies there is another thing, perhaps a volume of many gigabytes.
            if file.stat().st_size == size and json.loads(file.read_text(encoding="utf-8")) == run:
                return file
    return None


def _content(run: dict[str, Any]) -> bytes:
    """Bytes of ``run.json``."""
    return (json.dumps(run, indent=1) + "\n").encode()


def _differences(then: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            yield from _differences(then.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif then != now:
        yield name, then, now


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
