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
from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.pictures import save_figure
from gpu_tomoclass.selection import measure_costs, measure_together, select_families, trade_off_figure
from gpu_tomoclass.validation import cross_validate, family_channels

FOREST = {"engine": "sklearn", "n_trees": 20, "n_jobs": 1, "n_folds": 3}
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
    rows = made_rows(useful=())
    values, channels = rows.values.copy(), family_channels(rows.bank)
    values[:, channels["median"]] += 6 * (rows.labels[:, None] > 1)
    values[:, channels["neighbors"]] += 6 * (rows.labels[:, None] > 2)
    found = select_families(dataclasses.replace(rows, values=values), COSTS, epsilon=0.02, **FOREST)
    assert found.chosen.families == ("median", "neighbors")


def test_the_path_leaves_one_family_out_at_a_time():
    rows = made_rows(spread=2.0)
    found = select_families(rows, COSTS, epsilon=0.0, **FOREST)
    assert found.path[0] is found.full
    assert found.chosen in found.path
    for before, after in itertools.pairwise(found.path):
        assert len(after.families) == len(before.families) - 1
        assert set(after.families) < set(before.families)
        assert after.seconds == pytest.approx(sum(COSTS[f] for f in after.families))
    assert len(found.path[-1].families) == 1
    assert len({c.families for c in found.tried}) == len(found.tried)
    json.dumps(found.to_dict())


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
