"""Statements of an HDF5 file about the axes of a dataset and the size of its voxels, by the program that wrote it.

Sources: ilastik's ``axistags`` (vigra), HDF5 dimension labels, EMD 0.2 ``dim1..3`` (emdatasets.com/format), HyperSpy's
``axis-N`` groups (rosettasciio documentation), BigDataViewer's ``t00000/s00/0/cells``, NXdata's ``axes`` (NeXus), Velox
EMD and MATLAB 7.3 by their layout, and ``element_size_um`` as Fiji's HDF5 plugin writes it.
"""

from __future__ import annotations

import contextlib
import json
import math
import posixpath
import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np

from gpu_tomoclass.volumes.hyperspy import signal_axes, text
from gpu_tomoclass.volumes.units import nanometres

_BDV = re.compile(r"/t\d{5}/s(\d{2})/(\d+)/cells")
_XML_BYTES = 2**24


@dataclass
class Labels:
    """Names of the stored axes (None: not said), nm of a voxel and of the first one's place along each, and remarks."""

    names: list[str] | None = None
    sizes: list[float | None] = field(default_factory=list)
    origin: list[float | None] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_labels(dataset: h5py.Dataset) -> Labels:
    """Statements of the file about the axes of ``dataset``; nothing of it can make the file unreadable."""
    found = Labels(sizes=[None] * dataset.ndim, origin=[None] * dataset.ndim)
    for source in (_axistags, _emd, _hyperspy, _nexus, _dimension_labels, _velox, _matlab):
        try:
            source(found, dataset)
        except (LookupError, ArithmeticError, ValueError, TypeError, AttributeError, OSError, RuntimeError) as error:
            found.notes.append(f"what the file says about its axes is damaged and was ignored: {error}")
            found.names = None
        if found.names is not None:
            names = [name.lower() for name in found.names]
            if len(set(names)) == len(names) == dataset.ndim and {"y", "x"} <= set(names):
                found.names = names
                break
            found.notes.append(f"the axes are named {', '.join(found.names)}, which are not x, y and z")
            found.names = None
    if found.names is None and _BDV.fullmatch(dataset.name):
        found.names = ["z", "y", "x"]
    with contextlib.suppress(KeyError, ValueError, TypeError, OSError, RuntimeError):
        _bdv_size(found, dataset)
        _element_size(found, dataset)
    return found


def is_bdv_uint16(dataset: h5py.Dataset) -> bool:
    """Tell whether the values are BigDataViewer's unsigned 16 bits, which its older versions store as signed ones."""
    return _BDV.fullmatch(dataset.name) is not None and dataset.dtype == np.int16


def _axistags(found: Labels, dataset: h5py.Dataset) -> None:
    if "axistags" in dataset.attrs:
        axes = json.loads(text(dataset.attrs["axistags"]))["axes"]
        found.names = [str(axis["key"]) for axis in axes]


def _dimension_labels(found: Labels, dataset: h5py.Dataset) -> None:
    labels = [text(dimension.label) for dimension in dataset.dims]
    if any(labels):
        found.names = labels


def _emd(found: Labels, dataset: h5py.Dataset) -> None:
    group = dataset.parent
    if "emd_group_type" not in group.attrs:
        return
    names = []
    for axis in range(dataset.ndim):
        dim = group[f"dim{axis + 1}"]
        names.append(text(dim.attrs.get("name", "")))
        found.sizes[axis], found.origin[axis] = _step(dim, dataset.shape[axis], dim.attrs.get("units"))
    if sorted(name.lower() for name in names) == sorted("zyx"[-len(names) :]) or len(names) != 3:
        found.names = names
    else:
        found.notes.append(f"the axes are named {', '.join(map(repr, names))}: read as z, y, x, which is a guess")
        found.names = ["z", "y", "x"]


def _hyperspy(found: Labels, dataset: h5py.Dataset) -> None:
    group = dataset.parent
    if "axis-0" not in group:
        return
    attributes = [group[f"axis-{axis}"].attrs for axis in range(dataset.ndim)]
    found.names, found.sizes, found.origin = signal_axes(attributes)


