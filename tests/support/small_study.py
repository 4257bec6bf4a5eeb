"""The study made small enough for a test: few trees and corrections, thresholds by a faster way, plain pictures."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.labels import report
from gpu_tomoclass.studies.reproduction.operator import Habits

STUDY = "gpu_tomoclass.studies.reproduction"
FEW = ("gaussian_blur", "sobel_filter", "hessian", "membrane_projections", "variance", "median", "structure")


def fast_otsu(histogram, *, levels):
    """Multi-Otsu by dynamic programming: the largest sum over classes of (sum of values)^2 / (number of values)."""
    n = len(histogram.counts)
    number = np.concatenate([[0], np.cumsum(histogram.counts)]).astype(float)
    total = np.concatenate([[0], np.cumsum(histogram.counts * np.arange(n))]).astype(float)
    between = total[None, :] - total[:, None], number[None, :] - number[:, None]
    score = np.where(between[1] > 0, between[0] ** 2 / np.maximum(between[1], 1), -np.inf)  # [from, to]
    best, froms = score[0], []
    for _ in range(levels - 1):
        candidates = best[:, None] + score
        froms.append(candidates.argmax(axis=0))
        best = candidates.max(axis=0)
    cuts = [n]
    for back in reversed(froms):
        cuts.append(back[cuts[-1]])
    return histogram.edges[cuts[:0:-1]]


def make_small(monkeypatch: pytest.MonkeyPatch, *, draws: bool = True) -> None:
    """With few features; of pictures that are laid out alike the first is drawn, or none: matplotlib takes long."""
    monkeypatch.setattr(f"{STUDY}.case.Settings.bank", lambda self: FeatureBank.create(FEW, sigma_max=8))
    monkeypatch.setattr(f"{STUDY}.case.otsu_thresholds", fast_otsu)
    monkeypatch.setattr(f"{STUDY}.page.DPI", 30)
    monkeypatch.setattr(f"{STUDY}.phantom.QUICK_SIZE", 64)
    monkeypatch.setattr(f"{STUDY}.results.QUICK_HABITS", Habits(rounds=1, corrections=4, n_trees=20))
    for name, n in (("N_PLANES", 3), ("N_OTHER", 2), ("N_LOOKED", 2)):
        monkeypatch.setattr(f"{STUDY}.added.{name}", n)
    draw, drawn = report.chart_png if draws else lambda *_, **__: b"a picture", {}

    def once(figure, *, dpi):
        layout = tuple(figure.get_size_inches()), tuple(axes.get_title() for axes in figure.axes)
        if layout not in drawn:
            drawn[layout] = draw(figure, dpi=dpi)
        return drawn[layout]

    monkeypatch.setattr(report, "chart_png", once)
