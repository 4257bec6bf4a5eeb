"""Commands that apply a model: preview, classify."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    READING,
    ByteSize,
    PlaneRange,
    device_options,
    given_zarr_options,
    nan_option,
    open_device,
    overwrite_option,
    product_options,
    quiet_option,
    region_options,
    volume_and_model,
    volume_options,
    zarr_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.pictures import draw_pictures, picture_options, pictures_beside
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import plural, progress, show_notes, stop_on_signal, table
from gpu_tomoclass.cli.training_options import cache_options, open_cache
from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass.classification import ClassifyResult


@command(short_help="Classify one plane into a picture", examples=(
    "preview volume.tif m.tcm --plane 22 -o look.png",
))  # fmt: skip
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.option("--plane", type=int, required=True, help="The plane, counted from 0.")
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="PICTURE.png",
              help="A .png, .svg or .pdf.")  # fmt: skip
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.4, show_default=True, help="Strength of the colours.")
@click.option("--outlines", is_flag=True, help="Draw the borders of the classes instead of filling them.")
@click.option("--strokes", type=InputPath(), multiple=True, metavar="ANNOTATIONS",
              help="Also draw the strokes of this plane; repeatable.")  # fmt: skip
@click.option("--every", type=click.IntRange(1), help="The strokes' planes are every n-th plane of the volume..")
@click.option("--start", type=click.IntRange(0), help="..beginning with this one; default every // 2.")
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@region_options
@nan_option
@volume_options
@cache_options
@device_options
@overwrite_option
@quiet_option
def preview(
    volume: str,
    model: str,
    plane: int,
    output: str,
    alpha: float,
    outlines: bool,
    strokes: tuple[str, ...],
    every: int | None,
    start: int | None,
    force: bool,
    crop: str | None,
    mask: str | None,
    nan: str,
    cache: str | None,
    no_cache: bool,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Classify one plane and write it as a picture: grey values, overlay, confidence."""
    from gpu_tomoclass.classification import preview as run
    from gpu_tomoclass.labels import check_picture_target, save_preview, volume_contrast
    from gpu_tomoclass.volumes import open_volume

    check_picture_target(output, overwrite=overwrite)
    given = volume, model
    volume, loaded = volume_and_model(volume, model, quiet=quiet)
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source:
        features = open_cache(cache, no_cache)
        painted = None
        if strokes:
            from gpu_tomoclass.annotations import load_annotations

            names = {c.value: c.name for c in loaded.classes}
            marked = load_annotations(
                strokes, volume_shape=source.full_shape, bin=source.bin, every=every, start=start, class_names=names
            )
            painted = marked.plane_labels(plane)
        result = run(
            loaded, source, plane=plane, nan=nan, force=force, crop=crop, mask=mask, cache=features, device=device
        )
        limits = volume_contrast(source)
        pixel = None if source.voxel_size is None else source.voxel_size[1:]
    save_preview(
        result.plane,
        result.labels,
        result.confidence,
        output,
        classes=loaded.classes,
        title=f"{os.path.basename(volume)}, plane {plane}, by {os.path.basename(given[given[0] == volume])}",
        alpha=alpha,
        limits=limits,
        pixel_nm=pixel,
        strokes=painted,
        outlines=outlines,
        overwrite=overwrite,
    )
    show_notes(result.notes, quiet=quiet)
    add_result(counts=dict(result.counts))
    click.echo(table([("class", "pixels"), *((name, str(n)) for name, n in result.counts.items())]))
    click.echo(f"picture: {output}")


