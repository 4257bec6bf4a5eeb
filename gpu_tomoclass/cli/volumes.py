"""Commands about volumes: info, reslice, substack, features."""

from __future__ import annotations

import json
from typing import Any

import click

from gpu_tomoclass.cli.common import (
    InputPath,
    OutputPath,
    bank_options,
    description_rows,
    device_options,
    intensity_option,
    make_bank,
    nan_option,
    open_device,
    overwrite_option,
    progress,
    quiet_option,
    show_notes,
    table,
    volume_options,
)


@click.command()
@click.argument("path", type=InputPath(), metavar="VOLUME|MODEL")
@volume_options
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def info(path: str, as_json: bool, **reading: Any) -> None:
    """Say what was understood of a volume or a model file."""
    from gpu_tomoclass.model import MODEL_SUFFIX, describe_model, load_model

    if path.lower().endswith(MODEL_SUFFIX):
        description = describe_model(load_model(path))
    else:
        from gpu_tomoclass.volumes import describe_volume, open_volume

        with open_volume(path, **reading) as volume:
            description = describe_volume(volume)
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    click.echo(table(description_rows(description)))


@click.command()
@click.argument("volume", type=InputPath())
@click.argument("output", type=OutputPath())
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


@click.command()
@click.argument("volume", type=InputPath())
@click.argument("output", type=OutputPath())
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


@click.command()
@click.argument("volume", type=InputPath())
@click.option("--plane", type=int, required=True, help="The plane, counted from 0.")
@click.option(
    "-o", "--output", type=OutputPath(), required=True, help="A .tif (channels named for Fiji and napari) or .ome.zarr."
)
@bank_options
@intensity_option
@nan_option
@volume_options
@device_options
@overwrite_option
@quiet_option
def features(
    volume: str,
    plane: int,
    output: str,
    features: str,
    sigma_min: float,
    sigma_max: float,
    sigmas: Any,
    membrane_thickness: int,
    membrane_patch: int,
    hessian: str,
    intensity: str,
    nan: str,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Compute the features of one plane and write them as named channels."""
    bank = make_bank(features, sigma_min, sigma_max, sigmas, membrane_thickness, membrane_patch, hessian)
    from gpu_tomoclass.features import write_features
    from gpu_tomoclass.volumes import open_volume

    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source:
        show_notes(source.notes, quiet=quiet)
        result = write_features(
            source,
            bank,
            plane=plane,
            output=output,
            intensity=intensity,
            nan=nan,
            device=device,
            overwrite=overwrite,
        )
    show_notes(result.notes, quiet=quiet)
    click.echo(table([("family", "seconds"), *((f, f"{s:.2f}") for f, s in result.seconds.items())]))
    click.echo(f"{bank.n_channels} channels of plane {plane}: {output}")
