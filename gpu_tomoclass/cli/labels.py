"""Commands for finished labels: evaluate, measure, clean."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from gpu_tomoclass.cli.command import command
from gpu_tomoclass.cli.options import PlaneRange, ValuePairs, json_option, overwrite_option, quiet_option
from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.pictures import draw_pictures, picture_options, pictures_beside
from gpu_tomoclass.cli.record import add_result
from gpu_tomoclass.cli.terminal import plural, progress, show_notes, table
from gpu_tomoclass.errors import UsageError

if TYPE_CHECKING:
    from gpu_tomoclass.labels import Evaluation, Measurement
    from gpu_tomoclass.volumes import Volume


on_gpu_option = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    callback=lambda ctx, parameter, value: None if value == "cpu" else value,
    help="cuda: on a GPU, by cuCIM; default cpu.",
)


@command(
    short_help="Compare labels with the truth",
    examples=(
        "evaluate labels.tif truth.tif -o report.html",
        "evaluate part.tif truth.tif --planes 100:200 --map 0:1,1:2",
    ),
)
@click.argument("labels", type=InputPath())
@click.argument("truth", type=InputPath())
@click.option("-o", "--output", type=OutputPath(), metavar="REPORT",
              help="Also write a page with pictures (.html), all scores (.json) or a table (.csv).")  # fmt: skip
@click.option("--grey", type=InputPath(), metavar="VOLUME", help="Shown in the report beside its labels.")
@click.option("--map", "pairs", multiple=True, type=ValuePairs(),
              help="Values in TRUTH:values in LABELS, such as 0:1,1:2; repeatable.")  # fmt: skip
@click.option(
    "--planes", type=PlaneRange(), help="Only planes a to b - 1; or those that LABELS are, if it has no others."
)
@click.option("--ignore", type=click.IntRange(0, 255), multiple=True, help="Truth value not to count; repeatable.")
@click.option(
    "--halo",
    metavar="SOLID:BACKGROUND",
    help="Also the share of pixels along the border of these two classes given to others; names or values.",
)
@click.option("--halo-distance", type=click.FloatRange(1), default=4, show_default=True, help="Of --halo, in pixels.")
@click.option("--no-boundaries", is_flag=True, help="No distances between borders: faster.")
@on_gpu_option
@json_option
@overwrite_option
@quiet_option
def evaluate(
    labels: str,
    truth: str,
    output: str | None,
    grey: str | None,
    pairs: tuple[tuple[tuple[int, int], ...], ...],
    planes: tuple[int, int | None] | None,
    ignore: tuple[int, ...],
    halo: str | None,
    halo_distance: float,
    no_boundaries: bool,
    device: str | None,
    as_json: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Compare a label volume with the truth: scores, volume fractions, distance of borders, halo."""
    from gpu_tomoclass.classes import class_value
    from gpu_tomoclass.labels import evaluate_volumes, same_planes
    from gpu_tomoclass.outputs import check_output, check_suffix
    from gpu_tomoclass.volumes import open_volume

    if output is not None:
        check_suffix(output, ".html", ".htm", ".json", ".csv")
        check_output(output, overwrite=overwrite)
    with open_volume(labels) as all_ours, open_volume(truth) as all_theirs:
        show_notes((*all_ours.notes, *all_theirs.notes), quiet=quiet or as_json)
        ours, theirs, notes = same_planes(all_ours, all_theirs, planes)
        show_notes(notes, quiet=quiet)
        mapping = dict(pair for given in pairs for pair in given)
        beside = None
        if halo is not None:
            solid, colon, background = halo.partition(":")
            if not colon:
                raise UsageError(f"--halo {halo} names one class", do="give two, such as silica:vacuum or 3:1")
            known = (*ours.classes, *theirs.classes)
            beside = class_value(solid, known), class_value(background, known)
        with progress("evaluate", quiet=quiet) as advance:
            result = evaluate_volumes(
                ours,
                theirs,
                mapping=mapping,
                ignore=ignore,
                boundaries=not no_boundaries,
                halo=beside,
                halo_distance=halo_distance,
                device=device,
                progress=advance,
            )
        if output is not None and output.lower().endswith((".json", ".csv")):
            from gpu_tomoclass.labels import save_evaluation

            save_evaluation(result, output, overwrite=overwrite)
        elif output is not None:
            from gpu_tomoclass.labels import evaluation_report

            with ExitStack() as stack:
                volume = (
                    None if grey is None else _grey_of(stack.enter_context(open_volume(grey)), ours, theirs, all_theirs)
                )
                page = evaluation_report(result, ours, theirs, mapping=mapping, ignore=ignore, grey=volume)
            page.write(output, overwrite=overwrite)
    if hint := result.numbering_hint():
        show_notes([hint], quiet=quiet)
    add_result(**result.to_dict())
    if as_json:
        click.echo(json.dumps(result.to_dict(), indent=2))
        return
    _show_evaluation(result)
    if output is not None:
        click.echo(f"report: {output}")


