"""The nvForest adapter, with treelite's predictor in the place of nvForest's where there is none.

The stand-in has the functions, parameters and answers of nvForest 26.10: rows in C order in the type of the model, mean
votes back (NumPy on the CPU, an array with ``get`` on a GPU), ``RuntimeError`` where there is no GPU.
"""

import sys
import types

import numpy as np
import pytest
import treelite

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


class OnGpu:
    """Like a CuPy array: must be asked for a copy."""

    def __init__(self, array):
        self._array = array

    def get(self):
        return self._array


class Inference:
    def __init__(self, model, device):
        self.model, self.device = model, device

    def predict_proba(self, X, *, chunk_size=None):
        assert X.flags.c_contiguous
        assert X.dtype == self.model.input_type  # nvForest would convert: another copy
        mean = treelite.gtil.predict(self.model, X)[:, 0]
        return mean if self.device == "cpu" else OnGpu(mean)


@pytest.fixture
def nvforest(monkeypatch):
    module = types.ModuleType("nvforest")
    module.has_gpu = True

    def load_from_treelite_model(
        tl_model, *, device="auto", layout="depth_first", default_chunk_size=None, align_bytes=None, precision=None,
        device_id=None, handle=None,
    ):  # fmt: skip
        assert isinstance(tl_model, treelite.Model)
        if device == "gpu" and not module.has_gpu:
            raise RuntimeError("Failed to detect a GPU device. Diagnostic:\n    cudaErrorInsufficientDriver")
        return Inference(tl_model, device)

    module.load_from_treelite_model = load_from_treelite_model
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
