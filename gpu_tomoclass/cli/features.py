"""The command that shows what the forest sees: features."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
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
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import progress, show_notes, table


@command(
    short_help="Write features as channels",
    examples=("features volume.tif --plane 10 -o channels.tif --features gaussian_blur,hessian",),
)
@click.argument("volume", type=InputPath())
@click.option("--plane", type=int, help="The plane, counted from 0; default all.")
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
    plane: int | None,
    output: str,
    features: str,
    sigma_min: float,
    sigma_max: float | None,
    sigmas: Any,
    membrane_thickness: int,
    membrane_patch: int,
    hessian: str,
    gabor: str,
    z_sigma: str,
    intensity: str,
    nan: str,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Compute the features of one plane, or of all, and write them as named channels."""
    bank = make_bank(
        features=features,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        sigmas=sigmas,
        membrane_thickness=membrane_thickness,
        membrane_patch=membrane_patch,
        hessian=hessian,
        gabor=gabor,
        z_sigma=z_sigma,
    )
    from gpu_tomoclass.features import write_features
    from gpu_tomoclass.volumes import open_volume

    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source, progress("features", quiet=quiet) as advance:
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
            progress=advance,
        )
    show_notes(result.notes, quiet=quiet)
    add_result(channels=bank.n_channels, planes=result.n_planes, seconds_per_family=dict(result.seconds))
    click.echo(table([("family", "seconds"), *((f, f"{s:.2f}") for f, s in result.seconds.items())]))
    of = f"{result.n_planes} planes" if plane is None else f"plane {plane}"
    click.echo(f"{bank.n_channels} channels of {of}: {output}")
