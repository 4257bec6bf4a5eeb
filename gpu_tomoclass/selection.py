"""The cheapest feature families that are as good as all: backward elimination by measured cost.

The most expensive family is left out if the cross-validated score stays within epsilon of that of the full bank, then
the next, until none can go. After that the least useful families leave one by one, which shows what they are worth.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.accelerated.engine import FeatureEngine
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.evaluate import Confusion
from gpu_tomoclass.families import ORIGINAL
from gpu_tomoclass.features import FeatureBank, FeatureBlock
from gpu_tomoclass.forest.engines import grow_forest
from gpu_tomoclass.planes import Progress
from gpu_tomoclass.training_rows import TrainingRows
from gpu_tomoclass.validation import (
    Fold,
    checked_grouping,
    class_predictor,
    family_channels,
    make_folds,
    marked_classes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = 3  # forests of the full bank, to know by how much a score moves for no reason
REPEATS = 3  # of a measurement of time; the least counts


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
    """What was chosen, and what else was tried.

    Attributes
    ----------
    full, chosen : Candidate
    path : list of Candidate
        From the full bank over the chosen families to a single one; each has one family less than the one before.
    tried : list of Candidate
        All, in the order they were tried.
    seconds_per_plane : dict
        Of each family by itself; together they cost less, because they share work.
    epsilon : float
    scatter : float
        Standard deviation of the full bank's score over seeds of the forest.
    notes : list of str
    """

    full: Candidate
    chosen: Candidate
    path: Sequence[Candidate]
    tried: Sequence[Candidate]
    seconds_per_plane: Mapping[str, float]
    epsilon: float
    scatter: float
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "full": self.full.to_dict(),
            "chosen": self.chosen.to_dict(),
            "epsilon": self.epsilon,
            "scatter": self.scatter,
            "seconds_per_plane": dict(self.seconds_per_plane),
            "path": [candidate.to_dict() for candidate in self.path],
            "tried": [candidate.to_dict() for candidate in self.tried],
            "notes": list(self.notes),
        }


def measure_costs(
    bank: FeatureBank, plane: npt.NDArray[np.float32], *, device: Device | None = None
) -> dict[str, float]:
    """Seconds that each family takes for a plane, computed by itself, after a first time that compiles.

    What families share (blurred planes, gradients) is counted for each of them, so a bank costs less than the sum.

    Parameters
    ----------
    bank : FeatureBank
    plane : numpy.ndarray
        (ny, nx) float32, prepared.
    device : Device, optional
        Default the first that works.
    """
    device = choose_device() if device is None else device
    return {
        family: measure_seconds([b for b in bank.blocks if b.family == family], plane, device=device)
        for family in bank.families
    }


def measure_together(
    bank: FeatureBank, families: Sequence[str], plane: npt.NDArray[np.float32], *, device: Device
) -> float:
    """Seconds that these families and the grey value take for a plane, computed at once."""
    blocks = [block for block in bank.blocks if block.family in (ORIGINAL.name, *families)]
    return measure_seconds(blocks, plane, device=device)


def measure_seconds(blocks: Sequence[FeatureBlock], plane: npt.NDArray[np.float32], *, device: Device) -> float:
    """Least seconds of some computations of these blocks of a plane (ny, nx)."""
    if not blocks:  # a single sigma has no difference of Gaussians
        return 0.0
    engine = FeatureEngine(device, blocks)
    found = []
    for _ in range(1 + REPEATS if device.runs_kernels else 1):  # NumPy has nothing to compile, and is slow
        began = time.perf_counter()
        engine.compute(plane[np.newaxis])
        device.synchronize()
        found.append(time.perf_counter() - began)
    return min(found)


def select_families(
    rows: TrainingRows,
    costs: Mapping[str, float],
    *,
    epsilon: float = 0.002,
    grouping: str = "stroke",
    n_folds: int = 5,
    device: Device | None = None,
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
        As for :func:`gpu_tomoclass.validation.cross_validate`; all candidates are judged on the same folds.
    progress : callable, optional
        Called with (candidates tried, the most that may be tried).
    **forest_options
        Of :func:`gpu_tomoclass.forest.engines.grow_forest`.

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
    folds = make_folds(rows, groups, grouping=grouping, n_folds=n_folds, seed=seed)
    judge = _Judge(rows, folds, costs, device=device, seed=seed, options=forest_options, progress=progress)
    again = [judge.score(families, seed=seed + i) for i in range(SEEDS)]
    full = dataclasses.replace(judge.judge(families), score=float(np.mean(again)))
    scatter = float(np.std(again, ddof=1))

    path = [full]
    changed = True
    while changed and len(path[-1].families) > 1:
        changed = False
        for family in sorted(path[-1].families, key=lambda f: -costs[f]):
            if len(path[-1].families) == 1:
                break
            candidate = judge.judge(_without(path[-1].families, family))
            if candidate.score >= full.score - epsilon:
                path.append(candidate)
                changed = True
    chosen = path[-1]
    while len(path[-1].families) > 1:  # beyond what is good enough, to show the trade-off
        left = path[-1].families
        path.append(max((judge.judge(_without(left, family)) for family in left), key=lambda c: (c.score, -c.seconds)))
    notes = list(rows.notes)
    if scatter > epsilon:
        notes.append(
            f"scores scatter by {scatter:.4f} from seed to seed, more than epsilon {epsilon:g}: which of similar"
            " families stays is chance; mark more strokes or use a larger epsilon"
        )
    if progress is not None:
        progress(judge.n_most, judge.n_most)
    return Selection(full, chosen, path, list(judge.known.values()), dict(costs), epsilon, scatter, notes)


def _without(families: tuple[str, ...], family: str) -> tuple[str, ...]:
    return tuple(f for f in families if f != family)


class _Judge:
    """Scores of families on the same folds, each set once."""

    def __init__(
        self,
        rows: TrainingRows,
        folds: Sequence[Fold],
        costs: Mapping[str, float],
        *,
        device: Device | None,
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
            self.known[families] = Candidate(families, seconds, self.score(families, seed=self.seed))
            if self.progress is not None:
                self.progress(min(len(self.known), self.n_most), self.n_most)
        return self.known[families]

    def score(self, families: tuple[str, ...], *, seed: int) -> float:
        """Mean Dice coefficient of the held-out rows of all folds."""
        columns = sorted(i for family in (ORIGINAL.name, *families) for i in self.channels.get(family, ()))
        values, labels = self.rows.values[:, columns], self.rows.labels
        confusion = Confusion(self.classes)
        for seen, held_out in self.folds:
            trained = grow_forest(values[seen], labels[seen], seed=seed, **self.options)
            predict = class_predictor(trained.forest, trained.class_values, device=self.device)
            confusion.update(labels[held_out], predict(np.ascontiguousarray(values[held_out].T)))
        return confusion.mean_dice


def trade_off_figure(selection: Selection) -> Figure:
    """Score over cost: all that was tried as dots, the path as a line, the chosen families marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    full, chosen = selection.full, selection.chosen
    axes.axhspan(full.score - selection.epsilon, full.score, color="0.9", zorder=0,
                 label=f"within {selection.epsilon:g} of the full bank")  # fmt: skip
    axes.plot(
        [1000 * c.seconds for c in selection.tried],
        [c.score for c in selection.tried],
        ".",
        color="0.6",
        label="tried",
    )
    path = selection.path
    axes.plot([1000 * c.seconds for c in path], [c.score for c in path], ".-", label="one family less each")
    axes.plot(1000 * full.seconds, full.score, "s", color="black", label=f"full: {len(full.families)} families")
    axes.plot(1000 * chosen.seconds, chosen.score, "o", color="tab:red", markersize=9,
              label=f"chosen: {', '.join(chosen.families[:4])}{' ..' if chosen.families[4:] else ''}")  # fmt: skip
    axes.set(xlabel="cost of the families [ms per plane]", ylabel="mean Dice, cross-validated", xscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    return figure
