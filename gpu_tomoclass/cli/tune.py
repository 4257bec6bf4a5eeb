"""The command that chooses settings: tune."""

from __future__ import annotations

import csv
import io
import json
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import (
    READING,
    Numbers,
    device_options,
    intensity_option,
    json_option,
    nan_option,
    open_device,
    overwrite_option,
    quiet_option,
    region_options,
    volume_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import progress, show_notes, table
from gpu_tomoclass.cli.training_options import Like, annotation_options, cache_options, fold_options, open_cache

if TYPE_CHECKING:
    from gpu_tomoclass import Tuning
    from gpu_tomoclass.api import Setting

# What train and classify are told as tune was; what is chosen, and how it is judged, is not among it.
OF_TRAIN = (*READING, "every", "start", "skip_bad_rois", "class_names", "label_axes", "also", "like", "crop", "mask",
            "intensity", "nan", "seed", "device_name", "gpu_id", "workers", "cache", "no_cache")  # fmt: skip
OF_CLASSIFY = (*READING, "crop", "mask", "nan", "device_name", "gpu_id", "workers")


@command(
    short_help="Choose features, forest and smoothing",
    examples=(
        "tune volume.tif strokes.zip --every 15 -o choice.json",
        "tune volume.tif strokes.zip --every 15 --minutes 20 --features paper --features weka-default -o choice.csv",
    ),
)
@click.argument("volume", type=InputPath())
@click.argument("annotations", type=InputPath(), nargs=-1, required=True)
@click.option("-o", "--output", type=OutputPath(), metavar="RESULT", help="All that was tried: .json or .csv.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True),
              help="Begin nothing new afterwards: the recommendation comes first, then its promise.")  # fmt: skip
@click.option("--features", multiple=True, default=("paper", "weka-default", "paper+z"), show_default=True,
              help="Sets, or families with commas, to choose from; repeatable. The first is begun with.")  # fmt: skip
@click.option("--max-features", type=Numbers("N,N,..", "2,9", whole=True),
              help="Features tried per split; default 2 and the square root of the channels.")  # fmt: skip
@click.option("--min-samples-leaf", type=Numbers("N,N,..", "1,4", whole=True), default="1,4", show_default=True,
              help="Pixels per leaf; above 1 is scikit-learn's forest.")  # fmt: skip
@click.option("--smooth", type=Numbers("NM,NM,..", "2,3"),
              help="Sigmas by which probabilities are smoothed; default 1 and 1.5 voxels; 0: none.")  # fmt: skip
@click.option("--trees", "n_trees", type=click.IntRange(1), default=100, show_default=True,
              help="Of the forests that judge; train grows 200.")  # fmt: skip
@fold_options
@click.option("--seed", type=int, default=42, show_default=True, help="Of folds and forests.")
@json_option
@annotation_options
@region_options
@intensity_option
@nan_option
@volume_options
@cache_options
@device_options
@overwrite_option
@quiet_option
def tune(
    volume: str,
    annotations: tuple[str, ...],
    output: str | None,
    features: tuple[str, ...],
    as_json: bool,
    also: tuple[tuple[str, str], ...],
    like: str | None,
    class_names: str | None,
    every: int | None,
    start: int | None,
    skip_bad_rois: bool,
    cache: str | None,
    no_cache: bool,
    device_name: str,
    gpu_id: int,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Choose feature set, forest and smoothing by held-out strokes, and say what the choice is worth.

    One setting after the other is changed where that helps surely. Then all of the choosing is done again without a
    fifth of the strokes, which judge it: that is what is promised. At the end stand the commands to go on with.
    """
    from gpu_tomoclass import tune as run
    from gpu_tomoclass.outputs import atomic, check_output, check_suffix, write_json
    from gpu_tomoclass.volumes import open_volume

    if output is not None:
        check_suffix(output, ".json", ".csv")
        check_output(output, overwrite=overwrite)
    reading = {name: options.pop(name) for name in READING}
    taken = Like(like)
    names = taken.class_names(class_names)
    marks = taken.marks({"every": every, "start": start, "skip_bad_rois": skip_bad_rois})
    device = open_device(device_name, gpu_id, workers, quiet=quiet)
    with ExitStack() as stack:
        source, *others = (
            stack.enter_context(open_volume(path, **reading)) for path in (volume, *(path for path, _ in also))
        )
        show_notes([note for found in (source, *others) for note in found.notes], quiet=quiet)
        advance = stack.enter_context(progress("tune", quiet=quiet, unit="forests"))
        result = run(
            source, annotations, features=features, also=list(zip(others, (a for _, a in also), strict=True)),
            class_names=names, cache=open_cache(cache, no_cache), device=device, workers=workers, progress=advance,
            **marks, **options,
        )  # fmt: skip
    lines = commands(result.chosen, volume, annotations)
    found = {**result.to_dict(), "commands": lines}
    show_notes(result.notes, quiet=quiet)
    add_result(**found)
    if output is not None and Path(output).suffix.lower() == ".json":
        write_json(output, found, overwrite=overwrite)
    elif output is not None:
        with atomic(output, overwrite=overwrite) as temporary:
            Path(temporary).write_text(_csv(result), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _show(result)
        click.echo("\n".join(("go on with:", *(f"  {line}" for line in lines))))


def commands(chosen: Setting, volume: str, annotations: tuple[str, ...]) -> list[str]:
    """Command lines that train with the settings that were chosen, and classify; other options as they were given."""
    stem = Path(volume.rstrip("/")).name.split(".")[0] or "volume"
    model = f"{stem}_tuned.tcm"
    train = ["train", volume, *annotations, "--features", chosen.features, "--max-features", str(chosen.max_features)]
    if chosen.min_samples_leaf > 1:
        train += ["--forest", "sklearn", "--min-samples-leaf", str(chosen.min_samples_leaf)]
    classify = ["classify", volume, model]
    if chosen.smooth:
        classify += ["--smooth", f"{chosen.smooth:g}"]
    return [
        shlex.join(["gpu-tomoclass", *words])
        for words in (
            [*train, *_as_given(OF_TRAIN), "-o", model],
            [*classify, *_as_given(OF_CLASSIFY), "-o", f"{stem}_labels.tif"],
        )
    ]


def _as_given(names: tuple[str, ...]) -> list[str]:
    """Options of the present command that were given, as words of a command line."""
    context = click.get_current_context()
    words = []
    for parameter in context.command.params:
        if (
            parameter.name not in names
            or context.get_parameter_source(parameter.name) is not ParameterSource.COMMANDLINE
        ):
            continue
        option, value = parameter.opts[-1], context.params[parameter.name]
        if getattr(parameter, "is_flag", False):
            words.append(option)
        elif parameter.multiple:
            words += [word for values in value for word in (option, *values)]
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return words


def _show(result: Tuning) -> None:
    rows = [("features", "per split", "leaf", "smooth", "Dice", "s/plane")]
    for tried in sorted(result.tried, key=lambda t: -t.score):
        s = tried.setting
        mark = " <- chosen" if s == result.chosen else " (begun with)" if s == result.plain else ""
        smooth = f"{s.smooth:g} nm" if s.smooth else "-"
        rows.append((s.features, str(s.max_features), str(s.min_samples_leaf), smooth, f"{tried.score:.4f}",
                     f"{tried.seconds_per_plane:.3f}{mark}"))  # fmt: skip
    click.echo(table(rows))
    click.echo("These scores chose, so the best is too good.")
    promise = result.promise
    if promise is not None:
        error = "" if promise.n_folds < 2 else f" (standard error {promise.error:.4f})"
        click.echo(
            f"promise, on strokes that no choice has seen ({promise.n_folds} folds): accuracy"
            f" {100 * promise.chosen.accuracy:.2f} % instead of {100 * promise.plain.accuracy:.2f} %, mean Dice"
            f" {promise.gain:+.4f}{error}"
        )


def _csv(result: Tuning) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("features", "max_features", "min_samples_leaf", "smooth", "score", "seconds_per_plane")
    writer.writerow([*names, "chosen"])
    for tried in result.tried:
        found = tried.to_dict()
        writer.writerow([*(found[name] for name in names), int(tried.setting == result.chosen)])
    return text.getvalue()
