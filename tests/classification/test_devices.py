"""Whatever the device, the labels are the same; on a GPU (NVRTC's PTX, interpreted) whole slabs are classified."""

import numpy as np
import pytest
from simulated_cupy import ptx_device

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification import slabs
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.preview_plane import preview
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.cache import FeatureCache
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (9, 20, 17)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rng = np.random.default_rng(4)
    array = rng.integers(0, 300, SHAPE).astype(np.uint16)
    array[:, 5:15, 4:12] += 350
    path = tmp_path_factory.mktemp("volume") / "volume.tif"
    with create_volume(path, shape=SHAPE, dtype=array.dtype) as writer:
        for z, plane in enumerate(array):
            writer.write_plane(z, plane)
    return path


@pytest.fixture(scope="module")
def annotation():
    z, y, x = (a.ravel() for a in np.meshgrid([1, 3], np.arange(20), np.arange(0, 17, 2), indexing="ij"))
    inside = (y >= 5) & (y < 15) & (x >= 4) & (x < 12)
    return Annotation.from_voxels(z, y, x, 1 + inside, shape=SHAPE, classes=default_classes(["out", "in"]))


def run(path, annotation, device, folder, *, n_trees=12):
    bank = FeatureBank.create(["gaussian_blur", "sobel_filter", "neighbors"], sigma_max=2)
    with open_volume(path) as volume:
        result = train(volume, annotation, bank=bank, n_trees=n_trees, max_depth=6, device=device)
        target = folder / f"{device.name}.tif"
        classified = classify(volume, result.model, output=target, probabilities="float32", device=device)
        seen = preview(result.model, volume, plane=2, device=device, cache=FeatureCache(folder / "cache"))
    with open_volume(target) as labels:
        planes = np.stack([plane for _, plane in labels.planes()])
    np.testing.assert_array_equal(seen.labels, planes[2])
    assert classified.device == device.name
    used = {block.family for block in Classifier(result.model, device).blocks}
    copies = {"host to device", "device to host"} if device.has_own_memory else set()
    assert set(classified.seconds_per_plane) == {*used, "forest", *copies}
    return planes, result


def test_native_and_numpy_agree(path, annotation, tmp_path):
    for threads in (1, 2):
        ours, by_native = run(path, annotation, NativeDevice(threads=threads), tmp_path)
        theirs, by_numpy = run(path, annotation, NumpyDevice(), tmp_path)
        # These families have equal bits on all devices, so the forests are the same too.
        np.testing.assert_array_equal(ours, theirs)
        assert by_native.model.training["data_hash"] == by_numpy.model.training["data_hash"]
        for name in ("native.tif", "numpy.tif", "native_probabilities.tif", "numpy_probabilities.tif"):
            (tmp_path / name).unlink()


def test_a_gpu_takes_slabs(path, annotation, tmp_path, monkeypatch):
    device, cupy = ptx_device()
    taken = []
    classify_slab = Classifier.classify

    def watched(self, planes, **rest):
        taken.append(len(planes))
        return classify_slab(self, planes, **rest)

    monkeypatch.setattr(Classifier, "classify", watched)
    monkeypatch.setattr(slabs, "MAX_SLAB", 3)
    ours, _ = run(path, annotation, device, tmp_path, n_trees=3)
    # The first plane shows what a plane needs, some are read until then; the last call is the preview.
    assert taken[0] == taken[-1] == 1
    assert max(taken) > 1
    assert sum(taken) == SHAPE[0] + 1
    assert not any(launch.faults for launch in cupy.launches)
    theirs, _ = run(path, annotation, NumpyDevice(), tmp_path, n_trees=3)
    np.testing.assert_array_equal(ours, theirs)


def test_slabs_fit_the_memory_of_the_gpu(path, annotation, monkeypatch):
    device, _ = ptx_device()
    bank = FeatureBank.create(["neighbors"], sigma_max=1)
    with open_volume(path) as volume:
        model = train(volume, annotation, bank=bank, n_trees=2, max_depth=2, device=NumpyDevice()).model
        loaded = Classifier(model, device)
        size = slabs.SlabSize(device, loaded.blocks)
        assert size.planes(loaded.memory) == 1  # nothing measured yet
        monkeypatch.setattr(device, "free_memory", lambda: 1_000_000)
        loaded.classify(np.zeros((1, *SHAPE[1:]), np.float32))
        n = size.planes(loaded.memory)
        assert 1 < n < slabs.MAX_SLAB
        loaded.classify(np.zeros((n, *SHAPE[1:]), np.float32))
        assert loaded._arrays_of_thread().engine.n_bytes <= 1_000_000
