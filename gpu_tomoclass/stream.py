"""The only loop over the planes of a volume: read, prepare, compute, classify, write.

The result does not depend on the number of workers or on which planes are in one run: every plane is computed from
itself alone. Memory holds a few planes, whatever the depth of the volume.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.cache import FeatureCache, block_values
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import FeatureBlock
from gpu_tomoclass.forest.predict import predict_classes, predict_probabilities
from gpu_tomoclass.intensity import IntensityScale, PreparedPlane, prepare_plane
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.planes import Progress, map_in_order, worker_count
from gpu_tomoclass.volume import Volume, create_volume

INTENSITY_CHOICES = ("model", "auto", "none")
UNLABELLED = 0


class Classifier:
    """A model made ready to classify planes: only the channels that its forest uses are computed.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.class_values = np.array([c.value for c in model.classes], dtype=np.uint8)
        used = model.forest.used_features()
        self.blocks: tuple[FeatureBlock, ...] = model.bank.subset([model.bank.channels[i] for i in used])
        self._forest = model.forest.restricted(used)
        # Where each used channel lies: rows of a block -> rows of the reduced feature matrix.
        position = {int(channel): row for row, channel in enumerate(used)}
        self._rows = []
        for block in self.blocks:
            wanted = [i for i in range(block.start, block.stop) if i in position]
            self._rows.append(([i - block.start for i in wanted], [position[i] for i in wanted]))

    def probabilities(
        self, image: np.ndarray, *, cache: FeatureCache | None = None, timings: dict[str, float] | None = None
    ) -> np.ndarray:
        """Class probabilities (n_classes, ny, nx), float32, of a prepared plane (ny, nx)."""
        features = np.empty((self._forest.n_features, image.size), dtype=np.float32)
        computed = block_values(self.model.bank, image, blocks=self.blocks, cache=cache, timings=timings)
        for (_, channels), (rows, positions) in zip(computed, self._rows, strict=True):
            features[positions] = channels[rows].reshape(len(rows), -1)
        started = time.perf_counter()
        probabilities = predict_probabilities(self._forest, features)
        if timings is not None:
            timings["forest"] = timings.get("forest", 0.0) + time.perf_counter() - started
        return probabilities.reshape(len(self.class_values), *image.shape)

    def labels(self, probabilities: np.ndarray) -> np.ndarray:
        """Class values (ny, nx), uint8, of the first largest probability."""
        n_classes, ny, nx = probabilities.shape
        return predict_classes(probabilities.reshape(n_classes, -1), self.class_values).reshape(ny, nx)


@dataclass(frozen=True)
class ClassifyResult:
    """What a run wrote and what it cost.

    Attributes
    ----------
    path : str
        The label volume.
    probability_paths : tuple of str
        Empty without probabilities; one file per class where the format holds one image per file (MRC).
    n_planes : int
    counts : dict
        Voxels per class name (and ``"unlabelled"`` where masked).
    notes : list of str
    seconds : float
        Wall time.
    seconds_per_plane : dict
        Thread seconds per family, and ``"forest"``, per plane.
    """

    path: str
    probability_paths: tuple[str, ...]
    n_planes: int
    counts: Mapping[str, int]
    notes: Sequence[str]
    seconds: float
    seconds_per_plane: Mapping[str, float]


