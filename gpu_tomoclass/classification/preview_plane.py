"""One plane classified: what a person looks at before adding strokes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.slab import UNLABELLED
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import FeatureCache, aspect_of, prepare_slab
from gpu_tomoclass.forest import lead
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.volumes import Crop, Region, VolumeLike, open_volume


@dataclass(frozen=True)
class Preview:
    """A classified plane.

    Attributes
    ----------
    plane : numpy.ndarray
        (ny, nx) as stored.
    labels : numpy.ndarray
        (ny, nx) uint8 class values.
    confidence : numpy.ndarray
        (ny, nx) float32 in 0..1: the largest probability minus the second.
    counts : dict
        Pixels per class name.
    notes : sequence of str
    """

    plane: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    counts: Mapping[str, int]
    notes: Sequence[str]


def preview(
    model: Model,
    volume: VolumeLike,
    *,
    plane: int,
    nan: str = "error",
    force: bool = False,
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    cache: FeatureCache | None = None,
    device: Device | str = "auto",
) -> Preview:
    """Classify plane ``plane`` of a volume, file or array; with a cache an annotated plane costs only the forest.

    What is outside of ``crop`` or ``mask`` (see :meth:`gpu_tomoclass.volumes.Region.of`) is not labelled.

    Raises
    ------
    UsageError
        If there is no such plane.
    ModelError
        If the model does not fit the volume.
    DataError
        If the plane cannot be read or used.
    """
    volume = open_volume(volume)
    if not 0 <= plane < volume.shape[0]:
        raise UsageError(f"there is no plane {plane}, only 0 to {volume.shape[0] - 1}", where=volume.path)
    outside = Region.of(volume, crop=crop, mask=mask).outside(plane)
    notes = [*volume.notes, *fits_volume(model, volume, force=force)]
    classifier = Classifier(model, choose_device(device))
    halo = classifier.halo(aspect_of(volume.voxel_size))
    prepared = prepare_slab(volume, plane, plane + 1, halo=halo, scale=model.intensity, nan=nan)
    slab, probabilities = classifier.classify(
        prepared.images, place=prepared.place, want_probabilities=True, cache=cache
    )
    assert probabilities is not None  # they were asked for
    labels, confidence = slab[0], lead(probabilities[:, 0])
    if outside is not None:
        labels[outside], confidence[outside] = UNLABELLED, 0
    return Preview(
        plane=volume.plane(plane),
        labels=labels,
        confidence=confidence,
        counts={c.name: int((labels == c.value).sum()) for c in model.classes},
        notes=[*notes, *prepared.notes, *(cache.notes if cache is not None else ())],
    )
