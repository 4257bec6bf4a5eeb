"""Commands that teach and apply: train, preview, classify, demo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.common import (
    ByteSize,
    InputPath,
    OutputPath,
    PlaneRange,
    device_options,
    given_zarr_options,
    nan_option,
    open_device,
    overwrite_option,
    product_options,
    progress,
    quiet_option,
    show_notes,
    stop_on_signal,
    table,
    volume_options,
    write_json,
    zarr_options,
)
from gpu_tomoclass.cli.training_options import (
    cache_options,
    forest_settings,
    open_cache,
    training_data,
    training_options,
)
from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass.classification import ClassifyResult
    from gpu_tomoclass.training import TrainingResult


@click.command()
@click.argument("volume", type=InputPath(), required=False)
@click.argument("annotations", type=InputPath(), nargs=-1)
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="MODEL.tcm", help="The model file.")
@click.option(
    "--from",
    "table_path",
    type=InputPath(),
    metavar="DATA.arff",
    help="Train from rows saved by Fiji instead of a volume.",
)
@click.option(
    "--save-rows", type=OutputPath(), metavar="DATA.arff", help="Also write the training rows; Fiji loads them."
)
@training_options
@overwrite_option
def train(
    volume: str | None,
    annotations: tuple[str, ...],
    output: str,
    table_path: str | None,
    save_rows: str | None,
    overwrite: bool,
    quiet: bool,
    workers: int | None,
    **options: Any,
) -> None:
    """Train MODEL from a volume and strokes on some of its planes.

    ANNOTATIONS are label images (TIFF, OME-Zarr, MRC, HDF5; 0 = unlabelled) or ImageJ ROI zips; several are merged.
    After looking at the result, add strokes and run the same command with --overwrite: planes computed before
    come from the cache. --also pools the strokes of several volumes in one model.
    """
    from gpu_tomoclass.model import check_model_target, save_model

    check_model_target(output, overwrite=overwrite)
    if save_rows is not None:
        from gpu_tomoclass.annotations import check_arff_target

        check_arff_target(save_rows, overwrite=overwrite)
    if table_path is not None:
        if volume is not None or options["also"]:
            raise UsageError("give either a volume with annotations or --from DATA.arff, not both")
        from gpu_tomoclass.annotations import load_arff
        from gpu_tomoclass.training import train_from_table

        result = train_from_table(
            load_arff(table_path), hessian=options["hessian"], workers=workers, **forest_settings(options)
        )
    else:
        if volume is None or not annotations:
            raise UsageError("train needs a volume and at least one annotation", do="see gpu-tomoclass train --help")
        from gpu_tomoclass.training import train as run

        with (
            training_data(volume, annotations, options, workers=workers, quiet=quiet) as (marked, settings),
            progress("features", quiet=quiet) as advance,
        ):
            (source, annotation), *also = marked
            settings |= forest_settings(options)
            result = run(source, annotation, also=also, workers=workers, progress=advance, **settings)
    save_model(result.model, output, overwrite=overwrite)
    if save_rows is not None:
        from gpu_tomoclass.annotations import save_arff

        save_arff(save_rows, result.table, exact=True, overwrite=overwrite)
    show_notes(result.notes, quiet=quiet)
    _show_training(result)
    click.echo(f"model: {output}")
    if save_rows is not None:
        click.echo(f"rows: {save_rows}")


def _show_training(result: TrainingResult) -> None:
    forest = result.model.forest
    if result.oob_error is not None:
        click.echo(f"out-of-bag error: {100 * result.oob_error:.2f} %")
    engine = result.model.training["settings"]["engine"]
    click.echo(f"forest ({engine}): {forest.n_trees} trees, {forest.n_nodes} nodes, depth {forest.depth}")
    click.echo(table([("class", "pixels"), *((name, str(n)) for name, n in result.counts.items())]))
    rows = [("family", "importance", "s/plane")]
    for name, share in result.importance.items():
        seconds = result.seconds_per_plane.get(name)
        rows.append((name, f"{100 * share:.1f} %", "cached" if seconds is None else f"{seconds:.2f}"))
    click.echo(table(rows))
    if result.cached_blocks:
        click.echo(f"{result.cached_blocks} feature blocks came from the cache")


@click.command()
@click.argument("model", type=InputPath())
@click.argument("volume", type=InputPath())
@click.option("--plane", type=int, required=True, help="The plane, counted from 0.")
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="PICTURE.png")
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.4, show_default=True, help="Strength of the colours.")
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@nan_option
@volume_options
@cache_options
@device_options
@overwrite_option
@quiet_option
def preview(
    model: str,
    volume: str,
    plane: int,
    output: str,
    alpha: float,
    force: bool,
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
    from gpu_tomoclass.labels import check_picture_target, save_preview
    from gpu_tomoclass.model import load_model
    from gpu_tomoclass.volumes import open_volume

    check_picture_target(output, overwrite=overwrite)
    loaded = load_model(model)
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source:
        features = open_cache(cache, no_cache)
        result = run(loaded, source, plane=plane, nan=nan, force=force, cache=features, device=device)
    save_preview(
        result.plane,
        result.labels,
        result.confidence,
        output,
        classes=loaded.classes,
        title=f"plane {plane}",
        alpha=alpha,
        overwrite=overwrite,
    )
    show_notes(result.notes, quiet=quiet)
    click.echo(table([("class", "pixels"), *((name, str(n)) for name, n in result.counts.items())]))
    click.echo(f"picture: {output}")


@click.command()
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="LABELS", help=".ome.zarr, .tif or .mrc")
@product_options
@click.option("--planes", type=PlaneRange(), help="Only planes a to b - 1.")
@click.option(
    "--intensity",
    type=click.Choice(["model", "auto", "none"]),
    default="model",
    show_default=True,
    help="The scale recorded in the model, one measured on this volume, or none.",
)
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@zarr_options
@click.option("--slab-planes", type=click.IntRange(1), help="Planes at once; default what the memory holds.")
@click.option("--memory-limit", type=ByteSize(), help="Of the process, or of its arrays on a GPU, e.g. 4G.")
@click.option("--dask", metavar="local:N|ADDRESS", help="Compute in N processes here (N GPUs), or on a Dask cluster.")
@click.option("--restart", is_flag=True, help="Begin anew instead of resuming an interrupted run.")
@click.option("--profile", type=OutputPath(), metavar="FILE.json", help="Write where the time went; also as a table.")
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
    dask: str | None,
    profile: str | None,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    quiet: bool,
    axes: str | None,
    series: int | None,
    channel: int | None,
    allow_missing_planes: bool,
    **options: Any,
) -> None:
    """Classify VOLUME with MODEL into a label volume.

    Interrupted in any way, the same command goes on where it was. One Ctrl-C (or SIGTERM) finishes the planes in
    work, a second one stops at once.
    """
    from gpu_tomoclass.classification import classify as run
    from gpu_tomoclass.model import load_model
    from gpu_tomoclass.outputs import check_output
    from gpu_tomoclass.volumes import open_volume

    if profile is not None:
        check_output(profile, overwrite=options["overwrite"])
    loaded = load_model(model)
    options |= given_zarr_options(ome_version, sharded)
    reading: dict[str, Any] = {
        "axes": axes, "series": series, "channel": channel, "allow_missing_planes": allow_missing_planes
    }  # fmt: skip
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
    show_notes(result.notes, quiet=quiet)
    total = sum(result.counts.values())
    rows = [("class", "voxels", "share"), *((n, str(v), f"{100 * v / total:.2f} %") for n, v in result.counts.items())]
    click.echo(table(rows))
    rate = (result.n_planes - result.n_resumed) / max(result.seconds, 1e-9)
    click.echo(f"{result.n_planes - result.n_resumed} planes in {result.seconds:.1f} s ({rate:.2f} planes/s)")
    if profile is not None:
        _write_profile(result, profile, overwrite=options["overwrite"])
    click.echo(f"labels: {result.path}")
    for path in result.other_paths:
        click.echo(f"also: {path}")


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
    write_json(path, content, inputs=(result.path, *result.other_paths), overwrite=overwrite)
    n = max(1, result.profile["planes"])
    stages = [("stage", "s", "ms/plane")]
    stages += [(k, f"{s:.2f}", f"{1000 * s / n:.1f}") for k, s in result.profile["seconds"].items()]
    stages += [(f"  {k}", f"{s:.2f}", f"{1000 * s / n:.1f}") for k, s in result.profile["thread_seconds"].items()]
    click.echo(table(stages))
    share = result.profile["slowest_stage_share"]
    click.echo(f"the slowest stage was busy for {100 * share:.0f} % of the time of the planes; profile: {path}")


@click.command()
@click.option("-o", "--output", type=OutputPath(), default="demo", show_default=True, metavar="FOLDER")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the simulation and the strokes.")
@device_options
@overwrite_option
@quiet_option
def demo(
    output: str, seed: int, device_name: str, gpu_id: int, workers: int | None, overwrite: bool, quiet: bool
) -> None:
    """Make a sample tomogram, train, classify, compare with the truth, write a report."""
    from gpu_tomoclass.studies import run_demo

    def say(message: str) -> None:
        if not quiet:
            click.echo(message, err=True)

    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with progress("classify", quiet=quiet) as advance:
        report = run_demo(output, seed=seed, device=device, overwrite=overwrite, say=say, progress=advance)
    click.echo(f"report: {report}")
