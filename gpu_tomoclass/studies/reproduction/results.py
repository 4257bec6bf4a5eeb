"""The results of a study: what the report shows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gpu_tomoclass.studies.reproduction import pillar
from gpu_tomoclass.studies.reproduction.added import AddedStep
from gpu_tomoclass.studies.reproduction.case import CaseResult, Settings
from gpu_tomoclass.studies.reproduction.operator import Habits
from gpu_tomoclass.studies.reproduction.scores import Scores

HABITS = {"phantom": Habits(), "pillar": Habits(rounds=6, corrections=8), "needle": Habits(rounds=6, corrections=4)}
QUICK_HABITS = Habits(rounds=2, corrections=6, n_trees=40)


@dataclass
class Study:
    """Results of a study.

    Attributes
    ----------
    settings : Settings
    cases : dict of str to CaseResult
        By name.
    repeats : dict of str to list
        Of each variant of the phantom, for every further seed: accuracy and mean IoU by method.
    reused : float or None
        Accuracy of the noisy phantom's classifier on another noise and misalignment.
    far : dict of str to Scores
        Pillar: by method, of planes more than `FAR` planes away from every painted one.
    particles : dict of str to Particles
        Pillar: silica in the truth and by method.
    added : list of AddedStep
        Pillar: what steps beyond the paper add.
    seconds : dict
        Of the sections.
    quick : bool
    """

    settings: Settings
    cases: dict[str, CaseResult] = field(default_factory=dict)
    repeats: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    reused: float | None = None
    far: dict[str, Scores] = field(default_factory=dict)
    particles: dict[str, Any] = field(default_factory=dict)
    added: list[AddedStep] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    quick: bool = False

    def habits(self, subject: str) -> Habits:
        """Of the operator for a subject."""
        return QUICK_HABITS if self.quick else HABITS[subject]

    def settings_for(self, subject: str) -> Settings:
        """The settings with the operator's habits for a subject."""
        return replace(self.settings, habits=self.habits(subject))

    def to_dict(self) -> dict[str, Any]:
        """Every number, for JSON."""
        return {
            "seed": self.settings.seed,
            "quick": self.quick,
            "device": self.settings.device.name,
            "cases": {name: result.to_dict() for name, result in self.cases.items()},
            "repeats": self.repeats,
            "noisy_classifier_on_other_noise": self.reused,
            "pillar_far_planes": {name: scores.to_dict() for name, scores in self.far.items()},
            "particles": {name: pillar.particle_numbers(p) for name, p in self.particles.items()},
            "added_steps": {row.name: row.to_dict() for row in self.added},
            "seconds": {name: round(s, 1) for name, s in self.seconds.items()},
        }


# On several planes at a time a person has less patience for each.
