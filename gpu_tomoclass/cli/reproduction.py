"""The study that this software comes from, rerun: reproduce."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.common import (
    InputPath,
    OutputPath,
    PlaneRange,
    device_options,
    open_device,
    overwrite_option,
    progress,
    quiet_option,
)
from gpu_tomoclass.cli.simulation import Numbers


@click.command()
@click.option(
    "-o",
    "--output",
    type=OutputPath(),
    required=True,
    metavar="FOLDER",
    help="For report.html, numbers.json and all volumes.",
)
@click.option("--only", multiple=True, type=click.Choice(["phantom", "pillar", "needle"]), help="Repeatable.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of noise, misalignment, strokes.")
@click.option("--repeats", type=click.IntRange(1), default=4, show_default=True,
              help="Seeds of the phantom, for the spread.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Small images, few trees: to see whether it works.")
@click.option("--pillar-shape", type=Numbers("Z,Y,X", 3, int),
              help="Of the simulated pillar; default 120,428,317, the paper's is 861,428,317.")  # fmt: skip
@click.option("--pillar", "given_pillar", type=InputPath(), nargs=2, metavar="VOLUME TRUTH",
              help="A pillar of your own: vacuum, rubber, silica.")  # fmt: skip
@click.option(
    "--needle-series", type=InputPath(), metavar="SERIES", help="The needle's aligned tilt series, to be reconstructed."
)
@click.option(
    "--needle", "needles", type=InputPath(), multiple=True, metavar="VOLUME", help="Or a reconstruction; repeatable."
)
@click.option("--needle-truth", type=InputPath(), metavar="LABELS", help="Its classes.")
@click.option("--needle-planes", type=PlaneRange(), help="Those with specimen; default all.")
@device_options
@overwrite_option
@quiet_option
def reproduce(
    output: str,
    needle_planes: tuple[int, int | None] | None,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Rerun the study: thresholds of grey against a trained classifier, on a phantom, a pillar and a real needle.

    About 10 minutes on 2 cores; --only phantom --repeats 1 takes one. The needle is not simulated:
    docs/reproduce.md says where its tilt series is.
    """
    from gpu_tomoclass.studies import reproduce as run

    def say(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    if needle_planes is not None:
        options["needle_planes"] = needle_planes
    with progress("reproduce", quiet=quiet, unit="steps") as advance:
        report, numbers = run(output, device=device, say=say, progress=advance, **options)
    click.echo(f"report: {report}")
    click.echo(f"numbers: {numbers}")
