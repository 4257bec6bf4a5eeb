"""The conventional way, to compare with: baseline nad, baseline otsu."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.common import (
    given_zarr_options,
    overwrite_option,
    progress,
    quiet_option,
    show_notes,
    table,
    volume_options,
    zarr_options,
)


class Numbers(click.ParamType):
    """Any count of numbers separated by commas: ``100,150.5``."""

    name = "A,B,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(number) for number in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not of the form 100,150.5", param, ctx)


@click.group()
def baseline() -> None:
    """The conventional way, to compare with: denoise, then thresholds of grey."""


@baseline.command()
@click.argument("volume")
@click.option("-o", "--output", required=True, metavar="LABELS", help="A new label volume: .tif, .mrc or .ome.zarr.")
@click.option("--levels", type=click.IntRange(2, 6), default=3, show_default=True,
              help="Classes that multi-Otsu finds in the histogram of the volume.")  # fmt: skip
@click.option("--thresholds", type=Numbers(), help="Given grey values instead; one more class than thresholds.")
@click.option("--names", metavar="DARK,..,BRIGHT", help="Of the classes.")
@volume_options
@zarr_options
@overwrite_option
@quiet_option
def otsu(
    volume: str,
    output: str,
    levels: int,
    thresholds: tuple[float, ...] | None,
    names: str | None,
    ome_version: str | None,
    sharded: bool,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Label a volume by thresholds of grey, by default those of multi-Otsu.

    The histogram has at most 256 bins (128 for 6 levels) from the darkest to the brightest voxel.
    """
    from gpu_tomoclass.thresholds import write_otsu
    from gpu_tomoclass.volume import open_volume

    with open_volume(volume, **reading) as source:
        show_notes(source.notes, quiet=quiet)
        named = () if names is None else tuple(name.strip() for name in names.split(","))
        with progress("thresholds", quiet=quiet) as advance:
            result = write_otsu(
                source,
                output,
                levels=levels,
                thresholds=thresholds,
                names=named,
                overwrite=overwrite,
                progress=advance,
                **given_zarr_options(ome_version, sharded),
            )
    rows = [("class", "from grey", "voxels")]
    starts = ("", *(f"{value:g}" for value in result.thresholds))
    for start, (value, count) in zip(starts, result.voxels.items(), strict=True):
        rows.append((named[value - 1] if named else f"grey {value}", start, str(count)))
    click.echo(table(rows))
    click.echo(f"labels: {output}")
