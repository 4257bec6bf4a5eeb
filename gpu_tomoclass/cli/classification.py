"""Commands that apply a model: preview, classify, plan, batch."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Sequence
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
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import ProgressInTurn, progress, show_notes, stop_on_signal, table
from gpu_tomoclass.cli.training_options import cache_options, open_cache
from gpu_tomoclass.errors import UsageError

GPUS = ("h100", "h200", "b200", "a100", "l40s", "rtx4090")

if TYPE_CHECKING:
    from gpu_tomoclass.classification import ClassifyResult, Outcome
    from gpu_tomoclass.device import Device
    from gpu_tomoclass.volumes import Volume


@command(
    short_help="Say beforehand what memory, disk, time it takes",
    examples=(
        "plan volume.tif m.tcm -o labels.tif --memory-limit 4G",
        "plan volume.tif m.tcm -o labels.tif --gpu h100",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.option("-o", "--output", type=OutputPath(), metavar="LABELS", help="Where the labels will be written.")
@product_options
@click.option("--planes", type=PlaneRange(), help="Only planes a to b - 1.")
@click.option("--slab-planes", type=click.IntRange(1), help="As for classify.")
@click.option("--memory-limit", type=ByteSize(), help="As for classify, e.g. 4G.")
@zarr_options
@overwrite_option
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@click.option("--no-time", is_flag=True, help="Do not classify some planes to know the time.")
@click.option("--gpu", type=click.Choice(GPUS), help="Plan for this GPU, which is not here; the time is predicted.")
@volume_options
@device_options
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@quiet_option
def plan(
    volume: str,
    model: str,
    output: str | None,
    probabilities: str | None,
    uncertainty: str | None,
    smooth: float | None,
    planes: tuple[int, int | None] | None,
    slab_planes: int | None,
    memory_limit: int | None,
    ome_version: str | None,
    sharded: bool,
    overwrite: bool,
    force: bool,
    no_time: bool,
    gpu: str | None,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    as_json: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Say what classifying VOLUME with MODEL will need: memory, disk, time.

    Memory follows from the code that will allocate it; time from a few planes that are classified for real. With --gpu
    nothing is computed: for a head node, with lines to submit by sbatch.
    """
    from gpu_tomoclass.classification import batch_script, make_plan
    from gpu_tomoclass.outputs import size_text
    from gpu_tomoclass.volumes import open_volume

    given = [volume, model]
    volume, loaded = volume_and_model(volume, model, quiet=quiet)
    device = "auto" if gpu else open_device(device_name, gpu_id, workers, quiet=quiet or as_json)
    with open_volume(volume, **reading) as source:
        chosen = None if planes is None else (planes[0], source.shape[0] if planes[1] is None else planes[1])
        found = make_plan(
            source,
            loaded,
            device,
            probabilities=probabilities,
            uncertainty=uncertainty,
            smooth=smooth,
            output=output,
            planes=chosen,
            slab_planes=slab_planes,
            memory_limit=memory_limit,
            overwrite=overwrite,
            force=force,
            measure=not no_time,
            gpu=gpu,
            **given_zarr_options(ome_version, sharded),
        )
    add_result(**found.to_dict())
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        return
    rows = [
        ("device", found.device if gpu is None else f"{gpu}, predicted"),
        ("threads", str(found.n_threads)),
        ("planes", f"{found.n_planes}, {found.slab_planes} at once"),
        ("memory", f"at most {size_text(found.host_bytes)}"),
    ]
    if found.device_bytes is not None:
        rows.append(("GPU memory", f"at most {size_text(found.device_bytes)}"))
    rows.append(("disk", f"at most {size_text(found.disk_bytes)}"))
    if found.seconds is not None and found.seconds_per_plane is not None:
        rows.append(("time", f"{_duration(found.seconds)} ({1000 * found.seconds_per_plane:.0f} ms per plane)"))
    if found.predicted is not None:
        low, high = (_duration(s) for s in (found.predicted.at_least, found.predicted.at_most))
        rows.append(("predicted time", f"{_duration(found.predicted.seconds)} ({low} to {high})"))
    click.echo(table(rows))
    for warning in found.warnings:
        click.echo(f"warning: {warning}")
    if found.predicted is not None and gpu is not None:
        for assumption in found.predicted.assumptions:
            click.echo(f"assumed: {assumption}")
        command = ["gpu-tomoclass", "classify", *given, "-o", output or "LABELS", *_same_options(chosen, probabilities)]
        lines = batch_script(
            [shlex.quote(word) for word in command],
            gpu=gpu,
            host_bytes=found.host_bytes,
            seconds=found.predicted.at_most,
        )
        click.echo("\n" + "\n".join(lines))


