"""Commands about model files: model import, model info."""

from __future__ import annotations

import json

import click

from gpu_tomoclass.cli.command import group
from gpu_tomoclass.cli.options import gabor_option, hessian_option, json_option, overwrite_option, quiet_option
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import description_rows, show_notes, table


@group(short_help="Import Fiji's classifiers, look into model files")
def model() -> None:
    """Bring classifiers from Fiji, look into model files."""


@model.command("import", examples=("model import classifier.model -o materials.tcm",))
@click.argument("classifier", type=InputPath(), metavar="CLASSIFIER.model")
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="MODEL.tcm", help="The model file.")
@click.option("--signed-16-bit", is_flag=True, help="Fiji's image was signed 16 bit, to which ImageJ adds 32768.")
@gabor_option
@hessian_option
@overwrite_option
@quiet_option
def import_(
    classifier: str, output: str, signed_16_bit: bool, hessian: str, gabor: str, overwrite: bool, quiet: bool
) -> None:
    """Make a model of a classifier that Fiji's Trainable Weka Segmentation saved.

    It gives the classes and probabilities that Fiji gives. The file is read as data; nothing in it is executed.
    """
    from gpu_tomoclass.model import check_model_target, import_fiji_model, save_model

    check_model_target(output, overwrite=overwrite)
    imported = import_fiji_model(classifier, signed_16_bit=signed_16_bit, hessian=hessian, gabor=gabor)
    save_model(imported, output, overwrite=overwrite)
    show_notes(imported.training["notes"], quiet=quiet)
    forest = imported.forest
    add_result(
        trees=forest.n_trees,
        nodes=forest.n_nodes,
        channels=imported.bank.n_channels,
        channels_used=int(forest.used_features().size),
        classes=[c.name for c in imported.classes],
    )
    click.echo(f"forest: {forest.n_trees} trees, {forest.n_nodes} nodes, depth {forest.depth}")
    click.echo(f"channels: {imported.bank.n_channels}, {forest.used_features().size} of them used")
    click.echo(f"classes: {', '.join(c.name for c in imported.classes)}")
    click.echo(f"model: {output}")


@model.command(examples=("model info materials.tcm",))
@click.argument("path", type=InputPath(), metavar="MODEL.tcm|CLASSIFIER.model")
@json_option
def info(path: str, as_json: bool) -> None:
    """Say what a model file, or a classifier of Fiji, holds."""
    from gpu_tomoclass.model import MODEL_SUFFIX, describe_model, load_model

    if path.lower().endswith(MODEL_SUFFIX):
        description = describe_model(load_model(path))
    else:
        from gpu_tomoclass.model import describe_fiji_model, load_fiji_model

        description = describe_fiji_model(load_fiji_model(path))
    add_result(**description)
    click.echo(json.dumps(description, indent=2) if as_json else table(description_rows(description)))
