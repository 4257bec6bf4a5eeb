"""A model: forest, feature bank, classes, intensity scale and provenance in one file that is data, never code.

The file (``.tcm``) is a zip archive of ``model.json`` and one ``.npy`` per forest array; docs/model-file.md describes
it field by field. The same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features import DEFINITION_VERSION, FeatureBank, IntensityScale
from gpu_tomoclass.forest import FIELDS, Forest
from gpu_tomoclass.model.archive import open_archive, read_array, read_json
from gpu_tomoclass.outputs import atomic, check_output
from gpu_tomoclass.volumes import NO_BIN, Bin, Volume, VoxelSize

if TYPE_CHECKING:
    from gpu_tomoclass import Prediction

MODEL_SUFFIX = ".tcm"
FORMAT = "gpu_tomoclass model"
FORMAT_VERSION = 1
JSON_NAME = "model.json"
GREY_NAME = "grey.npy"  # optional, as the quantiles
GREY_LEVELS = np.concatenate([[0, 0.0005], np.linspace(0.002, 0.998, 125), [0.9995, 1]])
ROWS_NAME, ROW_LABELS_NAME = "rows.npy", "row_labels.npy"  # optional, both or none: training rows kept on request
QUANTILES_NAME = "quantiles.npy"  # optional: models from Fiji and from tables do not know their volume
N_QUANTILES = 33
MAX_JSON_BYTES = 4 * 2**20  # parsed, JSON can take 30 times its size; a header has some kilobytes
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp, so that equal models are equal files
VOXEL_SIZE_TOLERANCE = 0.01

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


@dataclass(frozen=True)
class TrainingReport:
    """Report of a training beside the model; it is not kept in the file.

    Attributes
    ----------
    notes : sequence of str
        Sentences the user should see.
    seconds : dict
        Wall seconds of the steps ``features`` and ``forest``.
    seconds_per_plane : dict
        Seconds of computing per family and plane (one thread), for families that did not come from a cache.
    cached_blocks : int
        Feature blocks that came from the cache.
    """

    notes: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    seconds_per_plane: Mapping[str, float] = field(default_factory=dict)
    cached_blocks: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained classifier.

    Attributes
    ----------
    forest : Forest
        Its features are the channels of ``bank``, the columns of its votes the ``classes``.
    bank : FeatureBank
    classes : tuple of LabelClass
    intensity : IntensityScale
        What the training volume's values went through; applied to every volume that is classified.
    voxel_size : tuple of float or None
        (z, y, x) in nm of the training volume.
    training : dict
        JSON-ready: settings with the seed, pixels per class, out-of-bag error, importance per family, hash of the
        training data, fingerprint of the volume.
    versions : dict
        Of the software that trained it.
    created : str
        ISO 8601 time in files of earlier versions; empty since, so that the same training gives the same bytes.
    quantiles : numpy.ndarray or None
        (n_volumes, n_channels, N_QUANTILES) float32, rising along the last axis: how the channels were distributed over
        the marked planes of each training volume, at evenly spaced levels from the least to the largest value; see
        :mod:`gpu_tomoclass.training.drift`.
    grey : numpy.ndarray or None
        (n_volumes, 1 + n_classes, 129) float32: how grey values, as the features see them, were distributed over the
        marked planes of each training volume and over what the forest gave to each class there, at GREY_LEVELS; see
        :mod:`gpu_tomoclass.training.adapt_model`.
    rows, row_labels : numpy.ndarray or None
        (n_rows, n_channels) float32 and (n_rows,) int32 class values: what the forest was grown on, where that was
        asked for, to be pooled with strokes on another volume. They are not in the hash: labels do not depend on them.
    report : TrainingReport or None
        Of the training, in the process that trained it; None for a model from a file.

    Raises
    ------
    ModelError
        If forest, bank and classes do not fit each other.
    """

    forest: Forest
    bank: FeatureBank
    classes: tuple[LabelClass, ...]
    intensity: IntensityScale
    voxel_size: VoxelSize | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    quantiles: np.ndarray | None = None
    grey: np.ndarray | None = None
    rows: np.ndarray | None = None
    row_labels: np.ndarray | None = None
    report: TrainingReport | None = None

    def __post_init__(self) -> None:
        if self.forest.n_features != self.bank.n_channels:
            raise ModelError(
                f"the forest has {self.forest.n_features} features, its bank {self.bank.n_channels} channels"
            )
        if self.forest.n_classes != len(self.classes):
            raise ModelError(f"the forest votes for {self.forest.n_classes} classes, {len(self.classes)} are named")
        values = [c.value for c in self.classes]
        if values != sorted(set(values)) or not all(1 <= v <= 255 for v in values):
            raise ModelError(f"class values must rise within 1..255, not {values}")
        if self.quantiles is not None:
            _check_quantiles(self.quantiles, self.bank.n_channels, N_QUANTILES)
        if self.grey is not None:
            _check_quantiles(self.grey, 1 + len(self.classes), len(GREY_LEVELS))
        if self.rows is not None or self.row_labels is not None:
            _check_rows(self.rows, self.row_labels, n_channels=self.bank.n_channels, values=values)

    def predict(self, planes: Any, **options: Any) -> Prediction:
        """Labels and probabilities of planes in memory: arrays in, arrays out; nothing is written.

        Parameters
        ----------
        planes : array or Volume
            (nz, ny, nx), or (ny, nx) for one plane: NumPy's or CuPy's, as stored.
        **options
            Of :func:`gpu_tomoclass.predict`: probabilities, intensity, nan, voxel_size, force, device, memory_limit,
            progress.

        Returns
        -------
        (labels, probabilities)
            uint8 (nz, ny, nx) and float32 (n_classes, nz, ny, nx), without the first (plane) axis for one plane.
        """
        from gpu_tomoclass import predict  # by the front door: this room knows none above it

        return predict(self, planes, **options)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """:func:`save_model` of this model."""
        save_model(self, path, overwrite=overwrite)

    def __repr__(self) -> str:
        classes = ", ".join(f"{c.value} {c.name}" for c in self.classes)
        forest = f"{self.forest.n_trees} trees on {self.bank.n_channels} features"
        error = self.training.get("oob_error")
        found = [f"classes {classes}", forest, *([] if error is None else [f"out-of-bag error {100 * error:.2f} %"])]
        return f"<Model {', '.join(found)}>"

    @cached_property
    def hash(self) -> str:
        """BLAKE2b, hexadecimal, of everything but when and by which version the file was written, and the sub-stack
        that strokes were drawn on: the same strokes on the same planes give the same hash.
        """
        digest = hashlib.blake2b(digest_size=16)
        header = {k: v for k, v in _header(self).items() if k not in ("created", "made_by")}
        header["training"] = {k: v for k, v in header["training"].items() if k != "substack"}
        digest.update(_json_bytes(header))
        for name in FIELDS:
            digest.update(_npy_bytes(getattr(self.forest, name)))
        if self.quantiles is not None:
            digest.update(_npy_bytes(self.quantiles))
        if self.grey is not None:
            digest.update(_npy_bytes(self.grey))
        return digest.hexdigest()


