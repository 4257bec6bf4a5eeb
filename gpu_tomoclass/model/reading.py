"""Reading of model files: known fields of known kinds only, everything checked, nothing executed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features import DEFINITION_VERSION, FeatureBank, IntensityScale
from gpu_tomoclass.forest import FIELDS, Forest
from gpu_tomoclass.model.archive import open_archive, read_array, read_json
from gpu_tomoclass.model.model import (
    FORMAT,
    FORMAT_VERSION,
    GREY_NAME,
    JSON_NAME,
    QUANTILES_NAME,
    ROW_LABELS_NAME,
    ROWS_NAME,
    Model,
)
from gpu_tomoclass.volumes import VoxelSize

MAX_JSON_BYTES = 4 * 2**20  # parsed, JSON can take 30 times its size; a header has some kilobytes
_ZLIB_STARTS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
# What a file begins with, for a refusal that helps. A pickle can run code when it is loaded: it never is.
_SIGNATURES = (
    (b"\x80", "a Python pickle or joblib file, which can run code; it was not loaded"),
    (b"\xac\xed", "a Java object, perhaps a classifier saved by Fiji"),
    (b"\x1f\x8b", "a gzip file, perhaps a compressed pickle or Fiji classifier; it was not loaded"),
    *((start, "a zlib stream, perhaps a compressed joblib file; it was not loaded") for start in _ZLIB_STARTS),
    (b"\x89HDF", "an HDF5 file"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"II+\x00", "a TIFF"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK", "an empty or divided zip archive"),
    (b"@", "text, perhaps ARFF: train from it with gpu-tomoclass train --from"),
    (b"", "of an unknown kind"),
)


def load_model(path: str | PathLike[str]) -> Model:
    """Read and check a model file; nothing in it is executed.

    Raises
    ------
    UsageError
        If there is no such file.
    ModelError
        If it is no model, is damaged, or comes from a newer version; the message names the field.
    """
    file = Path(path)
    if not file.exists():
        raise UsageError("does not exist", where=path)
    if not file.is_file():  # opening a pipe would wait for ever
        raise ModelError(f"is {'a directory' if file.is_dir() else 'not a regular file'}, not a model", where=path)
    _check_signature(file)
    with open_archive(file) as archive:
        return _read(archive)


def is_model_file(path: str | PathLike[str]) -> bool:
    """Tell whether the content is that of a model file, whatever its name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return JSON_NAME in archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def _check_signature(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", where=file) from error
    if start.startswith(b"PK\x03\x04"):
        return
    kind = "empty" if not start else next(kind for magic, kind in _SIGNATURES if start.startswith(magic))
    do = "make one with gpu-tomoclass train"
    if start.startswith((b"\xac\xed", b"\x1f\x8b")):
        do += ", or bring a classifier from Fiji with gpu-tomoclass model import"
    raise ModelError(f"is not a gpu_tomoclass model, it is {kind}", where=file, do=do)


def _read(archive: zipfile.ZipFile) -> Model:
    expected = {JSON_NAME, *(f"{name}.npy" for name in FIELDS)}
    found = [info.filename for info in archive.infolist()]
    if JSON_NAME not in found:
        raise ModelError(f"is a zip archive without {JSON_NAME}, not a model", do="make one with gpu-tomoclass train")
    header = _read_header(archive)
    optional = {name for name in (QUANTILES_NAME, GREY_NAME, ROWS_NAME, ROW_LABELS_NAME) if name in found}
    if sorted(found) != sorted(expected | optional):
        raise ModelError(f"holds {sorted(found)[:20]}, expected {sorted(expected)}")
    arrays = {
        name: read_array(archive, f"{name}.npy", dtypes=dtypes, n_axes=n_axes)
        for name, (dtypes, n_axes) in FIELDS.items()
    }
    return Model(
        forest=Forest(**arrays, n_features=header["n_features"]),
        bank=FeatureBank.from_dict(header["bank"]),
        classes=_classes(header["classes"]),
        intensity=IntensityScale.from_dict(header["intensity"]),
        voxel_size=_voxel_size(header["voxel_size_nm"]),
        training=_checked_training(header["training"]),
        versions=header["versions"],
        created=header["created"],
        quantiles=_optional(archive, QUANTILES_NAME, optional),
        grey=_optional(archive, GREY_NAME, optional),
        rows=_optional(archive, ROWS_NAME, optional, n_axes=2),
        row_labels=_optional(archive, ROW_LABELS_NAME, optional, dtype="int32", n_axes=1),
    )


def _optional(
    archive: zipfile.ZipFile, name: str, there: set[str], *, dtype: str = "float32", n_axes: int = 3
) -> np.ndarray | None:
    return read_array(archive, name, dtypes=(dtype,), n_axes=n_axes) if name in there else None


_HEADER_TYPES: dict[str, tuple[type, ...]] = {
    "bank": (dict,),
    "classes": (list,),
    "created": (str,),
    "intensity": (dict,),
    "n_features": (int,),
    "training": (dict,),
    "versions": (dict,),
    "voxel_size_nm": (list, type(None)),
}


def _read_header(archive: zipfile.ZipFile) -> dict[str, Any]:
    size = archive.getinfo(JSON_NAME).file_size
    if size > MAX_JSON_BYTES:
        raise ModelError(f"{JSON_NAME} claims {size} bytes, more than {MAX_JSON_BYTES}")
    header = read_json(archive, JSON_NAME)
    if header.get("format") != FORMAT:
        raise ModelError(f"{JSON_NAME} does not say format {FORMAT!r}")
    _check_versions(header)
    for name, types in _HEADER_TYPES.items():
        if name not in header:
            raise ModelError(f"{JSON_NAME} lacks {name}")
        if not isinstance(header[name], types) or isinstance(header[name], bool):
            raise ModelError(f"{name} is {type(header[name]).__name__}, not {types[0].__name__}")
    return header


def _check_versions(header: Mapping[str, Any]) -> None:
    made_by = str(header.get("made_by"))[:40]
    for name, ours in (("format_version", FORMAT_VERSION), ("definition_version", DEFINITION_VERSION)):
        value = header.get(name)
        if type(value) is not int or value < 1:
            raise ModelError(f"{name} is {str(value)[:40]!r}, not a whole number from 1")
        if value > ours:
            raise ModelError(
                f"made by {made_by} ({name} {value}), this is {__version__} ({name} {ours})", do="upgrade gpu_tomoclass"
            )


def _checked_training(training: dict[str, Any]) -> dict[str, Any]:
    """Check the fields that :func:`check_fits` and ``drift`` rely on; the rest is for people."""
    dtype, volume = training.get("dtype"), training.get("volume", {})
    if dtype is not None and not re.fullmatch(r"u?int(8|16|32|64)|float(16|32|64)", str(dtype)):
        raise ModelError(f"training.dtype is {str(dtype)[:40]!r}, not a type of voxels")
    if not isinstance(volume, dict):
        raise ModelError(f"training.volume is {type(volume).__name__}, not dict")
    shape = volume.get("shape")
    if shape is not None and not (isinstance(shape, list) and [type(n) for n in shape] == [int] * 3):
        raise ModelError(f"training.volume.shape is {str(shape)[:80]}, not three whole numbers")
    boxes = training.get("bin", [1, 1, 1])
    if not (isinstance(boxes, list) and [type(n) for n in boxes] == [int] * 3 and min(boxes) > 0):
        raise ModelError(f"training.bin is {str(boxes)[:80]}, not three whole numbers from 1 on")
    margins = training.get("mean_margins", [])
    shares = training.get("class_shares", [])
    if not isinstance(shares, list) or not all(
        isinstance(row, list) and all(type(s) in (int, float) and 0 <= s <= 1 for s in row) for row in shares
    ):
        raise ModelError(f"training.class_shares is {str(shares)[:40]}, not lists of numbers from 0 to 1")
    if not isinstance(margins, list) or not all(type(m) in (int, float) and 0 <= m <= 1 for m in margins):
        raise ModelError(f"training.mean_margins is {str(margins)[:40]}, not a list of numbers from 0 to 1")
    return training


def _classes(items: list[Any]) -> tuple[LabelClass, ...]:
    classes = []
    for i, item in enumerate(items):
        where = f"classes[{i}]"
        if not isinstance(item, dict) or not {"value", "name", "colour"} <= item.keys():
            raise ModelError(f"{where} is {str(item)[:80]}, not value, name and colour")
        if type(item["value"]) is not int or not isinstance(item["name"], str):
            raise ModelError(f"{where} has the value {item['value']!r:.40} and the name {item['name']!r:.40}")
        colour = item["colour"]
        if not (
            isinstance(colour, list) and len(colour) == 3 and all(type(c) is int and 0 <= c <= 255 for c in colour)
        ):
            raise ModelError(f"{where}.colour is {str(colour)[:80]}, not three whole numbers of 0..255")
        classes.append(LabelClass.from_dict(item))
    return tuple(classes)


def _voxel_size(value: list[Any] | None) -> VoxelSize | None:
    if value is None:
        return None
    if len(value) != 3 or not all(type(v) in (int, float) and 0 < v < 1e9 for v in value):
        raise ModelError(f"voxel_size_nm is {str(value)[:80]}, not three positive numbers")
    z, y, x = map(float, value)
    return z, y, x
