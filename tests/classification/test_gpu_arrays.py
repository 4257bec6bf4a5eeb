"""CuPy in, CuPy out: the bits of NumPy's way for every policy for NaN and every scale, and no values on the host."""

from dataclasses import replace

import numpy as np
import pytest
from late_gpu import late_gpu

from gpu_tomoclass import FeatureBank, PixelClassifier, compute_features
from gpu_tomoclass.classification import slabs
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, UsageError

SHAPE = (7, 18, 17)
FAMILIES = ["gaussian_blur", "mean", "neighbors", "mean_3d"]  # equal bits on all devices
VALUES = {"ndarray.get", "ndarray.set", "cuda.alloc_pinned_memory"}  # ways for values to or from the host


def float_planes(*, holes):
    random = np.random.default_rng(5)
    planes = random.normal(0, 1, SHAPE)
    planes[:, 5:12, 4:11] += 3
    if holes:
        planes[2, 3:6, 4] = np.nan
        planes[5, 0, 0] = np.inf
    return planes.astype(np.float32)


@pytest.fixture(scope="module")
def model():
    marks = np.zeros(SHAPE, np.uint8)
    marks[1, ::3] = 1
    marks[1, 6:11, 5:10] = 2
    bank = FeatureBank.create(FAMILIES, sigma_max=2)
    return PixelClassifier(bank, n_trees=5, max_depth=5, device="numpy").fit(float_planes(holes=False), marks).model_


def asked(cupy, began):
    """Names of the calls since then."""
    return {call.name for call in cupy.calls[began:]}


@pytest.mark.parametrize("intensity", ["model", "auto", "none"])
@pytest.mark.parametrize("nan", ["error", "fill", "mask"])
def test_a_prediction_is_that_of_numpy_arrays(model, nan, intensity, monkeypatch):
    monkeypatch.setattr(slabs, "MAX_SLAB", 3)
    planes = float_planes(holes=nan != "error")
    expected = model.predict(planes, nan=nan, intensity=intensity, device=NumpyDevice(threads=1))
    assert (expected.labels == 0).any() == (nan == "mask")
    with late_gpu("late", seed=2) as (device, cupy):
        given = cupy.array(planes)
        began = len(cupy.calls)
        found = model.predict(given, nan=nan, intensity=intensity, device=device)
        assert not asked(cupy, began) & VALUES
        assert type(found.labels) is type(found.probabilities) is cupy.ndarray
        np.testing.assert_array_equal(cupy.asnumpy(found.labels), expected.labels)
        np.testing.assert_array_equal(cupy.asnumpy(found.probabilities), expected.probabilities)
        np.testing.assert_array_equal(cupy.asnumpy(given), planes)


@pytest.mark.parametrize("nan", ["error", "fill"])
@pytest.mark.parametrize("intensity", ["auto", "none"])
def test_features_are_those_of_numpy_arrays(nan, intensity):
    planes = float_planes(holes=nan != "error")
    bank = FeatureBank.create(FAMILIES, sigma_max=2)
    expected, names = compute_features(planes, bank, nan=nan, intensity=intensity, voxel_size=(2, 1, 1), device="numpy")
    with late_gpu("late", seed=3) as (device, cupy):
        given = cupy.array(planes)
        began = len(cupy.calls)
        found = compute_features(given, bank, nan=nan, intensity=intensity, voxel_size=(2, 1, 1), device=device)
        assert not asked(cupy, began) & VALUES
        assert type(found.channels) is cupy.ndarray
        assert found.names == names
        np.testing.assert_array_equal(cupy.asnumpy(found.channels), expected)


def test_a_model_that_was_adapted(model):
    planes = float_planes(holes=False)
    points = [(0.0, 300.0), (9000.0, 9100.5), (30000.0, 41000.0), (60000.0, 65000.0)]
    adapted = replace(model, intensity=model.intensity.mapped(points))
    expected = adapted.predict(planes, device=NumpyDevice(threads=1))
    assert (expected.probabilities != model.predict(planes, device="numpy").probabilities).any()
    with late_gpu("late", seed=2) as (device, cupy):
        found = adapted.predict(cupy.array(planes), device=device)
        np.testing.assert_array_equal(cupy.asnumpy(found.probabilities), expected.probabilities)
        image = device.scaled(cupy.array(planes), gain=1e4, offset=3e4, clip=None, points=points)
        at = np.interp(planes.astype(np.float64) * 1e4 + 3e4, *np.transpose(points)).astype(np.float32)
        np.testing.assert_array_equal(cupy.asnumpy(image), at)


def test_features_of_one_plane_of_integers():
    plane = np.arange(18 * 17).reshape(18, 17).astype(np.int16)
    expected = compute_features(plane, ["neighbors", "gaussian_blur"], device="numpy").channels
    with late_gpu("now") as (_, cupy):
        found = compute_features(cupy.array(plane), ["neighbors", "gaussian_blur"]).channels  # on its own GPU
        assert found.shape == expected.shape
        np.testing.assert_allclose(cupy.asnumpy(found), expected, atol=6e-6 * np.abs(expected).max())
        exact = FeatureBank.create(["gabor"], gabor="exact")  # has no kernel
        np.testing.assert_array_equal(
            cupy.asnumpy(compute_features(cupy.array(plane), exact).channels),
            compute_features(plane, exact, device="numpy").channels,
        )


def test_what_cannot_be_used(model):
    planes = float_planes(holes=True)
    with late_gpu("now") as (_, cupy):
        with pytest.raises(DataError, match="4 voxels of planes 2, 5 are NaN or infinite"):
            compute_features(cupy.array(planes), FAMILIES)
        with pytest.raises(DataError, match=r"voxels of planes .* are NaN or infinite"):
            model.predict(cupy.array(planes))
        planes[2] = np.nan
        with pytest.raises(DataError, match="plane 2 has no finite voxel"):
            model.predict(cupy.array(planes), nan="fill")
        with pytest.raises(DataError, match="no finite voxel in 7 sampled planes"):
            compute_features(cupy.array(np.full(SHAPE, np.nan)), nan="fill")
        with pytest.raises(DataError, match="have values beyond float32"):
            compute_features(cupy.array(np.full(SHAPE, 1e39)), intensity="none")
        with pytest.raises(UsageError, match="the policy for NaN 'mask' is unknown here"):
            compute_features(cupy.array(planes), nan="mask")
        with pytest.raises(UsageError, match="the numpy device cannot take CuPy arrays"):
            compute_features(cupy.array(planes), device="numpy")
