"""Check whether a model fits a volume: how far the volume's features are from those that the model was trained among.

Of every channel a model remembers how it was distributed over the marked planes, and how sure the forest was there.
In a volume of another reconstruction, dose or alignment another share of the pixels is below the thresholds that the
forest asks for, and the forest is less sure: then labels are wrong although nothing fails. ``docs/quality.md`` has
what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import (
    FeatureBank,
    FeatureEngine,
    IntensityScale,
    PreparedPlane,
    aspect_of,
    prepare_plane,
    prepare_slab,
)
from gpu_tomoclass.forest import DeviceForest, Forest, lead, predict_probabilities
from gpu_tomoclass.model import N_QUANTILES, Model
from gpu_tomoclass.training.neighbours import beside
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Crop, Region, Volume, VolumeLike

N_PLANES = 8
SAMPLE_PIXELS = 20_000
LEVELS = np.linspace(0.0, 1.0, N_QUANTILES)
# Chosen on the pairs of benchmarks/transfer.py; docs/quality.md says how well they separate good from bad.
DOUBTFUL_DRIFT, WRONG_DRIFT = 0.05, 0.10
DOUBTFUL_LOSS, WRONG_LOSS = 0.05, 0.12  # lost mean margin
# With what adapting would do as a witness: share of pixels moved, and a quarter of the margin that the map would gain.
# A quarter is about their ratio (12.7 to 55.2) in a logistic regression on the pairs that limits were chosen on.
OF_GAIN, DOUBTFUL_MOVE, WRONG_MOVE = 0.25, 0.031, 0.044
NEAR_DRIFT, NEAR_LOSS = 0.09, 0.08  # need not be doubtful
SAME = 0.02  # drift and loss of other planes of the training volume: then the map moves what it does by chance
LOST_ACCURACY = 0.03  # compared with a model trained on the volume itself: more is a bad transfer


@dataclass(frozen=True)
class Drift:
    """Comparison of a volume with what a model was trained among.

    Attributes
    ----------
    verdict : {"fits", "doubtful", "does not fit"}
    drift : float
        Mean over the questions of the forest ("is the value below the threshold?") of the difference between the shares
        of pixels that say yes, here and on the training planes; a question counts by the share of pixels it is asked.
        0 is equal, 1 is disjoint.
    per_family : dict
        The same for the questions about each family, largest first.
    outside : float
        Share of values, of channels weighted the same way, that are outside of the range of the training planes.
    mean_margin, trained_margin : float
        Mean lead of the best class over the second, here and on the training planes (of several volumes, the nearest).
    planes : list of int
        Those looked at.
    moved : float or None
        Share of the pixels that would change their class if the model were adapted to the volume (see
        :func:`gpu_tomoclass.training.adapt`): the best witness. None for models that cannot be adapted.
    surer : float or None
        How much more the best class would lead on average, if the model were adapted.
    """

    verdict: str
    drift: float
    per_family: Mapping[str, float]
    outside: float
    mean_margin: float
    trained_margin: float
    planes: Sequence[int]
    moved: float | None = None
    surer: float | None = None

    def explain(self) -> str:
        """Difference, in one phrase."""
        worst = [f"{family} {value:.2f}" for family, value in list(self.per_family.items())[:3]]
        return (
            f"its features differ from those of the training planes (drift {self.drift:.2f}; most in"
            f" {', '.join(worst)}), {100 * self.outside:.1f} % of values are outside the training range, and the best"
            f" class leads by {self.mean_margin:.2f} on average instead of {self.trained_margin:.2f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "per_family": dict(self.per_family), "planes": list(self.planes)}


def channel_quantiles(sample: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Values of each channel at evenly spaced levels: (n_pixels, n_channels) -> (n_channels, N_QUANTILES) float32.

    Missing and infinite values are left out; a channel that has no others is 0.
    """
    found = np.zeros((sample.shape[1], N_QUANTILES), dtype=np.float32)
    for channel, values in enumerate(sample.T):
        finite = values[np.isfinite(values)]
        if finite.size:
            # Quantiles that are values of the channel, so that rounding cannot push them past each other.
            found[channel] = np.quantile(finite, LEVELS, method="inverted_cdf")
    return found


