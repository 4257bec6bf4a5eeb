"""The command that says beforehand what a classification needs: plan."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    ByteSize,
    PlaneRange,
    device_options,
    given_zarr_options,
    json_option,
    open_device,
    overwrite_option,
    product_options,
    quiet_option,
    volume_and_model,
    volume_options,
    zarr_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import table

GPUS = ("h100", "h200", "b200", "a100", "l40s", "rtx4090")


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
@json_option
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
    portal: bool,
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
            **given_zarr_options(ome_version, sharded, portal),
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
