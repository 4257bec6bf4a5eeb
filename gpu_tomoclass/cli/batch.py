"""The command for many volumes: batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import READING, open_device, quiet_option
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.pictures import draw_pictures, picture_options, pictures_beside
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import ProgressInTurn, show_notes, stop_on_signal, table
from gpu_tomoclass.errors import TomoclassError

if TYPE_CHECKING:
    from gpu_tomoclass.classification import Outcome
    from gpu_tomoclass.device import Device


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
@picture_options
@quiet_option
@click.pass_context
def batch(
    context: click.Context,
    job: str,
    dry_run: bool,
    json_path: str | None,
    thumbnail: bool | None,
    sweep: bool,
    quiet: bool,
) -> None:
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
    for outcome in outcomes:
        if outcome.status == "done" and outcome.item.task in ("classify", "clean"):
            _draw(outcome, thumbnail=thumbnail, sweep=sweep, quiet=quiet)
    ran = [("status", "planes", "s", "volume", "message")]
    ran += [(o.status, str(o.n_planes or ""), f"{o.seconds:.1f}", o.item.source, o.message) for o in outcomes]
    _end_of_batch(context, outcomes, ran, json_path)


def _draw(outcome: Outcome, *, thumbnail: bool | None, sweep: bool, quiet: bool) -> None:
    """Draw beside the labels of one volume; where it fails the labels are there all the same."""
    from gpu_tomoclass.volumes import open_volume

    item = outcome.item
    overwrite = item.settings.get("overwrite", False)
    try:
        pictures = pictures_beside(item.output, thumbnail=thumbnail, sweep=sweep, overwrite=overwrite, quiet=quiet)
        if item.task == "clean":
            draw_pictures(None, item.output, pictures, overwrite=overwrite)
        elif pictures:
            reading = {name: item.settings[name] for name in READING if name in item.settings}
            with open_volume(item.source, **reading) as grey:
                draw_pictures(grey, item.output, pictures, overwrite=overwrite)
    except TomoclassError as error:
        show_notes([f"no picture: {error}"], quiet=quiet)


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
