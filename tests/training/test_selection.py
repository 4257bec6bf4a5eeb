"""Selection of families: noise goes, what is needed stays, the cheaper of equals stays."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from quality_cases import made_rows

from gpu_tomoclass.cli.quality import feature_arguments
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.labels.pictures import save_figure
from gpu_tomoclass.training.cross_validation import cross_validate, family_channels
from gpu_tomoclass.training.selection import (
    Candidate,
    _cheapest,
    measure_costs,
    measure_together,
    select_families,
    trade_off_figure,
)

FOREST = {"engine": "weka", "n_trees": 20, "n_jobs": 1, "n_folds": 3}
COSTS = {"gaussian_blur": 1.0, "median": 5.0, "neighbors": 3.0}


def test_noise_goes_and_what_is_needed_stays():
    """The useful family is the most expensive one, and stays all the same."""
    found = select_families(made_rows(), COSTS, epsilon=0.02, **FOREST)
    assert found.chosen.families == ("median",)
    assert found.chosen.seconds == 5.0
    assert found.full.seconds == 9.0
    assert found.chosen.score >= found.full.score - 0.02


@pytest.mark.parametrize(("costs", "kept"), [(COSTS, "neighbors"), ({**COSTS, "neighbors": 7.0}, "median")])
def test_the_cheaper_of_equals_stays(costs, kept):
    found = select_families(made_rows(useful=("median", "neighbors"), strength=20.0), costs, epsilon=0.02, **FOREST)
    assert found.chosen.families == (kept,)


def test_two_families_that_need_each_other_stay():
    """median knows one border between classes, neighbors the other."""
    rows = made_rows(useful=(), spread=0.2)
    values, channels = rows.values.copy(), family_channels(rows.bank)
    values[:, channels["median"]] += 20 * (rows.labels[:, None] > 1)
    values[:, channels["neighbors"]] += 20 * (rows.labels[:, None] > 2)
    found = select_families(dataclasses.replace(rows, values=values), COSTS, epsilon=0.02, **FOREST)
    assert found.chosen.families == ("median", "neighbors")


def test_the_curve_is_what_nothing_cheaper_beats():
    found = select_families(made_rows(spread=2.0), COSTS, epsilon=0.0, **FOREST)
    assert {len(c.families) for c in found.tried} == {1, 2, 3}
    assert len({c.families for c in found.tried}) == len(found.tried)
    for candidate in found.tried:
        assert candidate.seconds == pytest.approx(sum(COSTS[f] for f in candidate.families))
        beaten = any(c.seconds <= candidate.seconds and c.score > candidate.score for c in found.tried)
        tied = any(c.seconds < candidate.seconds and c.score == candidate.score for c in found.tried)
        assert (candidate in found.curve) == (not beaten and not tied)
    assert list(found.curve) == sorted(found.curve, key=lambda c: c.seconds)
    json.dumps(found.to_dict())


class Table:
    """Scores by heart, in place of forests."""

    def __init__(self, costs, score):
        self.costs, self.score, self.known = costs, score, {}

    def judge(self, families):
        seconds = sum(self.costs[f] for f in families)
        return self.known.setdefault(families, Candidate(families, seconds, self.score(set(families))))


def test_an_expensive_family_that_cheap_ones_replace_does_not_trap_the_search():
    """Without "dear" the bank is just not good enough, because "noise" is in it; without both it is."""
    costs = {"dear": 9.0, "noise": 3.0, "cheap": 1.0}
    judge = Table(
        costs, lambda kept: 1.0 if "dear" in kept else 0.99 - 0.02 * ("noise" in kept) - ("cheap" not in kept)
    )
    whole = judge.judge(tuple(costs))
    assert _cheapest(whole, limit=0.98, judge=judge).families == ("cheap",)


def test_the_search_finds_the_cheapest_of_many_random_banks_mostly():
    """Against trying all 63 sets of 6 families, whose use adds up with less and less return."""
    random = np.random.default_rng(0)
    found_best = 0
    for _ in range(40):
        costs = dict(zip("abcdef", random.exponential(size=6), strict=True))
        worth = dict(zip("abcdef", random.exponential(size=6), strict=True))
        score = lambda kept, worth=worth: 1 - np.exp(-sum(worth[f] for f in kept))  # noqa: E731
        judge = Table(costs, score)
        whole = judge.judge(tuple("abcdef"))
        limit = whole.score - 0.05
        found = _cheapest(whole, limit=limit, judge=judge)
        sets = [s for n in range(1, 7) for s in itertools.combinations("abcdef", n) if score(s) >= limit]
        cheapest = min(sum(costs[f] for f in s) for s in sets)
        assert found.score >= limit
        assert cheapest <= found.seconds <= whole.seconds
        found_best += found.seconds == pytest.approx(cheapest)
    assert found_best >= 20


def test_scores_are_those_of_cross_validation():
    """Rows of the chosen families alone, cross-validated, give the score that selection gave them."""
    rows = made_rows(spread=2.0)
    found = select_families(rows, COSTS, **FOREST)
    candidate = next(c for c in found.tried if c.families == ("gaussian_blur", "median"))
    bank = FeatureBank.create(candidate.families, sigma_max=2)
    columns = [rows.bank.channels.index(name) for name in bank.channels]
    alone = cross_validate(dataclasses.replace(rows, bank=bank, values=rows.values[:, columns]), **FOREST)
    assert candidate.score == pytest.approx(alone.confusion.mean_dice)


def test_scatter_beyond_epsilon_is_told():
    noisy = select_families(made_rows(useful=()), COSTS, epsilon=0.0, **FOREST)
    assert any("scatter" in note for note in noisy.notes)
    assert not any("scatter" in note for note in select_families(made_rows(), COSTS, epsilon=1.0, **FOREST).notes)


def test_costs_are_measured_for_every_family():
    bank = FeatureBank.create(["gaussian_blur", "difference_of_gaussians", "median"], sigma_max=1)
    plane = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    for name in ("native", "numpy"):
        device = choose_device(name)
        costs = measure_costs(bank, plane, device=device)
        assert set(costs) == set(bank.families)
        assert costs["median"] > 0
        assert costs["difference_of_gaussians"] == 0.0  # one sigma has no difference
        assert measure_together(bank, ["median"], plane, device=device) > 0


def test_the_picture_is_written(tmp_path):
    found = select_families(made_rows(), COSTS, **FOREST)
    save_figure(trade_off_figure(found), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="--overwrite"):
        save_figure(trade_off_figure(found), tmp_path / "curve.png")


def test_the_arguments_make_the_same_channels():
    asked = {"sigma_min": 1.0, "sigma_max": 8.0, "membrane_thickness": 1, "membrane_patch": 15,
             "sigmas": (("median", (1.0, 3.0)), ("variance", (2.0,)))}  # fmt: skip
    words = feature_arguments(("gaussian_blur", "median"), asked)
    assert words == "--features gaussian_blur,median --sigma-max 8 --membrane-patch 15 --sigmas median=1,3"


def test_nonsense_is_refused():
    rows = made_rows()
    with pytest.raises(UsageError, match="epsilon is -1"):
        select_families(rows, COSTS, epsilon=-1)
    with pytest.raises(UsageError, match="cost of neighbors"):
        select_families(rows, {"gaussian_blur": 1.0, "median": 1.0})
    bank = FeatureBank.create(["median"], sigma_max=2)
    one = dataclasses.replace(rows, bank=bank, values=rows.values[:, : bank.n_channels])
    with pytest.raises(DataError, match="only median"):
        select_families(one, COSTS)
