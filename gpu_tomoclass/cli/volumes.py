"""Commands about volumes: info, reslice, substack, convert."""

from __future__ import annotations

import json
from typing import Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    given_zarr_options,
    json_option,
    overwrite_option,
    quiet_option,
    volume_options,
    volume_output_option,
    zarr_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import description_rows, progress, show_notes, stop_on_signal, table


@command(
    short_help="Say what was understood of a file",
    examples=(
        "info tomogram.mrc",
        "info volume.tif --voxel-size 0.55",
        "info labels.tif --stats",
    ),
)
@click.argument("path", type=InputPath(), metavar="VOLUME|MODEL")
@volume_options
@click.option("--stats", is_flag=True, help="Read all planes: range and mean, or voxels per class of labels.")
@click.option("--picture", type=OutputPath(), metavar="PICTURE.png",
              help="Also draw three sections through the middle: which way lies the tilt axis?")  # fmt: skip
@json_option
@overwrite_option
@quiet_option
def info(
    path: str, stats: bool, picture: str | None, as_json: bool, overwrite: bool, quiet: bool, **reading: Any
) -> None:
    """Say what was understood of a volume or a model file.

    Without --stats, range and mean are those of the middle plane.
    """
    from gpu_tomoclass.model import MODEL_SUFFIX, describe_model, load_model

    if path.lower().endswith(MODEL_SUFFIX):
        description = describe_model(load_model(path))
    else:
        from gpu_tomoclass.labels import check_picture_target, save_sections
        from gpu_tomoclass.volumes import describe_volume, open_any_channel, volume_statistics

        if picture is not None:
            check_picture_target(picture, overwrite=overwrite)
        with open_any_channel(path, **reading) as volume:
            description = describe_volume(volume)
            if stats:
                with progress("read", quiet=quiet) as advance:
                    description["all_planes"] = volume_statistics(volume, progress=advance)
            if picture is not None:
                save_sections(volume, picture, overwrite=overwrite)
    add_result(**description)
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    shown = {k: v for k, v in description.items() if k != "metadata" or not stats}
    click.echo(table(description_rows(_for_people(shown))))
    if picture is not None:
        click.echo(f"picture: {picture}")


def _for_people(description: dict[str, Any]) -> dict[str, Any]:
    """Without times and checksums by which programs tell files apart; --json has them."""
    return {
        name: _for_people(value) if isinstance(value, dict) else value
        for name, value in description.items()
        if name not in ("mtime_ns", "crc32")
    }


@command(
    short_help="Turn a volume: the tilt axis along z", examples=("reslice tomogram.mrc -o volume.tif --tilt-axis y",)
)
@click.argument("volume", type=InputPath())
@volume_output_option
@click.option("--tilt-axis", type=click.Choice(["x", "y", "z"]), required=True, help="Where the tilt axis lies now.")
@volume_options
@overwrite_option
@quiet_option
def reslice(volume: str, output: str, tilt_axis: str, overwrite: bool, quiet: bool, **reading: Any) -> None:
    """Turn a volume so that the tilt axis lies along z (planes then show the missing wedge)."""
    from gpu_tomoclass.volumes import open_volume
    from gpu_tomoclass.volumes import reslice as run

    with open_volume(volume, **reading) as source, progress("reslice", quiet=quiet) as advance:
        show_notes(source.notes, quiet=quiet)
        run(source, output, tilt_axis=tilt_axis, overwrite=overwrite, progress=advance)


@command(
    short_help="Write every n-th plane, to mark strokes on", examples=("substack volume.tif -o marks.tif --every 15",)
)
@click.argument("volume", type=InputPath())
@volume_output_option
@click.option("--every", type=click.IntRange(1), default=15, show_default=True, help="Keep one plane of so many.")
@click.option("--start", type=click.IntRange(0), help="The first plane kept; default every // 2.")
@volume_options
@overwrite_option
@quiet_option
def substack(
    volume: str, output: str, every: int, start: int | None, overwrite: bool, quiet: bool, **reading: Any
) -> None:
    """Write every n-th plane: the stack that a person marks strokes on."""
    from gpu_tomoclass.volumes import open_volume
    from gpu_tomoclass.volumes import substack as run

    with open_volume(volume, **reading) as source, progress("substack", quiet=quiet) as advance:
        show_notes(source.notes, quiet=quiet)
        run(source, output, every=every, start=start, overwrite=overwrite, progress=advance)


@command(
    short_help="Write a volume in another format",
    examples=(
        "convert in.mrc -o out.ome.zarr",
        "convert in.tif -o out.tif --voxel-size 1.1,0.55,0.55",
    ),
)
@click.argument("volume", type=InputPath())
@volume_output_option
@zarr_options
@volume_options
@overwrite_option
@quiet_option
def convert(
    volume: str,
    output: str,
    ome_version: str | None,
    sharded: bool,
    portal: bool,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Write VOLUME in another format: .tif, .mrc, .nxs or .ome.zarr. Values stay as they are."""
    from gpu_tomoclass.volumes import convert as run
    from gpu_tomoclass.volumes import open_volume

    options = given_zarr_options(ome_version, sharded, portal)
    with (
        open_volume(volume, **reading) as source,
        stop_on_signal() as should_stop,
        progress("convert", quiet=quiet) as advance,
    ):
        show_notes(source.notes, quiet=quiet)
        run(source, output, overwrite=overwrite, progress=advance, should_stop=should_stop, **options)
    click.echo(f"volume: {output}")