@command(
    short_help="Work through many volumes of a job file",
    examples=(
        "batch job.toml --dry-run",
        "batch job.toml --json summary.json",
    ),
)
@click.argument("job", type=InputPath(), metavar="JOB.toml")
@click.option("--dry-run", is_flag=True, help="Only open every volume and model, and say what would be done.")
@click.option("--json", "json_path", type=OutputPath(), metavar="FILE", help="Write the summary for machines.")
@quiet_option
@click.pass_context
def batch(context: click.Context, job: str, dry_run: bool, json_path: str | None, quiet: bool) -> None:
    """Classify, convert, clean, measure or evaluate many volumes as JOB.toml says; what is done already is skipped.

    A volume that fails does not stop the others; the exit code is then that of the first failure.
    """
    from gpu_tomoclass.classification import check_job, load_job, run_job
    from gpu_tomoclass.outputs import check_output

    if json_path is not None:
        check_output(json_path, overwrite=_is_summary(json_path))

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    items = load_job(job)
    if dry_run:
        outcomes = check_job(items, say=say)
        rows = [("status", "task", "planes", "volume", "output", "message")]
        rows += [(o.status, o.item.task, str(o.n_planes or ""), o.item.source, o.item.output, o.message)
                 for o in outcomes]  # fmt: skip
        _end_of_batch(context, outcomes, rows, json_path)
        return

    def opened(name: str, gpu_id: int, workers: int | None) -> Device:
        return open_device(name, gpu_id, workers, quiet=quiet)

    with stop_on_signal() as should_stop, ProgressInTurn(quiet=quiet) as bars:
        outcomes = run_job(items, open_device=opened, say=say, progress=bars.step("planes"), should_stop=should_stop)
    ran = [("status", "planes", "s", "volume", "message")]
    ran += [(o.status, str(o.n_planes or ""), f"{o.seconds:.1f}", o.item.source, o.message) for o in outcomes]
    _end_of_batch(context, outcomes, ran, json_path)


def _end_of_batch(
    context: click.Context, outcomes: Sequence[Outcome], rows: Sequence[tuple[str, ...]], json_path: str | None
) -> None:
    """The table, the counts, the file for machines; the exit code of the first failure."""
    add_result(volumes=[o.to_dict() for o in outcomes])
    if json_path is not None:
        made = [output for o in outcomes for output in o.item.outputs]
        from gpu_tomoclass.outputs import write_json

        write_json(json_path, [o.to_dict() for o in outcomes], inputs=made, overwrite=_is_summary(json_path))
    click.echo(table((*row, text if len(text) <= 100 else f"{text[:97]}...") for *row, text in rows))
    counts = {name: sum(o.status == name for o in outcomes) for name in ("ready", "done", "skipped", "failed")}
    click.echo(", ".join(f"{n} {status}" for status, n in counts.items() if n or status == "failed"))
    failed = [o for o in outcomes if o.status == "failed"]
    if failed:
        context.exit(failed[0].exit_code)


def _is_summary(path: str) -> bool:
    """Tell whether a file is the summary of an earlier run, which the next one replaces."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, list) and all(isinstance(o, dict) and {"status", "exit_code"} <= {*o} for o in content)


def _same_options(planes: tuple[int, int] | None, probabilities: str | None) -> list[str]:
    """Options of classify that the plan was made with."""
    options = ["--device", "cuda"]
    if planes is not None:
        options += ["--planes", f"{planes[0]}:{planes[1]}"]
    return options if probabilities is None else [*options, f"--probabilities={probabilities}"]


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


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
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="LABELS", help=".ome.zarr, .tif or .mrc")
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
@zarr_options
@click.option("--slab-planes", type=click.IntRange(1), help="Planes at once; default what the memory holds.")
@click.option("--memory-limit", type=ByteSize(), help="Of the process, or of its arrays on a GPU, e.g. 4G.")
@click.option("--dask", metavar="local:N|ADDRESS", help="Compute in N processes here (N GPUs), or on a Dask cluster.")
@click.option("--restart", is_flag=True, help="Begin anew instead of resuming an interrupted run.")
@click.option("--profile", type=OutputPath(), metavar="FILE.json", help="Write where the time went; also as a table.")
@click.option("--thumbnail", is_flag=True, help="Also draw LABELS_thumbnail.png: three sections.")
@click.option("--sweep", is_flag=True, help="Also draw LABELS_sweep.gif: through the planes.")
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
    thumbnail: bool,
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
    pictures = _pictures(output, thumbnail=thumbnail, sweep=sweep)
    for picture in pictures:
        check_output(picture, overwrite=options["overwrite"])
    volume, loaded = volume_and_model(volume, model, quiet=quiet)
    options |= given_zarr_options(ome_version, sharded)
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
        _draw_pictures(source, result.path, pictures, overwrite=options["overwrite"])
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
    click.echo(f"{result.n_planes - result.n_resumed} planes in {result.seconds:.1f} s ({rate:.2f} planes/s)")
    if profile is not None:
        _write_profile(result, profile, overwrite=options["overwrite"])
    click.echo(f"labels: {result.path}")
    for path in result.other_paths:
        click.echo(f"also: {path}")
    for picture in pictures:
        click.echo(f"picture: {picture}")


def _pictures(output: str, *, thumbnail: bool, sweep: bool) -> list[str]:
    """Names of the pictures beside the labels."""
    from gpu_tomoclass.volumes import split_suffix

    stem = split_suffix(output)[0]
    return [f"{stem}_thumbnail.png"] * thumbnail + [f"{stem}_sweep.gif"] * sweep


def _draw_pictures(source: Volume, labels: str, pictures: Sequence[str], *, overwrite: bool) -> None:
    from gpu_tomoclass.labels import save_sweep, save_thumbnail
    from gpu_tomoclass.volumes import open_volume

    if not pictures:
        return
    with open_volume(labels) as found:
        for picture in pictures:
            save = save_thumbnail if picture.endswith(".png") else save_sweep
            save(source, found, picture, overwrite=overwrite)


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
