"""The command for those who paint elsewhere: watch."""

from __future__ import annotations

import os
from typing import Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    READING,
    bank_options,
    device_options,
    intensity_option,
    make_bank,
    nan_option,
    open_device,
    overwrite_option,
    quiet_option,
    volume_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.terminal import show_notes, stop_on_signal
from gpu_tomoclass.cli.training_options import BANK, cache_options, forest_options, forest_settings, open_cache
from gpu_tomoclass.errors import UsageError


@command(
    short_help="Train whenever strokes are saved, and show it",
    examples=(
        "watch volume.tif strokes.zip --every 15 --class-names vacuum,rubber,silica -o materials.tcm",
        "watch volume.tif labels.tif -o materials.tcm --page look.html",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("strokes", type=InputPath(), nargs=-1, required=True)
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="MODEL.tcm", help="Written again each time.")
@click.option("--page", type=OutputPath(), metavar="PAGE.html", help="Shows the marked planes; default beside MODEL.")
@click.option("--every", type=click.IntRange(1), help="The strokes' planes are every n-th plane of the volume..")
@click.option("--start", type=click.IntRange(0), help="..beginning with this one; default every // 2.")
@click.option("--class-names", metavar="NAME,..", help="Names of the classes 1, 2, ..")
@click.option("--label-axes", metavar="ORDER", help="Read the stored axes of label images in this order, e.g. xyz.")
@click.option("--skip-bad-rois", is_flag=True, help="Leave out ROIs that cannot be used.")
@bank_options
@intensity_option
@nan_option
@forest_options
@volume_options
@cache_options
@device_options
@overwrite_option
@quiet_option
def watch(
    volume: str,
    strokes: tuple[str, ...],
    output: str,
    page: str | None,
    class_names: str | None,
    cache: str | None,
    no_cache: bool,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Train MODEL again whenever a file of STROKES is saved, and write a page that shows the marked planes.

    For those who mark in Fiji or any other program: save in the ROI Manager, look at the page, mark where it says. The
    page loads itself again. Ctrl-C ends the watch.
    """
    from gpu_tomoclass.interactive import watch as run
    from gpu_tomoclass.volumes import open_volume

    if not os.path.exists(volume):
        raise UsageError("there is no such volume", where=volume)
    page = page or f"{os.path.splitext(output)[0]}.html"
    reading = {name: options.pop(name) for name in READING}
    bank = make_bank(**{name: options.pop(name) for name in BANK})
    forest = forest_settings(options)
    more = {name: options[name] for name in ("every", "start", "label_axes", "skip_bad_rois", "intensity", "nan",
                                             "overwrite")}  # fmt: skip
    where = [f"open {page} in a browser"]

    def say(text: str) -> None:
        show_notes(where, quiet=quiet)  # once, when nothing was refused
        where.clear()
        click.echo(text)

    with open_volume(volume, **reading) as source, stop_on_signal() as should_stop:
        show_notes(source.notes, quiet=quiet)
        run(
            source, strokes, output=output, page=page, features=bank, cache=open_cache(cache, no_cache),
            class_names=None if class_names is None else class_names.split(","),
            device=open_device(device_name, gpu_id, workers, quiet=quiet),
            should_stop=should_stop, say=say, **more, **forest,
        )  # fmt: skip