def _grey_of(grey: Volume, ours: Volume, theirs: Volume, whole: Volume) -> Volume:
    """The planes of the grey volume that were compared: it goes with the labels, or with the whole truth."""
    from gpu_tomoclass.volumes import PartVolume

    if grey.shape == ours.shape:
        return grey
    if grey.shape == whole.shape and isinstance(theirs, PartVolume):
        return PartVolume(grey, theirs.start, theirs.start + theirs.shape[0])
    raise UsageError(f"is {grey.shape} (z, y, x), the labels are {ours.shape}", where=grey.path)


def _show_evaluation(result: Evaluation) -> None:
    score = result.confusion
    means = f"mean IoU {score.mean_iou:.3f}, mean Dice {score.mean_dice:.3f}"
    click.echo(f"accuracy {100 * score.accuracy:.2f} %, {means}")
    header: list[str] = ["class", "IoU", "Dice", "precision", "recall", "true share", "found share"]
    unit = "pixels" if result.voxel_size is None else "nm"
    if result.boundaries is not None:
        header += [f"border off by ({unit})", "95 % within"]
    rows = [tuple(header)]
    for i, (value, name) in enumerate(zip(score.values, score.names, strict=True)):
        row = [name, *(f"{c[i]:.3f}" for c in (score.iou, score.dice, score.precision, score.recall))]
        row += [f"{100 * share[i]:.2f} %" for share in (score.true_fractions, score.predicted_fractions)]
        if result.boundaries is not None:
            found = result.boundaries.of(value)[unit]
            row += ["none", "none"] if found is None else [f"{found['mean']:.2f}", f"{found['p95']:.2f}"]
        rows.append(tuple(row))
    click.echo(table(rows))
    if result.halo is not None:
        share = f"{100 * result.halo.share:.2f} % of {result.halo.pixels} pixels" if result.halo.pixels else "no pixels"
        click.echo(f"halo: {share}")


@command(
    short_help="Measure the particles of classes",
    examples=(
        "measure labels.tif --class silica -o particles.csv --histograms sizes.png",
        "measure labels.tif --class silica --outside vacuum --split --border half -o particles.json",
    ),
)
@click.argument("labels", type=InputPath())
@click.option("--class", "class_names", multiple=True, metavar="CLASS",
              help="Name or label value; repeatable; default all but 0 and --outside.")  # fmt: skip
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="PARTICLES",
              help="One line per particle (.csv), or also shares and summaries (.json).")  # fmt: skip
@click.option("--split", is_flag=True, help="Tell particles that touch apart; the volume is then held in memory.")
@click.option("--neck", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="SHARE",
              help="Thinnest neck not cut, as share of the thinner particle; default 0.85.")  # fmt: skip
@click.option("--outside", multiple=True, metavar="CLASS",
              help="No part of the specimen, such as vacuum: fractions are of the rest; repeatable.")  # fmt: skip
@click.option("--border", type=click.Choice(["count", "exclude", "half"]), default="count", show_default=True,
              help="Particles cut by the border: counted, not counted, or only those at the first faces.")  # fmt: skip
@click.option("--histograms", type=OutputPath(), metavar="PICTURE.png",
              help="Also draw diameters and distances (.png, .svg or .pdf).")  # fmt: skip
