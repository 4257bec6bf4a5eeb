"""The journal of a run: one line per finished slab, with a checksum of every plane.

A line that cannot be parsed, or does not fit the run, is passed over: it was torn by a crash.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

JOURNAL = "done.jsonl"


@dataclass
class Line:
    """Line of the journal: one slab."""

    start: int
    stop: int
    crc: dict[str, list[int]]
    notes: list[str] = field(default_factory=list)


def journal_lines(folder: Path, *, products: Collection[str], n_planes: int) -> Iterator[Line]:
    """Whole lines of the journal in the folder of a run, if it has one.

    Parameters
    ----------
    folder : pathlib.Path
    products : collection of str
        Names; a line has checksums of each.
    n_planes : int
        Of the run.
    """
    try:
        text = (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        return
    names = set(products)
    for raw in text.split(b"\n"):
        try:
            line = Line(**json.loads(raw))
            n = line.stop - line.start
            is_whole = set(line.crc) == names and all(len(crc) == n for crc in line.crc.values())
            if is_whole and 0 <= line.start < line.stop <= n_planes:
                yield line
        except (ValueError, TypeError):
            continue  # torn by a crash


def open_journal(folder: Path) -> IO[bytes]:
    """The journal, to be written on; it is made if there is none."""
    journal = open(folder / JOURNAL, "ab")  # noqa: SIM115  (the caller closes it)
    if journal.tell():
        journal.write(b"\n")  # a torn last line must not swallow the next one
    return journal


def add_line(journal: IO[bytes], start: int, crc: Mapping[str, Sequence[int]], *, notes: Sequence[str]) -> int:
    """Note planes ``start`` and following as finished; the first plane that is not among them."""
    stop = start + len(next(iter(crc.values())))
    line = {"start": start, "stop": stop, "crc": {k: list(v) for k, v in crc.items()}, "notes": list(notes)}
    journal.write(json.dumps(line).encode() + b"\n")
    journal.flush()
    return stop
