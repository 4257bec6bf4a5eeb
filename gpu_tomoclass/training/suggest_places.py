"""Where to mark next: patches of planes from which a forest would learn most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.annotations import Annotation
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import FeatureEngine, aspect_of, prepare_slab
from gpu_tomoclass.forest import DeviceForest, lead, predict_probabilities
from gpu_tomoclass.model import Model, fits_volume
from gpu_tomoclass.training.drift import Looked
from gpu_tomoclass.training.patch_ranking import (
    PATCH,
    Description,
    Patch,
    RankedPatch,
    patches_of_plane,
    ranked_patches,
)
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Crop, VolumeLike, open_volume, refuse_binned

N_PLANES = 24


@dataclass(frozen=True, eq=False)
class SuggestedPlace:
    """A place worth a stroke.

    Attributes
    ----------
    z, y, x, height, width : int
        Plane, first row and column, rows and columns of the patch (of the plane, where planes were asked for).
    uncertainty : float
        Mean over it of one minus the lead of the best class over the second.
    novelty : float
        From 0 (such a place was marked, or suggested before) to 1.
    alike : float
        Share of the patches looked at that are more like it than not.
    classes : tuple of LabelClass
        The two that the forest hesitates between most, the more probable first.
    image : numpy.ndarray
        (height, width) as the features see it.
    labels : numpy.ndarray
        (height, width) uint8, present classes.
    """

    z: int
    y: int
    x: int
    height: int
    width: int
    uncertainty: float
    novelty: float
    alike: float
    classes: tuple[LabelClass, ...]
    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]


def suggest(
    model: Model,
    volume: VolumeLike,
    annotation: Annotation | None = None,
    *,
    n: int = 20,
    whole_planes: bool = False,
    planes: tuple[int, int | None] | None = None,
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    n_planes: int = N_PLANES,
    patch: int = PATCH,
    nan: str = "fill",
    force: bool = False,
    device: Device | str = "auto",
    progress: Progress | None = None,
) -> list[SuggestedPlace]:
    """Rank places of a volume by how much a stroke there would teach the model.

    Parameters
    ----------
    model : Model
    volume : Volume, path or array
    annotation : Annotation, optional
        Strokes that are there: places like those they are on are not suggested.
    n : int
        At most so many.
    whole_planes : bool
        Rank planes instead of patches.
    planes, crop, mask : optional
        Look only there; see :func:`gpu_tomoclass.check_drift`.
    n_planes : int
        Planes to look at, evenly spaced.
    patch : int
        Edge of a patch in pixels.
    nan, force, device
        See :func:`gpu_tomoclass.check_drift`.
    progress : callable, optional
        Called with (planes done, planes in all).

    Returns
    -------
    list of SuggestedPlace
        The best first.

    Raises
    ------
    ModelError
        If the model does not fit the volume.
    UsageError
        If there are no such planes, or a number is below 1.
    """
    volume = open_volume(volume)
    if n < 1 or patch < 4:
        raise UsageError(f"{n} places of {patch} pixels cannot be suggested", do="give 1 or more, of 4 or more")
    refuse_binned(volume)
    fits_volume(model, volume, force=force)
    looked = Looked.at(volume, planes=planes, crop=crop, mask=mask, n_planes=n_planes)
    if annotation is not None and annotation.shape != volume.shape:
        raise DataError(f"the annotation belongs to {annotation.shape}, the volume is {volume.shape}")
    painted = [] if annotation is None else [int(z) for z in annotation.planes() if int(z) not in looked.planes]
    every = max(1, len(painted) * 2 // n_planes)  # marked planes, at most about half as many as others
    numbers = [*looked.planes, *painted[::every]]
    chosen_device = choose_device(device)
    engine = FeatureEngine(chosen_device, model.bank.blocks)
    forest = DeviceForest(model.forest, chosen_device) if chosen_device.runs_kernels else None
    halo = model.bank.z_reach(aspect_of(volume.voxel_size))
    quantiles = None if model.quantiles is None else model.quantiles.mean(axis=0)
    describe = Description(model.forest, quantiles=quantiles)
    patches: list[Patch] = []
    shown: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    values = np.array([c.value for c in model.classes], np.uint8)
    for done, z in enumerate(numbers, start=1):
        slab = prepare_slab(volume, z, z + 1, halo=halo, scale=model.intensity, nan=nan)
        if not slab.wanted[0].missing:
            image = slab.wanted[0].image
            computed = engine.compute(slab.images, place=slab.place)
            flat = computed.reshape(model.bank.n_channels, -1)
            found = predict_probabilities(model.forest, flat) if forest is None else forest.probabilities(flat)
            p = engine.device.numpy(found).reshape(-1, *image.shape)
            shown[z] = image, values[p.argmax(axis=0)]
            marks = np.zeros(image.shape, np.bool_)
            if annotation is not None:
                y, x, _ = annotation.on_plane(z)
                marks[y, x] = True
            channels = engine.device.numpy(computed)[describe.channels, 0]
            outside = looked.region.outside(z)
            inside = None if outside is None else ~outside
            patches += patches_of_plane(
                z, 1 - lead(p), p, describe(channels), marks, inside, size=min(patch, *image.shape)
            )
        if progress is not None:
            progress(done, len(numbers))
    ranked = ranked_patches(patches, n=n, by_plane=whole_planes, candidates=set(looked.planes))
    return [_suggestion(model, shown, place, size=patch, whole=whole_planes) for place in ranked]


def _suggestion(
    model: Model, shown: dict[int, tuple[np.ndarray, np.ndarray]], place: RankedPatch, *, size: int, whole: bool
) -> SuggestedPlace:
    found = place.patch
    image, labels = shown[found.z]
    size = min(size, *image.shape)
    y, x, height, width = (0, 0, *image.shape) if whole else (found.y, found.x, size, size)
    box = np.s_[y : y + height, x : x + width]
    best = np.argsort(-found.probabilities, kind="stable")[:2]
    return SuggestedPlace(
        found.z, y, x, height, width, found.uncertainty, place.novelty, place.alike,
        tuple(model.classes[int(k)] for k in best), image[box].copy(), labels[box].copy(),
    )  # fmt: skip
