"""Commands that make tomograms whose truth is known: simulate phantom, simulate pillar."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.common import OutputPath, overwrite_option, progress, quiet_option

OUTPUT = click.option("-o", "--output", type=OutputPath(), required=True, metavar="FOLDER|FILE",
                      help="A folder for two TIFF files, or a volume's name; the truth is beside it.")  # fmt: skip
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")


class Numbers(click.ParamType):
    """Numbers separated by commas, or ``x`` for whole ones: ``861,428,317``."""

    def __init__(self, name: str, count: int, number: type[int] | type[float]) -> None:
        self.name, self._count, self._number = name, count, number

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            numbers = tuple(self._number(n) for n in value.lower().replace("x", ",").split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != self._count:
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return numbers


ANGLES = Numbers("FIRST,LAST,STEP", 3, float)


@click.group()
def simulate() -> None:
    """Make a tomogram whose truth is known."""


@simulate.command()
@OUTPUT
@click.option("--size", type=click.IntRange(16), default=512, show_default=True, help="Pixels per side.")
@click.option("--planes", type=click.IntRange(1), default=1, show_default=True,
              help="Each with noise of its own.")  # fmt: skip
@click.option("--levels", type=Numbers("A,B,C,D,E", 5, float),
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


@simulate.command()
@OUTPUT
@click.option("--shape", type=Numbers("Z,Y,X", 3, int), default="24,160,136", show_default=True,
              help="Voxels; the paper's is 861,428,317.")  # fmt: skip
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
def pillar(output: str, angles: tuple[float, float, float] | None, quiet: bool, **options: Any) -> None:
    """A rubber pillar with aggregates of silica spheres: noise, misalignment, missing wedge, SIRT; 16 bits.

    Of any size: what does not fit into memory lies in temporary files beside the output.
    """
    from gpu_tomoclass.studies import tilt_angles, write_pillar

    with progress("project and reconstruct", quiet=quiet, unit="steps") as advance:
        volume, truth = write_pillar(
            output, angles=None if angles is None else tilt_angles(*angles), progress=advance, **options
        )
    click.echo(f"volume: {volume}")
    click.echo(f"truth: {truth}")