def _check_rows(rows: np.ndarray | None, labels: np.ndarray | None, *, n_channels: int, values: list[int]) -> None:
    if rows is None or labels is None:
        raise ModelError(f"training rows need both {ROWS_NAME} and {ROW_LABELS_NAME}")
    if rows.shape != (len(labels), n_channels) or labels.shape != (len(labels),) or not len(labels):
        raise ModelError(f"training rows are {rows.shape} with {labels.shape} labels, not (n, {n_channels}) with (n,)")
    if rows.dtype != np.float32 or labels.dtype != np.int32 or np.isinf(rows).any():
        raise ModelError(f"training rows are {rows.dtype} with {labels.dtype} labels, not finite float32 with int32")
    if not np.isin(labels, values).all():
        raise ModelError(f"training rows have labels that are no class: {np.setdiff1d(labels, values)[:5].tolist()}")


def _check_quantiles(quantiles: np.ndarray, n_rows: int, n_levels: int) -> None:
    expected = (max(1, len(quantiles)) if quantiles.ndim else 1, n_rows, n_levels)
    if quantiles.shape != expected or quantiles.dtype != np.float32:
        raise ModelError(f"quantiles are {quantiles.dtype} {quantiles.shape}, not float32 {expected}")
    if not np.isfinite(quantiles).all() or (np.diff(quantiles, axis=-1) < 0).any():
        raise ModelError("quantiles are not finite and rising")


