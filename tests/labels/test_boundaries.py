"""Distances between borders and the halo: by hand, by brute force, plane by plane; the page about them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from memory_volume import CountedVolume

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.labels.boundaries import BoundaryDistances, HaloShare, class_border
from gpu_tomoclass.labels.evaluate import compare_volumes, evaluate_volumes
from gpu_tomoclass.labels.evaluation_page import evaluation_report

CLASSES = default_classes(("vacuum", "rubber", "silica"))


def random_labels(shape, seed):
    """Values 1 to 3 in squares of 4 pixels."""
    nz, ny, nx = shape
    coarse = np.random.default_rng(seed).integers(1, 4, (nz, ny // 4, nx // 4), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def border_points(plane, value):
    """Border pixels one by one."""
    ny, nx = plane.shape
    steps = ((1, 0), (-1, 0), (0, 1), (0, -1))
    inside = [(y, x) for y in range(ny) for x in range(nx) if plane[y, x] == value]
    return [
        (y, x)
        for y, x in inside
        if any(0 <= y + a < ny and 0 <= x + b < nx and plane[y + a, x + b] != value for a, b in steps)
    ]


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (2.0, 2.0), (3.0, 0.5)])
def test_distances_are_those_of_brute_force(pixel):
    truth, labels = random_labels((3, 20, 24), 0), random_labels((3, 20, 24), 1)
    found = BoundaryDistances((7.0, *pixel))
    for true_plane, plane in zip(truth, labels, strict=True):
        found.update(true_plane, plane)
    for value in (1, 2, 3):
        pixels, lengths = [], []
        for true_plane, plane in zip(truth, labels, strict=True):
            true_points = np.array(border_points(true_plane, value), float)
            for point in border_points(plane, value):
                away = true_points - point
                pixels.append(np.hypot(*away.T).min())
                lengths.append(np.hypot(*(away * pixel).T).min())
        for unit, expected in (("pixels", pixels), ("nm", lengths)):
            got = found.of(value)[unit]
            assert got["mean"] == pytest.approx(np.mean(expected))
            # the smallest distance that 95 % do not exceed
            assert got["p95"] == pytest.approx(np.percentile(expected, 95, method="inverted_cdf"))
        assert found.of(value)["lost"] == 0


def test_a_shifted_square_is_off_by_its_shift():
    truth, labels = np.ones((30, 40), np.uint8), np.ones((30, 40), np.uint8)
    truth[10:20, 10:20] = labels[10:20, 12:22] = 2
    found = BoundaryDistances()
    found.update(truth, labels)
    got = found.of(2)
    # the two upright sides are off by 2; of top and bottom, 6 inner pixels each lie on the truth, 2 beyond are off
    # by 1 and 2 -- beside the corners, which count with the upright sides -- and those inside the square by 0
    assert got["pixels"]["p95"] == 2
    assert 0.9 < got["pixels"]["mean"] < 1.3
    assert got["nm"] is None
    same = BoundaryDistances()
    same.update(truth, truth)
    assert same.of(2)["pixels"] == {"mean": 0.0, "p95": 0.0}


def test_a_class_without_a_true_border_is_counted_and_has_no_distance():
    truth, labels = np.ones((10, 10), np.uint8), np.ones((10, 10), np.uint8)
    labels[4:6, 4:7] = 3
    found = BoundaryDistances()
    found.update(truth, labels)
    assert found.of(3) == {"pixels": None, "nm": None, "lost": 6}
    assert found.of(9) == {"pixels": None, "nm": None, "lost": 0}


def test_ignored_pixels_and_the_edge_of_the_plane_make_no_border():
    plane = np.ones((6, 8), np.uint8)
    plane[:, 4:] = 2
    assert np.argwhere(class_border(plane, 1)).tolist() == [[y, 3] for y in range(6)]
    mask = np.ones(plane.shape, bool)
    mask[:3, 4] = False
    assert np.argwhere(class_border(plane, 1, mask=mask)).tolist() == [[y, 3] for y in (3, 4, 5)]
    assert np.argwhere(class_border(plane, 2, mask=mask)).tolist() == [[y, 4] for y in (3, 4, 5)]
    assert not class_border(np.ones((4, 4), np.uint8), 1).any()


def test_halo_by_hand():
    """Three columns of background, ten of shell, three of matrix; 4 pixels to either side are looked at."""
    truth = np.zeros((5, 16), np.uint8)
    truth[:, 3:13], truth[:, 13:] = 4, 2
    labels = truth.copy()
    labels[:, 2:4] = 1  # a rim of void on the border
    labels[0, 12] = 3  # too far away to count
    labels[1, 4] = 0  # not classified, as the background is: no other class
    halo = HaloShare(4, 0)
    halo.update(truth, labels)
    assert (halo.pixels, halo.other) == (5 * (3 + 4), 5 * 2)
    assert halo.share == pytest.approx(10 / 35)
    near = HaloShare(4, 0, distance=1)
    near.update(truth, labels, mask=np.arange(16)[None] + np.zeros((5, 1)) != 2)
    assert (near.pixels, near.other) == (5, 5)
    perfect = HaloShare(4, 0)
    perfect.update(truth, truth)
    assert perfect.share == 0


def test_halo_of_classes_that_do_not_meet_and_impossible_ones():
    halo = HaloShare(4, 1)
    halo.update(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8))
    assert np.isnan(halo.share)
    with pytest.raises(UsageError, match="two classes"):
        HaloShare(2, 2)
    with pytest.raises(UsageError, match="use 1 or more"):
        HaloShare(2, 1, distance=0)


def test_volumes_are_read_plane_by_plane_once_and_give_one_dictionary():
    truth = CountedVolume(random_labels((4, 20, 24), 0), classes=CLASSES, voxel_size=(2.0, 2.0, 2.0))
    labels = CountedVolume(random_labels((4, 20, 24), 1))
    steps = []
    found = evaluate_volumes(labels, truth, halo=(3, 1), progress=lambda *step: steps.append(step))
    assert labels.planes_read == truth.planes_read == [0, 1, 2, 3]
    assert steps == [(z, 4) for z in range(5)]
    score = compare_volumes(labels, truth).to_dict()
    data = found.to_dict()
    assert {key: data[key] for key in score if key != "classes"} == {k: v for k, v in score.items() if k != "classes"}
    for row, plain in zip(data["classes"], score["classes"], strict=True):
        assert row.pop("boundary") == found.boundaries.of(row["value"])
        assert row == plain
    assert data["voxel_size_nm"] == [2.0, 2.0, 2.0]
    assert (data["halo"]["solid"], data["halo"]["background"], data["halo"]["distance"]) == (3, 1, 4.0)
    assert 0 < data["halo"]["share"] < 1
    assert found.boundaries.of(2)["nm"]["mean"] == pytest.approx(2 * found.boundaries.of(2)["pixels"]["mean"])
    few = evaluate_volumes(labels, truth, planes=[1, 3], boundaries=False).to_dict()
    assert few["voxels"] == 2 * 20 * 24
    assert "halo" not in few
    assert "boundary" not in few["classes"][0]


def test_mapping_and_ignored_values_reach_borders_and_halo():
    truth = random_labels((2, 20, 24), 0)
    plain = evaluate_volumes(CountedVolume(random_labels((2, 20, 24), 1)), CountedVolume(truth), halo=(3, 1)).to_dict()
    moved = evaluate_volumes(
        CountedVolume(random_labels((2, 20, 24), 1)), CountedVolume(truth + np.uint8(10)), halo=(3, 1),
        mapping={11: 1, 12: 2, 13: 3},
    ).to_dict()  # fmt: skip
    assert moved == plain
    less = evaluate_volumes(
        CountedVolume(random_labels((2, 20, 24), 1)), CountedVolume(truth), halo=(3, 1), ignore=(1,), classes=(2, 3)
    ).to_dict()
    assert less["halo"]["pixels"] < plain["halo"]["pixels"]
    with pytest.raises(ModelError, match="same region"):
        evaluate_volumes(CountedVolume(truth[:1]), CountedVolume(truth))


def test_the_page_holds_every_number_and_three_planes():
    truth = CountedVolume(random_labels((8, 20, 24), 0), classes=CLASSES, voxel_size=(2.0, 2.0, 2.0))
    labels = CountedVolume(random_labels((8, 20, 24), 1))
    found = evaluate_volumes(labels, truth, halo=(3, 1), ignore=(2,), classes=CLASSES)
    page = evaluation_report(found, labels, truth, ignore=(2,)).html()
    text = re.sub(r"<[^>]+>", " ", page)
    assert f"{100 * found.confusion.accuracy:.2f} %" in text
    assert f"{100 * found.halo.share:.2f} % were given to other classes" in text
    assert f"{found.boundaries.of(3)['nm']['mean']:.2f}" in text
    assert [f"plane {z}: truth" in text for z in range(8)] == [z in (2, 4, 6) for z in range(8)]
    assert page.count("<img") == 9
    assert "ignored in white" in text
    plain = evaluate_volumes(labels, CountedVolume(truth.array), boundaries=False)
    page = evaluation_report(plain, labels, CountedVolume(truth.array)).html()
    assert "Borders" not in page
    assert "Halo" not in page
    assert "class 3" in page
