"""A model: forest, feature bank, classes, intensity scale and provenance in one file that is data, never code.

The file (``.tcm``) is a zip archive of ``model.json`` and one ``.npy`` per forest array; docs/model-file.md describes
it field by field. The same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
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
from gpu_tomoclass.features import FeatureBank, IntensityScale
from gpu_tomoclass.forest import FIELDS, Forest
from gpu_tomoclass.outputs import atomic, check_output
from gpu_tomoclass.volumes import VoxelSize

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
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp, so that equal models are equal files


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
