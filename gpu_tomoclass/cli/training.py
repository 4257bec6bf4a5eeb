"""The command that teaches: train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import overwrite_option
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import progress, show_notes, table
from gpu_tomoclass.cli.training_options import (
    BANK,
    FORMULAS,
    forest_settings,
    training_data,
    training_options,
    was_given,
)
from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass import Model, TrainingReport


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
    from gpu_tomoclass import save_model
    from gpu_tomoclass.model import check_model_target

    check_model_target(output, overwrite=overwrite)
    if save_rows is not None:
        from gpu_tomoclass.annotations import check_arff_target

        check_arff_target(save_rows, overwrite=overwrite)
    strokes = tuple(path for path in annotations if not path.lower().endswith(".arff"))
    tables += tuple(path for path in annotations if path.lower().endswith(".arff"))
    rows = None
    if tables:
        from gpu_tomoclass import load_arff
        from gpu_tomoclass.annotations import pooled_tables

        rows = pooled_tables([load_arff(path) for path in tables])
    kept: dict[str, Any] = {"save_rows": save_rows, "overwrite": overwrite, "keep_rows": keep_rows, "workers": workers}
    kept |= forest_settings(options)
    old: dict[str, Any] = {} if old_weight is None else {"old": options["like"], "old_weight": old_weight}
    if old and options["like"] is None:
        raise UsageError("--also-old-rows needs the model that they are of", do="give --like MODEL.tcm")
    if rows is not None and volume is None and not old:
        from gpu_tomoclass import train_from_table

        if ignored := [f"--{name.replace('_', '-')}" for name in BANK if name not in FORMULAS and was_given(name)]:
            raise UsageError(
                f"{', '.join(ignored)} with rows and no volume: what the rows' channels are, their names say",
                do="leave it out, or train on the volume and its strokes",
            )
        trained = train_from_table(rows, hessian=options["hessian"], gabor=options["gabor"], **kept)
    else:
        if volume is None or not strokes:
            raise UsageError(
                "train needs a volume and at least one annotation on it, or rows that Fiji saved without a volume",
                do="see gpu-tomoclass train --help",
            )
        from gpu_tomoclass import train as run

        alone = None if old else rows
        data = training_data(volume, strokes, options, workers=workers, quiet=quiet, table=alone, partial=bool(old))
        with (
            data as (marked, settings),
            progress("features", quiet=quiet) as advance,
        ):
            (source, annotation), *also = marked
            substack = {name: options[name] for name in ("every", "start")}
            trained = run(
                source, annotation, also=also, rows=rows, progress=advance, **old, **substack, **settings, **kept
            )
    save_model(trained, output, overwrite=overwrite)
    report, training = trained.report, trained.training
    assert report is not None
    show_notes(report.notes, quiet=quiet)
    if training["oob_error"] == 0:
        show_notes(
            ["an out-of-bag error of 0 is too good: pixels of one stroke resemble each other; gpu-tomoclass"
             " cross-validate tells how good the model is"],
            quiet=quiet,
        )  # fmt: skip
    add_result(
        oob_error=training["oob_error"],
        counts=training["counts"],
        importance=training["importance"],
        trees=trained.forest.n_trees,
        nodes=trained.forest.n_nodes,
    )
    _show_training(trained, report)
    click.echo(f"model: {output}")
    if save_rows is not None:
        click.echo(f"rows: {save_rows}")


def _show_training(model: Model, report: TrainingReport) -> None:
    forest, training = model.forest, model.training
    if training["oob_error"] is not None:
        click.echo(f"out-of-bag error: {100 * training['oob_error']:.2f} %")
    engine = training["settings"]["engine"]
    click.echo(f"forest ({engine}): {forest.n_trees} trees, {forest.n_nodes} nodes, depth {forest.depth}")
    click.echo(table([("class", "pixels"), *((name, str(n)) for name, n in training["counts"].items())]))
    rows = [("family", "importance", "s/plane")]
    for name, share in training["importance"].items():
        seconds = report.seconds_per_plane.get(name)
        rows.append((name, f"{100 * share:.1f} %", "not computed" if seconds is None else f"{seconds:.2f}"))
    click.echo(table(rows))
    if report.cached_blocks:
        click.echo(f"{report.cached_blocks} feature blocks came from the cache")
