"""Arrays in, arrays out: what ``predict`` gives is what ``classify`` writes, in every bit, on every device."""

import dask.array
import numpy as np
import pytest
import zarr
from late_gpu import late_gpu
from small_volume import SHAPE

from gpu_tomoclass import PixelClassifier
from gpu_tomoclass.classification import classify, predict, slabs
from gpu_tomoclass.device import NumpyDevice, choose_device
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.volumes import open_volume


@pytest.fixture(scope="module")
def planes(sample_path):
    with open_volume(sample_path) as volume:
        return volume[:]


@pytest.fixture(scope="module")
def written(sample_path, sample_model, tmp_path_factory):
    """Labels and probabilities of the command's function, from its files."""
    folder = tmp_path_factory.mktemp("written")
    classify(sample_path, sample_model, output=folder / "labels.tif", probabilities="float32", device="numpy")
    with open_volume(folder / "labels.tif") as labels:
        classes = range(len(sample_model.classes))
        stored = [open_volume(folder / "labels_probabilities.tif", channel=c)[:] for c in classes]
        return labels[:], np.stack(stored)


@pytest.mark.parametrize("name", ["numpy", "native"])
def test_what_classify_writes(planes, sample_model, written, name):
    device = choose_device(name, threads=2)
    labels, probabilities = sample_model.predict(planes, device=device)
    assert (labels.dtype, probabilities.dtype) == (np.uint8, np.float32)
    np.testing.assert_array_equal(labels, written[0])
    np.testing.assert_array_equal(probabilities, written[1])
    one = predict(sample_model, planes[3], device=device)
    np.testing.assert_array_equal(one.labels, written[0][3])
    np.testing.assert_array_equal(one.probabilities, written[1][:, 3])


def test_planes_of_any_library_and_layout(planes, sample_model, written, sample_path):
    turned = np.asfortranarray(planes.astype(">u2"))
    chunked = dask.array.from_array(planes, chunks=(5, 10, 21))
    stored = zarr.create_array(zarr.storage.MemoryStore(), data=planes, chunks=(4, 8, 8))
    with open_volume(sample_path) as volume:
        for source in (turned, chunked, stored, volume, volume[:]):
            found = sample_model.predict(source, probabilities=False, device="numpy")
            np.testing.assert_array_equal(found.labels, written[0])
            assert found.probabilities is None


def test_blocks_of_a_dask_array(planes, sample_model, written):
    blocks = dask.array.from_array(planes, chunks=(5, -1, -1))
    labels = blocks.map_blocks(lambda block: sample_model.predict(block, device="numpy").labels, dtype=np.uint8)
    np.testing.assert_array_equal(labels.compute(), written[0])


def test_nothing_comes_of_nothing(planes, sample_model):
    found = sample_model.predict(planes[:0])
    assert (found.labels.shape, found.probabilities.shape) == ((0, *SHAPE[1:]), (2, 0, *SHAPE[1:]))
    assert sample_model.predict(np.empty((0, 0), np.uint16)).labels.shape == (0, 0)


def test_progress_ends_with_all_planes(planes, sample_model):
    seen = []
    sample_model.predict(planes[:4], device="numpy", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_planes_that_do_not_fit(planes, sample_model):
    with pytest.raises(ModelError, match="trained on uint16 voxels, the volume has float32"):
        sample_model.predict(planes.astype(np.float32))
    with pytest.raises(ModelError, match="the model was trained on 1 x 1 nm"):
        sample_model.predict(planes, voxel_size=2)
    sample_model.predict(planes[:1], voxel_size=2, force=True, device="numpy")
    with pytest.raises(DataError, match="has 4 axes"):
        sample_model.predict(planes[None])
    with pytest.raises(UsageError, match="is no array"):
        sample_model.predict(None)
    with pytest.raises(UsageError, match="device 'gpu' is unknown"):
        sample_model.predict(planes, device="gpu")


@pytest.mark.parametrize("order", ["now", "late"])
def test_cupy_in_cupy_out_without_the_host(planes, sample_model, written, order, monkeypatch):
    monkeypatch.setattr(slabs, "MAX_SLAB", 3)
    with late_gpu(order, seed=4) as (device, cupy):
        given = cupy.array(planes)
        began = len(cupy.calls)
        labels, probabilities = sample_model.predict(given, device=device)
        names = {call.name for call in cupy.calls[began:]}
        assert not names & {"ndarray.get", "ndarray.set", "asnumpy", "cuda.alloc_pinned_memory"}
        plane = sample_model.predict(given[5], probabilities=False)  # "auto" is the GPU that they lie on
        assert all(type(array) is cupy.ndarray for array in (labels, probabilities, plane.labels))
        np.testing.assert_array_equal(cupy.asnumpy(labels), written[0])
        np.testing.assert_array_equal(cupy.asnumpy(probabilities), written[1])
        np.testing.assert_array_equal(cupy.asnumpy(plane.labels), written[0][5])
        of_classifier = PixelClassifier(device=device)._take(sample_model).predict_proba(given[:2])
        assert type(of_classifier) is cupy.ndarray
        np.testing.assert_array_equal(cupy.asnumpy(of_classifier), np.moveaxis(written[1][:, :2], 0, -1))


def test_what_a_gpu_array_cannot_be(planes, sample_model):
    with late_gpu("now") as (_, cupy):
        given = cupy.array(planes)
        with pytest.raises(UsageError, match="nan 'zero' is unknown"):
            sample_model.predict(given, nan="zero")
        with pytest.raises(UsageError, match="intensity 'best' is unknown"):
            sample_model.predict(given, intensity="best")
        with pytest.raises(UsageError, match="the numpy device cannot take CuPy arrays"):
            sample_model.predict(given, device=NumpyDevice())
        with pytest.raises(ModelError, match="trained on uint16 voxels, the volume has float32"):
            sample_model.predict(cupy.array(planes.astype(np.float32)))
