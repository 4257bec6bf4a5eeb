"""Commands for many and for large volumes: plan, batch, convert."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.common import (
    InputPath,
    OutputPath,
    PlaneRange,
    device_options,
    given_zarr_options,
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

if TYPE_CHECKING:
    from gpu_tomoclass.device import Device


@click.command()
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.option("-o", "--output", type=OutputPath(), metavar="LABELS", help="Where the labels will be written.")
@product_options
@click.option("--planes", type=PlaneRange(), help="Only planes a to b - 1.")
@click.option("--slab-planes", type=click.IntRange(1), help="As for classify.")
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@click.option("--no-time", is_flag=True, help="Do not classify some planes to know the time.")
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
    planes: tuple[int, int | None] | None,
    slab_planes: int | None,
    force: bool,
    no_time: bool,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    as_json: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Say what classifying VOLUME with MODEL will need: memory, disk, time.

    Memory follows from the code that will allocate it; time from a few planes that are classified for real.
    """
    from gpu_tomoclass.classification import Wanted, make_plan, plane_range
    from gpu_tomoclass.model import load_model
    from gpu_tomoclass.outputs import size_text
    from gpu_tomoclass.volumes import open_volume

    loaded = load_model(model)
    device = open_device(device_name, gpu_id, workers, quiet=quiet or as_json)
    with open_volume(volume, **reading) as source:
        chosen = None if planes is None else (planes[0], source.shape[0] if planes[1] is None else planes[1])
        first, last = plane_range(source, chosen)
        found = make_plan(
            source,
            loaded,
            device,
            wanted=Wanted(probabilities, uncertainty),
            output=output,
            n_planes=last - first,
            slab_planes=slab_planes,
            force=force,
            measure=not no_time,
        )
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        return
    rows = [
        ("device", found.device),
        ("threads", str(found.n_threads)),
        ("planes", f"{found.n_planes}, {found.slab_planes} at once"),
        ("memory", f"at most {size_text(found.host_bytes)}"),
    ]
    if found.device_bytes is not None:
        rows.append(("GPU memory", f"at most {size_text(found.device_bytes)}"))
    rows.append(("disk", f"at most {size_text(found.disk_bytes)}"))
    if found.seconds is not None and found.seconds_per_plane is not None:
        rows.append(("time", f"{_duration(found.seconds)} ({1000 * found.seconds_per_plane:.0f} ms per plane)"))
    click.echo(table(rows))
    for warning in found.warnings:
        click.echo(f"warning: {warning}")


@click.command()
@click.argument("volume", type=InputPath())
@click.argument("output", type=OutputPath())
@zarr_options
@volume_options
@overwrite_option
@quiet_option
def convert(
    volume: str, output: str, ome_version: str | None, sharded: bool, overwrite: bool, quiet: bool, **reading: Any
) -> None:
    """Write VOLUME in another format: .tif, .ome.zarr or .mrc. Values stay as they are."""
    from gpu_tomoclass.volumes import convert as run
    from gpu_tomoclass.volumes import open_volume

    options = given_zarr_options(ome_version, sharded)
    with (
        open_volume(volume, **reading) as source,
        stop_on_signal() as should_stop,
        progress("convert", quiet=quiet) as advance,
    ):
        show_notes(source.notes, quiet=quiet)
        run(source, output, overwrite=overwrite, progress=advance, should_stop=should_stop, **options)
    click.echo(f"volume: {output}")


@click.command()
@click.argument("job", type=InputPath(), metavar="JOB.toml")
@click.option("--dry-run", is_flag=True, help="Only list what would be done.")
@click.option("--json", "json_path", type=OutputPath(), metavar="FILE", help="Write the summary for machines.")
@quiet_option
@click.pass_context
def batch(context: click.Context, job: str, dry_run: bool, json_path: str | None, quiet: bool) -> None:
    """Classify or convert many volumes as JOB.toml says; what is done already is skipped.

    A volume that fails does not stop the others; the exit code is then that of the first failure.
    """
    from gpu_tomoclass.classification import load_job, run_job
    from gpu_tomoclass.outputs import check_output

    if json_path is not None:
        check_output(json_path, overwrite=_is_summary(json_path))
    items = load_job(job)
    if dry_run:
        click.echo(table([("task", "volume", "output"), *((i.task, i.source, i.output) for i in items)]))
        return

    def say(line: str) -> None:
        if not quiet:
            click.echo(line, err=True)

    def opened(name: str, gpu_id: int, workers: int | None) -> Device:
        return open_device(name, gpu_id, workers, quiet=quiet)

    with stop_on_signal() as should_stop, _progress_of_each(quiet) as advance:
        outcomes = run_job(items, open_device=opened, say=say, progress=advance, should_stop=should_stop)
    if json_path is not None:
        made = [output for o in outcomes for output in o.item.outputs]
        write_json(json_path, [o.to_dict() for o in outcomes], inputs=made, overwrite=_is_summary(json_path))
    rows = [("status", "planes", "s", "volume", "message")]
    for o in outcomes:
        message = o.message if len(o.message) <= 100 else f"{o.message[:97]}..."
        rows.append((o.status, str(o.n_planes or ""), f"{o.seconds:.1f}", o.item.source, message))
    click.echo(table(rows))
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed")}
    click.echo(", ".join(f"{n} {status}" for status, n in counts.items()))
    failed = [o for o in outcomes if o.status == "failed"]
    if failed:
        context.exit(failed[0].exit_code)


def _is_summary(path: str) -> bool:
    """Whether a file is the summary of an earlier run, which the next one replaces."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, list) and all(isinstance(o, dict) and {"status", "exit_code"} <= {*o} for o in content)


class _progress_of_each:
    """A new progress bar whenever a volume starts from its first plane."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._advance: Callable[[int, int], None] | None = None
        self._last = -1

    def __enter__(self) -> Callable[[int, int], None]:
        return self._step

    def __exit__(self, *error: object) -> None:
        self._end(*error)

    def _step(self, done: int, total: int) -> None:
        if self._bar is None or done < self._last:
            self._end(None, None, None)
            self._bar = progress("planes", quiet=self._quiet)
            self._advance = self._bar.__enter__()
        self._last = done
        if self._advance is not None:
            self._advance(done, total)

    def _end(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)
            self._bar = None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
