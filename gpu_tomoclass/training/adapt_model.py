"""Check whether a model fits a volume, and make it fit without new strokes: by a map of grey values.

Reconstructions differ mostly in how grey values lie: a map of the volume's to those of the training volume undoes that.
Equal quantiles would be such a map if both volumes held the same shares of each class. They need not, so quantiles of
the whole volume are only the beginning: the forest classifies the mapped planes, and then a map through the median grey
value of each class takes its place, which does not depend on how much there is of a class. Twice is enough.
``docs/adapt.md`` says what was compared and measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, ModelError
from gpu_tomoclass.features import FeatureEngine, IntensityScale
from gpu_tomoclass.model import GREY_LEVELS, Model, check_fits, fits_volume
from gpu_tomoclass.training.drift import (
    DOUBTFUL_DRIFT,
    N_PLANES,
    WRONG_DRIFT,
    Drift,
    Looked,
    asker,
    compare,
    look_at,
    verdict_of,
)
from gpu_tomoclass.training.grey_memory import FEW, sure, weighted_quantiles
from gpu_tomoclass.training.neighbours import agreement, share_of_map
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Crop, VolumeLike, open_volume

ROUNDS = 2
SAME_GREY = 0.5  # medians of two classes nearer than this part of their quartiles' distance: not told apart by grey
LOST_MARGIN, MORE_DRIFT = 0.07, 0.05  # more than that after adapting: not kept; docs/adapt.md
SURER, LESS_SURE = 0.02, -0.015  # gain of margin: no more, and a model that is near is left as it is; docs/adapt.md
FITS = "the model fits as it is"
NEAR = (
    "its features are near those of the training planes, and a map would make the forest hardly surer, or less sure:"
    " perhaps the specimen is of another composition; the model is left as it is (--always adapts it all the same)"
)
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Adaptation:
    """Result of an adaptation.

    Attributes
    ----------
    model : Model
        Adapted, or the one that was given where that fits better.
    adapted : bool
        Whether it was.
    before, after : Drift
        What ``check`` says of the model as given, and of the adapted one; ``after`` is None where the model fits, or
        is so near to that that it is left as it is.
    reason : str
        Why it was adapted or not, in a sentence.
    share : float
        So much of the way from grey values as they are to those of the training volume: less than 1 where labels would
        agree less with their neighbours.
    """

    model: Model
    adapted: bool
    before: Drift
    after: Drift | None
    reason: str
    share: float = 1.0


@dataclass(frozen=True)
class Tried:
    """A model on some planes of a volume, as given and with a map of grey values, and the scale with that map.

    ``after`` is None where grey values are the same everywhere. ``alike`` is how well labels agree with their
    neighbours, as given and with the map; so much as ``share`` should be used of it, which is ``part``.
    """

    before: Drift
    after: Drift | None
    scale: IntensityScale
    alike: tuple[float, float]
    share: float
    part: IntensityScale


def check_drift(
    model: Model,
    volume: VolumeLike,
    *,
    device: Device | str = "auto",
    planes: tuple[int, int | None] | None = None,
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    n_planes: int = N_PLANES,
    nan: str = "fill",
    force: bool = False,
    progress: Progress | None = None,
) -> Drift:
    """Compare some planes of a volume with what the model was trained among.

    A model that could be adapted is tried so, too: what that would move is the best witness.

    Parameters
    ----------
    model : Model
        One that was trained here from a volume.
    volume : Volume, path or array
    device : str or Device
        ``"auto"`` is the first that works.
    planes : (int, int or None), optional
        First and last + 1 of the planes to choose from; default all. Planes without the specimen look foreign to a
        model that was trained on planes with it.
    crop, mask : optional
        Look only at these voxels; see :meth:`gpu_tomoclass.volumes.Region.of`.
    n_planes : int
        So many of them, evenly spaced.
    nan : {"error", "fill", "mask"}
        Non-finite voxels.
    force : bool
        Although the voxel size differs.
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    ModelError
        If the model knows nothing of its training volume, or does not fit this one at all.
    UsageError
        If there are no such planes.
    DataError
        If they hold nothing to look at.
    """
    if model.quantiles is None or len(model.quantiles) != len(model.training.get("mean_margins", [])):
        raise ModelError(
            "the model does not know the volume it was trained on",
            do="train it here from a volume; models from Fiji and from ARFF tables cannot be checked",
        )
    volume = open_volume(volume)
    fits_volume(model, volume, force=force)
    looked = Looked.at(volume, planes=planes, crop=crop, mask=mask, n_planes=n_planes)
    if remembers_grey(model):
        return try_map(model, looked, device=device, nan=nan, progress=progress).before
    engine = FeatureEngine(choose_device(device), model.bank.blocks)
    sample, used = look_at(model.bank, looked, engine=engine, scale=model.intensity, nan=nan, progress=progress)
    return compare(model, sample, planes=used)


def adapt(
    model: Model,
    volume: VolumeLike,
    *,
    device: Device | str = "auto",
    planes: tuple[int, int | None] | None = None,
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    n_planes: int = N_PLANES,
    nan: str = "fill",
    force: bool = False,
    always: bool = False,
    progress: Progress | None = None,
) -> Adaptation:
    """Make a model fit another volume, if it does not: voxel values are mapped to those of the training volume.

    Parameters
    ----------
    model : Model
        One that was trained here from a volume.
    volume : Volume, path or array
        Of the same kind of specimen, voxels of the same size; voxel values may be of any type and range.
    device, planes, crop, mask, n_planes, nan, force
        See :func:`gpu_tomoclass.training.check_drift`: the same planes are looked at.
    always : bool
        Keep a map that fits although the model fits as it is, or nearly.
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    ModelError
        If the model knows nothing of its training volume, or has voxels of another size.
    UsageError
        If there are no such planes.
    DataError
        If they hold nothing to look at.
    """
    if not remembers_grey(model):
        raise ModelError(
            "the model does not remember the grey values of its training volume",
            do="train it again here from the volume; models from Fiji and from ARFF tables cannot be adapted",
        )
    volume = open_volume(volume)
    other = replace(model, training={**model.training, "dtype": volume.dtype.name})
    check_fits(other, dtype=volume.dtype, voxel_size=volume.voxel_size, bin=volume.bin, force=force)
    looked = Looked.at(volume, planes=planes, crop=crop, mask=mask, n_planes=n_planes)
    tried = try_map(model, looked, device=device, nan=nan, progress=progress)
    before, after = tried.before, tried.after
    if before.verdict == "fits" and not always:
        return Adaptation(model, False, before, None, FITS)
    if after is None:
        raise DataError("grey values are the same everywhere on the planes looked at", where=volume.path)
    keep, reason = keeps_map(before, after, always=always)
    if not keep:
        return Adaptation(model, False, before, None if reason == NEAR else after, reason)
    if tried.share < 1:
        engine = FeatureEngine(choose_device(device), model.bank.blocks)
        sample, used = look_at(model.bank, looked, engine=engine, scale=tried.part, nan=nan)
        after = compare(model, sample, planes=used, probabilities=asker(model.forest, engine.device)(sample))
        reason = (
            f"adapted {100 * tried.share:.0f} % of the way, as the whole map frays regions (neighbouring labels agree"
            f" by {tried.alike[1]:.2f} instead of {tried.alike[0]:.2f}): {_figures(before, after)}"
        )
    made = {
        "from": model.hash,
        "volume": volume.fingerprint(),
        "planes": list(looked.planes),
        "share": round(tried.share, 4),
        **{
            name: {"drift": d.drift, "mean_margin": d.mean_margin} for name, d in (("before", before), ("after", after))
        },
    }
    adapted = replace(other, intensity=tried.part, training={**other.training, "adapted": made}, report=None)
    return Adaptation(adapted, True, before, after, reason, tried.share)


def try_map(
    model: Model, looked: Looked, *, device: Device | str, nan: str = "fill", progress: Progress | None = None
) -> Tried:
    """Classify the planes as given and with a map of grey values; nothing is decided yet."""
    engine = FeatureEngine(choose_device(device), model.bank.blocks)
    ask = asker(model.forest, engine.device)
    total, done = len(looked.planes) * (ROUNDS + 2), 0

    def sample(scale: IntensityScale, *, with_beside: bool = False) -> npt.NDArray[np.float32]:
        nonlocal done

        def advance(n: int, _: int) -> None:
            if progress is not None:
                progress(done + n, total)

        found, used[:] = look_at(
            model.bank, looked, engine=engine, scale=scale, nan=nan, with_beside=with_beside, progress=advance
        )
        done += len(looked.planes)
        return found

    def with_agreement(scale: IntensityScale) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
        found = sample(scale, with_beside=True)
        n = len(found) // 2  # the pixels looked at, then those beside them
        probabilities = ask(found)
        labels = probabilities.argmax(axis=0)
        return found[:n], probabilities[:, :n], agreement(labels[:n], labels[n:])

    used: list[int] = []
    as_given, given, alike = with_agreement(model.intensity)
    before = compare(model, as_given, planes=used, probabilities=given)
    base = _base_scale(model, looked)
    grey = as_given[:, 0] if base == model.intensity else looked.grey(base, nan=nan)
    source = _nearest(model, as_given)
    points = quantile_points(model, source, grey)
    if len(points) < 2:
        return Tried(before, None, base, (alike, alike), 1.0, base)
    for _ in range(ROUNDS):
        probabilities = ask(sample(base.mapped(points)))
        points = class_points(model, source, grey, probabilities) or points
    scale = base.mapped(points)
    mapped, probabilities, alike_mapped = with_agreement(scale)
    moved = float((given.argmax(axis=0) != probabilities.argmax(axis=0)).mean())
    after = compare(model, mapped, planes=used, probabilities=probabilities)
    surer = after.mean_margin - before.mean_margin
    loss = before.trained_margin - before.mean_margin
    before = replace(before, moved=moved, surer=surer, verdict=verdict_of(before.drift, loss, moved, surer))
    # Where grey values are far off, or of another type, labels as given may agree and be wrong: no way back to them.
    near = before.drift <= WRONG_DRIFT and looked.volume.dtype.name == model.training.get("dtype")
    share = share_of_map(alike - alike_mapped) if near else 1.0
    part = scale if share == 1 else base.mapped(_part_way(model.intensity, base, points, share))
    return Tried(before, after, scale, (alike, alike_mapped), share, part)


def _part_way(as_given: IntensityScale, base: IntensityScale, points: Points, share: float) -> Points:
    """A map between that of the model as given and the one through points, of values that went through ``base``."""
    xs, ys = np.transpose(points)
    kinks = np.array([x for x, _ in as_given.points])
    every = np.union1d(xs, (kinks - as_given.offset) / as_given.gain * base.gain + base.offset)
    given = as_given.apply((every - base.offset) / base.gain).astype(np.float64)
    return _rising(every, (1 - share) * given + share * np.interp(every, xs, ys))


def keeps_map(before: Drift, after: Drift, *, always: bool = False) -> tuple[bool, str]:
    """Tell whether to keep the map of a model that does not fit, and why in a sentence.

    Where features drift little, and the forest becomes less sure, or hardly surer where few pixels would change (the
    verdict is doubtful), the specimen may be of another composition, and a map would undo what is true. Where noise
    differs, a good map leaves the forest a little less sure and its features a little farther away; only where they are
    much worse was the map wrong.
    """
    figures = _figures(before, after)
    surer = after.mean_margin - before.mean_margin
    if before.verdict == "fits" and not always:
        return False, FITS
    least = SURER if before.verdict == "doubtful" else LESS_SURE
    if before.drift <= DOUBTFUL_DRIFT and surer <= least and not always:
        return False, NEAR
    lead = min(before.mean_margin, before.trained_margin)
    worse = lead - after.mean_margin > LOST_MARGIN or after.drift - before.drift > MORE_DRIFT
    return (False, f"not adapted, it would fit worse: {figures}") if worse else (True, f"adapted: {figures}")


def _figures(before: Drift, after: Drift) -> str:
    return (
        f"drift {after.drift:.3f} instead of {before.drift:.3f}, margin {after.mean_margin:.3f} instead of"
        f" {before.mean_margin:.3f}"
    )


def remembers_grey(model: Model) -> bool:
    """Tell whether the model can be adapted."""
    shares = model.training.get("class_shares", [])
    return model.grey is not None and [len(row) for row in shares] == [len(model.classes)] * len(model.grey)


def _base_scale(model: Model, looked: Looked) -> IntensityScale:
    """Scale that values go through before they are mapped: floats, or another type, need a scale of their own."""
    if looked.volume.dtype.name == model.training.get("dtype") and model.intensity.kind != "percentile":
        return replace(
            model.intensity, kind="as-is" if model.intensity.kind == "mapped" else model.intensity.kind, points=()
        )
    return IntensityScale.for_volume(looked.volume)


def _nearest(model: Model, sample: npt.NDArray[np.float32]) -> int:
    """The training volume whose grey values are nearest, in the middle of the distribution."""
    assert model.grey is not None
    levels = np.linspace(0.05, 0.95, 19)
    here = np.quantile(sample[:, 0], levels)
    there = [np.interp(levels, GREY_LEVELS, rows[0]) for rows in model.grey]
    return int(np.argmin([np.abs(here - values).mean() for values in there]))


def quantile_points(model: Model, source: int, grey: npt.NDArray[np.float32]) -> Points:
    """The map under which both volumes have the same quantiles."""
    assert model.grey is not None
    here = weighted_quantiles(grey, np.ones(grey.size), GREY_LEVELS)
    return _rising(here, model.grey[source, 0].astype(np.float64))


def class_points(
    model: Model, source: int, grey: npt.NDArray[np.float32], probabilities: npt.NDArray[np.float32]
) -> Points | None:
    """The map under which the pixels of each class have the same median; None where one grey value only is there.

    Classes that grey values do not tell apart in training share a point, the mean of their medians: two points so near
    each other would have the noise of medians for a slope.
    """
    assert model.grey is not None
    middle = np.array([0.5])
    found: list[tuple[float, float, float]] = []  # median in training, spread there, median here
    for k, weight in enumerate(sure(probabilities)):
        if weight.sum() < FEW * grey.size or not model.training["class_shares"][source][k]:
            continue
        low, there, high = np.interp([0.25, 0.5, 0.75], GREY_LEVELS, model.grey[source, 1 + k]).tolist()
        found.append((there, high - low, float(weighted_quantiles(grey, weight, middle)[0])))
    found.sort()
    alike: list[list[tuple[float, float, float]]] = []
    for of_class in found:
        last = alike[-1][-1] if alike else None
        if last is not None and of_class[0] - last[0] < SAME_GREY * (of_class[1] + last[1]) / 2:
            alike[-1].append(of_class)
        else:
            alike.append([of_class])
    pairs = sorted((float(np.mean([c[2] for c in group])), float(np.mean([c[0] for c in group]))) for group in alike)
    points = _rising(*np.transpose(pairs)) if len(pairs) > 1 else []
    if len(points) < 2:
        return None
    # Beyond the classes' medians as steep as on average, to the ends of what is there, here and in training.
    xs, ys = np.transpose(points)
    slope = float(np.polyfit(xs, ys, 1)[0])
    low, high = float(model.grey[source, 0, 0]), float(model.grey[source, 0, -1])
    (first, first_to), (final, final_to) = points[0], points[-1]
    least, most = float(grey.min()), float(grey.max())
    ends: Points = []
    if least < first:
        ends.append((least, max(min(low, first_to), first_to + (least - first) * slope)))
    if most > final:
        ends.append((most, min(max(high, final_to), final_to + (most - final) * slope)))
    return _rising(*np.transpose(sorted([*points, *ends])))


def _rising(here: Sequence[float] | np.ndarray, there: Sequence[float] | np.ndarray) -> Points:
    """Points without those that do not rise."""
    here, there = np.asarray(here, np.float64), np.maximum.accumulate(np.asarray(there, np.float64))
    least = 1e-6 * (here[-1] - here[0])
    points: Points = []
    for a, b in zip(here.tolist(), there.tolist(), strict=True):
        if not points or a > points[-1][0] + least:
            points.append((a, b))
    return points
