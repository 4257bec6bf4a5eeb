"""The command that says where to mark next."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    PlaneRange,
    device_options,
    nan_option,
    open_device,
    overwrite_option,
    quiet_option,
    region_options,
    volume_and_model,
    volume_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import progress, show_notes, table


@command(
    short_help="Say where to mark next",
    examples=(
        "suggest volume.tif m.tcm strokes.zip --every 15 -o places",
        "suggest volume.tif m.tcm --whole-planes -n 5 -o planes.csv",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.argument("annotations", type=InputPath(), nargs=-1)
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="PLACES",
              help="A .zip of ROIs for Fiji, a .csv or an .html page; without a suffix all three.")  # fmt: skip
@click.option("-n", "n", type=click.IntRange(1), default=20, show_default=True, help="At most so many places.")
@click.option("--whole-planes", is_flag=True, help="Rank planes instead of patches of planes.")
@click.option("--planes", type=PlaneRange(), help="Look only at planes a to b - 1.")
@click.option("--n-planes", type=click.IntRange(1), default=24, show_default=True, help="So many, evenly spaced.")
@click.option("--patch", type=click.IntRange(4), default=24, show_default=True, help="Edge of a patch in pixels.")
@click.option("--every", type=click.IntRange(1), help="The annotations' planes are every n-th plane of the volume..")
@click.option("--start", type=click.IntRange(0), help="..beginning with this one; default every // 2.")
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@region_options
@nan_option
@volume_options
@device_options
@overwrite_option
@quiet_option
def suggest(
    volume: str,
    model: str,
    annotations: tuple[str, ...],
    output: str,
    n: int,
    whole_planes: bool,
    planes: tuple[int, int | None] | None,
    n_planes: int,
    patch: int,
    every: int | None,
    start: int | None,
    force: bool,
    crop: str | None,
    mask: str | None,
    nan: str,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Say where strokes would teach MODEL most: places of VOLUME where it is unsure, of which there are many.

    Places that resemble those that ANNOTATIONS mark already come last. Mark what you see there, also where the present
    classes are right, and train again.
    """
    from gpu_tomoclass.annotations import load_annotations
    from gpu_tomoclass.training import save_suggestions, suggestion_targets
    from gpu_tomoclass.training import suggest as run
    from gpu_tomoclass.volumes import open_volume

    suggestion_targets(output, overwrite=overwrite)
    volume, loaded = volume_and_model(volume, model, quiet=quiet)
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source, progress("suggest", quiet=quiet) as advance:
        show_notes(source.notes, quiet=quiet)
        marked = None
        if annotations:
            names = {c.value: c.name for c in loaded.classes}
            marked = load_annotations(
                annotations, volume_shape=source.shape, every=every, start=start, class_names=names
            )
        found = run(
            loaded, source, marked, n=n, whole_planes=whole_planes, planes=planes, crop=crop, mask=mask,
            n_planes=n_planes, patch=patch, nan=nan, force=force, device=device, progress=advance,
        )  # fmt: skip
    written = save_suggestions(found, output, classes=loaded.classes, overwrite=overwrite)
    add_result(
        places=[
            {
                **{name: int(getattr(s, name)) for name in ("z", "y", "x", "height", "width")},
                **{name: float(getattr(s, name)) for name in ("uncertainty", "novelty", "alike")},
                "between": [c.name for c in s.classes],
            }
            for s in found
        ]
    )
    rows = [("", "plane", "y", "x", "uncertainty", "new", "alike", "between")]
    rows += [
        (str(i), str(s.z), str(s.y), str(s.x), f"{s.uncertainty:.2f}", f"{s.novelty:.2f}", f"{100 * s.alike:.0f} %",
         " or ".join(c.name for c in s.classes))
        for i, s in enumerate(found, start=1)
    ]  # fmt: skip
    click.echo(table(rows))
    for path in written:
        click.echo(f"places: {path}")
