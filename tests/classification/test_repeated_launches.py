"""Launches of one slab asked for again for the next: the features are those of the CPU's own plan, come what may.

The simulated GPU runs graphs as CUDA does: with the pointers of the time they were captured, whose memory they do not
keep, and it refuses what cannot be captured.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from late_gpu import late_gpu

from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import launch_record
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.errors import StoppedError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.place import Place

# All of them are computed alike in every bit on both plans; together with copies, shared work and many small launches.
FAMILIES = ("gaussian_blur", "sobel_filter", "anisotropic_diffusion", "entropy", "neighbors", "median")
ACROSS = ("gaussian_blur_3d", "minimum_3d", "median_3d")
PLAIN = FeatureBank.create(FAMILIES, sigma_max=2)
VOLUME = FeatureBank.create([*FAMILIES[:2], *ACROSS], sigma_max=2)


@pytest.fixture(autouse=True)
def all_in_graphs(monkeypatch):
    monkeypatch.setattr(launch_record, "LEAST_STEPS", 1)


def slabs(n: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(6)
    return [1000 * random.random(shape, np.float32) for _ in range(n)]


def by_cpu(bank: FeatureBank, planes: np.ndarray, place: Place | None = None) -> np.ndarray:
    device = NativeDevice(threads=1)
    return device.numpy(FeatureEngine(device, bank.blocks).compute(planes, place=place))


@dataclass
class Counted:
    """Calls of the simulated CuPy, from one look to the next."""

    cupy: object

    def __call__(self) -> Counter:
        found = Counter(call.name for call in self.cupy.calls)
        self.cupy.calls.clear()
        return found


@pytest.mark.parametrize(("order", "seed"), [("now", 0), ("late", 0), ("mixed", 1), ("mixed", 2)])
@pytest.mark.parametrize("bank", [PLAIN, VOLUME], ids=["planes", "across planes"])
def test_repeated_launches_give_the_same_bits(order, seed, bank):
    with late_gpu(order, seed) as (device, cupy):
        counted, engine = Counted(cupy), FeatureEngine(device.for_thread(), bank.blocks)
        for i, planes in enumerate(slabs(4, (3, 9, 14))):
            found = engine.device.numpy(engine.compute(planes))
            np.testing.assert_array_equal(found, by_cpu(bank, planes))
            calls = counted()
            assert (calls["RawKernel.__call__"] > 0) == (i < 2)  # once as they are, once to be captured
            assert (calls["cuda.Graph.launch"] > 0) == (i > 0)
            assert not i or not {"empty", "array", "zeros"} & set(calls)


def test_on_the_default_stream_launches_are_repeated_without_graphs():
    with late_gpu("late") as (device, cupy):
        counted, engine, asked = Counted(cupy), FeatureEngine(device, PLAIN.blocks), []
        counted()  # the device's own first launch
        for planes in slabs(3, (1, 9, 14)):
            np.testing.assert_array_equal(device.numpy(engine.compute(planes)), by_cpu(PLAIN, planes))
            asked.append(counted())
    assert len({calls["RawKernel.__call__"] for calls in asked}) == 1
    assert not any(calls["cuda.Stream.begin_capture"] for calls in asked)


def test_slabs_of_another_kind_between():
    """Of another height, in another place, of some blocks only."""
    whole, part = Place.whole(3), Place(20, 13, 90, 26, 27)
    ways = [
        ((3, 9, 14), whole, VOLUME.blocks),
        ((13, 9, 14), part, VOLUME.blocks),
        ((3, 8, 11), whole, VOLUME.blocks),
        ((3, 9, 14), whole, VOLUME.blocks[:-2]),
        ((3, 9, 14), whole, VOLUME.blocks),
    ]
    with late_gpu("late") as (device, _):
        engine = FeatureEngine(device.for_thread(), VOLUME.blocks)
        for shape, place, blocks in ways:
            for planes in slabs(3, shape):
                found = engine.compute(planes, place=place, blocks=blocks)
                expected = by_cpu(VOLUME, planes, place)[: sum(len(block.channels) for block in blocks)]
                np.testing.assert_array_equal(engine.device.numpy(found), expected)


def test_slabs_in_the_middle_of_a_volume_are_of_one_kind():
    volume, reach = slabs(1, (60, 6, 7))[0], VOLUME.z_reach()
    with late_gpu("late") as (device, cupy):
        counted, engine = Counted(cupy), FeatureEngine(device.for_thread(), VOLUME.blocks)
        captures = []
        for start in range(0, 60, 4):
            place = Place.with_halo(start, start + 4, depth=60, halo=reach)
            planes = volume[place.first : place.first + place.n_planes]
            found = engine.device.numpy(engine.compute(planes, place=place))
            np.testing.assert_array_equal(found, by_cpu(VOLUME, volume)[:, start : start + 4])
            captures.append(counted()["cuda.Stream.begin_capture"] > 0)
    assert sum(captures) == 1


@pytest.mark.parametrize(
    ("place", "nearest"),
    [
        (Place(100, 9, 500, 104, 105), Place(10, 9, 29, 14, 15)),
        (Place(3, 9, 500, 7, 8), Place(3, 9, 22, 7, 8)),
        (Place(100, 9, 110, 104, 105), Place(10, 9, 20, 14, 15)),
        (Place.whole(4), Place.whole(4)),
    ],
)
def test_the_nearest_place(place, nearest):
    assert place.nearest(4) == nearest
    flat = place.nearest(0)
    assert (flat.first, flat.depth, flat.wanted) == (0, place.n_planes, place.wanted)


def test_what_cannot_be_captured_is_launched():
    with late_gpu("late") as (device, cupy):
        cupy.schedule.capture_fails = True
        counted, engine = Counted(cupy), FeatureEngine(device.for_thread(), PLAIN.blocks)
        tries = []
        for planes in slabs(4, (2, 9, 14)):
            np.testing.assert_array_equal(engine.device.numpy(engine.compute(planes)), by_cpu(PLAIN, planes))
            tries.append(counted()["cuda.Stream.begin_capture"])
        assert tries == [0, 1, 0, 0]
        assert "cudaErrorNotSupported" in str(device.graphs.problem)


def test_an_error_while_launches_are_captured_leaves_the_capture():
    with late_gpu("late") as (device, cupy):
        stream = device.for_thread()
        source, target = stream.array(np.ones(3)), stream.zeros(3, np.float64)
        with stream.recording() as record:
            for _ in range(3):
                stream.copy(source, target)
            record.add("a wait", lambda: stream._stream.synchronize())
        record.repeat()  # by plain launches: to wait is allowed then
        assert "when stream is capturing" in str(device.graphs.problem)
        np.testing.assert_array_equal(stream.numpy(target), 1)
        assert cupy.schedule.current().captured is None


def test_with_blocking_launches_each_is_asked_for_anew(monkeypatch):
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    with late_gpu("now") as (device, cupy):
        counted, engine = Counted(cupy), FeatureEngine(device.for_thread(), PLAIN.blocks)
        for planes in slabs(3, (1, 9, 14)):
            engine.compute(planes)
            assert counted()["cuda.Graph.launch"] == 0


def test_a_family_that_the_host_computes_is_not_repeated():
    bank = FeatureBank.create(["neighbors", "gabor"], gabor="exact")
    with late_gpu("late") as (device, cupy):
        counted, engine = Counted(cupy), FeatureEngine(device.for_thread(), bank.blocks)
        for planes in slabs(3, (1, 20, 21)):
            np.testing.assert_array_equal(engine.device.numpy(engine.compute(planes)), by_cpu(bank, planes))
            assert counted()["cuda.Graph.launch"] == 0


def test_a_stop_in_the_middle():
    with late_gpu("late") as (device, _):
        engine = FeatureEngine(device.for_thread(), PLAIN.blocks)
        first, second, third, last = slabs(4, (2, 9, 14))
        with pytest.raises(StoppedError):
            engine.compute(first, should_stop=iter([False] * 3 + [True] * 99).__next__)
        for planes in (second, third):
            engine.compute(planes)
        with pytest.raises(StoppedError):
            engine.compute(third, should_stop=iter([False, True]).__next__)
        np.testing.assert_array_equal(engine.device.numpy(engine.compute(last)), by_cpu(PLAIN, last))


def labels_after_other_pixels(device, model) -> np.ndarray:
    """Of planes whose ranks lie in an array that another use of the same forest has replaced meanwhile."""
    classifier = Classifier(model, device)
    first, second, third = slabs(3, (2, 24, 21))
    for planes in (first, second):
        classifier.classify(planes)
    forest = classifier._arrays_of_thread().forest
    n_features = forest.forest.n_features
    forest.probabilities(forest.device.array(np.zeros((n_features, 77), np.float32)))
    forest.probabilities(forest.device.array(np.zeros((n_features, 2 * 24 * 21), np.float32)))
    return classifier.classify(third)[0]


def test_arrays_replaced_by_another_use(sample_model, monkeypatch):
    third = slabs(3, (2, 24, 21))[2]
    expected = Classifier(sample_model, NativeDevice(threads=1)).classify(third)[0]
    with late_gpu("late") as (device, _):
        np.testing.assert_array_equal(labels_after_other_pixels(device, sample_model), expected)
    # Planted: whoever does not count replaced arrays goes on to write ranks that nobody reads.
    monkeypatch.setattr(Workspace, "_count_replaced", lambda *_: None)
    with late_gpu("late") as (device, _):
        assert (labels_after_other_pixels(device, sample_model) != expected).any()
