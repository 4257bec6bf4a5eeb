"""Labels into an array of the caller: what the file would hold, or a refusal before the first plane."""

import numpy as np
import pytest
import zarr
from late_gpu import late_gpu
from small_volume import SHAPE

from gpu_tomoclass import classify
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, StoppedError, UsageError
from gpu_tomoclass.volumes import open_volume

ON = {"device": NumpyDevice(threads=1)}


@pytest.fixture(scope="module")
def planes(sample_path):
    with open_volume(sample_path) as volume:
        return volume[:]


@pytest.fixture(scope="module")
def expected(planes, sample_model):
    return sample_model.predict(planes, probabilities=False, device="numpy").labels


def test_labels_in_an_array_are_those_of_a_prediction(planes, sample_model, expected, tmp_path):
    stored = zarr.create_array(tmp_path / "labels.zarr", shape=SHAPE, chunks=(5, 9, 9), dtype="uint16")
    seen = []
    for array in (np.full(SHAPE, 77, np.uint8), stored):
        result = classify(planes, sample_model, output=array, progress=lambda *step: seen.append(step), **ON)
        np.testing.assert_array_equal(array[:], expected)
        assert result.path == f"{type(array).__module__.partition('.')[0]} array"
        assert result.counts == {"out": int((expected == 1).sum()), "in": int((expected == 2).sum())}
    assert seen[-1] == (SHAPE[0], SHAPE[0])


def test_a_box_of_the_volume(planes, sample_model, expected):
    array = np.zeros((3, 10, 21), np.int32)
    classify(planes, sample_model, output=array, crop="2:5,4:14,:", slab_planes=2, **ON)
    np.testing.assert_array_equal(array, expected[2:5, 4:14])


def test_after_a_stop_finished_planes_are_there(planes, sample_model, expected):
    array, asked = np.zeros(SHAPE, np.uint8), []
    with pytest.raises(StoppedError, match=r"planes are done and in the array; give the planes that are missing"):
        classify(planes, sample_model, output=array, should_stop=lambda: asked.append(0) or len(asked) > 4, **ON)
    done = array.any(axis=(1, 2))
    assert 1 <= done.sum() < SHAPE[0]
    np.testing.assert_array_equal(array[done], expected[done])


def test_what_cannot_take_labels(planes, sample_model, tmp_path):
    array = np.zeros(SHAPE, np.uint8)
    given = planes.copy()
    stored = zarr.create_array(tmp_path / "volume.zarr", data=planes)
    for source, output, options, kind, said in (
        (planes, array[1:], {}, DataError, r"is \(11, 24, 21\), the labels are \(12, 24, 21\)"),
        (planes, array.astype(np.int8), {}, DataError, "holds int8"),
        (planes, array.astype(np.float32), {}, DataError, "holds float32"),
        (planes, array, {"probabilities": "uint8"}, UsageError, "labels only, not probabilities"),
        (planes, array, {"sharded": True}, UsageError, "labels only, not sharded"),
        (planes, None, {}, UsageError, "NoneType is no output"),
        (given, given, {}, UsageError, "is the input"),
        (given, given.view()[:], {}, UsageError, "is the input"),
        (stored, zarr.open_array(tmp_path / "volume.zarr"), {}, UsageError, "is the input"),
    ):
        with pytest.raises(kind, match=said):
            classify(source, sample_model, output=output, **options, **ON)
    np.testing.assert_array_equal(given, planes)
    np.testing.assert_array_equal(stored[:], planes)
    assert not array.any()
    with late_gpu("now") as (_, cupy), pytest.raises(UsageError, match=r"Model\.predict gives CuPy's arrays"):
        classify(planes, sample_model, output=cupy.array(array), **ON)
