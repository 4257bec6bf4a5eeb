"""Scripted strokes lie inside their class; corrections lie on errors."""

import numpy as np
import pytest
from scipy import ndimage

from gpu_tomoclass.studies.strokes import correction_strokes, draw_strokes, place_strokes


@pytest.fixture
def truth():
    y, x = np.mgrid[:80, :90]
    plane = np.ones((80, 90), np.uint8)
    plane[(y - 40) ** 2 + (x - 45) ** 2 < 900] = 2
    plane[30:36, 30:60] = 5
    plane[:, :10] = 0
    return plane


def test_strokes_are_right_and_away_from_borders(truth):
    painted = draw_strokes(truth, per_class=3, length=20, seed=4)
    on = painted > 0
    assert set(np.unique(painted[on])) == {1, 2, 5}
    np.testing.assert_array_equal(painted[on], truth[on])
    inner = ndimage.binary_erosion(truth == 2, iterations=2)
    assert inner[painted == 2].all()
    for value in (1, 2, 5):
        assert 15 <= (painted == value).sum() <= 3 * 21


def test_a_class_of_one_pixel_is_painted():
    truth = np.ones((9, 9), np.uint8)
    truth[4, 4] = 2
    painted = draw_strokes(truth, per_class=1, length=5)
    assert painted[4, 4] == 2


def test_corrections_go_to_the_largest_errors(truth):
    predicted = truth.copy()
    predicted[50:60, 30:50] = 1  # large, in class 2
    predicted[70:72, 80:82] = 2  # small, in class 1
    before = draw_strokes(truth, per_class=1, length=10)
    after = correction_strokes(truth, predicted, before, n=1, length=15)
    new = (after != before) & (after > 0)
    assert new.any()
    y, x = np.nonzero(new)
    assert (y.min(), x.min()) >= (50, 30)
    assert y.max() < 60
    assert x.max() < 50
    assert (after[new] == 2).all()
    np.testing.assert_array_equal(after[~new], before[~new])
    np.testing.assert_array_equal(correction_strokes(truth, truth, before), before)


def test_same_seed_same_strokes(truth):
    np.testing.assert_array_equal(draw_strokes(truth, seed=3), draw_strokes(truth, seed=3))
    assert (draw_strokes(truth, seed=3) != draw_strokes(truth, seed=4)).any()


def test_what_has_no_class_is_not_corrected():
    """The largest area that differs from the truth is one where the truth is unknown: the other gets the stroke."""
    truth = np.zeros((20, 30), np.uint8)
    truth[:, 22:] = 2
    corrected = correction_strokes(truth, np.ones_like(truth), np.zeros_like(truth), n=1)
    assert set(np.unique(corrected)) == {0, 2}


def test_strokes_in_a_place_are_in_every_class_that_is_there():
    truth = np.ones((24, 24), np.uint8)
    truth[:, 12:] = 2
    truth[3, 20] = 3  # less than a twentieth
    painted = place_strokes(truth, np.zeros_like(truth), length=8, seed=1)
    assert set(np.unique(painted)) == {0, 1, 2}
    assert (painted[painted > 0] == truth[painted > 0]).all()
    assert 4 <= (painted == 1).sum() <= 10
    again = place_strokes(truth, painted, length=8, seed=2)
    assert (again[painted > 0] == painted[painted > 0]).all()