def classify(
    volume: Volume,
    model: Model,
    *,
    output: str | PathLike[str],
    probabilities: bool = False,
    planes: tuple[int, int] | None = None,
    intensity: str = "model",
    nan: str = "error",
    force: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **format_options: Any,
) -> ClassifyResult:
    """Classify a volume plane by plane into a label volume.

    Labels are the class values of the model (1..255); 0 is "not classified": masked voxels
    (``nan="mask"``) and planes that could not be read (``allow_missing_planes``).

    Parameters
    ----------
    volume : Volume
    model : Model
    output : path
        ``.ome.zarr``, ``.zarr``, ``.tif``, ``.mrc``; class names, colours and provenance travel in its metadata.
    probabilities : bool
        Also write float32 probabilities per class to ``<output>_probabilities``, same format.
    planes : (start, stop), optional
        Classify only these planes; the output has stop - start planes.
    intensity : {"model", "auto", "none"}
        The scale recorded in the model, one measured on this volume, or none.
    nan : {"error", "fill", "mask"}
        See :func:`gpu_tomoclass.intensity.prepare_plane`. ``"mask"`` also unlabels every pixel whose
        filters looked at a filled voxel.
    force : bool
        Go on although the voxel size differs from that of the training.
    workers : int, optional
        Threads; each needs memory for one plane's features.
    overwrite : bool
    progress : callable, optional
        Called with (planes done, planes in all).
    **format_options
        Of :func:`gpu_tomoclass.volume.create_volume`.

    Raises
    ------
    ModelError
        If the model does not fit the volume.
    DataError
        If a plane cannot be read or used, or the output exists.
    UsageError
        If ``planes`` is no range of the volume.
    """
    if intensity not in INTENSITY_CHOICES:
        raise UsageError(f"intensity {intensity!r} is unknown", do=f"choose one of {', '.join(INTENSITY_CHOICES)}")
    notes = [*volume.notes, *fits_volume(model, volume, force=force)]
    start, stop = plane_range(volume, planes)
    scale = model.intensity if intensity == "model" else IntensityScale.for_volume(volume, mode=intensity)
    classifier = Classifier(model)
    metadata = provenance(volume, model, planes=(start, stop), scale=scale, nan=nan)
    names = [c.name for c in model.classes]
    shape = (stop - start, *volume.shape[1:])
    common: dict[str, Any] = {
        "shape": shape,
        "voxel_size": volume.voxel_size,
        "metadata": metadata,
        "overwrite": overwrite,
        **format_options,
    }
    n_voxels = np.zeros(256, dtype=np.int64)
    timings: dict[str, float] = defaultdict(float)
    started = time.perf_counter()

    def prepared() -> Iterator[PreparedPlane]:
        for z in range(start, stop):
            yield prepare_plane(volume, z, scale=scale, nan=nan)

    def classified(plane: PreparedPlane) -> tuple[np.ndarray, np.ndarray, dict[str, float], tuple[str, ...]]:
        seconds: dict[str, float] = {}
        if plane.missing:
            unknown = np.zeros((len(names), *plane.image.shape), np.float32)
            return np.full(plane.image.shape, UNLABELLED, np.uint8), unknown, seconds, plane.notes
        p = classifier.probabilities(plane.image, timings=seconds)
        labels = classifier.labels(p)
        if nan == "mask" and plane.filled is not None:
            labels[influenced(plane.filled, classifier.blocks)] = UNLABELLED
        return labels, p, seconds, plane.notes

    with ExitStack() as stack:
        label_writer = stack.enter_context(
            create_volume(output, dtype=np.dtype(np.uint8), classes=model.classes, **common)
        )
        probability_writer = None
        if probabilities:
            probability_writer = stack.enter_context(
                create_volume(probabilities_name(output), dtype=np.dtype(np.float32), channels=names, **common)
            )
        if progress is not None:
            progress(0, stop - start)
        results = map_in_order(classified, prepared(), workers=worker_count(workers))
        for done, (labels, p, seconds, plane_notes) in enumerate(results):
            label_writer.write_plane(done, labels)
            if probability_writer is not None:
                probability_writer.write_plane(done, p)
            n_voxels += np.bincount(labels.ravel(), minlength=256)
            notes.extend(plane_notes)
            for name, value in seconds.items():
                timings[name] += value
            if progress is not None:
                progress(done + 1, stop - start)
        volume.check_unchanged()
    notes.extend(note for note in volume.notes if note not in notes)  # planes found missing on the way
    counts = {c.name: int(n_voxels[c.value]) for c in model.classes}
    if n_voxels[UNLABELLED]:
        counts["unlabelled"] = int(n_voxels[UNLABELLED])
    return ClassifyResult(
        path=fspath(output),
        probability_paths=() if probability_writer is None else probability_writer.outputs(),
        n_planes=stop - start,
        counts=counts,
        notes=list(dict.fromkeys(notes)),
        seconds=time.perf_counter() - started,
        seconds_per_plane={name: value / (stop - start) for name, value in timings.items()},
    )


def plane_range(volume: Volume, planes: tuple[int, int] | None) -> tuple[int, int]:
    """(start, stop) within the volume.

    Raises
    ------
    UsageError
        If the range is empty or leaves the volume.
    """
    start, stop = planes if planes is not None else (0, volume.shape[0])
    if not 0 <= start < stop <= volume.shape[0]:
        raise UsageError(f"planes {start}:{stop} are not among its planes 0:{volume.shape[0]}", where=volume.path)
    return start, stop


def probabilities_name(output: str | PathLike[str]) -> str:
    """``labels.ome.zarr`` -> ``labels_probabilities.ome.zarr``."""
    path = fspath(output)
    lower = path.lower()
    for suffix in (".ome.zarr", ".ome.tiff", ".ome.tif"):
        if lower.endswith(suffix):
            return f"{path[: -len(suffix)]}_probabilities{path[-len(suffix) :]}"
    stem, dot, suffix = path.rpartition(".")
    return f"{stem}_probabilities{dot}{suffix}" if dot else f"{path}_probabilities"


def influenced(filled: np.ndarray, blocks: Sequence[FeatureBlock]) -> np.ndarray:
    """Pixels (ny, nx) bool whose features look at a filled voxel, by the largest radius of the blocks.

    Families that see the whole plane (the normalisation of Gabor, twenty steps of diffusion) are not counted: their
    dependence on one far voxel is slight, and counting it would unlabel the plane.
    """
    from scipy import ndimage

    square = 2 * max((block.radius or 0) for block in blocks) + 1
    return ndimage.maximum_filter(filled, size=square, mode="constant", cval=False)


def provenance(
    volume: Volume, model: Model, *, planes: tuple[int, int], scale: IntensityScale, nan: str
) -> dict[str, Any]:
    """What made the labels: enough to make them again."""
    return {
        "made_by": f"gpu_tomoclass {__version__}",
        "model": {"hash": model.hash, "versions": dict(model.versions), "created": model.created},
        "input": volume.fingerprint(),
        "settings": {"planes": list(planes), "axes": volume.axes, "intensity": scale.to_dict(), "nan": nan},
    }
