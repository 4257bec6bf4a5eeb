"""A volume on a coarser grid: means, place, masks, strokes; and models that know the grid they were trained on."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from memory_volume import CountedVolume
from skimage.measure import block_reduce

import gpu_tomoclass as gt
from gpu_tomoclass.annotations import load_annotation
from gpu_tomoclass.cli import run
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.interactive import Session
from gpu_tomoclass.model import fits_volume
from gpu_tomoclass.volumes import Region

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
@pytest.mark.parametrize("bin", [2, (1, 2, 3), (3, 1, 2)])
def test_voxels_are_the_means_of_boxes(dtype, bin):
    """As scikit-image's block_reduce, and the last box of an axis has the mean of what there is."""
    low = -3000 if dtype == np.int16 else 0
    array = RNG.integers(low, 250, (6, 12, 18)).astype(dtype)
    boxes = (2, 2, 2) if bin == 2 else bin
    mean = block_reduce(array.astype(float), boxes, np.mean)
    found = gt.open_volume(array, bin=bin)
    expected = mean.astype(np.float32) if dtype == np.float32 else np.floor(mean + 0.5)
    np.testing.assert_array_equal(np.asarray(found), expected.astype(dtype))
    assert (found.bin, found.full_shape) == (boxes, array.shape)
    odd = np.asarray(gt.open_volume(array[:5, :11, :17], bin=boxes))
    for at in ((0, 0, 0), (-1, -1, -1), (0, -1, 1)):
        cut = tuple(slice((n if i >= 0 else m + i) * b, ((n if i >= 0 else m + i) + 1) * b)
                    for i, n, m, b in zip(at, at, odd.shape, boxes, strict=True))  # fmt: skip
        there = array[:5, :11, :17][cut].astype(float).mean()
        assert odd[at] == pytest.approx(there if dtype == np.float32 else np.floor(there + 0.5), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_sums_beyond_64_bits(dtype):
    """Against Python's whole numbers, which have no largest."""
    info = np.iinfo(dtype)
    array = RNG.integers(info.min, info.max, (5, 6, 9), dtype, endpoint=True)
    array[0], array[1] = info.max, info.min
    found = np.asarray(gt.open_volume(array, bin=(2, 2, 3)))
    assert found.dtype == dtype
    for z, y, x in np.ndindex(found.shape):
        box = array[2 * z : 2 * z + 2, 2 * y : 2 * y + 2, 3 * x : 3 * x + 3].ravel().tolist()
        assert int(found[z, y, x]) == (2 * sum(box) + len(box)) // (2 * len(box))


def test_size_and_place_follow_in_every_format(tmp_path):
    """The centre of the first box: half a box less half a voxel from that of the first voxel."""
    array = RNG.integers(0, 250, (4, 8, 6)).astype(np.uint16)
    for place, first in (({}, (0, 0, 0)), ({"place": {"origin_nm": [10, 20, 30], "start": [0, 0, 0]}}, (10, 20, 30))):
        source = CountedVolume(array, voxel_size=(2.0, 1.0, 0.5), metadata=place)
        for name in ("b.tif", "b.mrc", "b.ome.zarr"):
            assert np.asarray(gt.open_volume(source, bin=(2, 2, 3))).shape == (2, 4, 2)
            from gpu_tomoclass.volumes import convert

            convert(gt.open_volume(source, bin=(2, 2, 3)), tmp_path / name, overwrite=True)
            with gt.open_volume(tmp_path / name) as found:
                assert found.voxel_size == pytest.approx((4.0, 2.0, 1.5))
                origin = found.metadata["place"]["origin_nm"]
                assert origin == pytest.approx([first[0] + 1, first[1] + 0.5, first[2] + 0.5], abs=1e-5)


def test_non_finite_and_missing_voxels():
    array = RNG.normal(size=(4, 4, 4)).astype(np.float32)
    array[0, 0, 0] = np.nan
    found = np.asarray(gt.open_volume(array, bin=2))
    assert np.isnan(found).sum() == 1
    base = CountedVolume(array[1:], allow_missing_planes=True)
    base.missing_planes = {1}
    found = gt.open_volume(base, bin=(2, 1, 1))
    np.testing.assert_allclose(found.plane(0), array[1])
    assert not found.missing_planes


def test_labels_have_no_mean_and_places_no_box():
    labels = CountedVolume(np.ones((4, 4, 4), np.uint8), classes=gt.default_classes(["a"]))
    with pytest.raises(UsageError, match="no mean"):
        gt.open_volume(labels, bin=2)
    for bad in (0, (2, 2), 1.5, (1, -1, 2)):
        with pytest.raises((UsageError, TypeError)):
            gt.open_volume(np.ones((4, 4, 4), np.uint8), bin=bad)
    with pytest.raises(UsageError, match="places are those of stored voxels"):
        Session(gt.open_volume(np.ones((4, 4, 4), np.uint8), bin=2), device="numpy")


def test_a_mask_of_stored_voxels_counts_where_it_fills_half_of_a_box():
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[:2, :2, 0] = 9  # half of the first box
    mask[2, 2, 2] = 9  # an eighth of the last
    volume = gt.open_volume(np.ones((4, 4, 4), np.uint8), bin=2)
    for given in (mask, mask[::2, ::2, ::2] & [[[1, 0]]]):
        outside = Region.of(volume, mask=given).outside(0)
        assert np.argwhere(~outside).tolist() == [[0, 0]]
    assert Region.of(volume, crop="1:2,:,1:").box_shape == (1, 2, 1)


def test_strokes_go_to_the_boxes_where_most_of_them_lie(tmp_path):
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[0, 0, :2], labels[1, 0, 0] = 1, 2  # two against one
    labels[0, 0, 2], labels[0, 0, 3] = 1, 2  # a tie
    labels[3, 5, 5] = 2
    found = load_annotation(labels, volume_shape=labels.shape, bin=(2, 2, 2))
    assert list(zip(found.z, found.y, found.x, found.label, strict=True)) == [(0, 0, 0, 1), (1, 2, 2, 2)]
    assert any("1 of 3 binned voxels have two classes in equal parts" in note for note in found.notes)
    coarse = np.zeros((2, 3, 3), np.uint8)
    coarse[0, 0, 0], coarse[1, 2, 2] = 1, 2
    same = load_annotation(coarse, volume_shape=labels.shape, bin=(2, 2, 2))
    assert (same.z.tolist(), same.label.tolist()) == (found.z.tolist(), found.label.tolist())


def test_the_whole_way_is_that_of_a_volume_binned_before(tmp_path, monkeypatch, capsys):
    """train, preview, check and classify with --bin give what they give for the file that convert --bin writes."""
    monkeypatch.chdir(tmp_path)
    volume = RNG.integers(0, 200, (6, 24, 20)).astype(np.uint16)
    volume[:, 6:18, 4:14] += 300
    strokes = np.zeros_like(volume, np.uint8)
    strokes[2, 6:18, 4:14] = 2
    strokes[2, :4, ::2] = strokes[2, 20:, ::2] = 1
    for name, array in (("v.tif", volume), ("s.tif", strokes)):
        tifffile.imwrite(name, array, imagej=True, metadata={"axes": "ZYX"})
    fast = ["--device", "numpy", "--no-cache"]
    bank = ["--features", "gaussian_blur", "--sigma-max", "2", "--trees", "5", "-q"]
    assert run(["convert", "v.tif", "-o", "b.tif", "--bin", "2"]) == 0
    assert run(["train", "v.tif", "s.tif", "-o", "m.tcm", "--bin", "2", *bank, *fast]) == 0
    coarse = np.zeros((3, 12, 10), np.uint8)
    with gt.open_volume("v.tif", bin=2) as source:
        marked = load_annotation("s.tif", volume_shape=source.full_shape, bin=source.bin)
    coarse[marked.z, marked.y, marked.x] = marked.label
    tifffile.imwrite("c.tif", coarse, imagej=True, metadata={"axes": "ZYX"})
    assert run(["train", "b.tif", "c.tif", "-o", "n.tcm", *bank, *fast]) == 0
    model = gt.load_model("m.tcm")
    assert model.training["bin"] == [2, 2, 2]
    classify = ["--device", "numpy", "-q", "--planes", "1:3", "--crop", ":,2:,:"]
    assert run(["classify", "v.tif", "m.tcm", "-o", "l.tif", "--bin", "2", *classify]) == 0
    assert run(["classify", "b.tif", "n.tcm", "-o", "k.tif", *classify]) == 0
    with gt.open_volume("l.tif") as ours, gt.open_volume("k.tif") as theirs:
        assert ours.shape == (2, 10, 10)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
        assert set(np.unique(ours)) == {1, 2}
        assert ours.metadata["settings"]["bin"] == [2, 2, 2]
    assert run(["preview", "v.tif", "m.tcm", "--plane", "1", "-o", "p.png", "--bin", "2", *fast]) == 0
    assert run(["check", "v.tif", "m.tcm", "--bin", "2", "--device", "numpy"]) == 0
    capsys.readouterr()
    assert run(["classify", "v.tif", "m.tcm", "-o", "x.tif", *classify]) == 4
    assert "trained on a volume with bin 2,2,2 (z, y, x), this one has no bin" in capsys.readouterr().err
    with gt.open_volume("v.tif", bin=(1, 2, 2)) as other, pytest.raises(ModelError, match="bin 1,2,2"):
        fits_volume(model, other)