@on_gpu_option
@json_option
@overwrite_option
@quiet_option
def measure(
    labels: str,
    class_names: tuple[str, ...],
    output: str,
    split: bool,
    neck: float | None,
    outside: tuple[str, ...],
    border: str,
    histograms: str | None,
    device: str | None,
    as_json: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Measure particles: volume, diameter, surface, centre, nearest neighbour, in nm; and the shares of all classes."""
    from gpu_tomoclass.classes import class_value
    from gpu_tomoclass.labels import check_measurement_targets, measure_classes, save_histograms, save_particles
    from gpu_tomoclass.volumes import open_volume

    if neck is not None and not split:
        raise UsageError("--neck is where --split cuts", do="add --split")
    check_measurement_targets(output, histograms, overwrite=overwrite)
    cut: dict[str, Any] = {} if neck is None else {"neck": neck}
    with open_volume(labels) as volume:
        show_notes(volume.notes, quiet=quiet or as_json)
        with progress("measure", quiet=quiet) as advance:
            found = measure_classes(
                volume,
                values=[class_value(name, volume.classes) for name in class_names] or None,
                outside=[class_value(name, volume.classes) for name in outside],
                split=split,
                border=border,
                device=device,
                progress=advance,
                **cut,
            )
    save_particles(found, output, overwrite=overwrite)
    if histograms is not None:
        n = sum(int(particles.counted.sum()) for particles in found.particles.values())
        title = plural(n, "particle") + (f" of {', '.join(class_names)}" if class_names else "")
        save_histograms(found, histograms, title=title, overwrite=overwrite)
    add_result(**found.to_dict())
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
        return
    _show_particles(found)
    click.echo(f"particles: {output}")
    if histograms is not None:
        click.echo(f"histograms: {histograms}")


def _show_particles(found: Measurement) -> None:
    u, described = found.unit, found.to_dict()["classes"]
    rows: list[tuple[str, ...]] = [
        ("class", f"volume ({u}^3)", "fraction", "particles", "at the border", "counted", f"surface ({u}^2)")
    ]
    for entry in described:
        share = "" if entry["fraction"] is None else f"{100 * entry['fraction']:.2f} %"
        row = (entry["name"], f"{entry['volume']:.4g}", share)
        counts = tuple(str(entry.get(name, "")) for name in ("particles", "touching_border", "counted"))
        rows.append((*row, *counts, f"{entry['surface']:.4g}" if "surface" in entry else ""))
    click.echo(table(rows))
    rows = [("counted particles", "median", "smallest", "largest")]
    for entry in described:
        for name, key in (("equivalent diameter", "diameter"), ("nearest neighbour", "neighbour")):
            if entry.get(key):
                numbers = (f"{entry[key][q]:.4g}" for q in ("median", "smallest", "largest"))
                rows.append((f"{entry['name']}: {name} ({u})", *numbers))
    if len(rows) > 1:
        click.echo(table(rows))


@command(short_help="Remove small objects", examples=(
    "clean labels.tif -o clean.tif --min-size 50 --fill",
))  # fmt: skip
@click.argument("labels", type=InputPath())
@click.option("-o", "--output", type=OutputPath(), required=True, metavar="LABELS", help="A new label volume.")
@click.option("--min-size", type=click.IntRange(1), required=True, metavar="VOXELS", help="Smallest object to keep.")
@click.option("--fill", is_flag=True, help="Give the voxels to the class around them instead of 0.")
@click.option("--class", "class_names", multiple=True, metavar="CLASS",
              help="Name or label value whose objects may go; repeatable; default all but 0.")  # fmt: skip
@picture_options
@on_gpu_option
@overwrite_option
@quiet_option
def clean(
    labels: str,
    output: str,
    min_size: int,
    fill: bool,
    class_names: tuple[str, ...],
    thumbnail: bool | None,
    sweep: bool,
    device: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write LABELS anew without small objects: voxels of one class that touch by face, edge or corner."""
    from gpu_tomoclass.classes import class_value
    from gpu_tomoclass.labels import clean as run
    from gpu_tomoclass.volumes import open_volume

    pictures = pictures_beside(output, thumbnail=thumbnail, sweep=sweep, overwrite=overwrite, quiet=quiet)
    with open_volume(labels) as volume:
        show_notes(volume.notes, quiet=quiet)
        classes = [class_value(name, volume.classes) for name in class_names] or None
        names = {c.value: c.name for c in volume.classes}
        with progress("clean", quiet=quiet, unit="steps") as advance:
            result = run(
                volume,
                output,
                min_size=min_size,
                fill=fill,
                classes=classes,
                overwrite=overwrite,
                device=device,
                progress=advance,
            )
    draw_pictures(None, output, pictures, overwrite=overwrite)
    objects = {
        names.get(value, f"class {value}"): {
            "removed": result.objects.get(value, 0),
            "kept": result.kept.get(value, 0),
        }
        for value in sorted({*result.objects, *result.kept})
    }
    add_result(voxels_changed=result.voxels, objects=objects)
    rows = [("class", "objects removed", "kept")]
    rows += [(name, str(n["removed"]), str(n["kept"])) for name, n in objects.items()]
    click.echo(table(rows))
    click.echo(f"{result.voxels} voxels changed")
    click.echo(f"labels: {output}")
    for picture in pictures:
        click.echo(f"picture: {picture}")
