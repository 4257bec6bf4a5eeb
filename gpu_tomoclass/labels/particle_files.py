"""Particles as tables and pictures: CSV, JSON, histograms."""

from __future__ import annotations

import csv
import io
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_tomoclass.labels.particles import Measurement, Particles
from gpu_tomoclass.labels.pictures import check_picture_target, save_figure
from gpu_tomoclass.outputs import atomic, check_output, check_suffix, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_measurement_targets(
    path: str | PathLike[str], histograms: str | PathLike[str] | None, *, overwrite: bool = False
) -> None:
    """Raise before the work what writing would raise after it."""
    check_suffix(path, ".csv", ".json")
    check_output(path, overwrite=overwrite)
    if histograms is not None:
        check_picture_target(histograms, overwrite=overwrite)


def save_particles(measured: Measurement, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write one line (CSV) or one object (JSON) per particle.

    The names of the columns say the units; an unknown distance is empty. JSON also has shares and summaries.

    Raises
    ------
    UsageError
        If the name ends in neither ``.csv`` nor ``.json``.
    DataError
        If it exists and ``overwrite`` is not set.
    """
    check_suffix(path, ".csv", ".json")
    rows = {value: _rows(measured, found) for value, found in measured.particles.items()}
    if fspath(path).lower().endswith(".json"):
        content = measured.to_dict()
        for entry in content["classes"]:
            entry["list"] = rows.get(entry["value"], [])
        write_json(path, content, overwrite=overwrite)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_columns(measured.unit))
    for row in (row for of_class in rows.values() for row in of_class):
        writer.writerow([_cell(value) for value in row.values()])
    with atomic(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(text.getvalue().encode())


def _columns(u: str) -> list[str]:
    sizes = [f"volume_{u}3", f"equivalent_diameter_{u}", f"surface_{u}2", f"contact_{u}2"]
    places = [*(f"centre_{axis}_{u}" for axis in "zyx"), f"nearest_neighbour_{u}", "touches_border", "counted"]
    return ["class", "particle", "voxels", *sizes, *places]


def _rows(measured: Measurement, found: Particles) -> list[dict[str, Any]]:
    """A dict per particle; numbers have six digits."""
    name, rows = measured.names.get(found.value, f"class {found.value}"), []
    columns = _columns(measured.unit)
    for i in range(len(found)):
        lengths = (found.volume[i], found.diameter[i], found.surface[i], found.contact[i], *found.centre[i])
        distance = None if np.isnan(found.neighbour[i]) else float(f"{found.neighbour[i]:.6g}")
        numbers = (i + 1, int(found.voxels[i]), *(float(f"{v:.6g}") for v in lengths), distance)
        row = (name, *numbers, bool(found.touches_border[i]), bool(found.counted[i]))
        rows.append(dict(zip(columns, row, strict=True)))
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def particle_figure(measured: Measurement, *, title: str) -> Figure:
    """Histograms of the counted particles of each class, a row for each.

    Equivalent diameter, by number and by volume, and nearest-neighbour distance.
    """
    from matplotlib.figure import Figure

    n = max(1, len(measured.particles))
    figure = Figure(figsize=(10.5, 0.4 + 3 * n), layout="constrained")
    figure.suptitle(title)
    for axes, (value, found) in zip(figure.subplots(n, 3, squeeze=False), measured.particles.items(), strict=False):
        _draw(axes, found, name=measured.names.get(value, f"class {value}") if n > 1 else "")
    return figure


def _draw(axes_of_row: np.ndarray, found: Particles, *, name: str) -> None:
    blue, orange, green = (0, 0.447, 0.698), (0.902, 0.624, 0), (0, 0.62, 0.451)
    diameter, volume, neighbour = (v[found.counted] for v in (found.diameter, found.volume, found.neighbour))
    panels = (
        ("equivalent diameter", "particles", diameter, None, blue),
        ("equivalent diameter", "share of their volume", diameter, volume, orange),
        ("nearest neighbour, centre to centre", "particles", neighbour, None, green),
    )
    for axes, (quantity, amount, values, weights, colour) in zip(axes_of_row, panels, strict=True):
        known = ~np.isnan(values)
        shares = None if weights is None else weights[known] / weights.sum()
        if known.any():
            bins = int(np.clip(2 * known.sum() ** (1 / 2), 5, 60))
            axes.hist(values[known], bins=bins, weights=shares, color=(*colour, 0.35), edgecolor=colour)
        else:
            axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
        if weights is None:
            axes.yaxis.get_major_locator().set_params(integer=True)  # particles are counted
        axes.set(xlabel=f"{quantity} ({found.unit})", ylabel=amount, title=name)
        axes.spines[["top", "right"]].set_visible(False)


def save_histograms(measured: Measurement, path: str | PathLike[str], *, title: str, overwrite: bool = False) -> None:
    """Write `particle_figure` as PNG, SVG or PDF; see `save_figure`."""
    save_figure(particle_figure(measured, title=title), path, dpi=100, overwrite=overwrite)
