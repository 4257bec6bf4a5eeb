"""Where memory is not enough, slabs are halved and threads leave, and the labels are the same."""

import threading

import numpy as np
import pytest

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.device import NumpyDevice, is_out_of_memory
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.volumes.opening import open_volume


class SmallMemory(NumpyDevice):
    """Like a GPU: takes slabs, and refuses arrays of features beyond some number of planes."""

    has_own_memory = True

    def __init__(self, largest, *, refuse=(), error=None):
        super().__init__(threads=1)
        self.largest, self.refuse, self.error = largest, set(refuse), error or MemoryError()
        self.tried = []

    def free_memory(self):
        return 10**9

    def empty(self, shape, dtype):
        if len(shape) == 4:  # (channels, nz, ny, nx)
            self.tried.append(shape[1])
            if shape[1] > self.largest or len(self.tried) in self.refuse:
                raise self.error
        return super().empty(shape, dtype)


def labels_of(path):
    with open_volume(path) as volume:
        return np.stack([plane for _, plane in volume.planes()])


@pytest.fixture(scope="module")
def expected(sample_path, sample_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("expected") / "labels.tif"
    with open_volume(sample_path) as volume:
        classify(volume, sample_model, output=path, device=NumpyDevice(threads=1))
    return labels_of(path)


@pytest.mark.parametrize("largest", [1, 2, 3, 100])
@pytest.mark.parametrize("error", [MemoryError("x"), RuntimeError("cudaErrorMemoryAllocation: out of memory")])
def test_slabs_are_halved(sample_path, sample_model, tmp_path, expected, largest, error):
    device = SmallMemory(largest, error=error)
    with open_volume(sample_path) as volume:
        result = classify(volume, sample_model, output=tmp_path / "o.tif", device=device)
    np.testing.assert_array_equal(labels_of(tmp_path / "o.tif"), expected)
    notes = [note for note in result.notes if "slabs are halved" in note]
    assert bool(notes) == (largest < 8)
    if notes:
        assert "GPU memory is not enough (needed" in notes[0]
        assert "free 1.0 GB" in notes[0]
        # Once found, the size is kept: after the first success at the limit no larger slab is tried.
        assert all(n <= largest for n in device.tried[device.tried.index(largest, 1) :])


@pytest.mark.parametrize("refuse", [[1], [2], [3], [4], [2, 3]], ids=["first", "second", "third", "last", "twice"])
def test_memory_that_somebody_else_took_for_a_moment(sample_path, sample_model, tmp_path, expected, refuse):
    """At the start, in the middle, in the last slab."""
    device = SmallMemory(100, refuse=refuse)
    with open_volume(sample_path) as volume:
        if refuse == [1]:  # not even one plane at the start: nothing smaller can be tried
            with pytest.raises(ResourceError, match="for 1 plane at once"):
                classify(volume, sample_model, output=tmp_path / "o.tif", device=device)
        classify(volume, sample_model, output=tmp_path / "o.tif", device=device)
    np.testing.assert_array_equal(labels_of(tmp_path / "o.tif"), expected)


def test_a_size_that_the_user_fixed_is_never_changed(sample_path, sample_model, tmp_path):
    device = SmallMemory(3)
    with open_volume(sample_path) as volume, pytest.raises(ResourceError, match=r"needed .*5 planes at once") as caught:
        classify(volume, sample_model, output=tmp_path / "o.tif", device=device, slab_planes=5)
    assert set(device.tried) == {5}
    assert caught.value.exit_code == 5
    with open_volume(sample_path) as volume:
        classify(volume, sample_model, output=tmp_path / "o.tif", device=device, slab_planes=3)
    assert set(device.tried[1:]) == {3}


class CrowdedMemory(NumpyDevice):
    """A CPU with memory for so many threads at once."""

    def __init__(self, threads, *, largest):
        super().__init__(threads=threads)
        self.largest, self.inside, self.lock = largest, 0, threading.Lock()

    def upload(self, values, target):
        with self.lock:
            self.inside += 1
            crowded = self.inside > self.largest
        try:
            threading.Event().wait(0.001)
            if crowded:
                raise MemoryError
            super().upload(values, target)
        finally:
            with self.lock:
                self.inside -= 1


def test_on_a_cpu_threads_leave(sample_path, sample_model, tmp_path, expected):
    with open_volume(sample_path) as volume:
        result = classify(volume, sample_model, output=tmp_path / "o.tif", device=CrowdedMemory(4, largest=1))
    np.testing.assert_array_equal(labels_of(tmp_path / "o.tif"), expected)
    assert any("going on with" in note for note in result.notes)
    with open_volume(sample_path) as volume, pytest.raises(ResourceError, match="memory is not enough"):
        classify(volume, sample_model, output=tmp_path / "p.tif", device=CrowdedMemory(2, largest=0))


def test_other_errors_are_not_retried(sample_path, sample_model, tmp_path):
    """A lost device, an illegal address: the context is gone, another try cannot work."""
    device = SmallMemory(0, error=RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"))
    with open_volume(sample_path) as volume, pytest.raises(RuntimeError, match="illegal memory access"):
        classify(volume, sample_model, output=tmp_path / "o.tif", device=device)
    assert len(device.tried) == 1


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("std::bad_alloc: out_of_memory: CUDA error"))
    assert not is_out_of_memory(RuntimeError("cudaErrorIllegalAddress"))
    assert not is_out_of_memory(ValueError("out of memory"))
