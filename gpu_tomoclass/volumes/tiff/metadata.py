"""Statements of a TIFF about its voxels: size, class names, our own metadata, ImageJ's calibration.

Our own part is one JSON object ``{"gpu_tomoclass": {"classes": ..., "channels": ..., "metadata": ...}}``; in an ImageJ
TIFF it is the ``Info`` property, which Fiji shows and keeps, in an OME-TIFF a comment annotation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import tifffile

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.volumes.place import with_origin
from gpu_tomoclass.volumes.units import CENTIMETRE, INCH, LARGEST_PIXEL, nanometres
from gpu_tomoclass.volumes.volume import VoxelSize

KEY = "gpu_tomoclass"

_NO_UNIT = ("", "pixel", "pixels", "px", "voxel", "voxels", "reference frame", "unknown")


@dataclass
class Description:
    """Metadata found beside the pixels; ``voxel_size`` along the stored axes (slowest first) in nm."""

    voxel_size: VoxelSize | None = None
    classes: tuple[LabelClass, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def describe(tif: tifffile.TiffFile, page: tifffile.TiffPage, *, series: int = 0, n_series: int = 1) -> Description:
    """Voxel size, classes, metadata and remarks of one image series, of which ``page`` is the first page."""
    found = Description()
    imagej = tif.imagej_metadata if tif.is_imagej else None
    if tif.is_ome and tif.ome_metadata:
        _from_ome(found, tif.ome_metadata, series=series, n_series=n_series)
    elif imagej is not None:
        _imagej_voxel_size(found, imagej, page)
        _imagej_calibration(found, imagej)
        _own_part(found, str(imagej.get("Info", "")))
        _imagej_origin(found, imagej)
    else:
        _printing_resolution(found, page)
    return found


def own_text(*, classes: Sequence[LabelClass], channels: Sequence[str], metadata: Mapping[str, Any]) -> str:
    """Our JSON object; empty if there is nothing to say.

    Raises
    ------
    TypeError, ValueError
        If the metadata are not JSON.
    """
    own: dict[str, Any] = {}
    if classes:
        own["classes"] = [c.to_dict() for c in classes]
    if channels:
        own["channels"] = list(channels)
    if metadata:
        own["metadata"] = dict(metadata)
    return json.dumps({KEY: own}, ensure_ascii=False) if own else ""


def _own_part(found: Description, text: str) -> None:
    start = text.find('{"' + KEY + '"')
    if start < 0:
        return
    try:
        own = json.JSONDecoder().raw_decode(text, start)[0][KEY]
        found.classes = tuple(LabelClass.from_dict(c) for c in own.get("classes", ()))
        found.metadata = dict(own.get("metadata", {}))
        if own.get("channels"):
            found.metadata["channels"] = [str(name) for name in own["channels"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        found.notes.append("class names and metadata in the file are damaged and were ignored")


def _imagej_voxel_size(found: Description, imagej: Mapping[str, Any], page: tifffile.TiffPage) -> None:
    """``unit`` counts for x, and for y and z unless ``yunit`` and ``zunit`` are given (ij/io/FileInfo.java)."""
    units = [str(imagej.get(key, imagej.get("unit", ""))) for key in ("zunit", "yunit", "unit")]
    scales = [nanometres(unit) for unit in units]
    if None in scales:
        unknown = [unit for unit, scale in zip(units, scales, strict=True) if scale is None]
        if unknown[0].lower().strip() not in _NO_UNIT:
            found.notes.append(f"voxel size ignored: its unit {unknown[0]!r} is no length")
        elif not any(units):
            _printing_resolution(found, page)
        return
    z_scale, y_scale, x_scale = (scale for scale in scales if scale is not None)
    x, y = (_per_unit(page, tag) for tag in (282, 283))
    unit = units[2]
    if x is None or y is None:
        found.notes.append(f"voxel size ignored: the unit is {unit}, and the file has no resolution")
        return
    if x_scale >= CENTIMETRE and max(x, y) * x_scale > LARGEST_PIXEL:
        found.notes.append(f"voxel size ignored: {1 / x:g} pixels per {unit} is a printing resolution")
        return
    _set_voxel_size(found, imagej.get("spacing"), y, x, scale=(z_scale, y_scale, x_scale))
    if found.voxel_size is not None and x == y == 1 and imagej.get("spacing", 1) != 1:
        found.notes.append(
            f"planes are {imagej['spacing']:g} {units[0]} apart and pixels 1 {unit} wide, which is also what files "
            "without a pixel size say: check it"
        )


def _imagej_origin(found: Description, imagej: Mapping[str, Any]) -> None:
    """``xorigin``, ``yorigin``, ``zorigin``: the pixel that lies at position 0 (ij/measure/Calibration.java)."""
    pixels = [imagej.get(key, 0) for key in ("zorigin", "yorigin", "xorigin")]
    if found.voxel_size is None or not any(key in imagej for key in ("zorigin", "yorigin", "xorigin")):
        return
    if all(isinstance(n, (int, float)) and math.isfinite(n) for n in pixels):
        origin = [-n * size for n, size in zip(pixels, found.voxel_size, strict=True)]
        found.metadata = with_origin(found.metadata, origin, voxel_size=found.voxel_size)


def _imagej_calibration(found: Description, imagej: Mapping[str, Any]) -> None:
    if "cf" not in imagej and "c0" not in imagej:
        return
    c0, c1 = imagej.get("c0"), imagej.get("c1")
    if imagej.get("cf", 0) == 0 and c0 == -32768 and c1 == 1:
        found.notes.append(
            "ImageJ signed 16-bit: the voxels are read as stored (unsigned); Fiji shows them minus 32768"
        )
    else:
        found.notes.append("ImageJ calibration function ignored: the voxels are read as stored")


def _printing_resolution(found: Description, page: tifffile.TiffPage) -> None:
    """Voxel size from the resolution tags of a plain TIFF, unless it is a printing resolution."""
    unit = page.tags.valueof(296)
    scale = {2: INCH, 3: CENTIMETRE}.get(unit) if isinstance(unit, int) else None
    x, y = (_per_unit(page, tag) for tag in (282, 283))
    if scale is not None and x is not None and y is not None and max(x, y) * scale <= LARGEST_PIXEL:
        _set_voxel_size(found, None, y, x, scale=(scale, scale, scale))


def _per_unit(page: tifffile.TiffPage, tag: int) -> float | None:
    """Size of a pixel in the unit, from a resolution tag (pixels per unit)."""
    value = page.tags.valueof(tag)
    try:
        numerator, denominator = value
        return float(denominator) / float(numerator)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _set_voxel_size(found: Description, z: Any, y: Any, x: Any, *, scale: VoxelSize) -> None:
    """The voxel size in nm from numbers along z, y, x and the nm that each counts in."""
    sizes = [_positive(value, nm) for value, nm in zip((z, y, x), scale, strict=True)]
    depth, height, width = sizes
    if height is None or width is None:
        found.notes.append(f"voxel size ignored: it is {x} x {y} x {z}")
        return
    if depth is None:
        found.notes.append(f"the file gives no spacing of planes: taken as the pixel size, {width:g} nm")
        depth = width
    found.voxel_size = (depth, height, width)


def _positive(value: Any, scale: float) -> float | None:
    try:
        size = abs(float(value)) * scale
    except (TypeError, ValueError):
        return None
    # Resolutions are stored as fractions of 32-bit integers: nine digits are what they hold.
    return float(f"{size:.9g}") if 0 < size < math.inf else None


def _from_ome(found: Description, xml: str, *, series: int, n_series: int) -> None:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        found.notes.append(f"the OME metadata are no valid XML ({error}) and were ignored")
        return
    pixels = [e for e in root.iter() if e.tag.endswith("}Pixels") or e.tag == "Pixels"]
    if len(pixels) == n_series:  # otherwise it is unknown which belongs to the series
        _ome_voxel_size(found, pixels[series].attrib)
    for element in root.iter():
        if re.fullmatch(r"(\{.*\})?CommentAnnotation", element.tag) and element.get("Namespace") == KEY:
            _own_part(found, "".join(element.itertext()).strip())


def _ome_voxel_size(found: Description, pixels: Mapping[str, str]) -> None:
    sizes: list[float | None] = []
    for letter in "ZYX":
        unit = pixels.get(f"PhysicalSize{letter}Unit", "µm")
        scale = nanometres(unit)
        value = pixels.get(f"PhysicalSize{letter}")
        if value is not None and scale is None and unit.lower() not in _NO_UNIT:
            found.notes.append(f"voxel size along {letter.lower()} ignored: its unit {unit!r} is no length")
        sizes.append(None if scale is None or value is None else _positive(value, scale))
    if sizes[1] is not None and sizes[2] is not None:
        _set_voxel_size(found, *sizes, scale=(1.0, 1.0, 1.0))