# --- writing ---------------------------------------------------------------------------------------------------------


def check_model_target(path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse before hours of training what :func:`save_model` would refuse after them.

    Raises
    ------
    UsageError
        If the name does not end in ``.tcm``.
    DataError
        If it exists and ``overwrite`` is not set.
    """
    if Path(path).suffix.lower() != MODEL_SUFFIX:
        raise UsageError(f"a model file ends in {MODEL_SUFFIX}", where=path)
    check_output(path, overwrite=overwrite)


def save_model(model: Model, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model file; it appears complete or not at all.

    Raises
    ------
    UsageError
        If the name does not end in ``.tcm``.
    DataError
        If it exists and ``overwrite`` is not set.
    ResourceError
        If it cannot be written.
    """
    check_model_target(path, overwrite=overwrite)
    with (
        atomic(path, overwrite=overwrite) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(_member(JSON_NAME), _json_bytes(_header(model)))
        for name in FIELDS:
            archive.writestr(_member(f"{name}.npy"), _npy_bytes(getattr(model.forest, name)))
        if model.quantiles is not None:
            archive.writestr(_member(QUANTILES_NAME), _npy_bytes(model.quantiles))
        if model.grey is not None:
            archive.writestr(_member(GREY_NAME), _npy_bytes(model.grey))
        if model.rows is not None and model.row_labels is not None:
            archive.writestr(_member(ROWS_NAME), _npy_bytes(model.rows))
            archive.writestr(_member(ROW_LABELS_NAME), _npy_bytes(model.row_labels))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=ZIP_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


def _header(model: Model) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "made_by": __version__,
        "definition_version": model.bank.definition_version,
        "created": model.created,
        "bank": model.bank.to_dict(),
        "classes": [c.to_dict() for c in model.classes],
        "intensity": model.intensity.to_dict(),
        "voxel_size_nm": None if model.voxel_size is None else list(model.voxel_size),
        "n_features": model.forest.n_features,
        "training": dict(model.training),
        "versions": dict(model.versions),
    }


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode()


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    np.lib.format.write_array(buffer, little, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


# --- reading ---------------------------------------------------------------------------------------------------------


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


# --- using -----------------------------------------------------------------------------------------------------------


def describe_model(model: Model) -> dict[str, Any]:
    """Describe a model, JSON-ready: what ``gpu-tomoclass info MODEL`` prints.

    Returns
    -------
    dict
        ``format``, ``hash``, ``created``, ``classes``, ``channels`` (their number), ``bank``, ``forest`` (trees, nodes,
        depth, channels used), ``intensity``, ``voxel_size_nm`` (z, y, x) or None, ``training``, ``versions``.
    """
    forest = model.forest
    return {
        "format": f"{FORMAT} {FORMAT_VERSION}",
        "hash": model.hash,
        "created": model.created,
        "classes": [c.to_dict() for c in model.classes],
        "channels": model.bank.n_channels,
        "bank": model.bank.to_dict(),
        "forest": {
            "trees": forest.n_trees,
            "nodes": forest.n_nodes,
            "depth": forest.depth,
            "channels used": int(forest.used_features().size),
        },
        "intensity": model.intensity.describe(),
        "voxel_size_nm": None if model.voxel_size is None else list(model.voxel_size),
        "training": dict(model.training),
        "versions": dict(model.versions),
    }


def check_fits(
    model: Model,
    *,
    dtype: np.dtype[Any],
    shape: tuple[int, int, int] | None = None,
    voxel_size: VoxelSize | None = None,
    bin: Bin = NO_BIN,
    force: bool = False,
) -> list[str]:
    """Tell whether a volume of this kind can be classified by the model.

    Parameters
    ----------
    model : Model
    dtype : numpy.dtype
        Of the volume.
    shape : tuple of int, optional
        (nz, ny, nx) of the volume; the training volume's shape in another order is worth a note.
    voxel_size : tuple of float, optional
        (z, y, x) in nm of the volume.
    bin : (int, int, int)
        Of the volume; another one than in training is refused unless voxel sizes say that the grids agree.
    force : bool
        Only note a different voxel size. A different kind of values is refused all the same.

    Returns
    -------
    list of str
        Notes for the user.

    Raises
    ------
    ModelError
        If the values are of another kind or range than in training, or the voxel size differs by more than 1 %.
    """
    trained = model.training.get("dtype")
    if trained is not None and np.dtype(trained) != dtype and _value_kind(np.dtype(trained)) != _value_kind(dtype):
        raise ModelError(
            f"the model was trained on {trained} voxels, the volume has {dtype}: grey values do not compare",
            do="convert the volume or train on volumes of this kind",
        )
    notes = []
    known = model.training.get("volume", {}).get("shape")
    if known and shape is not None and list(shape) != known and sorted(shape) == sorted(known):
        notes.append(
            f"the volume is {tuple(shape)} (z, y, x), the training volume was {tuple(known)}: if axes are swapped, "
            "give the right order with --axes"
        )
    if model.voxel_size is None or voxel_size is None:
        trained_bin = tuple(model.training.get("bin", NO_BIN))
        if trained_bin == bin:
            return notes
        what = f"the model was trained on a volume with {_boxes(trained_bin)}, this one has {_boxes(bin)}"
        if not force:
            raise ModelError(what, do=f"open it with bin {','.join(map(str, trained_bin))}, train anew, or use --force")
        return [*notes, what]
    across = 3 in model.bank.dimensions
    if same_voxels(model.voxel_size, voxel_size, across=across):
        return notes
    sizes = f"{_nm(voxel_size, across)}, the model was trained on {_nm(model.voxel_size, across)}"
    if not force:
        raise ModelError(
            f"voxels of the volume are {sizes}: features have sizes in pixels",
            do="give --voxel-size if the file is wrong, rescale the volume, train on such volumes, or use --force",
        )
    return [*notes, f"voxels of the volume are {sizes}"]


def same_voxels(a: VoxelSize, b: VoxelSize, *, across: bool) -> bool:
    """Tell whether two voxel sizes (z, y, x) agree within 1 %: features have sizes in pixels.

    Parameters
    ----------
    across : bool
        Along z, too: for banks with families that look across planes.
    """
    first = 0 if across else 1
    return all(abs(y / x - 1) <= VOXEL_SIZE_TOLERANCE for x, y in zip(a[first:], b[first:], strict=True))


def fits_volume(model: Model, volume: Volume, *, force: bool = False) -> list[str]:
    """:func:`check_fits` for an open volume."""
    return check_fits(
        model, dtype=volume.dtype, shape=volume.shape, voxel_size=volume.voxel_size, bin=volume.bin, force=force
    )


def _boxes(bin: tuple[int, ...]) -> str:
    return "no bin" if bin == NO_BIN else f"bin {','.join(map(str, bin))} (z, y, x)"


def _value_kind(dtype: np.dtype[Any]) -> str:
    """Float volumes share a scale; an integer type is its own range."""
    return "float" if dtype.kind == "f" else dtype.name


def _nm(size: VoxelSize, across: bool) -> str:
    shown = size if across else size[1:]
    return " x ".join(f"{v:.4g}" for v in shown) + (" nm (z, y, x)" if across else " nm (y, x)")
