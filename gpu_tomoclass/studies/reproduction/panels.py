"""Pictures of the report: planes, insets, histograms with thresholds, learning curves, sizes of particles.

A class has one colour everywhere. Wrong pixels are black on light grey, whatever class they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from scipy.ndimage import grey_dilation

from gpu_tomoclass import LabelClass
from gpu_tomoclass.labels import class_image, grey_image, overlay_image
from gpu_tomoclass.studies.reproduction.case import CaseResult, Greys

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Plane = npt.NDArray[Any]
WIDTH = 13.0  # inches
INK, PAPER, SOFT = (20, 20, 20), (235, 235, 235), (255, 255, 255)
GREY_METHODS = {"otsu", "best", "nad_otsu", "nad_best"}


def method_figure(result: CaseResult, name: str, *, plane: int, pixel: float | None = None) -> Figure:
    """Figure of a method on a plane: grey values, histogram (or what the operator did), labels, insets, errors.

    Parameters
    ----------
    result : CaseResult
    name : str
        A method.
    plane : int
    pixel : float, optional
        Edge of a pixel in nm, for scale bars.
    """
    case = result.case
    truth, labels = result.truth(plane), result.methods[name].labels(plane)
    nad = name.startswith("nad")
    grey = (result.denoised if nad else result.volume).plane(plane)
    box = inset_box(truth)
    figure, axes = _grid(truth.shape)
    what = "after NAD" if nad else "reconstruction"
    strokes = result.lesson.strokes.get(plane)
    if name in GREY_METHODS:
        shown, small = grey_image(grey), grey_image(grey)
        histogram(axes[2], result.greys["nad" if nad else "raw"], classes=case.classes,
                  thresholds=result.methods[name].thresholds)  # fmt: skip
    else:
        shown = small = grey_image(grey)
        if strokes is not None:
            what = "reconstruction and strokes"
            # One pixel is too thin to see in a large plane.
            wide, narrow = (max(1, round(strokes.shape[1] / n)) for n in (100, 250))
            shown = overlay_image(grey, grey_dilation(strokes, size=wide), classes=case.classes, alpha=1)
            small = overlay_image(grey, grey_dilation(strokes, size=narrow), classes=case.classes, alpha=1)
            learning(axes[2], {case.title: result})
        else:
            histogram(axes[2], result.greys["raw"], classes=case.classes, thresholds=())
    _picture(axes[0], shown, f"a  {what}", box=box, pixel=pixel)
    _picture(axes[1], _cut(small, box), "b  the frame, enlarged", pixel=pixel)
    curve = "grey values and thresholds" if name in GREY_METHODS else "grey values of the classes"
    if name not in GREY_METHODS and strokes is not None:
        curve = "wrong pixels, look by look"
    axes[2].set_title(f"c  {curve}", loc="left", fontsize=11)
    words = "thresholded" if name in GREY_METHODS else "classified"
    coloured = class_image(labels, case.classes)
    _picture(axes[3], coloured, f"d  {words}", box=box, pixel=pixel)
    _picture(axes[4], _cut(coloured, box), "e  the frame, enlarged")
    middle = class_image(np.where(is_middle(labels, case.classes), labels, 0), case.classes)
    middle[~is_middle(labels, case.classes)] = SOFT
    if len(case.classes) > 4:
        _picture(axes[5], _cut(middle, box), "f  the frame, middle levels only")
    else:
        _picture(axes[5], _cut(class_image(truth, case.classes), box), "f  the frame, truth")
    wrong = np.full((*truth.shape, 3), PAPER, np.uint8)
    wrong[labels != truth] = INK
    _picture(axes[6], wrong, f"g  wrong pixels: {100 * (labels != truth).mean():.2f} %")
    class_legend(figure, case.classes)
    return figure


def truth_figure(result: CaseResult, *, plane: int, ideal: Plane, pixel: float | None = None) -> Figure:
    """The classes of a specimen, their grey levels, and what they look like one by one."""
    case = result.case
    truth = result.truth(plane)
    box = inset_box(truth)
    figure = Figure(figsize=(WIDTH, WIDTH / 4 * truth.shape[0] / truth.shape[1] + 0.9), layout="constrained")
    axes = figure.subplots(1, 4)
    _picture(axes[0], grey_image(ideal), "a  grey levels", box=box, pixel=pixel)
    _picture(axes[1], class_image(truth, case.classes), "b  classes", box=box)
    _picture(axes[2], _cut(class_image(truth, case.classes), box), "c  the frame, enlarged")
    middle = class_image(truth, case.classes)
    middle[~is_middle(truth, case.classes)] = SOFT
    _picture(axes[3], _cut(middle, box), "d  the frame, middle levels only")
    class_legend(figure, case.classes)
    return figure


def is_middle(labels: Plane, classes: Sequence[LabelClass]) -> npt.NDArray[np.bool_]:
    """Where a plane has one of the levels between the darkest and the brightest."""
    return np.isin(labels, [c.value for c in classes[1:-1]])


def inset_box(truth: Plane) -> tuple[slice, slice]:
    """A square at the upper left of the specimen: what is not of the first class."""
    inside = truth > 1
    if not inside.any():
        inside = np.ones_like(inside)
    limits = [np.flatnonzero(inside.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    spans = [int(last - first + 1) for first, last in limits]
    side = max(8, round(0.45 * min(spans)))
    starts = [
        min(int(first) + round(share * span), n - side)
        for (first, _), span, share, n in zip(limits, spans, (0.05, 0.08), truth.shape, strict=True)
    ]
    y, x = (max(0, start) for start in starts)
    return slice(y, y + side), slice(x, x + side)


def histogram(axes: Axes, greys: Greys, *, classes: Sequence[LabelClass], thresholds: Sequence[float]) -> None:
    """Grey values of all voxels and of each class (by the truth), on a logarithmic scale, with thresholds."""
    counts, edges = greys.counts, greys.edges
    total = max(1, int(greys.of_class.sum()))
    axes.stairs(counts * (total / counts.sum()), edges, color="0.25", linewidth=1.2, label="all")
    for c, of_class in zip(classes, greys.of_class, strict=True):
        colour = tuple(v / 255 for v in c.colour)
        axes.stairs(of_class, edges, color=(*colour, 0.3), fill=True)
        axes.stairs(of_class, edges, color=colour, linewidth=1.2)
    used = np.flatnonzero(counts > 0)
    axes.set(yscale="log", xlim=(edges[used[0]], edges[used[-1] + 1]), xlabel="grey value", ylabel="pixels")
    top = 3 * float(counts.max()) * total / counts.sum()
    axes.set_ylim(max(0.8, top / 1e6), top)
    for i, threshold in enumerate(thresholds):
        axes.axvline(threshold, color="black", linestyle="--", linewidth=1.3)
        below = (2, -3 - 11 * (i % 2))  # points; neighbours at different heights
        axes.annotate(f"{threshold:.0f}", (threshold, 1), xycoords=("data", "axes fraction"), xytext=below,
                      textcoords="offset points", va="top", fontsize=9)  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)


MARKS = ("o", "s", "^", "D", "v", "P")


def learning(axes: Axes, results: Mapping[str, CaseResult]) -> None:
    """Wrong pixels on the painted planes against painted pixels, look by look."""
    for i, (title, result) in enumerate(results.items()):
        pixels = [look.pixels for look in result.lesson.looks]
        wrong = [max(100 * (1 - look.accuracy), 1e-3) for look in result.lesson.looks]
        shade = str(0.05 + 0.6 * i / max(1, len(results)))
        axes.plot(pixels, wrong, marker=MARKS[i % len(MARKS)], color=shade, markersize=5, linewidth=1.3, label=title)
    axes.set(yscale="log", xlabel="painted pixels", ylabel="wrong pixels on painted planes (%)")
    _plain_ticks(axes.yaxis)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    if len(results) > 1:
        axes.legend(frameon=False)


def _plain_ticks(axis: Any) -> None:
    """Numbers, not powers, on a logarithmic axis: the closer, the shorter it is."""
    low, high = axis.get_view_interval()
    shown = next(digits for limit, digits in ((12, "12345678"), (3000, "25"), (np.inf, "")) if high < limit * low)
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in shown else "")


def alone(draw: Callable[..., None], *arguments: Any) -> Figure:
    """A figure of its own for what draws into axes."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    draw(figure.subplots(), *arguments)
    return figure


