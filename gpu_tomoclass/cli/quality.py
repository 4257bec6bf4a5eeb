"""Commands about how good a model is, and where: cross-validate, select-features, check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    PlaneRange,
    device_options,
    json_option,
    nan_option,
    open_device,
    overwrite_option,
    quiet_option,
    region_options,
    volume_and_model,
    volume_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import ProgressInTurn, progress, show_notes, table
from gpu_tomoclass.cli.training_options import BANK, fold_options, forest_settings, training_data, training_options

if TYPE_CHECKING:
    from gpu_tomoclass.training import CrossValidation, Drift, Selection


@command(
    "cross-validate",
    short_help="Say how good it will be on unseen pixels",
    examples=(
        "cross-validate volume.tif strokes.zip --every 15",
        "cross-validate a.tif a.zip --also b.tif b.zip --group volume",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("annotations", type=InputPath(), nargs=-1, required=True)
@fold_options
@click.option("--importance", is_flag=True, help="Also what each family is worth; as many times as long.")
@json_option
@training_options
def cross_validate(
    volume: str,
    annotations: tuple[str, ...],
    grouping: str,
    n_folds: int | None,
    importance: bool,
    as_json: bool,
    quiet: bool,
    workers: int | None,
    **options: Any,
) -> None:
    """Say how good a model of these strokes will be on pixels that it has not seen.

    Strokes (or planes, or volumes) are held out in turn, as a whole. The same options as for train.
    """
    from gpu_tomoclass import cross_validate as run

    with (
        training_data(volume, annotations, options, workers=workers, quiet=quiet) as (marked, settings),
        ProgressInTurn(quiet=quiet) as bars,
    ):
        (source, annotation), *also = marked
        result = run(
            source,
            annotation,
            also=also,
            grouping=grouping,
            n_folds=n_folds,
            importance=importance,
            workers=workers,
            features_progress=bars.step("features"),
            progress=bars.step("cross-validation", "forests"),
            **settings,
            **forest_settings(options),
        )
    show_notes(result.notes, quiet=quiet)
    add_result(**result.to_dict())
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
    else:
        _show_validation(result)


def _show_validation(result: CrossValidation) -> None:
    confusion = result.confusion
    least, most = min(result.fold_accuracy), max(result.fold_accuracy)
    click.echo(
        f"held-out {result.grouping}s ({result.n_groups} in {result.n_folds} folds): accuracy"
        f" {100 * confusion.accuracy:.2f} % (folds {100 * least:.2f} to {100 * most:.2f}),"
        f" mean Dice {confusion.mean_dice:.4f}"
    )
    if result.oob_error is not None:
        click.echo(f"out-of-bag error {100 * result.oob_error:.2f} % (strokes not kept together: too good)")
    columns = (confusion.precision, confusion.recall, confusion.dice)
    rows = [(name, *(f"{c[i]:.3f}" for c in columns)) for i, name in enumerate(confusion.names)]
    click.echo(table([("class", "precision", "recall", "Dice"), *rows]))
    counts = [(name, *map(str, row)) for name, row in zip(confusion.names, confusion.matrix.tolist(), strict=True)]
    click.echo(table([("true \\ found", *confusion.names), *counts]))
    if result.importance:
        lost = [(family, f"{100 * share:.2f} %") for family, share in result.importance.items()]
        click.echo(table([("family", "accuracy lost when permuted"), *lost]))


@command(
    "select-features",
    short_help="Find the cheapest families that do",
    examples=("select-features volume.tif strokes.zip --every 15 -o curve.png",),
)
@click.argument("volume", type=InputPath())
@click.argument("annotations", type=InputPath(), nargs=-1, required=True)
@click.option("-o", "--output", type=OutputPath(), metavar="CURVE.png", help="Picture of the trade-off.")
@click.option("--epsilon", type=click.FloatRange(0), default=0.002, show_default=True,
              help="So much less mean Dice than all families is good enough.")  # fmt: skip
@fold_options
@json_option
@overwrite_option
@training_options
def select_features(
    volume: str,
    annotations: tuple[str, ...],
    output: str | None,
    epsilon: float,
    grouping: str,
    n_folds: int | None,
    as_json: bool,
    overwrite: bool,
    quiet: bool,
    workers: int | None,
    **options: Any,
) -> None:
    """Find the cheapest feature families that are as good as all of those asked for.

    Families are left out, the most expensive first, while the cross-validated score stays within --epsilon of the full
    bank's. Prints the --features to use. The same options as for train.
    """
    from gpu_tomoclass import select_features as run
    from gpu_tomoclass.labels import check_picture_target, save_figure
    from gpu_tomoclass.training import trade_off_figure

    if output is not None:
        check_picture_target(output, overwrite=overwrite)
    with (
        training_data(volume, annotations, options, workers=workers, quiet=quiet) as (marked, settings),
        ProgressInTurn(quiet=quiet) as bars,
    ):
        (source, annotation), *also = marked
        result = run(
            source,
            annotation,
            also=also,
            epsilon=epsilon,
            grouping=grouping,
            n_folds=n_folds,
            workers=workers,
            features_progress=bars.step("features"),
            progress=bars.step("selection", "candidates"),
            **settings,
            **forest_settings(options),
        )
    if output is not None:
        save_figure(trade_off_figure(result), output, overwrite=overwrite)
    show_notes(result.notes, quiet=quiet)
    arguments = feature_arguments(result.chosen.families, {name: options[name] for name in BANK})
    found = {**result.to_dict(), "arguments": arguments}
    add_result(**found)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _show_selection(result)
    full, chosen = (1000 * result.seconds_together[name] for name in ("full", "chosen"))
    click.echo(f"computed together: {chosen:.1f} ms per plane instead of {full:.1f}")
    click.echo(arguments)
    if output is not None:
        click.echo(f"picture: {output}")


def feature_arguments(families: tuple[str, ...], asked: Mapping[str, Any]) -> str:
    """Options that make a bank of these families with the other settings as they were asked for."""
    words = [f"--features {','.join(families)}"]
    defaults = {p.name: p.default for p in select_features.params}
    for name in ("sigma_min", "sigma_max", "membrane_thickness", "membrane_patch"):
        if asked[name] is not None and asked[name] != defaults[name]:
            words.append(f"--{name.replace('_', '-')} {asked[name]:g}")
    along_z = asked.get("z_sigma", defaults["z_sigma"])
    if along_z != defaults["z_sigma"] and any(name.startswith("z_") for name in families):
        words.append(f"--z-sigma {along_z}")
    if asked.get("hessian") == "legacy" and "hessian" in families:
        words.append("--hessian legacy")
    if asked.get("gabor") == "exact" and "gabor" in families:
        words.append("--gabor exact")
    for family, sigmas in asked["sigmas"]:
        if family in families:
            values = sigmas if isinstance(sigmas, str) else ",".join(f"{s:g}" for s in sigmas)
            words.append(f"--sigmas {family}={values}")
    return " ".join(words)


def _show_selection(result: Selection) -> None:
    rows = [("ms/plane", "mean Dice", "better than all cheaper")]
    rows += [(f"{1000 * c.seconds:.1f}", f"{c.score:.4f}", ",".join(c.families)) for c in result.curve]
    click.echo(table(rows))
    full, chosen = result.full, result.chosen
    click.echo(
        f"{len(result.tried)} sets tried; scores move by {result.scatter:.4f} with folds and seeds; their means:"
    )
    click.echo(
        table(
            [
                ("", "families", "ms/plane", "mean Dice"),
                *(
                    (name, str(len(c.families)), f"{1000 * c.seconds:.1f}", f"{c.score:.4f}")
                    for name, c in (("full", full), ("chosen", chosen))
                ),
            ]
        )
    )


@command(
    short_help="Say whether a model fits a volume",
    examples=(
        "check other.tif m.tcm",
        "check other.tif m.tcm --planes 100:200",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.option("--planes", type=PlaneRange(), help="Look only at planes a to b - 1, e.g. where the specimen is.")
@click.option("--n-planes", type=click.IntRange(1), default=8, show_default=True, help="So many, evenly spaced.")
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@json_option
@region_options
@nan_option
@volume_options
@device_options
@quiet_option
def check(
    volume: str,
    model: str,
    planes: tuple[int, int | None] | None,
    n_planes: int,
    force: bool,
    as_json: bool,
    crop: str | None,
    mask: str | None,
    nan: str,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    quiet: bool,
    **reading: Any,
) -> None:
    """Say whether MODEL fits VOLUME, before hours of wrong labels.

    Compares the features of some planes with those that the model was trained among, and how sure the forest is.
    Exit codes: 0 it fits, or (with a note) it is doubtful; 4 it does not fit.
    """
    from gpu_tomoclass.errors import ModelError
    from gpu_tomoclass.training import check_drift
    from gpu_tomoclass.volumes import open_volume

    volume, loaded = volume_and_model(volume, model, quiet=quiet)
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source, progress("check", quiet=quiet) as advance:
        show_notes(source.notes, quiet=quiet)
        result = check_drift(
            loaded, source, device=device, planes=planes, crop=crop, mask=mask, n_planes=n_planes, nan=nan, force=force,
            progress=advance,
        )  # fmt: skip
    add_result(**result.to_dict())
    click.echo(json.dumps(result.to_dict(), indent=2) if as_json else _drift_text(result))
    if result.verdict == "does not fit":
        raise ModelError(
            f"the model does not fit: {result.explain()}",
            where=volume,
            do="adapt the model (gpu-tomoclass adapt), train on planes of this volume, or on several such volumes"
            " (train --also)",
        )
    if result.verdict == "doubtful":
        show_notes([f"doubtful: {result.explain()}; look at a preview before classifying"])


@command(
    short_help="Make a model fit another volume, without strokes",
    examples=("adapt other.tif m.tcm -o other.tcm", "adapt other.tif m.tcm -o other.tcm --mask specimen.tif"),
)
@click.argument("volume", type=InputPath())
@click.argument("model", type=InputPath())
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="ADAPTED.tcm", help="The adapted model.")
@click.option("--planes", type=PlaneRange(), help="Look only at planes a to b - 1, e.g. where the specimen is.")
@click.option("--n-planes", type=click.IntRange(1), default=8, show_default=True, help="So many, evenly spaced.")
@click.option("--always", is_flag=True, help="Try although the model fits.")
@click.option("--force", is_flag=True, help="Go on although the voxel size differs from the training's.")
@json_option
@region_options
@nan_option
@volume_options
@device_options
@overwrite_option
@quiet_option
def adapt(
    volume: str,
    model: str,
    output: str,
    planes: tuple[int, int | None] | None,
    n_planes: int,
    always: bool,
    force: bool,
    as_json: bool,
    crop: str | None,
    mask: str | None,
    nan: str,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **reading: Any,
) -> None:
    """Make MODEL fit VOLUME, another reconstruction of the same kind of specimen, without new strokes.

    Grey values are mapped to those of the training volume; the map becomes part of the model. Nothing is written where
    the model fits as it is (exit code 0), or would not fit better adapted (exit code 4).
    """
    from gpu_tomoclass.errors import ModelError
    from gpu_tomoclass.model import check_model_target, save_model
    from gpu_tomoclass.training import adapt as run
    from gpu_tomoclass.volumes import open_volume

    check_model_target(output, overwrite=overwrite)
    volume, loaded = volume_and_model(volume, model, quiet=quiet)
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with open_volume(volume, **reading) as source, progress("adapt", quiet=quiet) as advance:
        show_notes(source.notes, quiet=quiet)
        result = run(
            loaded, source, device=device, planes=planes, crop=crop, mask=mask, n_planes=n_planes, nan=nan,
            force=force, always=always, progress=advance,
        )  # fmt: skip
    if result.adapted:
        save_model(result.model, output, overwrite=overwrite)
    after = None if result.after is None else result.after.to_dict()
    found = {"adapted": result.adapted, "reason": result.reason, "before": result.before.to_dict(), "after": after}
    add_result(**found)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo(result.reason)
        for name, drift in (("as given", result.before), ("adapted", result.after)):
            if drift is not None:
                click.echo(f"{name}: {drift.verdict}, drift {drift.drift:.3f}, margin {drift.mean_margin:.3f}"
                           f" (in training {drift.trained_margin:.3f})")  # fmt: skip
        if result.adapted:
            click.echo(f"values: {result.model.intensity.describe()}\nmodel: {output}")
    if result.after is not None and not result.adapted:
        raise ModelError(
            f"the model is left as it is: {result.reason}",
            where=volume,
            do="train on planes of this volume, or on several such volumes (train --also)",
        )


def _drift_text(result: Drift) -> str:
    families = [(family, f"{value:.3f}") for family, value in result.per_family.items()]
    return "\n".join(
        (
            f"verdict: {result.verdict}",
            f"drift {result.drift:.3f} (0 equal, 1 disjoint), {100 * result.outside:.2f} % of values outside the"
            " training range",
            f"mean margin {result.mean_margin:.3f}, on the training planes {result.trained_margin:.3f}",
            *(
                []
                if result.moved is None
                else [
                    f"adapting would move {100 * result.moved:.1f} % of the pixels between classes and change the mean"
                    f" margin by {result.surer or 0.0:+.3f}"
                ]
            ),
            table([("family", "drift"), *families]),
        )
    )
