"""Messages to a person: notes and progress on stderr, tables on stdout; and Ctrl-C, which a person says."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Self, TextIO

import click

from gpu_tomoclass.cli.record import current
from gpu_tomoclass.errors import visible

PLAIN_INTERVAL = 10.0  # seconds between plain progress lines, where stderr is a log file


def show_notes(notes: Iterable[str], *, quiet: bool = False) -> None:
    """Sentences for the user, on stderr and in the log for programs."""
    for note in notes:
        if (run := current()) is not None:
            run.note(visible(note))
        if not quiet:
            click.echo(f"note: {visible(note)}", err=True)


class VisibleStream:
    """A text stream on which nothing from a file can command the terminal; see :func:`gpu_tomoclass.errors.visible`.

    All that a command prints goes through it. The bytes below it cannot be had (click would take them).
    """

    def __init__(self, stream: TextIO) -> None:
        self.unfiltered = stream
        with suppress(AttributeError, ValueError):  # characters that the terminal lacks, bytes of odd file names
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError("text is needed")
        self.unfiltered.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self.unfiltered, name)


@contextmanager
def visible_streams() -> Iterator[None]:
    """Standard output and error through :class:`VisibleStream`."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (VisibleStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A question whether the first Ctrl-C or SIGTERM has come; the second one interrupts at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        click.echo("note: stopping when the planes in work are done; once more to stop at once", err=True)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def progress(label: str, *, quiet: bool = False, unit: str = "planes") -> Iterator[Callable[[int, int], None] | None]:
    """A callback (done, total): a bar with rate and time left on a terminal, else a plain ASCII line now and then."""
    run = current()
    with _shown(label, quiet=quiet, unit=unit) as show:
        if run is None:
            yield show
            return

        def advance(done: int, total: int) -> None:
            run.progress(label, done, total, unit)
            if show is not None:
                show(done, total)

        yield advance


class ProgressInTurn:
    """Progress of steps that follow each other: each has a bar, which ends that of the step before; use it in a
    ``with`` block."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._advance: Callable[[int, int], None] | None = None
        self._label, self._last = "", -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)
            self._bar = None

    def step(self, label: str, unit: str = "planes") -> Callable[[int, int], None]:
        """A callback (done, total); a step that begins anew from fewer than before gets another bar."""

        def advance(done: int, total: int) -> None:
            if self._bar is None or label != self._label or done < self._last:
                self.__exit__(None, None, None)
                self._bar = progress(label, quiet=self._quiet, unit=unit)
                self._advance = self._bar.__enter__()
            self._label, self._last = label, done
            if self._advance is not None:
                self._advance(done, total)

        return advance


@contextmanager
def _shown(label: str, *, quiet: bool, unit: str) -> Iterator[Callable[[int, int], None] | None]:
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _bar(label, unit) as advance:
            yield advance
    else:
        yield _plain_lines(label, unit)


@contextmanager
def _bar(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]}"),
        rich_progress.TimeElapsedColumn(),
    )
    console = Console(file=getattr(sys.stderr, "unfiltered", sys.stderr))
    with rich_progress.Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None, rate="")
        pace = _Pace()

        def advance(done: int, total: int) -> None:
            pace.see(done)
            rate = pace.rate(done)
            text = f"{rate:.2f} {unit}/s, {(total - done) / rate:.0f} s left" if rate else ""
            bar.update(task, completed=done, total=total, rate=text)

        yield advance


class _Pace:
    """Speed of the work now: what an interrupted run had done before was not done in this time."""

    def __init__(self) -> None:
        self._began, self._before, self._last = time.perf_counter(), 0, 0

    def see(self, done: int) -> None:
        """Begin anew at 0, and where the first that is heard of is more than one."""
        if done == 0 or done < self._last or (self._last == 0 and self._before == 0 and done > 1):
            self._began, self._before = time.perf_counter(), done
        self._last = done

    def rate(self, done: int) -> float:
        """Per second; 0 while nothing is known."""
        return (done - self._before) / max(time.perf_counter() - self._began, 1e-9)


def _plain_lines(label: str, unit: str) -> Callable[[int, int], None]:
    last = time.perf_counter()
    pace = _Pace()

    def advance(done: int, total: int) -> None:
        nonlocal last
        now = time.perf_counter()
        pace.see(done)
        if done == total or now - last >= PLAIN_INTERVAL:
            last = now
            rate = pace.rate(done)
            left = f", {rate:.2f} {unit}/s, {(total - done) / rate:.0f} s left" if rate else ""
            click.echo(f"{label}: {done} of {total} {unit}{left}", err=True)

    return advance


def plural(n: int, noun: str) -> str:
    """``"1 particle"``, ``"2 particles"``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Left-aligned columns of text."""
    cells = [tuple(visible(str(cell)).replace("\n", "\\n") for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def description_rows(description: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, one line each; what is inside something is indented."""
    for name, value in description.items():
        if isinstance(value, Mapping) and value:
            yield f"{prefix}{name}", ""
            yield from description_rows(value, f"{prefix}  ")
        elif value not in (None, [], {}):
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # a class in a list of classes
        return " ".join(str(v) for v in value.values() if not isinstance(v, list))
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
