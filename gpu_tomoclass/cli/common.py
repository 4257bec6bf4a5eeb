"""What several commands share: parameter types, options, progress and notes on stderr."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from gpu_tomoclass.outputs import claim, protect

if TYPE_CHECKING:
    from gpu_tomoclass.device import Device
    from gpu_tomoclass.features import FeatureBank

F = TypeVar("F", bound=Callable[..., Any])
PLAIN_INTERVAL = 10.0  # seconds between plain progress lines, where stderr is a log file


class InputPath(click.ParamType):
    """A file or folder that the command reads: nothing that it writes may take its place."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        protect(value)
        return value


class OutputPath(click.ParamType):
    """A file or folder that the command writes; no two may be the same."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        claim(value)
        return value


class PlaneRange(click.ParamType):
    """``a:b``, planes a to b - 1; either may be left out."""

    name = "a:b"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        first, colon, last = value.partition(":")
        try:
            start = int(first) if first else 0
            if not colon:
                return start, start + 1
            return start, int(last) if last else None
        except ValueError:
            self.fail(f"{value!r} is not a range of planes such as 100:200", param, ctx)


class SigmaList(click.ParamType):
    """``family=1,2,4``."""

    name = "FAMILY=S,S,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        family, equals, numbers = str(value).partition("=")
        try:
            if not equals:
                raise ValueError
            return family.strip(), tuple(float(n) for n in numbers.split(","))
        except ValueError:
            self.fail(f"{value!r} is not of the form gaussian_blur=1,2,4", param, ctx)


class ValuePair(click.ParamType):
    """``a:b``, two label values."""

    name = "a:b"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        first, _, second = str(value).partition(":")
        try:
            return int(first), int(second)
        except ValueError:
            self.fail(f"{value!r} is not a pair of label values such as 0:1", param, ctx)


class ByteSize(click.ParamType):
    """``4G``, ``800M``, or a number of bytes; decimal units, as disks and memory are sold."""

    name = "SIZE"
    UNITS: ClassVar[dict[str, int]] = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        text = value.strip().upper().removesuffix("B")
        number, unit = (text[:-1], text[-1]) if text[-1:] in self.UNITS and text[-1:] else (text, "")
        try:
            size = int(float(number) * self.UNITS[unit])
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a size such as 4G or 800M", param, ctx)
        if size < 1:
            self.fail(f"{value!r} is not more than nothing", param, ctx)
        return size


def volume_options(command: F) -> F:
    """How to read an ambiguous or damaged volume."""
    for option in (
        click.option("--allow-missing-planes", is_flag=True, help="Read planes that are damaged or absent as zeros."),
        click.option("--channel", type=click.IntRange(0), help="Channel of a multi-channel file."),
        click.option("--series", type=click.IntRange(0), help="Series of a multi-series TIFF."),
        click.option("--axes", metavar="ORDER", help="Read the stored axes in this order, e.g. xyz."),
    ):
        command = option(command)
    return command


hessian_option = click.option(
    "--hessian",
    type=click.Choice(["auto", "current", "legacy"]),
    default="auto",
    show_default=True,
    help="Formula of the Hessian's eigenvalues: of TWS since 3.2.25, or before; auto: as what Fiji saved says.",
)


def bank_options(command: F) -> F:
    """Which features."""
    for option in (
        hessian_option,
        click.option("--membrane-patch", type=int, default=19, show_default=True, help="Membrane and Kuwahara patch."),
        click.option("--membrane-thickness", type=int, default=1, show_default=True, help="Membrane thickness."),
        click.option(
            "--sigmas", multiple=True, type=SigmaList(), help="Sigmas of one family instead of the range; repeatable."
        ),
        click.option("--sigma-max", type=float, default=16.0, show_default=True, help="Largest sigma."),
        click.option("--sigma-min", type=float, default=1.0, show_default=True, help="Smallest sigma; they double."),
        click.option(
            "--features",
            default="paper",
            show_default=True,
            metavar="SET|FAMILY,..",
            help="weka-default, paper (252 channels), all (272), or families separated by commas.",
        ),
    ):
        command = option(command)
    return command


def make_bank(
    features: str,
    sigma_min: float,
    sigma_max: float,
    sigmas: Iterable[tuple[str, tuple[float, ...]]],
    membrane_thickness: int,
    membrane_patch: int,
    hessian: str = "auto",
) -> FeatureBank:
    """The bank that the options of :func:`bank_options` ask for."""
    from gpu_tomoclass.features import FEATURE_SETS, FeatureBank

    chosen = features if features in FEATURE_SETS else [name.strip() for name in features.split(",")]
    return FeatureBank.create(
        chosen,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        sigmas=dict(sigmas),
        membrane_thickness=membrane_thickness,
        membrane_patch=membrane_patch,
        hessian="current" if hessian == "auto" else hessian,
    )


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
intensity_option = click.option(
    "--intensity",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="auto gives float volumes a robust scale; none leaves every value as stored.",
)
nan_option = click.option(
    "--nan",
    type=click.Choice(["error", "fill", "mask"]),
    default="error",
    show_default=True,
    help="Non-finite voxels: refuse; take the nearest value; or also leave their surroundings unlabelled.",
)


def device_options(command: F) -> F:
    """Where to compute: what :func:`open_device` takes."""
    for option in (
        click.option("--workers", type=click.IntRange(1), help="CPU threads; default one per usable core."),
        click.option("--gpu-id", type=click.IntRange(0), default=0, show_default=True, help="Which GPU."),
        click.option(
            "--device",
            "device_name",
            type=click.Choice(["auto", "cuda", "native", "numpy"]),
            default="auto",
            show_default=True,
            help="cuda: a GPU; native: compiled for this CPU; numpy: slow, always works; auto: the first that works.",
        ),
    ):
        command = option(command)
    return command


def product_options(command: F) -> F:
    """What is made beside the labels."""
    for option in (
        click.option(
            "--uncertainty",
            type=click.Choice(["margin", "entropy"]),
            is_flag=False,
            flag_value="margin",
            help="Also write LABELS_uncertainty: 0 where the forest is sure, 1 where it is not.",
        ),
        click.option(
            "--probabilities",
            type=click.Choice(["float32", "uint8"]),
            is_flag=False,
            flag_value="float32",
            help="Also write LABELS_probabilities, one channel per class; uint8 is a quarter of the size.",
        ),
    ):
        command = option(command)
    return command


def zarr_options(command: F) -> F:
    """How OME-Zarr is written; see :func:`given_zarr_options`."""
    for option in (
        click.option("--sharded", is_flag=True, help="OME-Zarr 0.5 with 32 planes to a file."),
        click.option("--ome-version", type=click.Choice(["0.4", "0.5"]), help="Of OME-Zarr output; default 0.4."),
    ):
        command = option(command)
    return command


def given_zarr_options(ome_version: str | None, sharded: bool) -> dict[str, Any]:
    """Those of :func:`zarr_options` that were given: other formats refuse any."""
    options: dict[str, Any] = {} if ome_version is None else {"ome_version": ome_version}
    return options | ({"sharded": True} if sharded else {})


def write_json(path: str, content: Any, *, inputs: Iterable[str] = (), overwrite: bool = False) -> None:
    """A JSON file for machines, beside what is printed for people; it takes the place of none of the ``inputs``."""
    from gpu_tomoclass.outputs import atomic

    with atomic(path, inputs=inputs, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def open_device(device_name: str, gpu_id: int, workers: int | None, *, quiet: bool) -> Device:
    """The device that :func:`device_options` ask for; says on stderr which it is and why not a faster one."""
    from gpu_tomoclass.device import choose_device

    device = choose_device(device_name, gpu_id, threads=workers)
    show_notes([f"device: {device.name}, {device.description}", *device.notes], quiet=quiet)
    return device


quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")


def show_notes(notes: Iterable[str], *, quiet: bool = False) -> None:
    """Sentences for the user, on stderr."""
    if not quiet:
        for note in notes:
            click.echo(f"note: {note}", err=True)


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
        rich_progress.TextColumn("left"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, rate="")
        started = time.perf_counter()

        def advance(done: int, total: int) -> None:
            nonlocal started
            if done == 0:  # the work begins now, whatever came before
                started = time.perf_counter()
                bar.reset(task)
            rate = done / max(time.perf_counter() - started, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:.2f} {unit}/s")

        yield advance


def _plain_lines(label: str, unit: str) -> Callable[[int, int], None]:
    started = last = time.perf_counter()

    def advance(done: int, total: int) -> None:
        nonlocal started, last
        now = time.perf_counter()
        if done == 0:  # the work begins now, whatever came before
            started = last = now
        elif done == total or now - last >= PLAIN_INTERVAL:
            last = now
            rate = done / max(now - started, 1e-9)
            left = (total - done) / max(rate, 1e-9)
            click.echo(f"{label}: {done} of {total} {unit}, {rate:.2f} {unit}/s, {left:.0f} s left", err=True)

    return advance


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Left-aligned columns of text."""
    cells = [tuple(map(str, row)) for row in rows]
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
