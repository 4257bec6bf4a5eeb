"""The nvForest adapter, with a stand-in for nvForest where there is none."""

import sys

import numpy as np
import nvforest_stand_in
import pytest

from gpu_tomoclass.errors import DataError, ModelError, ResourceError, UsageError
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.forest.grow_weka import train_weka
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.forest.predict_nvforest import NvForestPredictor


def rows(n=300, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 12, (n, 6)).astype(np.float32)
    labels = 1 + (values[:, 0] + values[:, 1] + rng.normal(0, 3, n) > 12) + (values[:, 2] > 8)
    return values, labels.astype(np.uint8)


@pytest.fixture
def nvforest(monkeypatch):
    module = nvforest_stand_in.module()
    monkeypatch.setitem(sys.modules, "nvforest", module)
    return module


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("train", [train_forest, train_weka])
def test_same_probabilities_missing_values_too(nvforest, train, device):
    forest = train(*rows(), n_trees=25).forest
    rng = np.random.default_rng(1)
    pixels = rng.integers(-1, 14, (6, 500)).astype(np.float32)
    pixels[rng.random(pixels.shape) < 0.05] = np.nan
    pixels[0, :5] = np.inf, -np.inf, 0, 0, 0
    found = NvForestPredictor(forest, device=device).probabilities(pixels)
    assert (found.dtype, found.shape) == (np.float32, (3, 500))
    # votes are summed in another order and type
    np.testing.assert_allclose(found, predict_probabilities(forest, pixels), atol=1e-6)


def test_unused_features_may_be_missing(nvforest):
    values, labels = rows()
    values[:, 4] = 1
    forest = train_weka(values, labels, n_trees=5).forest
    assert 4 not in forest.used_features()
    pixels = np.ascontiguousarray(values.T)
    expected = predict_probabilities(forest, pixels)
    pixels[4] = np.nan
    np.testing.assert_allclose(NvForestPredictor(forest, device="cpu").probabilities(pixels), expected, atol=1e-6)


def test_few_pixels_and_impossible_requests(nvforest):
    predictor = NvForestPredictor(train_weka(*rows(), n_trees=3).forest)
    assert predictor.device == "gpu"
    assert predictor.probabilities(np.zeros((6, 0), np.float32)).shape == (3, 0)
    assert predictor.probabilities(np.zeros((6, 1), np.float32)).shape == (3, 1)
    with pytest.raises(ModelError, match="5 features"):
        predictor.probabilities(np.zeros((5, 4), np.float32))
    with pytest.raises(DataError, match="float32"):
        predictor.probabilities(np.zeros((6, 4)))
    with pytest.raises(UsageError, match="no device 'tpu'"):
        NvForestPredictor(predictor.forest, device="tpu")


def test_without_a_gpu_or_nvforest(nvforest, monkeypatch):
    forest = train_weka(*rows(), n_trees=3).forest
    nvforest.has_gpu = False
    with pytest.raises(ResourceError, match=r"nvForest cannot use the gpu: Failed to detect.*Insufficient"):
        NvForestPredictor(forest)
    monkeypatch.setitem(sys.modules, "nvforest", None)
    with pytest.raises(ResourceError, match="nvForest is not installed; pip install"):
        NvForestPredictor(forest)
