"""The cheapest feature families that are as good as all: backward elimination by measured cost.

The most expensive family is left out if the cross-validated score stays within epsilon of that of the full bank, then
the next, until none can go. Where an expensive family has stayed, the search begins again without it. The cheapest
families found must be good enough on other folds and with other forests too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import (
    ORIGINAL,
    FeatureBank,
    FeatureBlock,
    FeatureEngine,
    IntensityScale,
    Place,
    PreparedPlane,
    PreparedSlab,
    aspect_of,
    prepare_slab,
)
from gpu_tomoclass.forest import grow_forest
from gpu_tomoclass.labels import Confusion
from gpu_tomoclass.training.cross_validation import (
    Fold,
    checked_grouping,
    class_predictor,
    family_channels,
    make_folds,
    marked_classes,
)
from gpu_tomoclass.training.rows import TrainingRows
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = 3  # folds and forests for the full bank and what is chosen, since scores move for no reason
REPEATS = 5  # times that a computation is timed; the least counts
SLAB_ACROSS = 8  # planes that time per plane is measured on where features look across planes


@dataclass(frozen=True)
class Candidate:
    """Some families with what they cost and how good they are.

    Attributes
    ----------
    families : tuple of str
    seconds : float
        Sum of the families' seconds per plane.
    score : float
        Mean Dice coefficient over the classes, on held-out rows.
    """

    families: tuple[str, ...]
    seconds: float
    score: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"families": list(self.families), "seconds": self.seconds, "score": self.score}


@dataclass(frozen=True)
class Selection:
    """Families that were chosen, and all that were tried.

    Attributes
    ----------
    full, chosen : Candidate
        Their scores are means over different folds and forests.
    curve : list of Candidate
        The trade-off: those of ``tried`` that are better than all cheaper ones, the cheapest first.
    tried : list of Candidate
        All, in the order they were tried, each once.
    seconds_per_plane : dict
        Of each family by itself; together they cost less, because they share work.
    seconds_together : dict
        Per plane, of the families of ``full`` and ``chosen`` computed at once; empty if that was not measured.
    epsilon : float
    scatter : float
        Standard deviation of the full bank's score over folds and forests.
    notes : list of str
    """

    full: Candidate
    chosen: Candidate
    curve: Sequence[Candidate]
    tried: Sequence[Candidate]
    seconds_per_plane: Mapping[str, float]
    epsilon: float
    scatter: float
    notes: Sequence[str] = ()
    seconds_together: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "full": self.full.to_dict(),
            "chosen": self.chosen.to_dict(),
            "epsilon": self.epsilon,
            "scatter": self.scatter,
            "seconds_per_plane": dict(self.seconds_per_plane),
            "seconds_together": dict(self.seconds_together),
            "curve": [candidate.to_dict() for candidate in self.curve],
            "tried": [candidate.to_dict() for candidate in self.tried],
            "notes": list(self.notes),
        }


def slab_to_time(
    bank: FeatureBank, volume: Volume, z: int, *, scale: IntensityScale, nan: str = "error"
) -> PreparedSlab:
    """Plane ``z`` for :func:`measure_costs`; with the following ones where features look across planes, since one
    plane would pay for its whole halo."""
    halo = bank.z_reach(aspect_of(volume.voxel_size))
    stop = min(z + (SLAB_ACROSS if halo else 1), volume.shape[0])
    return prepare_slab(volume, z, stop, halo=halo, scale=scale, nan=nan)


def measure_costs(
    bank: FeatureBank, plane: npt.NDArray[np.float32] | PreparedSlab, *, device: Device | str = "auto"
) -> dict[str, float]:
    """Seconds that each family takes for a plane, computed by itself, after a first time that compiles.

    On a CPU by one thread, since planes are computed side by side. What families share (blurred planes, gradients) is
    counted for each of them, so a bank costs less than the sum.

    Parameters
    ----------
    bank : FeatureBank
    plane : numpy.ndarray or PreparedSlab
        (ny, nx) float32, prepared; or a slab with its halo, where features look across planes.
    device : str or Device
        ``"auto"`` is the first that works.
    """
    device = choose_device(device)
    return {
        family: measure_seconds([b for b in bank.blocks if b.family == family], plane, device=device)
        for family in bank.families
    }


def measure_together(
    bank: FeatureBank, families: Sequence[str], plane: npt.NDArray[np.float32] | PreparedSlab, *, device: Device | str
) -> float:
    """Seconds that these families and the grey value take for a plane, computed at once."""
    blocks = [block for block in bank.blocks if block.family in (ORIGINAL.name, *families)]
    return measure_seconds(blocks, plane, device=choose_device(device))


def measure_seconds(
    blocks: Sequence[FeatureBlock], plane: npt.NDArray[np.float32] | PreparedSlab, *, device: Device
) -> float:
    """Least seconds per plane of some computations of these blocks, on a CPU by one thread; see
    :func:`measure_costs`."""
    device, _ = device.side_by_side()
    slab = plane if isinstance(plane, PreparedSlab) else PreparedSlab([PreparedPlane(plane)], Place.whole(1))
    if not blocks:  # a single sigma has no difference of Gaussians
        return 0.0
    engine = FeatureEngine(device, blocks)
    found = []
    for _ in range(1 + REPEATS if device.runs_kernels else 1):  # NumPy has nothing to compile, and is slow
        began = time.perf_counter()
        engine.compute(slab.images, place=slab.place)
        device.synchronize()
        found.append((time.perf_counter() - began) / slab.place.n_wanted)
    return min(found)


def select_families(
    rows: TrainingRows,
    costs: Mapping[str, float],
    *,
    epsilon: float = 0.002,
    grouping: str = "stroke",
    n_folds: int | None = None,
    device: Device | str = "auto",
    seed: int = 42,
    progress: Progress | None = None,
    **forest_options: Any,
) -> Selection:
    """Leave out what costs most and helps least.

    Parameters
    ----------
    rows : TrainingRows
        Of the full bank.
    costs : mapping of str to float
        Seconds per plane of each family of the bank.
    epsilon : float
        So much less than the full bank's mean Dice coefficient is good enough.
    grouping, n_folds, device, seed
        As for :func:`gpu_tomoclass.training.cross_validation.cross_validate`; candidates are compared on the same
        folds.
    progress : callable, optional
        Called with (candidates tried, the most that may be tried).
    **forest_options
        Of :func:`gpu_tomoclass.forest.grow.grow_forest`.

    Raises
    ------
    DataError
        If there are too few groups, or only one family.
    UsageError
        If epsilon is negative or a cost is missing.
    """
    families = rows.bank.families
    if not epsilon >= 0:
        raise UsageError(f"epsilon is {epsilon}", do="give 0 or more")
    if len(families) < 2:
        raise DataError(f"the bank has only {', '.join(families)}: nothing can be left out", do="choose more features")
    without_cost = [family for family in families if family not in costs]
    if without_cost:
        raise UsageError(f"the cost of {', '.join(without_cost)} is not known")
    groups = rows.groups(checked_grouping(grouping))
    folds = [make_folds(rows, groups, grouping=grouping, n_folds=n_folds, seed=seed + i) for i in range(SEEDS)]
    judge = _Judge(
        rows, folds, costs, device=choose_device(device), seed=seed, options=forest_options, progress=progress
    )
    whole = judge.judge(families)
    limit = whole.score - epsilon
    best = _cheapest(whole, limit=limit, judge=judge)

    full_scores = judge.scores(families)
    full = dataclasses.replace(whole, score=float(np.mean(full_scores)))
    chosen = full
    for candidate in sorted(judge.known.values(), key=lambda c: c.seconds):
        if candidate.score >= limit and candidate is not whole:
            confirmed = dataclasses.replace(candidate, score=float(np.mean(judge.scores(candidate.families))))
            if confirmed.score >= full.score - epsilon:
                chosen = confirmed
                break
    left = best.families
    while len(left) > 1:  # beyond what is good enough, to show the trade-off
        left = max(
            (judge.judge(_without(left, family)) for family in left), key=lambda c: (c.score, -c.seconds)
        ).families
    scatter = float(np.std(full_scores, ddof=1))
    notes = list(rows.notes)
    if scatter > epsilon:
        notes.append(
            f"scores scatter by {scatter:.4f}, more than epsilon {epsilon:g}: which of similar families stays is"
            " chance; mark more strokes or use a larger epsilon"
        )
    if progress is not None:
        progress(judge.n_most, judge.n_most)
    tried = list(judge.known.values())
    return Selection(full, chosen, trade_off(tried), tried, dict(costs), epsilon, scatter, notes)


def trade_off(tried: Sequence[Candidate]) -> list[Candidate]:
    """Those that are better than all cheaper ones, the cheapest first."""
    curve: list[Candidate] = []
    for candidate in sorted(tried, key=lambda c: (c.seconds, -c.score)):
        if not curve or candidate.score > curve[-1].score:
            curve.append(candidate)
    return curve


def _cheapest(whole: Candidate, *, limit: float, judge: _Judge) -> Candidate:
    """The cheapest good enough families that are found from the whole bank, and from it without what is expensive."""
    costs = judge.costs
    _descend(whole, limit=limit, judge=judge)
    while True:
        best = min((c for c in judge.known.values() if c.score >= limit), key=lambda c: c.seconds)
        dearest = max(best.families, key=lambda family: costs[family])
        others = tuple(f for f in whole.families if f != dearest and costs[f] < best.seconds)
        if not others:
            return best
        _descend(judge.judge(others), limit=limit, judge=judge)
        if min(c.seconds for c in judge.known.values() if c.score >= limit) >= best.seconds:
            return best


def _descend(start: Candidate, *, limit: float, judge: _Judge) -> None:
    """Leave out families, the most expensive first, while what is left is good enough or no worse than before."""
    at, changed = start, True
    while changed:
        changed = False
        for family in sorted(at.families, key=lambda f: -judge.costs[f]):
            if len(at.families) == 1:
                return
            candidate = judge.judge(_without(at.families, family))
            if candidate.score >= min(limit, at.score):
                at, changed = candidate, True


def _without(families: tuple[str, ...], family: str) -> tuple[str, ...]:
    return tuple(f for f in families if f != family)


class _Judge:
    """Scores of families, on the same folds for all."""

    def __init__(
        self,
        rows: TrainingRows,
        folds: Sequence[Sequence[Fold]],
        costs: Mapping[str, float],
        *,
        device: Device,
        seed: int,
        options: Mapping[str, Any],
        progress: Progress | None,
    ) -> None:
        self.rows, self.folds, self.costs = rows, folds, costs
        self.device, self.seed, self.options, self.progress = device, seed, options, progress
        self.channels = family_channels(rows.bank)
        self.classes = marked_classes(rows)
        self.known: dict[tuple[str, ...], Candidate] = {}
        n = len(rows.bank.families)
        self.n_most = n * (n + 1) // 2

    def judge(self, families: tuple[str, ...]) -> Candidate:
        if families not in self.known:
            seconds = sum(self.costs[family] for family in families)
            self.known[families] = Candidate(families, seconds, self._score(families, 0))
            if self.progress is not None:
                self.progress(min(len(self.known), self.n_most), self.n_most)
        return self.known[families]

    def scores(self, families: tuple[str, ...]) -> list[float]:
        """On all folds, each with forests of another seed."""
        return [self.judge(families).score, *(self._score(families, i) for i in range(1, len(self.folds)))]

    def _score(self, families: tuple[str, ...], number: int) -> float:
        """Mean Dice coefficient of the held-out rows of the folds of this number."""
        columns = sorted(i for family in (ORIGINAL.name, *families) for i in self.channels.get(family, ()))
        values, labels = self.rows.values[:, columns], self.rows.labels
        confusion = Confusion(self.classes)
        for seen, held_out in self.folds[number]:
            trained = grow_forest(values[seen], labels[seen], seed=self.seed + number, **self.options)
            predict = class_predictor(trained.forest, trained.class_values, device=self.device)
            confusion.update(labels[held_out], predict(np.ascontiguousarray(values[held_out].T)))
        return confusion.mean_dice


def trade_off_figure(selection: Selection) -> Figure:
    """Score over cost: all that was tried as dots, the trade-off as a line, the chosen families marked.

    Returns
    -------
    matplotlib.figure.Figure
        For :func:`gpu_tomoclass.labels.save_figure`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots()
    full, chosen, curve = selection.full, selection.chosen, selection.curve
    n_chosen = f"{len(chosen.families)} {'family' if len(chosen.families) == 1 else 'families'}"
    axes.axhspan(full.score - selection.epsilon, full.score, color="0.9", zorder=0,
                 label=f"within {selection.epsilon:g} of the full bank")  # fmt: skip
    axes.plot([1000 * c.seconds for c in selection.tried], [c.score for c in selection.tried], ".", color="0.6",
              label="tried, one set of folds")  # fmt: skip
    axes.plot([1000 * c.seconds for c in curve], [c.score for c in curve], ".-", label="better than all cheaper")
    axes.plot(1000 * full.seconds, full.score, "s", color="black", label=f"full: {len(full.families)} families, mean")
    axes.plot(
        1000 * chosen.seconds, chosen.score, "o", color="tab:red", markersize=9, label=f"chosen: {n_chosen}, mean"
    )
    axes.set(xlabel="cost, sum of the families [ms per plane]", ylabel="mean Dice, cross-validated", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    return figure