def summary_figure(
    rows: Mapping[str, Mapping[str, float]], *, titles: Mapping[str, str], targets: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Wrong pixels of every method (columns of ``rows``) on every case, on a logarithmic scale; targets as crosses."""
    figure = Figure(figsize=(WIDTH * 0.75, 1.6 + 0.62 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = list(titles)
    for i, (case, scores) in enumerate(rows.items()):
        axes.axhline(i, color="0.9", linewidth=14, zorder=0)
        for name, accuracy in scores.items():
            at = names.index(name)
            trained = name in ("strokes", "corrected")
            colour = "black" if trained else "0.55"
            axes.plot(_wrong(accuracy), i, MARKS[at], color=colour, markersize=8,
                      fillstyle="none" if name in ("best", "nad_best", "strokes") else "full", markeredgewidth=1.5,
                      label=titles[name] if i == 0 else None)  # fmt: skip
            if name in targets.get(case, {}):
                axes.plot(_wrong(targets[case][name]), i, "|", color="crimson", markersize=16, markeredgewidth=1.6,
                          zorder=1)  # fmt: skip
    axes.plot([], [], "|", color="crimson", markersize=14, markeredgewidth=1.6, label="to reach")
    axes.set(
        xscale="log",
        xlabel="wrong pixels (%)",
        yticks=range(len(rows)),
        yticklabels=list(rows),
        ylim=(len(rows) - 0.5, -0.5),
    )
    _plain_ticks(axes.xaxis)
    axes.grid(axis="x", alpha=0.3, which="both")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def added_figure(rows: Mapping[str, tuple[float, float]]) -> Figure:
    """Wrong pixels and specks per plane of each row: title -> (accuracy, specks)."""
    figure = Figure(figsize=(WIDTH * 0.75, 1.0 + 0.3 * len(rows)), layout="constrained")
    wrong, specks = figure.subplots(ncols=2, sharey=True)
    for i, (accuracy, n) in enumerate(rows.values()):
        wrong.plot(100 * (1 - accuracy), i, "o", color="black")
        specks.plot(n, i, "o", color="black")
    wrong.set(xlabel="wrong pixels (%)", yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
    specks.set(xlabel="specks per plane")
    for axes in (wrong, specks):
        axes.set_xlim(left=0)
        axes.grid(axis="both", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    return figure


def _wrong(accuracy: float) -> float:
    return max(100 * (1 - accuracy), 1e-3)


def sizes_figure(
    diameters: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], *, unit: str
) -> Figure:
    """Particles: equivalent diameter by number (histogram) and by volume (cumulative); name -> (diameter, volume)."""
    figure = Figure(figsize=(WIDTH * 0.75, 3.8), layout="constrained")
    by_number, by_volume = figure.subplots(1, 2)
    largest = max((float(d.max()) for d, _ in diameters.values() if len(d)), default=1.0)
    smallest = min((float(d.min()) for d, _ in diameters.values() if len(d)), default=0.1)
    edges = np.geomspace(smallest * 0.95, largest * 1.05, 25)
    styles = (("black", "-", 2.2), ("0.55", "--", 1.8), ("tab:blue", "-", 1.8))
    for (name, (diameter, volume)), (colour, line, width) in zip(diameters.items(), styles, strict=False):
        counts = np.histogram(diameter, edges)[0]
        by_number.stairs(counts, edges, color=colour, linestyle=line, linewidth=width, label=f"{name}: {len(diameter)}")
        order = np.argsort(diameter)
        share = np.cumsum(volume[order]) / max(volume.sum(), 1e-30)
        by_volume.step(np.r_[smallest, diameter[order]], np.r_[0, 100 * share], where="post", color=colour,
                       linestyle=line, linewidth=width, label=name)  # fmt: skip
    for axes, title in (
        (by_number, "a  number of particles"),
        (by_volume, "b  volume in particles up to this size (%)"),
    ):
        axes.set(xscale="log", xlabel=f"equivalent diameter ({unit})")
        axes.set_title(title, loc="left")
        _plain_ticks(axes.xaxis)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def class_legend(figure: Figure, classes: Sequence[LabelClass]) -> None:
    """The colours of the classes below the panels."""
    patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*c.colour), label=c.name) for c in classes]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=11)


def scale_bar(axes: Axes, *, width: int, height: int, pixel: float) -> None:
    """A bar of a round length, about a fifth of the picture wide, with its length in nm."""
    wanted = width * pixel / 4
    power = 10 ** np.floor(np.log10(wanted))
    length = float(max(m for m in (1, 2, 5) if m * power <= wanted) * power)
    pixels, thick = length / pixel, max(1.0, 0.014 * height)
    x, y = 0.05 * width, 0.94 * height
    axes.add_patch(Rectangle((x, y - thick), pixels, thick, facecolor="white", edgecolor="black", linewidth=0.6))
    text = axes.text(
        x + pixels / 2, y - 2 * thick, f"{length:g} nm", color="white", ha="center", va="bottom", fontsize=9
    )
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _grid(shape: tuple[int, ...]) -> tuple[Figure, list[Axes]]:
    """Two rows of four places; the third panel takes two of them."""
    ratio = float(np.clip(shape[0] / shape[1], 0.6, 1.6))
    side = WIDTH / 4.1
    figure = Figure(figsize=(WIDTH, 2 * side * ratio + 1.3), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    places = [grid[0, 0], grid[0, 1], grid[0, 2:], *(grid[1, i] for i in range(4))]
    return figure, [figure.add_subplot(place) for place in places]


def _cut(image: Plane, box: tuple[slice, slice]) -> Plane:
    return image[box]


def _picture(
    axes: Axes, image: Plane, title: str, *, box: tuple[slice, slice] | None = None, pixel: float | None = None
) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="nearest" if width < 256 else "antialiased")
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xticks=[], yticks=[])
    if box is not None:
        rows, columns = box
        frame = (columns.start - 0.5, rows.start - 0.5), columns.stop - columns.start, rows.stop - rows.start
        for colour, line in (("black", 2.6), ("white", 1.2)):
            axes.add_patch(Rectangle(*frame, fill=False, edgecolor=colour, linewidth=line))
    if pixel is not None:
        scale_bar(axes, width=width, height=height, pixel=pixel)