def probabilities_of(forest: Forest, sample: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities of the classes for a sample: (n_pixels, n_channels) -> (n_classes, n_pixels)."""
    return predict_probabilities(forest, np.ascontiguousarray(sample.T))


def asker(forest: Forest, device: Device) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """A function like :func:`probabilities_of` for many samples; on the device, where that runs kernels."""
    if not device.runs_kernels:
        return lambda sample: probabilities_of(forest, sample)
    on_device = DeviceForest(forest, device)
    return lambda sample: device.numpy(on_device.probabilities(device.array(np.ascontiguousarray(sample.T)))).copy()


def mean_lead(probabilities: npt.NDArray[np.float32]) -> float:
    """Mean lead of the best class over the second: (n_classes, n_pixels) -> 0..1."""
    return float(lead(probabilities).mean(dtype=np.float64))


def question_weights(forest: Forest) -> npt.NDArray[np.float64]:
    """By how much of the training weight each node was asked, summing to 1 over the forest: (n_nodes,); leaves 0."""
    weight = forest.question_shares()
    total = weight.sum()
    return weight / total if total > 0 else weight


def share_below(quantiles: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Share of a channel's training values below thresholds, between remembered values by interpolation.

    Parameters
    ----------
    quantiles : numpy.ndarray
        (N_QUANTILES,) of one channel.
    thresholds : numpy.ndarray
        (n,)

    Returns
    -------
    numpy.ndarray
        (n,) float64, wrong by 1 / (N_QUANTILES - 1) at most.
    """
    known = quantiles.astype(np.float64)
    after = np.searchsorted(known, thresholds, side="left")
    inside = (after > 0) & (after < known.size)
    share = np.where(after == 0, 0.0, 1.0)
    low, high = known[after[inside] - 1], known[after[inside]]  # low < threshold <= high
    share[inside] = (after[inside] - 1 + (thresholds[inside] - low) / (high - low)) / (known.size - 1)
    return share


def question_drift(
    forest: Forest, quantiles: npt.NDArray[np.float32], sample: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Of each node, how much more or fewer pixels of a sample than of the training planes say yes: (n_nodes,) 0..1.

    Parameters
    ----------
    forest : Forest
    quantiles : numpy.ndarray
        (n_channels, N_QUANTILES)
    sample : numpy.ndarray
        (n_pixels, n_channels); missing and infinite values are left out.
    """
    found = np.zeros(forest.n_nodes)
    for channel in forest.used_features():
        nodes = np.flatnonzero(forest.feature == channel)
        values = sample[:, channel]
        values = np.sort(values[np.isfinite(values)])
        if values.size:
            here = np.searchsorted(values, forest.threshold[nodes], side="left") / values.size
            found[nodes] = np.abs(here - share_below(quantiles[channel], forest.threshold[nodes]))
    return found


def outside_range(quantiles: npt.NDArray[np.float32], sample: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Share of the values of each channel outside of the training planes' range: (n_channels,)."""
    return ((sample < quantiles[:, 0]) | (sample > quantiles[:, -1])).mean(axis=0)


@dataclass(frozen=True)
class Looked:
    """Planes of a volume that are looked at, and of them the voxels that count.

    Attributes
    ----------
    volume : Volume
    region : Region
    planes : list of int
    """

    volume: Volume
    region: Region
    planes: list[int]

    @classmethod
    def at(
        cls,
        volume: Volume,
        *,
        planes: tuple[int, int | None] | None = None,
        crop: Crop | None = None,
        mask: VolumeLike | None = None,
        n_planes: int = N_PLANES,
    ) -> Looked:
        """So many planes, evenly spaced among those that hold voxels that count; raises as :func:`check_drift`."""
        first, last = (0, None) if planes is None else planes
        last = volume.shape[0] if last is None else last
        if not 0 <= first < last <= volume.shape[0] or n_planes < 1:
            raise UsageError(
                f"{n_planes} planes of {first}:{last} cannot be looked at",
                do=f"give 1 or more of 0:{volume.shape[0]}",
            )
        region = Region.of(volume, planes=(first, last), crop=crop, mask=mask)
        useful = np.array([z for z in range(*region.box[0]) if region.mask is None or not _nothing(region.outside(z))])
        if not useful.size:
            raise DataError(
                "the mask holds no voxel of these planes", where=None if region.mask is None else region.mask.path
            )
        n = min(n_planes, useful.size)
        return cls(volume, region, useful[((np.arange(n) + 0.5) * useful.size / n).astype(int)].tolist())

    def pixels(self, z: int, plane: PreparedPlane) -> npt.NDArray[np.int64]:
        """Numbers of the random pixels of a plane that are looked at."""
        n = -(-SAMPLE_PIXELS // len(self.planes))
        found = sampled_pixels(plane.image.size, n, outside=self.region.outside(z), seed=z)
        return found if plane.filled is None else found[~plane.filled.ravel()[found]]

    def beside(self, z: int, plane: PreparedPlane, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Of each of these pixels the one it is compared with: itself where that does not count."""
        found = beside(pixels, plane.image.shape)
        for out in (self.region.outside(z), plane.filled):
            if out is not None:
                found = np.where(out.ravel()[found], pixels, found)
        return found

    def grey(self, scale: IntensityScale, *, nan: str) -> npt.NDArray[np.float32]:
        """Grey values of the pixels looked at: (n_pixels,)."""
        planes = [(z, prepare_plane(self.volume, z, scale=scale, nan=nan)) for z in self.planes]
        return np.concatenate([plane.image.ravel()[self.pixels(z, plane)] for z, plane in planes if not plane.missing])


def look_at(
    bank: FeatureBank,
    looked: Looked,
    *,
    engine: FeatureEngine,
    scale: IntensityScale,
    nan: str,
    with_beside: bool = False,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Channels of the pixels looked at, (n_pixels, n_channels), and the planes that could be read.

    ``with_beside`` gives as many rows again after these: of the pixel :func:`beside` each.

    Raises
    ------
    DataError
        If there is no such pixel.
    """
    volume, samples, neighbours, used = looked.volume, [], [], []
    halo = bank.z_reach(aspect_of(volume.voxel_size))
    for done, z in enumerate(looked.planes, start=1):
        slab = prepare_slab(volume, z, z + 1, halo=halo, scale=scale, nan=nan)
        plane = slab.wanted[0]
        if not plane.missing:
            computed = engine.device.numpy(engine.compute(slab.images, place=slab.place))
            channels = computed.reshape(bank.n_channels, -1)
            pixels = looked.pixels(z, plane)
            samples.append(channels[:, pixels].T.copy())
            if with_beside:
                neighbours.append(channels[:, looked.beside(z, plane, pixels)].T.copy())
            used.append(z)
        if progress is not None:
            progress(done, len(looked.planes))
    if not sum(len(sample) for sample in samples):
        raise DataError(f"none of the planes {looked.planes} has a pixel to look at", where=volume.path)
    return np.concatenate([*samples, *neighbours]), used


def _nothing(outside: npt.NDArray[np.bool_] | None) -> bool:
    return outside is not None and bool(outside.all())


def sampled_pixels(
    n_pixels: int, n: int, *, outside: npt.NDArray[np.bool_] | None, seed: int | Sequence[int]
) -> npt.NDArray[np.int64]:
    """Numbers of at most ``n`` pixels of a plane, drawn with replacement from those that are not ``outside``."""
    random = np.random.default_rng(seed)
    if outside is None:
        return random.integers(n_pixels, size=min(n, n_pixels))
    among = np.flatnonzero(~outside.ravel())
    return among[random.integers(among.size, size=min(n, among.size))]


def verdict_of(drift: float, loss: float, moved: float | None = None, surer: float | None = None) -> str:
    """Verdict on drift, loss of mean margin and, where it is known, what adapting the model would move and gain."""
    if drift <= SAME and loss <= SAME:
        return "fits"
    if drift > WRONG_DRIFT or loss > WRONG_LOSS:
        return "does not fit"
    if moved is None:
        return "fits" if drift <= DOUBTFUL_DRIFT and loss <= DOUBTFUL_LOSS else "doubtful"
    evidence = moved + OF_GAIN * (surer or 0.0)
    if evidence > WRONG_MOVE:
        return "does not fit"
    return "fits" if evidence <= DOUBTFUL_MOVE and drift <= NEAR_DRIFT and loss <= NEAR_LOSS else "doubtful"


def compare(
    model: Model,
    sample: npt.NDArray[np.float32],
    *,
    planes: Sequence[int] = (),
    probabilities: npt.NDArray[np.float32] | None = None,
) -> Drift:
    """The verdict on pixels of a volume: (n_pixels, n_channels) float32.

    A model of several volumes is compared with the one of them that is nearest. ``probabilities`` are those of the
    sample, where they are known already.
    """
    assert model.quantiles is not None
    forest = model.forest
    weights = question_weights(forest)
    of_node_of_volume = [question_drift(forest, quantiles, sample) for quantiles in model.quantiles]
    drifts = [float((of_node * weights).sum()) for of_node in of_node_of_volume]
    nearest = int(np.argmin(drifts))
    drift, of_node, quantiles = drifts[nearest], of_node_of_volume[nearest], model.quantiles[nearest]
    family_of = np.empty(model.bank.n_channels, dtype=object)
    for block in model.bank.blocks:
        family_of[block.start : block.stop] = block.family
    asking = np.flatnonzero(weights > 0)
    asked = family_of[forest.feature[asking]]
    per_family: dict[str, float] = {}
    for family in dict.fromkeys(asked.tolist()):
        nodes = asking[asked == family]
        per_family[family] = float(np.average(of_node[nodes], weights=weights[nodes]))
    of_channel = np.bincount(forest.feature[asking], weights=weights[asking], minlength=forest.n_features)
    margin = mean_lead(probabilities_of(forest, sample) if probabilities is None else probabilities)
    trained = float(model.training["mean_margins"][nearest])
    return Drift(
        verdict=verdict_of(drift, trained - margin),
        drift=drift,
        per_family=dict(sorted(per_family.items(), key=lambda item: -item[1])),
        outside=float((outside_range(quantiles, sample) * of_channel).sum()),
        mean_margin=margin,
        trained_margin=trained,
        planes=list(planes),
    )
