"""What only a GPU can show: its own arithmetic, its streams, its memory. See ``conftest.py`` for machines without one.

Everything here also runs as ``pytest tests/gpu`` in one step of ``benchmarks/bench_gpu.py --report``.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cases_forest import NEAR_ZERO
from kernel_cases import all_cases
from scipy import ndimage

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification import classify, predict
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import FOREST, Device, Workspace
from gpu_tomoclass.device.cuda import CudaDevice
from gpu_tomoclass.doctor import Subjects, check_device, random_forest, random_planes
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features import FeatureBank, FeatureEngine, IntensityScale
from gpu_tomoclass.forest import LEAF, DeviceForest, Forest, grow_forest, predict_probabilities
from gpu_tomoclass.forest.arrays import smallest_above
from gpu_tomoclass.labels import evaluate_volumes, measure_particles
from gpu_tomoclass.model import Model
from gpu_tomoclass.volumes import ArrayVolume, open_volume

if TYPE_CHECKING:
    from conftest import LimitedGpu

FAMILIES = ("sobel_filter", "neighbors")


def small_model(families: tuple[str, ...] = FAMILIES) -> Model:
    """Random questions about some families; what its classes mean does not matter."""
    bank = FeatureBank.create(families, sigma_max=4)
    forest = random_forest(np.random.default_rng(3), n_trees=10, depth=6, n_features=bank.n_channels, n_classes=3)
    return Model(forest, bank, default_classes(["a", "b", "c"]), IntensityScale())


def planes(n: int) -> np.ndarray:
    return random_planes(np.random.default_rng(4), (n, 33, 70))


def test_every_case(real_gpu: CudaDevice, case_name: str) -> None:
    """All sizes of tests/kernels within the tolerances of their cases."""
    case = all_cases()[case_name]
    device = real_gpu if case.kernels is None else CudaDevice(0, kernels=case.kernels)
    if case.needs_clusters and not device.cluster_blocks:
        pytest.skip("this GPU has no clusters of thread blocks")
    for size in case.sizes:
        inputs = case.inputs(size)
        case.check(inputs, np.asarray(case.run(device, inputs)))


def test_diffusion_of_planes_that_fit_no_cluster(real_gpu: CudaDevice) -> None:
    """Where there are clusters, the planes of the cases fit one."""
    case = all_cases()["anisotropic_diffusion"]
    real_gpu.cluster_blocks = 0
    for size in case.sizes:
        inputs = case.inputs(size)
        case.check(inputs, np.asarray(case.run(real_gpu, inputs)))


def test_doctor_agrees(real_gpu: CudaDevice) -> None:
    subjects = Subjects()
    subjects.compute_reference(lambda: None)
    assert [check for check in check_device(real_gpu, subjects) if not check.agrees] == []


def test_zeros_and_denormals_go_the_right_way(gpu: Device) -> None:
    """A split at 0 asks for ``x < 1.4e-45``; a GPU takes that number for 0."""
    threshold = float(smallest_above(np.array([0.0], np.float32))[0])
    forest = Forest(
        feature=np.array([0, LEAF, LEAF], np.int32),
        threshold=np.array([threshold, 0, 0], np.float32),
        child=np.array([1, 0, 1], np.int32),
        left_fraction=np.array([0.5, 0, 0], np.float32),
        votes=np.eye(2),
        roots=np.zeros(1, np.int64),
        n_features=1,
    )
    values = np.tile(np.concatenate([NEAR_ZERO, [1e-30, -1e-30]]).astype(np.float32), 16)[np.newaxis]
    for by_rank in (True, False):
        found = gpu.numpy(DeviceForest(forest, gpu, by_rank=by_rank).probabilities(gpu.array(values)))
        np.testing.assert_array_equal(found, predict_probabilities(forest, values))


def test_several_streams_and_changing_slabs_give_the_same_bits(gpu: Device) -> None:
    """Three threads, each with a stream, scratch memory and pinned memory of its own, and slabs of changing size."""
    slab, classifier = planes(4), Classifier(small_model(), gpu)
    labels, probabilities = classifier.classify(slab, want_probabilities=True)
    wrong: list[tuple[int, int]] = []
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for i in range(4):
                n = 1 + (i + k) % 4
                found, shares = classifier.classify(slab[:n], want_probabilities=True)
                if not (np.array_equal(found, labels[:n]) and np.array_equal(shares, probabilities[:, :n])):
                    wrong.append((k, i))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not wrong


def test_repeated_slabs_in_graphs_give_the_same_bits(gpu: Device) -> None:
    """The third slab of a kind is launched as graphs: the features are those of launches one by one."""
    bank = FeatureBank.create([*FAMILIES, "gaussian_blur", "anisotropic_diffusion", "entropy", "median"], sigma_max=4)
    engine, slabs = FeatureEngine(gpu.for_thread(), bank.blocks), [planes(2) + i for i in range(4)]
    repeated = [engine.device.numpy(engine.compute(slab)).copy() for slab in slabs]
    for slab, found in zip(slabs, repeated, strict=True):
        np.testing.assert_array_equal(gpu.numpy(FeatureEngine(gpu, bank.blocks).compute(slab)), found)
    assert isinstance(gpu, CudaDevice)
    assert gpu.graphs.problem is None
    assert gpu.graphs.n_captured > 0


def test_pinned_copies(gpu: Device) -> None:
    """Up and down by pinned memory of changing size: what comes back is what went, whatever came before."""
    device = gpu.for_thread()
    workspace = Workspace(device)
    for n in (3, 1, 4, 2, 4):
        slab = planes(n) + n
        target = workspace.array("target", slab.shape, np.float32)
        workspace.upload("slab", slab, target)
        back = workspace.on_host("target", target)
        workspace.synchronize()
        np.testing.assert_array_equal(back, slab)


def test_the_device_does_not_matter(gpu: Device, tmp_path: Path) -> None:
    """File to file on the GPU and on the CPU: the same labels where the best two classes are not equally likely."""
    model, slab = small_model(), planes(5)
    volume = ArrayVolume(slab.astype(np.uint16))
    classify(volume, model, output=tmp_path / "gpu.tif", device=gpu)
    labels, probabilities = predict(model, volume, device="native")
    with open_volume(tmp_path / "gpu.tif") as found:
        differs = np.stack([plane for _, plane in found.planes()]) != labels
    best = np.sort(probabilities, axis=0)
    assert not (differs & (best[-1] - best[-2] > 1e-5)).any()


def test_memory_that_is_not_enough(limited_gpu: LimitedGpu) -> None:
    """Slabs become smaller until they fit; a plane that cannot fit is an error that says so."""
    volume, model = ArrayVolume(planes(24).astype(np.uint16)), small_model()
    expected = predict(model, volume, device="native")
    limited_gpu.leave(8 * 2**20)
    found = predict(model, volume, device=limited_gpu.device)
    best = np.sort(expected.probabilities, axis=0)
    assert not ((found.labels != expected.labels) & (best[-1] - best[-2] > 1e-5)).any()
    limited_gpu.leave(2**17)
    with pytest.raises(ResourceError):
        predict(model, volume, device=limited_gpu.device)


def test_cuml_trains_a_forest_that_classifies(gpu: Device, cuml: None) -> None:
    """Features on the GPU, then cuML, then our own kernels, in one process."""
    bank = FeatureBank.create(FAMILIES, sigma_max=4)
    slab = planes(1)
    features = gpu.numpy(FeatureEngine(gpu, bank.blocks).compute(slab)).reshape(bank.n_channels, -1)
    labels = 1 + (slab.ravel() > np.median(slab))
    rows = np.ascontiguousarray(features[:, ::3].T), labels[::3].astype(np.uint8)
    trained = grow_forest(*rows, engine="cuml", n_trees=20)
    probabilities = gpu.numpy(DeviceForest(trained.forest, gpu).probabilities(gpu.array(features)))
    np.testing.assert_allclose(probabilities, predict_probabilities(trained.forest, features), atol=FOREST.factor)
    assert np.mean(1 + probabilities.argmax(axis=0) == labels) > 0.9


def test_nvforest_is_of_the_same_opinion(tmp_path: Path, gpu: Device, nvforest: None) -> None:
    """Probabilities by the other program's walk; votes are summed in another order and type."""
    model, volume = small_model(), ArrayVolume(planes(3).astype(np.uint16))
    first = classify(volume, model, output=tmp_path / "1.tif", device=gpu, probabilities="float32")
    second = classify(
        volume, model, output=tmp_path / "2.tif", device=gpu, probabilities="float32", forest_engine="nvforest"
    )
    for a, b in zip(first.other_paths, second.other_paths, strict=True):
        with open_volume(a, channel=1) as own, open_volume(b, channel=1) as other:
            for z in range(3):
                np.testing.assert_allclose(own.plane(z), other.plane(z), atol=1e-6)


def test_objects_and_distances_by_cucim(gpu: Device, cucim: None) -> None:
    """Numbers, sizes and surfaces of objects, and distances to borders: those of the CPU, in every bit."""
    random = np.random.default_rng(6)
    smooth = ndimage.gaussian_filter(random.normal(size=(11, 40, 50)), 1.2)
    labels = np.digitize(smooth, np.quantile(smooth, [0.6, 0.85])).astype(np.uint8)
    volume = ArrayVolume(labels, voxel_size=(2.0, 0.5, 1.0))
    truth = ArrayVolume(np.roll(labels, 1, axis=2), voxel_size=(2.0, 0.5, 1.0))
    on_gpu, on_cpu = (
        [vars(measure_particles(volume, value=value, slab_planes=4, device=device)) for value in (1, 2)]
        + [evaluate_volumes(volume, truth, halo=(2, 0), device=device).to_dict()]
        for device in (gpu, None)
    )
    for found, expected in zip(on_gpu, on_cpu, strict=True):
        for name, values in expected.items():
            np.testing.assert_equal(found[name], values)
    assert len(on_cpu[0]["voxels"]) > 5
