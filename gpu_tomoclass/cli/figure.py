"""The command that draws: figure."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    READING,
    Numbers,
    PlaneRange,
    overwrite_option,
    quiet_option,
    volume_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.terminal import show_notes
from gpu_tomoclass.errors import UsageError


@command(
    short_help="Draw planes with their labels for a paper",
    examples=(
        "figure volume.tif labels.ome.zarr --planes 40,120,300 -o figure.pdf",
        "figure volume.tif labels.tif --planes 40 --panels image,outlines --width 85 -o figure.png",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("labels", type=InputPath())
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="FIGURE", help="A .png, .svg or .pdf.")
@click.option("--planes", type=Numbers("Z,..", "40,120,300", whole=True), required=True,
              help="From left to right, counted from 0.")  # fmt: skip
@click.option("--panels", default="image,overlay", show_default=True, metavar="KIND,..",
              help="Rows from top to bottom: image, overlay, outlines, labels.")  # fmt: skip
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.4, show_default=True, help="Strength of the colours.")
@click.option("--rows", type=PlaneRange(), help="Only rows a to b - 1 of each plane (y).")
@click.option("--columns", type=PlaneRange(), help="Only columns a to b - 1 of each plane (x).")
@click.option(
    "--scale-bar", type=click.FloatRange(0), metavar="NM", help="Its length, 0 for none; default a round one."
)
@click.option("--width", "width_mm", type=float, default=180.0, show_default=True, help="Of the figure, in mm.")
@click.option("--dpi", type=click.IntRange(30, 2400), default=300, show_default=True, help="Of a PNG.")
@click.option("--no-letters", is_flag=True, help="No a, b, .. in the panels.")
@click.option("--no-titles", is_flag=True, help="No numbers of planes above the panels.")
@click.option("--no-legend", is_flag=True, help="No classes below.")
@volume_options
@overwrite_option
@quiet_option
def figure(
    volume: str,
    labels: str,
    output: str,
    planes: tuple[int, ...],
    panels: str,
    alpha: float,
    rows: tuple[int, int | None] | None,
    columns: tuple[int, int | None] | None,
    scale_bar: float | None,
    width_mm: float,
    dpi: int,
    no_letters: bool,
    no_titles: bool,
    no_legend: bool,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Draw planes of VOLUME and its LABELS beside each other, with scale bar and legend, at the width of a journal's
    column (85 mm) or page (180 mm)."""
    from gpu_tomoclass.labels import check_picture_target, label_figure, save_figure
    from gpu_tomoclass.volumes import open_volume

    check_picture_target(output, overwrite=overwrite)
    with open_volume(volume, **{name: options[name] for name in READING}) as source, open_volume(labels) as found:
        show_notes([*source.notes, *found.notes], quiet=quiet)
        drawn = label_figure(
            source, found, planes=planes, panels=[name.strip() for name in panels.split(",")], alpha=alpha,
            crop=(_part(rows, found.shape[1], "rows"), _part(columns, found.shape[2], "columns")),
            scale_nm=scale_bar, width_mm=width_mm, letters=not no_letters, titles=not no_titles,
            legend=not no_legend,
        )  # fmt: skip
        if source.voxel_size is None:
            show_notes(["no scale bar: the voxel size is unknown; give --voxel-size"], quiet=quiet)
    save_figure(drawn, output, dpi=dpi, overwrite=overwrite)
    click.echo(f"figure: {output}")


def _part(chosen: tuple[int, int | None] | None, length: int, what: str) -> slice:
    if chosen is None:
        return slice(None)
    start, stop = chosen[0], length if chosen[1] is None else chosen[1]
    if not 0 <= start < stop <= length:
        raise UsageError(f"{what} {start}:{stop} are not all in 0:{length}")
    return slice(start, stop)
