"""Slabs of two streams on a GPU that does everything as late, or in as odd an order, as CUDA allows.

The labels are those of the other devices; and each mistake that would go unnoticed on an obedient GPU is planted, and
changes them.
"""

import contextlib
import threading

import numpy as np
import pytest
from late_gpu import late_gpu
from simulated_streams import CUDARuntimeError

from gpu_tomoclass.classification import slabs
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.cuda import CudaDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.volumes.opening import open_volume

ORDERS = [("now", 0), ("late", 0), ("mixed", 1), ("mixed", 2), ("mixed", 3)]


def labels_of(path):
    with open_volume(path) as volume:
        return np.stack([plane for _, plane in volume.planes()])


def classified(sample_path, sample_model, folder, device, **options):
    with open_volume(sample_path) as volume:
        result = classify(volume, sample_model, output=folder / "labels.tif", device=device, overwrite=True, **options)
    return result, labels_of(folder / "labels.tif")


@pytest.fixture(scope="module")
def expected(sample_path, sample_model, tmp_path_factory):
    """Labels, and probabilities of the first class, plane by plane on one thread."""
    folder = tmp_path_factory.mktemp("expected")
    device = NumpyDevice(threads=1)
    _, labels = classified(sample_path, sample_model, folder, device, probabilities="float32")
    with open_volume(folder / "labels_probabilities.tif", channel=0) as volume:
        return labels, np.stack([plane for _, plane in volume.planes()])


# -- the stand-in itself: what is not waited for is not there ---------------------------------------------------------
def two_streams(cupy, *, waits):
    """Values go up on one stream and are copied on another, which waits for the first, or not."""
    first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    with first:
        source = cupy.array(np.arange(5.0))
        event = cupy.cuda.Event()
        event.record()
    with second:
        target = cupy.zeros(5, np.float64)
        if waits:
            second.wait_event(event)
        cupy.copyto(target, source)
        return cupy.asnumpy(target)


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_wait_for_an_event_shows(seed):
    for order in ("late", "mixed"):
        with late_gpu(order, seed) as (_, cupy):
            np.testing.assert_array_equal(two_streams(cupy, waits=True), np.arange(5.0))
    with late_gpu("late") as (_, cupy):
        assert np.isnan(two_streams(cupy, waits=False)).all()


def test_pinned_memory_that_is_changed_or_freed_too_early_shows():
    with late_gpu("late") as (device, _):
        pinned, target = device.pinned((4,), np.float32), device.empty((4,), np.float32)
        pinned[...] = 1
        device.start_upload(pinned, target)
        pinned[...] = 2
        np.testing.assert_array_equal(device.numpy(target), 2)
        device.start_upload(pinned, target)
        del pinned
        device.pinned((4,), np.float32)[...] = 3  # of the same pool
        assert (device.numpy(target) != 2).all()
        ordinary = np.full(4, 5, np.float32)
        device.upload(ordinary, target)
        ordinary[...] = 6
        np.testing.assert_array_equal(device.numpy(target), 5)


def test_device_memory_that_is_freed_while_another_stream_uses_it_shows():
    with late_gpu("late") as (device, _):
        mine, other = device.for_thread(), device.for_thread()
        source = mine.array(np.arange(4.0))
        mine.synchronize()
        target = other.empty((4,), np.float64)
        other.copy(source, target)
        del source
        mine.synchronize()  # whoever has the memory next has written to it
        assert np.isnan(other.numpy(target)).all()


# -- slabs -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("order", "seed"), ORDERS)
@pytest.mark.parametrize("slab_planes", [None, 1, 2, 5])
def test_labels_do_not_depend_on_the_order(sample_path, sample_model, expected, tmp_path, order, seed, slab_planes):
    with late_gpu(order, seed) as (device, cupy):
        result, labels = classified(
            sample_path, sample_model, tmp_path, device, slab_planes=slab_planes, probabilities="float32"
        )
        streams = {call.args[0] for call in cupy.calls if call.name == "cuda.Stream.synchronize"}
    np.testing.assert_array_equal(labels, expected[0])
    with open_volume(tmp_path / "labels_probabilities.tif", channel=0) as volume:
        first = np.stack([plane for _, plane in volume.planes()])
    np.testing.assert_allclose(first, expected[1], atol=6.1e-8, rtol=0)  # votes are added in another order
    assert result.profile["threads"] == 2
    assert len(streams) == 3  # of two threads, and that of the forest
    assert {"host to device", "device to host"} < set(result.profile["thread_seconds"])