def _nexus(found: Labels, dataset: h5py.Dataset) -> None:
    axes = dataset.parent.attrs.get("axes")
    if axes is None or isinstance(axes, (str, bytes)) or len(axes) != dataset.ndim:
        return
    names = [text(name) for name in axes]
    if not {"y", "x"} <= {name.lower() for name in names}:
        return
    found.names = names
    for axis, name in enumerate(names):
        if name in dataset.parent and isinstance(dataset.parent.get(name), h5py.Dataset):
            values = dataset.parent[name]
            unit = values.attrs.get("units")
            found.sizes[axis], found.origin[axis] = _step(values, dataset.shape[axis], unit)


def _velox(found: Labels, dataset: h5py.Dataset) -> None:
    """Velox (Thermo Fisher) stores rows, columns, frames; the pixel size (m) stands in JSON beside the data."""
    if dataset.ndim != 3 or not re.fullmatch(r"/Data/Image/[0-9a-fA-F]+/Data", dataset.name):
        return
    found.names = ["y", "x", "z"]
    found.notes.append("a Velox file: its last axis, the frames, is read as z")
    metadata = dataset.parent.get("Metadata")
    if metadata is not None:
        content = np.asarray(metadata[:, 0]).astype(np.uint8).tobytes().split(b"\0")[0]
        size = json.loads(content)["BinaryResult"]["PixelSize"]
        found.sizes[0], found.sizes[1] = float(size["height"]) * 1e9, float(size["width"]) * 1e9


def _matlab(found: Labels, dataset: h5py.Dataset) -> None:
    """MATLAB's first index, the row, is the last axis of the file."""
    if "MATLAB_class" in dataset.attrs and dataset.ndim == 3:
        found.names = ["z", "x", "y"]
        found.notes.append("a MATLAB file: A(row, column, plane) is read as y, x, z, which is a guess")


def _bdv_size(found: Labels, dataset: h5py.Dataset) -> None:
    """BigDataViewer: voxel size in the XML file beside the HDF5 file, times the factors of the level."""
    match = _BDV.fullmatch(dataset.name)
    if match is None:
        return
    xml = posixpath.splitext(dataset.file.filename)[0] + ".xml"
    with open(xml, "rb") as file:
        root = ElementTree.fromstring(file.read(_XML_BYTES))
    for setup in root.iter("ViewSetup"):
        if int(setup.findtext("id", "-1")) != int(match[2]):
            continue
        unit = nanometres(setup.findtext("voxelSize/unit", ""))
        sizes = [float(n) for n in setup.findtext("voxelSize/size", "").split()]
        factors = np.asarray(dataset.file[f"s{match[2]:0>2}/resolutions"])[int(match[1])]
        if unit is not None and len(sizes) == 3:
            found.sizes = [size * unit * float(f) for size, f in zip(sizes[::-1], factors[::-1], strict=True)]


def _element_size(found: Labels, dataset: h5py.Dataset) -> None:
    """``element_size_um``: one number per axis, or for the last three."""
    value = dataset.attrs.get("element_size_um")
    if value is not None:
        sizes = (np.asarray(value, np.float64).ravel() * 1000).tolist()
        if len(sizes) in (3, dataset.ndim) and len(sizes) <= dataset.ndim:
            found.sizes = [None] * (dataset.ndim - len(sizes)) + sizes


def _step(values: h5py.Dataset, length: int, unit: Any) -> tuple[float | None, float | None]:
    """Distance of the first two of evenly spaced positions along an axis of ``length``, and the first, in nm."""
    scale = nanometres(text(unit)) if unit is not None else None
    if scale is None or values.ndim != 1 or not 2 <= values.shape[0] <= 2**20 or values.shape[0] not in (2, length):
        return None, None
    step = abs(float(values[1]) - float(values[0])) * scale
    return (step, float(values[0]) * scale) if 0 < step < math.inf else (None, None)
