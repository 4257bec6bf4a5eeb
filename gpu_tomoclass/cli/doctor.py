"""The command about this machine: doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import json_option, quiet_option
from gpu_tomoclass.cli.terminal import progress, table

if TYPE_CHECKING:
    from gpu_tomoclass.doctor import Check, MachineReport


@command(
    short_help="Say which devices work here, compare kernels",
    examples=(
        "doctor",
        "doctor --device cuda --json",
        "doctor --device cuda --warm",
    ),
)
@click.option(
    "--device",
    "device_name",
    type=click.Choice(["auto", "cuda", "native", "numpy"]),
    default="auto",
    show_default=True,
    help="The device whose kernels are compared; auto: all that work.",
)
@click.option("--gpu-id", type=click.IntRange(0), default=0, show_default=True, help="Which GPU.")
@click.option("--workers", type=click.IntRange(1), help="CPU threads; default one per usable core.")
@click.option("--warm", is_flag=True, help="Only compile all kernels, for later runs on this kind of machine.")
@json_option
@quiet_option
def doctor(device_name: str, gpu_id: int, workers: int | None, warm: bool, as_json: bool, quiet: bool) -> None:
    """Say which devices work here and why others do not, and compare every kernel with the reference.

    The first run compiles all kernels. Exit codes: 0 every device that works agrees with the reference, 1 one does
    not, 5 the --device asked for does not work.
    """
    from gpu_tomoclass.doctor import examine

    if warm:
        _warm(device_name, gpu_id, workers, as_json=as_json, quiet=quiet)
        return
    with progress("doctor", quiet=quiet, unit="checks") as advance:
        report = examine(device_name, gpu_id=gpu_id, threads=workers, progress=advance)
    click.echo(json.dumps(report.to_dict(), indent=2) if as_json else "\n".join(_lines(report)))
    if report.error is not None:
        raise report.error


def _warm(device_name: str, gpu_id: int, workers: int | None, *, as_json: bool, quiet: bool) -> None:
    from gpu_tomoclass.doctor import warm
    from gpu_tomoclass.errors import TomoclassError

    with progress("compile", quiet=quiet, unit="families") as advance:
        device, seconds, problems = warm(device_name, gpu_id=gpu_id, threads=workers, progress=advance)
    if as_json:
        found = {"device": device.description, "notes": list(device.notes), "seconds": seconds, "problems": problems}
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(
            f"kernels of {len(seconds)} families compiled for {device.description} in {sum(seconds.values()):.0f} s"
        )
        for line in (*(f"note: {note}" for note in device.notes), *(f"{n}: {why}" for n, why in problems.items())):
            click.echo(line)
    if problems:
        raise TomoclassError(f"kernels cannot be run: {', '.join(problems)}", do="report this with doctor --json")


def _lines(report: MachineReport) -> Iterator[str]:
    from gpu_tomoclass.doctor import TIMED, TIMED_SLAB
    from gpu_tomoclass.outputs import size_text

    machine = report.machine
    free = machine["free_bytes"]
    memory = "" if free is None else f", {size_text(free)} of memory free"
    yield f"{machine['system']}, Python {machine['python']}, gpu_tomoclass {machine['gpu_tomoclass']}"
    yield f"{machine['cores']} CPU cores usable{memory}"
    yield ""
    for device in report.devices:
        if not device.works:
            yield device.description
            continue
        own = "" if device.free_bytes is None else f", {size_text(device.free_bytes)} of its memory free"
        yield f"the {device.name} device works: {device.description}{own}"
        yield from (f"  note: {note}" for note in device.notes)
        if device.forest_walks:
            yield f"  forest: {device.forest_walks}"
    compared = [device for device in report.devices if device.checks]
    if compared:
        yield ""
        titles = [title for d in compared for title in (d.name, "difference", "allowed", "ms/Mpixel", "first run")]
        rows = [("", *titles, "numpy ms/Mpixel")]
        for checks in zip(*(device.checks for device in compared), strict=True):
            name = checks[0].name
            cells = [cell for check in checks for cell in _cells(check)]
            rows.append((name, *cells, f"{report.reference[name]:.1f}"))
        yield table(rows)
        yield "difference: the largest from the reference, as a share of the channel's largest value."
        yield (
            f"ms/Mpixel: one plane of {TIMED[0]} x {TIMED[1]} (on GPUs {TIMED_SLAB}), from host memory to the device's"
            " memory, fastest of some runs; first run: with compiling, in seconds."
        )
        for device in compared:
            yield from (f"{device.name}, {c.name}: {c.problem}" for c in device.checks if c.problem)
    yield ""
    yield table(
        (p.name, "not installed" if p.version is None else p.version, p.problem or ("" if p.version is None else "ok"))
        for p in report.packages
    )


def _cells(check: Check) -> tuple[str, ...]:
    if check.difference is None or check.ms_per_megapixel is None or check.first_seconds is None:
        return "FAILS", "", "", "", ""
    difference, allowed = (f"{v:.1e}" if v else "0" for v in (check.difference, check.tolerance))
    verdict = "agrees" if check.agrees else "DIFFERS"
    return verdict, difference, allowed, f"{check.ms_per_megapixel:.2f}", f"{check.first_seconds:.2f}"