def test_nothing_is_allocated_for_a_slab_of_the_same_size(sample_path, sample_model):
    planes = np.random.default_rng(2).random((3, 24, 21), np.float32)
    with late_gpu("late") as (device, cupy):
        ready = Classifier(sample_model, device)
        ready.classify(planes, want_probabilities=True)
        cupy.calls.clear()
        ready.classify(planes, want_probabilities=True, timings={})
        names = [call.name for call in cupy.calls]
    assert not {"empty", "zeros", "array", "cuda.Event", "cuda.alloc_pinned_memory"} & set(names)
    assert names.count("cuda.Stream.synchronize") == 1  # once a slab, and only the own stream
    assert names.count("ndarray.get") == 2
    assert names.count("ndarray.set") == 1


def test_bytes_of_probabilities_are_made_on_the_device(sample_model):
    """What is rounded there is what the host makes of the float values, and floats do not come down for it."""
    planes = 400 * np.random.default_rng(2).random((3, 24, 21), np.float32)
    with late_gpu("late") as (gpu, cupy):
        for device in (gpu, NativeDevice(threads=1), NumpyDevice(threads=1)):
            ready = Classifier(sample_model, device)
            labels, found = ready.classify(planes, want_probabilities=True)
            before = cupy.memory.n_pinned
            again, as_bytes = ready.classify(planes, want_probabilities=True, as_bytes=True)
            assert cupy.memory.n_pinned - before < found.nbytes
            np.testing.assert_array_equal(again, labels)
            np.testing.assert_array_equal(as_bytes, np.rint(found * 255).astype(np.uint8))
            assert len(np.unique(as_bytes)) > 3


def one_by_one(sample_path, sample_model, folder, device):
    return classified(sample_path, sample_model, folder, device, slab_planes=2)[1]


def forgets_to_wait_for_the_slab(monkeypatch):
    monkeypatch.setattr(Workspace, "synchronize", lambda self: None)


def forgets_to_wait_for_the_forest(monkeypatch):
    waits = CudaDevice.synchronize
    monkeypatch.setattr(CudaDevice, "synchronize", lambda self: None if self._stream.is_null else waits(self))


def copies_on_the_default_stream(monkeypatch):
    def start_upload(self, values, target):
        target.set(values)

    monkeypatch.setattr(CudaDevice, "start_upload", start_upload)


def shares_pinned_memory_between_threads(monkeypatch):
    """And, as it may happen, both threads have filled it before either of them waits."""
    both, shared = threading.Barrier(2, timeout=2), {}
    upload = CudaDevice.start_upload

    def pinned(self, name, shape, dtype):
        return shared.setdefault((name, tuple(shape)), self.device.pinned(tuple(shape), dtype))

    def start_upload(self, values, target):
        upload(self, values, target)
        with contextlib.suppress(threading.BrokenBarrierError):  # where the number of slabs is odd
            both.wait()

    monkeypatch.setattr(Workspace, "_pinned_array", pinned)
    monkeypatch.setattr(CudaDevice, "start_upload", start_upload)


