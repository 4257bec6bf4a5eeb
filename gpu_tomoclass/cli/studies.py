"""Commands that see it work where the truth is known: demo, simulate phantom, simulate pillar, reproduce."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.command import command, group
from gpu_tomoclass.cli.options import Numbers, PlaneRange, device_options, open_device, overwrite_option, quiet_option
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.terminal import progress

OUTPUT = click.option("-o", "--output", type=OutputPath(), required=True, metavar="FOLDER|FILE",
                      help="A folder for two TIFF files, or a volume's name; the truth is beside it.")  # fmt: skip
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")


ANGLES = Numbers("FIRST,LAST,STEP", "-76,70,2", count=3)


@group(short_help="Make a tomogram whose truth is known")
def simulate() -> None:
    """Make a tomogram whose truth is known."""


@simulate.command(examples=("simulate phantom -o phantom --noise --wedge",))
@OUTPUT
@click.option("--size", type=click.IntRange(16), default=512, show_default=True, help="Pixels per side.")
@click.option("--planes", type=click.IntRange(1), default=1, show_default=True,
              help="Each with noise of its own.")  # fmt: skip
@click.option("--levels", type=Numbers("A,B,C,D,E", "0,60,120,180,240", count=5),
              help="Grey of background (0), void, matrix, inset, shell; default evenly spaced.")  # fmt: skip
@click.option("--noise", type=click.FloatRange(0), is_flag=False, flag_value=0.5, default=0.0, metavar="[MEAN]",
              help="Add Poisson noise to the 8-bit sinogram; mean 0.5 unless given.")  # fmt: skip
@click.option("--shift", type=click.FloatRange(0), is_flag=False, flag_value=1.0, default=0.0, metavar="[PIXELS]",
              help="Shift every projection at random, by up to 1 pixel unless given.")  # fmt: skip
@click.option("--wedge", is_flag=True, help="Tilt from -76 to 76 degrees instead of all around.")
@click.option("--angles", type=ANGLES, help="Other tilt angles in degrees; default 0,178,2.")
@click.option("--float-sinogram", is_flag=True, help="Do not round the sinogram to 8 bits.")
@click.option("--bits", type=click.Choice(["8", "16"]), default="8", show_default=True, help="Of the volume.")
@SEED
@overwrite_option
@quiet_option
def phantom(
    output: str,
    planes: int,
    levels: tuple[float, ...] | None,
    noise: float,
    shift: float,
    wedge: bool,
    angles: tuple[float, float, float] | None,
    float_sinogram: bool,
    bits: str,
    quiet: bool,
    **options: Any,
) -> None:
    """A modified Shepp-Logan phantom of five classes, by ramp-filtered back-projection.

    Noise, shifts and the missing wedge can be switched on one by one and together.
    """
    from gpu_tomoclass.studies import WEDGE, tilt_angles, write_phantom

    if wedge and angles is not None:
        raise click.UsageError("--wedge and --angles contradict each other")
    chosen = WEDGE if wedge else angles
    if levels is not None:
        options["levels"] = levels
    with progress("simulate", quiet=quiet) as advance:
        volume, truth = write_phantom(
            output,
            n_planes=planes,
            angles=None if chosen is None else tilt_angles(*chosen),
            eight_bit=not float_sinogram,
            poisson=noise,
            max_shift=shift,
            bits=int(bits),
            progress=advance,
            **options,
        )
    click.echo(f"volume: {volume}")
    click.echo(f"truth: {truth}")


@simulate.command(examples=("simulate pillar -o pillar --shape 24,160,136",))
@OUTPUT
@click.option("--shape", "voxels", type=Numbers("Z,Y,X", "861,428,317", whole=True, count=3), default="24,160,136",
              show_default=True, help="Voxels; the paper's is 861,428,317.")  # fmt: skip
@click.option("--voxel", type=click.FloatRange(0, min_open=True),
              help="Edge in nm; default so that the pillar fills 86 % of the plane.")  # fmt: skip
@click.option("--diameter", type=click.FloatRange(0, min_open=True), default=150.0, show_default=True,
              help="Of the pillar, in nm.")  # fmt: skip
@click.option("--silica", "silica_fraction", type=click.FloatRange(0, 0.6), default=0.25, show_default=True,
              help="Volume fraction in the pillar.")  # fmt: skip
@click.option("--sphere-radius", type=click.FloatRange(0, min_open=True), default=9.0, show_default=True,
              help="Of the silica spheres (median), in nm.")  # fmt: skip
@click.option("--angles", type=ANGLES, help="Tilt angles in degrees; default -76,70,2.")
@click.option("--counts", type=click.FloatRange(0), default=40.0, show_default=True,
              help="At the thickest place; 0 for no noise.")  # fmt: skip
@click.option("--shift", "max_shift", type=click.FloatRange(0), default=0.6, show_default=True,
              help="Of every projection at random, in pixels.")  # fmt: skip
@click.option("--iterations", type=click.IntRange(1), default=20, show_default=True, help="Of SIRT.")
@SEED
@overwrite_option
@quiet_option
def pillar(
    output: str, voxels: tuple[int, int, int], angles: tuple[float, float, float] | None, quiet: bool, **options: Any
) -> None:
    """A rubber pillar with aggregates of silica spheres: noise, misalignment, missing wedge, SIRT; 16 bits.

    Of any size: what does not fit into memory lies in temporary files beside the output.
    """
    from gpu_tomoclass.studies import tilt_angles, write_pillar

    with progress("project and reconstruct", quiet=quiet, unit="steps") as advance:
        volume, truth = write_pillar(
            output,
            shape=voxels,
            angles=None if angles is None else tilt_angles(*angles),
            progress=advance,
            **options,
        )
    click.echo(f"volume: {volume}")
    click.echo(f"truth: {truth}")


@command(
    short_help="Sample tomogram, model, labels and report",
    examples=(
        "demo",
        "demo -o elsewhere --seed 1",
    ),
)
@click.option("-o", "--output", type=OutputPath(), default="demo", show_default=True, metavar="FOLDER")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the simulation and the strokes.")
@device_options
@overwrite_option
@quiet_option
def demo(
    output: str, seed: int, device_name: str, gpu_id: int, workers: int | None, overwrite: bool, quiet: bool
) -> None:
    """Make a sample tomogram, train, classify, compare with the truth, write a report."""
    from gpu_tomoclass.studies import run_demo

    def say(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with progress("classify", quiet=quiet) as advance:
        report = run_demo(output, seed=seed, device=device, overwrite=overwrite, say=say, progress=advance)
    click.echo(f"report: {report}")


@command(
    short_help="Rerun the study: thresholds against training",
    examples=("reproduce -o study --only phantom --repeats 1",),
)
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
@click.option("--repeats", type=click.IntRange(1),
              help="Seeds of the phantom, for the spread; default 4, 1 with --quick.")  # fmt: skip
@click.option("--quick", is_flag=True, help="Small images, few trees: to see whether it works.")
@click.option("--pillar-shape", type=Numbers("Z,Y,X", "861,428,317", whole=True, count=3),
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
    if options["repeats"] is None:
        options["repeats"] = 1 if options["quick"] else 4
    if needle_planes is not None:
        options["needle_planes"] = needle_planes
    with progress("reproduce", quiet=quiet, unit="steps") as advance:
        report, numbers = run(output, device=device, say=say, progress=advance, **options)
    click.echo(f"report: {report}")
    click.echo(f"numbers: {numbers}")
