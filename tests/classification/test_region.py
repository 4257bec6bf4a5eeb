"""A crop or a mask: what is labelled is as without it, the rest is not; planes that nobody asked for are not read."""

import mrcfile
import numpy as np
import pytest
from memory_volume import CountedVolume
from small_volume import SHAPE

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.preview_plane import preview
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.training import check_drift
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes import Region, crop_pairs
from gpu_tomoclass.volumes.opening import open_volume


@pytest.fixture(scope="module")
def volume(sample_path):
    with open_volume(sample_path) as file:
        return CountedVolume(np.asarray(file), voxel_size=file.voxel_size, metadata={
            "place": {"origin_nm": [10.0, 20.0, 30.0], "start": [0, 0, 0]}
        })  # fmt: skip


@pytest.fixture(scope="module")
def mask():
    found = np.zeros(SHAPE, np.uint8)
    found[3:6, 4:20, 2:9] = 7
    return found


def classified(volume, model, folder, **options):
    found = classify(volume, model, output=folder / "o.tif", probabilities="float32", uncertainty="margin",
                     overwrite=True, device=NumpyDevice(threads=1), **options)  # fmt: skip
    with open_volume(found.path) as labels, open_volume(folder / "o_uncertainty.tif") as unsure:
        return np.asarray(labels), np.asarray(unsure), labels.metadata, found.counts


def test_a_crop_is_cut_out_of_what_the_whole_gives(volume, sample_model, tmp_path):
    whole, unsure, *_ = classified(volume, sample_model, tmp_path)
    volume.planes_read.clear()
    labels, uncertain, made, _ = classified(volume, sample_model, tmp_path, crop="2:5,3:,:11")
    np.testing.assert_array_equal(labels, whole[2:5, 3:, :11])
    np.testing.assert_array_equal(uncertain, unsure[2:5, 3:, :11])
    assert made["settings"]["crop"] == f"2:5,3:{SHAPE[1]},0:11"
    assert made["place"] == {"origin_nm": [12.0, 23.0, 30.0], "start": [2, 3, 0]}, "voxels of 1 nm"
    assert set(volume.planes_read) - {0, SHAPE[0] // 2, SHAPE[0] - 1} == {2, 3, 4}, "beside the fingerprint's"


def test_planes_of_a_volume_without_a_place(sample_path, sample_model, tmp_path):
    with open_volume(sample_path) as volume:
        assert "place" not in volume.metadata
        classify(volume, sample_model, output=tmp_path / "o.mrc", planes=(5, 7), device=NumpyDevice(threads=1))
    with mrcfile.open(tmp_path / "o.mrc") as mrc:
        assert [float(mrc.header.origin[letter]) for letter in "zyx"] == [50, 0, 0], "angstrom; voxels of 1 nm"


def test_voxels_outside_of_a_mask_are_not_labelled_and_planes_without_any_not_read(
    volume, sample_model, mask, tmp_path
):
    whole, *_ = classified(volume, sample_model, tmp_path)
    volume.planes_read.clear()
    labels, unsure, made, counts = classified(volume, sample_model, tmp_path, mask=mask, slab_planes=2)
    np.testing.assert_array_equal(labels, np.where(mask, whole, 0))
    assert (unsure[mask == 0] == 1).all()
    assert counts["unlabelled"] == (mask == 0).sum()
    assert made["settings"]["mask"]["shape"] == list(SHAPE)
    assert {1, 8, 9, 10}.isdisjoint(volume.planes_read)


def test_a_preview_leaves_the_rest_out(volume, sample_model, mask):
    device = NumpyDevice(threads=1)
    whole = preview(sample_model, volume, plane=4, device=device)
    found = preview(sample_model, volume, plane=4, device=device, mask=mask, crop=":,:,5:")
    inside = mask[4] != 0
    inside[:, :5] = False
    np.testing.assert_array_equal(found.labels, np.where(inside, whole.labels, 0))
    assert sum(found.counts.values()) == inside.sum()


def test_training_uses_and_remembers_what_is_inside_only(volume, sample_model, mask):
    inside = np.zeros(SHAPE, np.uint8)
    inside[4, 5:10, 3:8] = 1
    inside[4, 15:19, 3:8] = 2
    z, y, x = np.nonzero(inside)
    more = [np.append(a, b) for a, b in ((z, 4), (y, 1), (x, 20))]
    options = {"bank": sample_model.bank, "device": NumpyDevice(threads=1), "n_trees": 4}
    given = Annotation.from_voxels(*more, np.append(inside[z, y, x], 1), shape=SHAPE, classes=default_classes("ab"))
    result = train(volume, given, mask=mask, **options)
    assert result.counts == {"a": 25, "b": 20}
    assert any("1 marked voxels" in note for note in result.notes)
    grey = np.asarray(volume)[4][mask[4] != 0]
    of_original = result.model.quantiles[0, 0]
    assert grey.min() <= of_original[0] <= of_original[-1] <= grey.max()
    assert result.model.training["region"]["mask"]["shape"] == list(SHAPE)
    volume.planes_read.clear()
    check_drift(result.model, volume, mask=mask, device=NumpyDevice(threads=1))
    assert set(volume.planes_read) == {3, 4, 5}
    with pytest.raises(DataError, match="the mask holds no voxel"):
        check_drift(result.model, volume, mask=mask, planes=(7, 9), device=NumpyDevice(threads=1))
    with pytest.raises(UsageError, match="belongs to one volume"):
        train(volume, given, also=[(volume, given)], mask=mask, **options)


@pytest.mark.parametrize("crop", ["1:2", "a:b,:,:", "1,2,3", ((1, 2), (3, 4))])
def test_what_is_no_box_is_refused_with_an_example(crop):
    with pytest.raises(UsageError, match="is not three ranges of voxels; give"):
        crop_pairs(crop)


def test_boxes_and_masks_that_do_not_fit_are_refused(volume):
    with pytest.raises(UsageError, match=f"not inside of the volume's 0:{SHAPE[0]},"):
        Region.of(volume, crop="0:99,:,:")
    with pytest.raises(UsageError, match="planes 1:3 are not in the box"):
        Region.of(volume, planes=(1, 3), crop="4:6,:,:")
    assert Region.of(volume, planes=(1, 5), crop="4:6,:,:").box[0] == (4, 5)
    with pytest.raises(DataError, match="the mask is"):
        Region.of(volume, mask=np.ones((1, 2, 3), np.uint8))
    assert Region.of(volume).outside(0) is None
