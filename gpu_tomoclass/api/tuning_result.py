"""Results of choosing settings: what was tried, what is recommended, and what it promises."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_tomoclass.labels import Confusion


@dataclass(frozen=True)
class Setting:
    """Settings that are tried together.

    Attributes
    ----------
    features : str
        Set of features, or families with commas.
    max_features, min_samples_leaf : int
        Of the forest.
    smooth : float
        Sigma in nm by which probabilities are smoothed; 0 is not at all.
    """

    features: str
    max_features: int = 2
    min_samples_leaf: int = 1
    smooth: float = 0.0


@dataclass(frozen=True)
class Tried:
    """A setting, its scores and what it costs.

    Attributes
    ----------
    setting : Setting
    scores : list of float
        Mean Dice coefficient over the classes on the held-out pixels of each fold.
    seconds_per_plane : float
        Features, forest and smoothing of a plane of the first volume on this machine, on a CPU by one thread.
    """

    setting: Setting
    scores: Sequence[float]
    seconds_per_plane: float

    @property
    def score(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.scores))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **dataclasses.asdict(self.setting),
            "score": self.score,
            "scores": list(self.scores),
            "seconds_per_plane": self.seconds_per_plane,
        }


@dataclass(frozen=True)
class Promise:
    """Outcome on strokes that no choice has seen: the settings chosen without them, and those to begin with.

    Attributes
    ----------
    n_folds : int
        Outer folds that were judged.
    chosen, plain : Confusion
        Of the same held-out pixels.
    gains : list of float
        Of each fold, the mean Dice coefficient by which the chosen settings were better.
    settings : list of Setting
        Chosen in each fold.
    """

    n_folds: int
    chosen: Confusion
    plain: Confusion
    gains: Sequence[float]
    settings: Sequence[Setting]

    @property
    def gain(self) -> float:
        """Mean of the gains."""
        return float(np.mean(self.gains))

    @property
    def error(self) -> float:
        """Standard error of the mean gain over the folds; NaN of one fold."""
        return standard_error(self.gains)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "folds": self.n_folds,
            "accuracy": self.chosen.accuracy,
            "mean_dice": self.chosen.mean_dice,
            "plain_accuracy": self.plain.accuracy,
            "plain_mean_dice": self.plain.mean_dice,
            "gain": self.gain,
            "standard_error": None if np.isnan(self.error) else self.error,
            "gains": list(self.gains),
            "chosen_in_each_fold": [dataclasses.asdict(s) for s in self.settings],
        }


@dataclass(frozen=True)
class Tuning:
    """Result of :func:`tune`.

    Attributes
    ----------
    plain, chosen : Setting
        To begin with, and recommended.
    tried : list of Tried
        In the order they were tried. Their scores are those that chose, so the best is too good.
    promise : Promise or None
        What nested cross-validation says; None if there was no time for it.
    notes : list of str
    """

    plain: Setting
    chosen: Setting
    tried: Sequence[Tried]
    promise: Promise | None
    notes: Sequence[str] = ()

    def of(self, setting: Setting) -> Tried:
        """Scores and cost of a setting that was tried."""
        return next(t for t in self.tried if t.setting == setting)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "plain": dataclasses.asdict(self.plain),
            "chosen": dataclasses.asdict(self.chosen),
            "tried": [t.to_dict() for t in self.tried],
            "promise": None if self.promise is None else self.promise.to_dict(),
            "notes": list(self.notes),
        }


def standard_error(values: Sequence[float]) -> float:
    """Of the mean of these numbers; NaN of one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
