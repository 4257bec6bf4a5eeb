"""Parts shared by commands that need marked volumes: options, and what is opened for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gpu_tomoclass.cli.options import (
    READING,
    F,
    bank_options,
    device_options,
    intensity_option,
    make_bank,
    nan_option,
    open_device,
    quiet_option,
    region_options,
    volume_options,
)
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.terminal import show_notes
from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass.annotations import Annotation, TrainingTable
    from gpu_tomoclass.features import FeatureBank, FeatureCache
    from gpu_tomoclass.model import Model
    from gpu_tomoclass.volumes import Volume

ANNOTATION = ("every", "start", "skip_bad_rois")
BANK = (
    "features", "sigma_min", "sigma_max", "sigmas", "membrane_thickness", "membrane_patch", "hessian", "gabor",
    "z_sigma",
)  # fmt: skip
FORMULAS = ("hessian", "gabor")  # those of them that names of channels do not tell
FOREST = ("engine", "n_trees", "max_features", "max_depth", "min_samples_leaf", "balance", "seed")


def fold_options(command: F) -> F:
    """Options that say what is held out together, and in how many parts."""
    command = click.option(
        "--folds", "n_folds", type=click.IntRange(2), help="Parts; default 5, or as many as there are."
    )(command)
    return click.option(
        "--group",
        "grouping",
        type=click.Choice(["stroke", "plane", "volume"]),
        default="stroke",
        show_default=True,
        help="What is held out as a whole: connected strokes, planes, or volumes (with --also).",
    )(command)


def cache_options(command: F) -> F:
    """Where computed features are kept between runs."""
    command = click.option("--no-cache", is_flag=True, help="Neither read nor write computed features.")(command)
    return click.option(
        "--cache", type=OutputPath(), metavar="FOLDER", help="Of computed features; default the user's cache."
    )(command)


def open_cache(cache: str | None, no_cache: bool) -> FeatureCache | None:
    """The cache that :func:`cache_options` ask for."""
    if no_cache and cache is not None:
        raise UsageError("--cache and --no-cache contradict each other")
    if no_cache:
        return None
    from gpu_tomoclass.features import FeatureCache, default_cache_folder

    return FeatureCache(cache if cache is not None else default_cache_folder())


def annotation_options(command: F) -> F:
    """Options for reading annotations, and for more volumes that are marked."""
    for option in (
        click.option("--skip-bad-rois", is_flag=True,
                     help="Leave out ROIs that cannot be used instead of refusing the file."),
        click.option("--class-names", metavar="NAME,..", help="Names of the classes 1, 2, .."),
        click.option("--label-axes", metavar="ORDER",
                     help="Read the stored axes of label images in this order, e.g. xyz."),
        click.option("--start", type=click.IntRange(0), help="..beginning with this one; default every // 2."),
        click.option("--every", type=click.IntRange(1),
                     help="The annotation's planes are every n-th plane of the volume.."),
        click.option("--like", type=InputPath(), metavar="MODEL.tcm",
                     help="Class names, features and --every of this model, where not given."),
        click.option("--also", type=InputPath(), nargs=2, multiple=True, metavar="VOLUME ANNOTATION",
                     help="Another marked volume, pooled with the first; repeatable."),
    ):  # fmt: skip
        command = option(command)
    return command


def forest_options(command: F) -> F:
    """Options for growing the forest, those of :func:`gpu_tomoclass.forest.grow.grow_forest`."""
    for option in (
        click.option("--seed", type=int, default=42, show_default=True, help="Of the forest."),
        click.option("--balance", is_flag=True, help="Give every class the same weight."),
        click.option("--min-samples-leaf", type=click.IntRange(1), default=1, show_default=True,
                     help="Pixels per leaf; not with --forest weka."),
        click.option("--max-depth", type=click.IntRange(1), help="Depth of a tree; default unlimited."),
        click.option("--max-features", type=click.IntRange(1), default=2, show_default=True,
                     help="Features tried per split."),
        click.option("--trees", "n_trees", type=click.IntRange(1), default=200, show_default=True, help="Trees."),
        click.option(
            "--forest",
            "engine",
            type=click.Choice(["auto", "weka", "sklearn", "cuml"]),
            default="auto",
            show_default=True,
            help="Who grows it: weka, the trees that Fiji grows; scikit-learn; cuML (GPU). auto is weka where that"
            " works.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def training_options(command: F) -> F:
    """All that :func:`training_data` and :func:`forest_settings` take."""
    for options in (
        quiet_option,
        device_options,
        cache_options,
        volume_options,
        forest_options,
        nan_option,
        intensity_option,
        bank_options,
        region_options,
        annotation_options,
    ):
        command = options(command)
    return command


def forest_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that say how a forest is grown."""
    return {name: options[name] for name in FOREST}


