"""The command that teaches: train."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import overwrite_option
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import progress, show_notes, table
from gpu_tomoclass.cli.training_options import forest_settings, training_data, training_options
from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass.annotations import TrainingTable
    from gpu_tomoclass.training import OldRows, TrainingResult


@command(
    short_help="Train a model from strokes on some planes",
    examples=(
        "train volume.tif strokes.zip --every 15 --class-names vacuum,rubber,silica -o m.tcm",
        "train marks.tif strokes.zip -o m.tcm",
        "train volume.tif more.zip --like m.tcm -o m2.tcm",
        "train other.tif few.zip --like adapted.tcm --also-old-rows 0.3 -o other.tcm",
        "train --from data.arff -o m.tcm",
        "train volume.tif strokes.zip --from data.arff -o m.tcm",
    ),
)
@click.argument("volume", type=InputPath(), required=False)
@click.argument("annotations", type=InputPath(), nargs=-1)
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="MODEL.tcm", help="The model file.")
@click.option(
    "--from",
    "tables",
    type=InputPath(),
    multiple=True,
    metavar="DATA.arff",
    help="Rows saved by Fiji, alone or beside strokes on a volume; several are pooled.",
)
@click.option(
    "--save-rows", type=OutputPath(), metavar="DATA.arff", help="Also write the training rows; Fiji loads them."
)
@click.option("--keep-rows", is_flag=True, help="Keep the training rows in the model, for --also-old-rows.")
@click.option(
    "--also-old-rows",
    "old_weight",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="WEIGHT",
    help="Also the rows of the model of --like (kept in it, or those of --from); one counts as much as WEIGHT of the"
    " new, at most 1.",
)
@training_options
@overwrite_option
def train(
    volume: str | None,
    annotations: tuple[str, ...],
    output: str,
    tables: tuple[str, ...],
    save_rows: str | None,
    keep_rows: bool,
    old_weight: float | None,
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
    strokes = tuple(path for path in annotations if not path.lower().endswith(".arff"))
    tables += tuple(path for path in annotations if path.lower().endswith(".arff"))
    pooled = None
    if tables:
        from gpu_tomoclass.annotations import load_arff, pooled_tables

        pooled = pooled_tables([load_arff(path) for path in tables])
    old = None
    if old_weight is not None:
        old, pooled = _old_rows(options["like"], old_weight, pooled), None
    if pooled is not None and volume is None:
        from gpu_tomoclass.training import train_from_table

        result = train_from_table(
            pooled,
            hessian=options["hessian"],
            gabor=options["gabor"],
            workers=workers,
            keep_rows=keep_rows,
            **forest_settings(options),
        )
    else:
        if volume is None or not strokes:
            raise UsageError(
                "train needs a volume and at least one annotation on it, or rows that Fiji saved without a volume",
                do="see gpu-tomoclass train --help",
            )
        from gpu_tomoclass.training import train as run

        data = training_data(
            volume, strokes, options, workers=workers, quiet=quiet, table=pooled, partial=old is not None
        )
        with (
            data as (marked, settings),
            progress("features", quiet=quiet) as advance,
        ):
            (source, annotation), *also = marked
            settings |= forest_settings(options) | {"old": old, "keep_rows": keep_rows}
            result = run(source, annotation, also=also, table=pooled, workers=workers, progress=advance, **settings)
    if options["every"] is not None or options["start"] is not None:
        training = {**result.model.training, "substack": {"every": options["every"], "start": options["start"]}}
        result = replace(result, model=replace(result.model, training=training))
    save_model(result.model, output, overwrite=overwrite)
    if save_rows is not None:
        from gpu_tomoclass.annotations import save_arff

        save_arff(save_rows, result.table, exact=True, overwrite=overwrite)
    show_notes(result.notes, quiet=quiet)
    if result.oob_error == 0:
        show_notes(
            ["an out-of-bag error of 0 is too good: pixels of one stroke resemble each other; gpu-tomoclass"
             " cross-validate tells how good the model is"],
            quiet=quiet,
        )  # fmt: skip
    add_result(
        oob_error=result.oob_error,
        counts=dict(result.counts),
        importance=dict(result.importance),
        trees=result.model.forest.n_trees,
        nodes=result.model.forest.n_nodes,
    )
    _show_training(result)
    click.echo(f"model: {output}")
    if save_rows is not None:
        click.echo(f"rows: {save_rows}")


def _old_rows(like: str | None, weight: float, table: TrainingTable | None) -> OldRows:
    from gpu_tomoclass.model import load_model
    from gpu_tomoclass.training import old_rows

    if like is None:
        raise UsageError("--also-old-rows needs the model that they are of", do="give --like MODEL.tcm")
    return old_rows(load_model(like), weight=weight, table=table)


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