@command(
    short_help="Classify a volume",
    examples=(
        "classify volume.tif m.tcm -o labels.ome.zarr",
        "classify volume.tif m.tcm -o labels.tif --planes 100:200 --probabilities",
        "classify volume.tif m.tcm -o labels.tif --memory-limit 2G",
        "classify other.tif m.tcm -o labels.tif --adapt auto",
        "classify volume.tif m.tcm -o labels.tif --crop 100:200,:,50:300",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.option(
    "-o", "--output", type=OutputPath(), required=True, metavar="LABELS", help=".ome.zarr, .tif, .mrc or .nxs"
)
@product_options
@click.option("--planes", type=PlaneRange(), help="Only planes a to b - 1.")
@region_options
@click.option("--adapt", type=click.Choice(["off", "auto"]), default="off", show_default=True,
              help="auto: where the model does not fit the volume, adapt it first, without strokes.")  # fmt: skip
@click.option(
    "--intensity",
    type=click.Choice(["model", "auto", "none"]),
    default="model",
    show_default=True,
    help="The scale recorded in the model, one measured on this volume, or none.",
)
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@click.option("--forest-engine", type=click.Choice(["kernels", "nvforest"]), default="kernels", show_default=True,
              help="Who walks the trees; nvforest: NVIDIA's, a second opinion (comes with cuML).")  # fmt: skip
@zarr_options
@click.option("--slab-planes", type=click.IntRange(1), help="Planes at once; default what the memory holds.")
@click.option("--memory-limit", type=ByteSize(), help="Of the process, or of its arrays on a GPU, e.g. 4G.")
@click.option("--dask", metavar="local:N|ADDRESS", help="Compute in N processes here (N GPUs), or on a Dask cluster.")
@click.option("--restart", is_flag=True, help="Begin anew instead of resuming an interrupted run.")
@click.option("--profile", type=OutputPath(), metavar="FILE.json", help="Write where the time went; also as a table.")
@picture_options
@nan_option
@volume_options
@device_options
@overwrite_option
@quiet_option
def classify(
    volume: str,
    model: str,
    output: str,
    planes: tuple[int, int | None] | None,
    ome_version: str | None,
    sharded: bool,
    portal: bool,
    dask: str | None,
    profile: str | None,
    thumbnail: bool | None,
    sweep: bool,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Classify VOLUME with MODEL into a label volume.

    Interrupted in any way, the same command goes on where it was. One Ctrl-C (or SIGTERM) finishes the planes in
    work, a second one stops at once.
    """
    from gpu_tomoclass.classification import classify as run
    from gpu_tomoclass.outputs import check_output
    from gpu_tomoclass.volumes import open_volume

    if profile is not None:
        check_output(profile, overwrite=options["overwrite"])
    pictures = pictures_beside(output, thumbnail=thumbnail, sweep=sweep, overwrite=options["overwrite"], quiet=quiet)
    volume, loaded = volume_and_model(volume, model, quiet=quiet)
    options |= given_zarr_options(ome_version, sharded, portal)
    reading = {name: options.pop(name) for name in READING}
    with (
        _where_to_compute(dask, device_name, gpu_id, workers, quiet=quiet) as where,
        open_volume(volume, **reading) as source,
        stop_on_signal() as should_stop,
        progress("classify", quiet=quiet) as advance,
    ):
        if planes is not None:
            options["planes"] = (planes[0], source.shape[0] if planes[1] is None else planes[1])
        options |= where
        result = run(source, loaded, output=output, should_stop=should_stop, progress=advance, **options)
        draw_pictures(source, result.path, pictures, overwrite=options["overwrite"])
    show_notes(result.notes, quiet=quiet)
    total = sum(result.counts.values())
    add_result(
        counts=dict(result.counts),
        fractions={name: n / total for name, n in result.counts.items()},
        planes=result.n_planes,
        planes_of_earlier_run=result.n_resumed,
        device=result.device,
        profile=dict(result.profile),
    )
    rows = [("class", "voxels", "share"), *((n, str(v), f"{100 * v / total:.2f} %") for n, v in result.counts.items())]
    click.echo(table(rows))
    rate = (result.n_planes - result.n_resumed) / max(result.seconds, 1e-9)
    click.echo(f"{plural(result.n_planes - result.n_resumed, 'plane')} in {result.seconds:.1f} s ({rate:.2f} planes/s)")
    if profile is not None:
        _write_profile(result, profile, overwrite=options["overwrite"])
    click.echo(f"labels: {result.path}")
    for path in result.other_paths:
        click.echo(f"also: {path}")
    for picture in pictures:
        click.echo(f"picture: {picture}")


@contextmanager
def _where_to_compute(
    dask: str | None, device_name: str, gpu_id: int, workers: int | None, *, quiet: bool
) -> Iterator[dict[str, Any]]:
    """The device, or the cluster that lives as long as the block."""
    if dask is None:
        yield {"device": open_device(device_name, gpu_id, workers, quiet=quiet)}
        return
    from gpu_tomoclass.classification import Cluster

    if gpu_id:
        raise UsageError("--gpu-id does not go with --dask", do="set CUDA_VISIBLE_DEVICES to choose among GPUs")
    with Cluster(dask, device=device_name, threads=workers) as cluster:
        show_notes([f"cluster: {cluster.description}", *cluster.notes], quiet=quiet)
        yield {"cluster": cluster}


def _write_profile(result: ClassifyResult, path: str, *, overwrite: bool) -> None:
    content = {"device": result.device, "n_planes": result.n_planes, **result.profile}
    from gpu_tomoclass.outputs import write_json

    write_json(path, content, inputs=(result.path, *result.other_paths), overwrite=overwrite)
    n = max(1, result.profile["planes"])
    stages = [("stage", "s", "ms/plane")]
    stages += [(k, f"{s:.2f}", f"{1000 * s / n:.1f}") for k, s in result.profile["seconds"].items()]
    stages += [(f"  {k}", f"{s:.2f}", f"{1000 * s / n:.1f}") for k, s in result.profile["thread_seconds"].items()]
    click.echo(table(stages))
    share = result.profile["slowest_stage_share"]
    click.echo(f"the slowest stage was busy for {100 * share:.0f} % of the time of the planes; profile: {path}")