MISTAKES = [
    forgets_to_wait_for_the_slab,
    forgets_to_wait_for_the_forest,
    copies_on_the_default_stream,
    shares_pinned_memory_between_threads,
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_planted_mistakes_change_the_labels(sample_path, sample_model, expected, tmp_path, monkeypatch, mistake):
    with late_gpu("late") as (device, _):
        mistake(monkeypatch)
        try:
            labels = one_by_one(sample_path, sample_model, tmp_path, device)
        except CUDARuntimeError:
            return  # indices that were not there yet
    assert (labels != expected[0]).any()


@pytest.mark.parametrize("mistake", MISTAKES[1:3], ids=lambda mistake: mistake.__name__)
def test_an_obedient_gpu_would_not_show_them(sample_path, sample_model, expected, tmp_path, monkeypatch, mistake):
    with late_gpu("now") as (device, _):
        mistake(monkeypatch)
        labels = one_by_one(sample_path, sample_model, tmp_path, device)
    np.testing.assert_array_equal(labels, expected[0])


def test_a_source_may_be_made_again_before_the_first_is_waited_for(sample_model):
    """As benchmarks and the doctor do: the planes of the first are not those of the second."""
    random = np.random.default_rng(5)
    with late_gpu("late") as (device, _):
        workspace, targets = Workspace(device), []
        for planes in (a := random.random((2, 4, 5), np.float32), b := random.random((2, 4, 5), np.float32)):
            targets.append(device.empty(planes.shape, np.float32))
            workspace.upload("image", planes, targets[-1])
        np.testing.assert_array_equal(device.numpy(targets[0]), a)
        np.testing.assert_array_equal(device.numpy(targets[1]), b)


# -- too little memory, and errors -----------------------------------------------------------------------------------
def needed(sample_model):
    """Bytes on the GPU of the forest, and of one thread with slabs of so many planes."""
    found = []
    for n in (1, 4):
        with late_gpu("now") as (device, cupy):
            ready = Classifier(sample_model, device)
            ready.prepare()
            shared = cupy.memory.n_bytes
            ready.classify(np.zeros((n, 24, 21), np.float32))
            found.append(cupy.memory.n_bytes - shared)
            del ready
    return shared, found


@pytest.mark.parametrize("order", ["now", "late"])
def test_too_little_memory(sample_path, sample_model, expected, tmp_path, monkeypatch, order):
    shared, (one, four) = needed(sample_model)
    monkeypatch.setattr(slabs, "MEMORY_SHARE", 40.0)  # so that it is found out too late
    for _ in range(5):  # on a busy machine slabs are taken before many of their planes are read
        with late_gpu(order, limit=shared + int(1.5 * four)) as (device, _):
            result, labels = classified(sample_path, sample_model, tmp_path, device)
        np.testing.assert_array_equal(labels, expected[0])
        if halved := any("slabs are halved" in note for note in result.notes):
            break
    assert halved
    # Memory for one thread only: the other leaves, and gives back what it has.
    for limit, options in (
        (shared + int(1.5 * one), {"slab_planes": 1}),
        (shared + int(1.5 * four), {"slab_planes": 4}),
    ):
        for _ in range(5):  # on a busy machine one thread may be through before the other begins
            with late_gpu(order, limit=limit) as (device, _):
                result, labels = classified(sample_path, sample_model, tmp_path, device, **options)
            np.testing.assert_array_equal(labels, expected[0])
            if left := any("going on with 1 thread" in note for note in result.notes):
                break
        assert left
    with (
        late_gpu(order, limit=shared + one // 2) as (device, _),
        pytest.raises(ResourceError, match="for 1 plane at once"),
    ):
        classified(sample_path, sample_model, tmp_path, device)


def test_a_capture_that_fails_is_a_note(sample_path, sample_model, expected, tmp_path):
    with late_gpu("late") as (device, cupy):
        cupy.schedule.capture_fails = True
        result, labels = classified(sample_path, sample_model, tmp_path, device, slab_planes=1)
    np.testing.assert_array_equal(labels, expected[0])
    (note,) = (note for note in result.notes if "CUDA graphs" in note)
    assert note.endswith("are repeated one by one: CUDARuntimeError: cudaErrorNotSupported: operation not supported")


def test_an_error_of_the_gpu_names_the_planes(sample_path, sample_model, tmp_path):
    with (
        late_gpu("late", broken=("neighbors.cu", 3)) as (device, _),
        pytest.raises(CUDARuntimeError, match="cudaErrorIllegalAddress") as caught,
    ):
        classified(sample_path, sample_model, tmp_path, device, slab_planes=2)
    notes = "\n".join(caught.value.__notes__)
    assert "were classified; at work: " in notes


def test_an_error_at_a_launch_names_the_kernel():
    with late_gpu("now", broken=("neighbors.cu", 1)) as (device, _):
        image, result = device.zeros((1, 4, 5), np.float32), device.empty((8, 1, 4, 5), np.float32)
        kernel = device.kernel("neighbors.cu", "neighbors", defines={"TX": 32, "TY": 1})
        args = {"image": image, "result": result, "distance": 1, "ny": 4, "nx": 5}
        kernel(grid=(1, 4, 1), block=(32, 1), args=args)
        with pytest.raises(CUDARuntimeError) as caught:
            kernel(grid=(1, 4, 1), block=(32, 1), args=args)
    assert "at the launch of kernels/neighbors.cu: neighbors" in caught.value.__notes__[0]
    assert "CUDA_LAUNCH_BLOCKING=1" in caught.value.__notes__[0]