def strokes_notes(annotation: Annotation, volume: str) -> list[str]:
    """Where the strokes are, for a person to see that they are where they were drawn, and classes on one plane only."""
    from gpu_tomoclass.volumes import ranges_text

    planes, counts = annotation.planes(), annotation.counts()
    pixels = ", ".join(f"{c.name} {counts[c.value]}" for c in annotation.classes)
    where = f"{'plane' if planes.size == 1 else 'planes'} {ranges_text(planes.tolist())}"
    planes_of = {c.name: set(annotation.z[annotation.label == c.value].tolist()) for c in annotation.classes}
    once = [name for name, marked in planes_of.items() if len(marked) == 1] if planes.size > 1 else []
    return [
        f"{volume}: strokes on {where}; pixels: {pixels}",
        *(f"class {name} is marked on one plane only: mark it on more, as it looks elsewhere" for name in once),
    ]


class Like:
    """Settings that ``--like`` takes over from a model, where the user gave nothing else."""

    def __init__(self, path: str | None) -> None:
        self.model: Model | None = None
        if path is not None:
            from gpu_tomoclass.model import load_model

            self.model = load_model(path)

    def bank(self, options: Mapping[str, Any], table: TrainingTable | None = None) -> FeatureBank:
        """The bank of the model, or of rows that Fiji saved, unless an option of features was given."""
        if table is not None and not any(map(was_given, BANK)):
            from gpu_tomoclass.training import bank_of_table

            return bank_of_table(table)[0]
        if self.model is None or any(map(was_given, BANK)):
            if self.model is not None and not was_given("features"):
                raise UsageError(
                    "--like takes all features from the model or none, and options of features are given",
                    do="give --features too, or leave the others out",
                )
            return make_bank(**{name: options[name] for name in BANK})
        return self.model.bank

    def class_names(self, given: str | None) -> Sequence[str] | Mapping[int, str] | None:
        """As given, else value -> name of the model's classes."""
        if given is not None:
            return given.split(",")
        return None if self.model is None else {c.value: c.name for c in self.model.classes}

    def marks(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """``every``, ``start`` and so on: those that the model was trained with, unless one was given."""
        marks = {name: options[name] for name in ANNOTATION}
        if self.model is not None and marks["every"] is None and marks["start"] is None:
            marks.update({k: v for k, v in self.model.training.get("substack", {}).items() if k in ("every", "start")})
        return marks


def was_given(name: str) -> bool:
    """Tell whether the option was on the command line."""
    context = click.get_current_context(silent=True)
    return context is not None and context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT)


@contextmanager
def training_data(
    volume: str,
    annotations: tuple[str, ...],
    options: dict[str, Any],
    *,
    workers: int | None,
    quiet: bool,
    table: TrainingTable | None = None,
    partial: bool = False,
) -> Iterator[tuple[list[tuple[Volume, Annotation]], dict[str, Any]]]:
    """The open volumes with their annotations, and the keywords for :func:`gpu_tomoclass.train` and its like."""
    from gpu_tomoclass.annotations import load_annotations
    from gpu_tomoclass.volumes import open_volume

    like = Like(options["like"])
    reading = {name: options[name] for name in READING}
    marks = like.marks(options)
    settings = {
        "features": like.bank(options, table),
        "intensity": options["intensity"],
        "nan": options["nan"],
        "crop": options["crop"],
        "mask": options["mask"],
        "cache": open_cache(options["cache"], options["no_cache"]),
        "device": open_device(options["device_name"], options["gpu_id"], workers, quiet=quiet),
    }
    with ExitStack() as stack:
        pairs = []
        for path, strokes in [(volume, annotations), *((path, (strokes,)) for path, strokes in options["also"])]:
            source = stack.enter_context(open_volume(path, **reading))
            show_notes(source.notes, quiet=quiet)
            annotation = load_annotations(
                strokes,
                volume_shape=source.full_shape,
                bin=source.bin,
                axes=options["label_axes"],
                class_names=like.class_names(options["class_names"]),
                partial=partial or table is not None,
                **marks,
            )
            show_notes(strokes_notes(annotation, path), quiet=quiet)
            pairs.append((source, annotation))
        yield pairs, settings
