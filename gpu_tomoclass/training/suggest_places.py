"""Where to mark next: patches of planes from which a forest would learn most.

A patch is worth a stroke when the forest is unsure in it, when nothing like it was marked, and when much of the volume
is like it. All three are in one figure: what marking a patch says about every other patch, weighted by how unsure the
forest is there, minus what the marked ones say already. Patches are taken one after the other, each the best beside
those before it, so they spread over what is different. (Facility location, a submodular function, whose greedy maximum
is at least 63 % of the best.)
"""

from __future__ import annotations

from collections.abc import Sequence
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
from gpu_tomoclass.training.drift import Looked, question_weights
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Crop, VolumeLike, open_volume, refuse_binned

PATCH = 24  # pixels; about what a person marks at a time
N_PLANES = 24
N_CHANNELS = 24  # that describe a patch: those that the forest asks most
MARKED_PIXELS = 5  # in a patch that counts as marked
MOST_PATCHES = 3000  # compared with each other; of more, every so many-th


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


@dataclass(frozen=True)
class _Patch:
    z: int
    y: int
    x: int
    uncertainty: float
    marked: bool
    described: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]


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
    describe = _Description(model)
    patches: list[_Patch] = []
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
            patches += _patches(z, p, describe(channels), marks, inside, size=min(patch, *image.shape))
        if progress is not None:
            progress(done, len(numbers))
    ranked = _ranked(patches, n=n, by_plane=whole_planes, candidates=set(looked.planes))
    return [_suggestion(model, shown, place, size=patch, whole=whole_planes) for place in ranked]


class _Description:
    """Channels of a pixel as numbers that compare: where they lie among those of the training planes."""

    def __init__(self, model: Model) -> None:
        weight = np.bincount(
            np.maximum(model.forest.feature, 0), weights=question_weights(model.forest), minlength=model.bank.n_channels
        )
        self.channels = np.argsort(-weight, kind="stable")[:N_CHANNELS]
        self._known = None if model.quantiles is None else model.quantiles.mean(axis=0)[self.channels]

    def __call__(self, channels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, ny, nx) -> 0..1."""
        result = np.empty(channels.shape, np.float32)
        for i, values in enumerate(channels):
            known = np.quantile(values, np.linspace(0, 1, 33)) if self._known is None else self._known[i]
            result[i] = np.interp(values, known, np.linspace(0, 1, len(known)))
        return result


def _patches(
    z: int,
    p: npt.NDArray[np.float32],
    described: npt.NDArray[np.float32],
    marks: npt.NDArray[np.bool_],
    inside: npt.NDArray[np.bool_] | None,
    *,
    size: int,
) -> list[_Patch]:
    unsure = 1 - lead(p)
    ny, nx = marks.shape
    found = []
    for y in range(0, ny - size + 1, size):
        for x in range(0, nx - size + 1, size):
            box = np.s_[..., y : y + size, x : x + size]
            if inside is not None and inside[box].mean() < 0.5:
                continue
            own = p[box].mean(axis=(1, 2))
            numbers = np.concatenate([described[box].mean(axis=(1, 2)), described[box].std(axis=(1, 2)), 2 * own])
            marked = int(marks[box].sum()) >= MARKED_PIXELS
            found.append(_Patch(z, y, x, float(unsure[box].mean()), marked, numbers.astype(np.float32), own))
    return found


@dataclass(frozen=True)
class _Place:
    patch: _Patch
    novelty: float
    alike: float


def _ranked(patches: Sequence[_Patch], *, n: int, by_plane: bool, candidates: set[int]) -> list[_Place]:
    """The patches (or one of each plane) that say most about all others, each beside those before it."""
    free = [p for p in patches if p.z in candidates and not p.marked]
    free = free[:: max(1, -(-len(free) // MOST_PATCHES))]
    if not free:
        return []
    described = np.stack([p.described for p in free])
    distance = _distances(described, described)
    scale = float(np.median(distance)) or 1.0
    like = np.exp(-2 * distance / scale)
    unsure = np.array([p.uncertainty for p in free])
    covered = np.zeros(len(free))
    marked = [p.described for p in patches if p.marked]
    if marked:
        covered = np.exp(-2 * _distances(described, np.stack(marked)) / scale).max(axis=1)
    groups = np.unique([p.z for p in free], return_inverse=True)[1] if by_plane else np.arange(len(free))
    open_ = np.ones(len(free), np.bool_)
    found: list[_Place] = []
    while open_.any() and len(found) < n:
        says = np.maximum(like - covered[np.newaxis], 0) @ unsure * unsure
        if by_plane:  # what all of a plane's patches say together
            together = [
                np.maximum(like[groups == g].max(axis=0) - covered, 0) @ unsure for g in range(groups.max() + 1)
            ]
            total = np.where(open_, np.array(together)[groups], -1)
            best = np.flatnonzero(total == total.max())
            chosen = int(best[np.argmax(says[best])])
        else:
            chosen = int(np.argmax(np.where(open_, says, -1)))
        found.append(_Place(free[chosen], float(1 - covered[chosen]), float((like[chosen] > 0.5).mean())))
        taken = groups == groups[chosen]
        covered = np.maximum(covered, like[taken].max(axis=0))
        open_ &= ~taken
    return found


def _distances(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Squared, (n_a, n_b)."""
    squares = (a.astype(np.float64) ** 2).sum(axis=1)[:, None] + (b.astype(np.float64) ** 2).sum(axis=1)[None]
    return np.maximum(squares - 2 * a.astype(np.float64) @ b.astype(np.float64).T, 0)


def _suggestion(
    model: Model, shown: dict[int, tuple[np.ndarray, np.ndarray]], place: _Place, *, size: int, whole: bool
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
