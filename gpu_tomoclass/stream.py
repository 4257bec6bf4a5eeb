"""The only loop over the planes of a volume: read, prepare, compute, classify, write.

The result does not depend on the number of workers or on which planes are in one run: every plane is computed from
itself alone. Memory holds a few planes, whatever the depth of the volume.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.accelerated.engine import FeatureEngine
from gpu_tomoclass.accelerated.forest import DeviceForest
from gpu_tomoclass.accelerated.labels import device_labels
from gpu_tomoclass.cache import FeatureCache, block_values
from gpu_tomoclass.device import Array, Device, choose_device
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import FeatureBlock
from gpu_tomoclass.forest.predict import predict_classes, predict_probabilities
from gpu_tomoclass.intensity import IntensityScale, PreparedPlane, prepare_plane
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.planes import Progress, map_in_order
from gpu_tomoclass.volume import Volume, create_volume

INTENSITY_CHOICES = ("model", "auto", "none")
UNLABELLED = 0
MAX_SLAB = 128  # planes; beyond, launches cost nothing any more beside the work
MEMORY_SHARE = 0.8  # of a GPU's free memory; the rest is left to fragments and to what others need meanwhile


class Classifier:
    """A model made ready to classify planes on a device: only the feature blocks that its forest uses are computed.

    Several threads may use it at once; each has arrays of its own on the device.

    Parameters
    ----------
    model : Model
    device : Device
    """

    def __init__(self, model: Model, device: Device) -> None:
        self.model, self.device = model, device
        self.class_values = np.array([c.value for c in model.classes], dtype=np.uint8)
        used = model.forest.used_features()
        self.blocks: tuple[FeatureBlock, ...] = model.bank.subset([model.bank.channels[i] for i in used])
        channels = [i for block in self.blocks for i in range(block.start, block.stop)]
        self._forest = model.forest.restricted(channels)
        self._of_thread = threading.local()

    def classify(
        self,
        planes: np.ndarray,
        *,
        want_probabilities: bool = False,
        cache: FeatureCache | None = None,
        timings: dict[str, float] | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Label values, of the first largest probability, and the probabilities if they are wanted.

        Parameters
        ----------
        planes : numpy.ndarray
            (nz, ny, nx) float32, prepared.
        want_probabilities : bool
        cache : FeatureCache, optional
            Of computed features; for a slab of one plane.
        timings : dict, optional
            Seconds are added per family and for the ``"forest"``.

        Returns
        -------
        labels : numpy.ndarray
            (nz, ny, nx) uint8.
        probabilities : numpy.ndarray or None
            (n_classes, nz, ny, nx) float32.
        """
        engine, forest = self._thread_engine()
        if cache is None:
            features = engine.compute(planes, timings=timings)
        else:
            features = self._cached_features(engine, planes, cache=cache, timings=timings)
        began = time.perf_counter()
        n_classes, shape = len(self.class_values), planes.shape
        flat = features.reshape(self._forest.n_features, planes.size)
        if isinstance(forest, DeviceForest):
            found = forest.probabilities(flat)
            out = engine.workspace.array("labels", (planes.size,), np.uint8)
            values = engine.workspace.constant("class values", lambda: self.class_values)
            device_labels(self.device, found, values=values, out=out)
            labels = self.device.numpy(out)
        else:
            found = predict_probabilities(self._forest, flat)
            labels = predict_classes(found, self.class_values)
        probabilities = self.device.numpy(found).reshape(n_classes, *shape) if want_probabilities else None
        if timings is not None:
            timings["forest"] = timings.get("forest", 0.0) + time.perf_counter() - began
        self._of_thread.measured = engine.n_bytes // shape[0]
        return labels.reshape(shape).copy(), probabilities

    def slab_planes(self, shape: tuple[int, int]) -> int:
        """How many planes (ny, nx) to classify at once: one on a CPU; on a GPU what its memory holds, measured on the
        first one."""
        if not self.device.has_own_memory or not hasattr(self._of_thread, "measured"):
            return 1
        if not hasattr(self._of_thread, "slab"):
            free, held = self.device.free_memory() or 0, self._of_thread.measured
            per_plane = held + 4 * shape[0] * shape[1] * len(self.class_values)
            self._of_thread.slab = max(1, min(MAX_SLAB, int(MEMORY_SHARE * (free + held)) // per_plane))
        slab: int = self._of_thread.slab
        return slab

    def _thread_engine(self) -> tuple[FeatureEngine, DeviceForest | None]:
        if not hasattr(self._of_thread, "engine"):
            self._of_thread.engine = FeatureEngine(self.device, self.blocks)
            self._of_thread.forest = DeviceForest(self._forest, self.device) if self.device.runs_kernels else None
        return self._of_thread.engine, self._of_thread.forest

    def _cached_features(
        self, engine: FeatureEngine, planes: np.ndarray, *, cache: FeatureCache, timings: dict[str, float] | None
    ) -> Array:
        features = np.empty((self._forest.n_features, *planes.shape), dtype=np.float32)
        start = 0
        for _, channels in block_values(engine, planes[0], cache=cache, timings=timings):
            features[start : start + len(channels), 0] = channels
            start += len(channels)
        return self.device.array(features)


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
    device : str
        What computed it.
    """

    path: str
    probability_paths: tuple[str, ...]
    n_planes: int
    counts: Mapping[str, int]
    notes: Sequence[str]
    seconds: float
    seconds_per_plane: Mapping[str, float]
    device: str


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
    device: Device | None = None,
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
    device : Device, optional
        Default the first that works, with all cores; on a CPU each thread needs memory for one plane's features.
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
    device, n_workers = _device_for(device, n_planes=stop - start)
    classifier = Classifier(model, device)
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

    def slabs() -> Iterator[list[PreparedPlane]]:
        z = start
        while z < stop:
            n = min(stop - z, classifier.slab_planes(shape[1:]) if n_workers == 1 else 1)
            yield [prepare_plane(volume, i, scale=scale, nan=nan) for i in range(z, z + n)]
            z += n

    def classified(slab: list[PreparedPlane]) -> _ClassifiedSlab:
        seconds: dict[str, float] = {}
        images = np.stack([plane.image for plane in slab])
        if all(plane.missing for plane in slab):
            labels = np.full(images.shape, UNLABELLED, np.uint8)
            p = np.zeros((len(names), *images.shape), np.float32) if probabilities else None
        else:
            labels, p = classifier.classify(images, want_probabilities=probabilities, timings=seconds)
        for i, plane in enumerate(slab):
            if plane.missing:
                labels[i] = UNLABELLED
                if p is not None:
                    p[:, i] = 0
            elif nan == "mask" and plane.filled is not None:
                labels[i][influenced(plane.filled, classifier.blocks)] = UNLABELLED
        return _ClassifiedSlab(labels, p, seconds, [note for plane in slab for note in plane.notes])

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
        done = 0
        for slab in map_in_order(classified, slabs(), workers=n_workers):
            for i, labels in enumerate(slab.labels):
                label_writer.write_plane(done, labels)
                if probability_writer is not None and slab.probabilities is not None:
                    probability_writer.write_plane(done, slab.probabilities[:, i])
                done += 1
            n_voxels += np.bincount(slab.labels.ravel(), minlength=256)
            notes.extend(slab.notes)
            for name, value in slab.seconds.items():
                timings[name] += value
            if progress is not None:
                progress(done, stop - start)
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
        device=device.name,
    )


@dataclass(frozen=True)
class _ClassifiedSlab:
    labels: np.ndarray  # (nz, ny, nx) uint8
    probabilities: np.ndarray | None  # (n_classes, nz, ny, nx) float32
    seconds: Mapping[str, float]
    notes: Sequence[str]


def _device_for(device: Device | None, *, n_planes: int) -> tuple[Device, int]:
    """The device of each worker and the number of workers: planes side by side, unless there is only one plane."""
    chosen = choose_device() if device is None else device
    return (chosen, 1) if n_planes == 1 else chosen.side_by_side()


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
