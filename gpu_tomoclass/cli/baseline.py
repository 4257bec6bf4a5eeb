"""The conventional way, to compare with: baseline nad, baseline otsu."""

from __future__ import annotations

from typing import Any

import click

from gpu_tomoclass.cli.command import group
from gpu_tomoclass.cli.options import (
    READING,
    ByteSize,
    Numbers,
    device_options,
    given_zarr_options,
    open_device,
    overwrite_option,
    quiet_option,
    volume_options,
    volume_output_option,
    zarr_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.pictures import draw_pictures, picture_options, pictures_beside
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import plural, progress, show_notes, table


def _automatic(ctx: click.Context, param: click.Parameter, value: float) -> float | None:
    """-1, as tomoand says for a number that is to be chosen."""
    return None if value == -1 else value


@group(short_help="The conventional way: denoise, threshold")
def baseline() -> None:
    """The conventional way, to compare with: denoise, then thresholds of grey."""


@baseline.command(examples=("baseline nad volume.tif -o denoised.tif --noise-area 10,10",))
@click.argument("volume", type=InputPath())
@volume_output_option
@click.option("--dim", "dimensions", type=click.IntRange(2, 3), default=2, show_default=True,
              help="2: each plane for itself; 3: the volume.")  # fmt: skip
@click.option("--noise-area", type=Numbers("X,Y[,Z]", "180,230,1", whole=True),
              help="A pixel (voxel) amid noise alone; needed unless balance and grey level are 0.")  # fmt: skip
@click.option("--iterations", type=int, default=50, show_default=True, help="Time steps.")
@click.option("--structure", type=float, default=-1, show_default=True, callback=_automatic,
              help="C of coherence enhancement, -1: chosen in every step.")  # fmt: skip
@click.option("--contrast", type=float, default=-1, show_default=True, callback=_automatic,
              help="K of edge enhancement, -1: chosen in every step.")  # fmt: skip
@click.option("--balance", type=float, default=0.4, show_default=True, help="0 edges alone .. 1 much coherence.")
@click.option("--second-eigenvector", type=float, default=0.5, show_default=True,
              help="Proportion of smoothing along it: within surfaces.")  # fmt: skip
@click.option("--grey-level", type=float, default=0.3, show_default=True,
              help="Proportion of plain smoothing where it is dark.")  # fmt: skip
@click.option("--sigma", type=float, default=0.4, show_default=True, help="Of the Gaussian before gradients, pixels.")
@click.option("--structure-sigma", type=float, default=2.0, show_default=True,
              help="Of the Gaussian that averages the structure tensor, pixels.")  # fmt: skip
@click.option("--ht", "time_step", type=float, default=0.1, show_default=True,
              help="Time step, at most 1/4 for --dim 2 and 1/6 for --dim 3.")  # fmt: skip
@click.option("--output-dtype", type=click.Choice(["float32", "input"]), default="float32", show_default=True,
              help="Of the output; input: rounded to the type of VOLUME.")  # fmt: skip
@click.option("--nan", type=click.Choice(["error", "fill"]), default="error", show_default=True,
              help="Non-finite voxels: refuse, or take the nearest value.")  # fmt: skip
@click.option("--memory-limit", type=ByteSize(), help="Of the process, or of its arrays on a GPU, e.g. 4G.")
@volume_options
@device_options
@zarr_options
@overwrite_option
@quiet_option
def nad(
    volume: str,
    output: str,
    output_dtype: str,
    nan: str,
    memory_limit: int | None,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    ome_version: str | None,
    sharded: bool,
    portal: bool,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Denoise by nonlinear anisotropic diffusion, after Fernandez and Li (2003).

    Parameters are named as those of the program tomoand. With --dim 3, a volume that does not fit into memory lies in
    files beside OUT between steps.
    """
    from gpu_tomoclass.baseline import NadParameters, write_nad
    from gpu_tomoclass.volumes import open_volume

    reading = {name: options.pop(name) for name in READING}
    chosen = NadParameters(**options)
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source:
        show_notes(source.notes, quiet=quiet)
        with progress("denoise", quiet=quiet, unit="plane steps") as advance:
            result = write_nad(
                source,
                output,
                parameters=chosen,
                dtype=output_dtype,
                nan=nan,
                device=device,
                memory_limit=memory_limit,
                overwrite=overwrite,
                progress=advance,
                **given_zarr_options(ome_version, sharded, portal),
            )
    show_notes(result.notes, quiet=quiet)
    add_result(slab_planes=result.slab_planes, in_files=result.in_files, device=device.name)
    where = "files beside the output" if result.in_files else "memory"
    click.echo(f"{result.seconds:.1f} s, {plural(result.slab_planes, 'plane')} at once, the volume in {where}")
    click.echo(f"denoised: {output}")


@baseline.command(examples=("baseline otsu denoised.tif -o labels.tif --names vacuum,rubber,silica",))
@click.argument("volume", type=InputPath())
@click.option(
    "-o",
    "--output",
    type=OutputPath(),
    required=True,
    metavar="LABELS",
    help="A new label volume: .tif, .mrc, .nxs or .ome.zarr.",
)
@click.option("--levels", type=click.IntRange(2, 6), default=3, show_default=True,
              help="Classes that multi-Otsu finds in the histogram of the volume.")  # fmt: skip
@click.option(
    "--thresholds",
    type=Numbers("A,B,..", "100,150.5"),
    help="Given grey values instead; one more class than thresholds.",
)
@click.option("--names", metavar="DARK,..,BRIGHT", help="Of the classes.")
@picture_options
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
    thumbnail: bool | None,
    sweep: bool,
    ome_version: str | None,
    sharded: bool,
    portal: bool,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Label a volume by thresholds of grey, by default those of multi-Otsu.

    The histogram has at most 256 bins (128 for 6 levels) from the darkest to the brightest voxel.
    """
    from gpu_tomoclass.baseline import write_otsu
    from gpu_tomoclass.volumes import open_volume

    pictures = pictures_beside(output, thumbnail=thumbnail, sweep=sweep, overwrite=overwrite, quiet=quiet)
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
                **given_zarr_options(ome_version, sharded, portal),
            )
        draw_pictures(source, output, pictures, overwrite=overwrite)
    counts = {named[value - 1] if named else f"grey {value}": n for value, n in result.voxels.items()}
    total = sum(counts.values())
    add_result(
        thresholds=list(result.thresholds), counts=counts, fractions={name: n / total for name, n in counts.items()}
    )
    rows = [("class", "from grey", "voxels")]
    starts = ("", *(f"{value:g}" for value in result.thresholds))
    rows += [(name, start, str(count)) for start, (name, count) in zip(starts, counts.items(), strict=True)]
    click.echo(table(rows))
    click.echo(f"labels: {output}")
    for picture in pictures:
        click.echo(f"picture: {picture}")
