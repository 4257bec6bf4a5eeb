"""Predict with NVIDIA's nvForest, on a GPU or the CPU: a second opinion on our own kernel, and a rival to time it by.

The only module that imports nvForest, and only when it is used. nvForest takes pixels as rows, so features are
transposed on the way; our kernel reads them as they lie.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device, cupys_own_allocator
from gpu_tomoclass.errors import ModelError, ResourceError, UsageError
from gpu_tomoclass.forest.arrays import Forest
from gpu_tomoclass.forest.predict import check_features, predict_probabilities
from gpu_tomoclass.forest.treelite_arrays import treelite_from_forest

DEVICES = ("cpu", "gpu")
OTHERWISE = "choose another device"


class NvForestPredictor:
    """A forest in nvForest's form.

    Parameters
    ----------
    forest : Forest
    device : {"cpu", "gpu"}
        ``"gpu"`` is the one that CuPy uses.
    gpu_id : int, optional
        Another one.

    Raises
    ------
    ResourceError
        If nvForest or treelite is missing, or the device does not work.
    """

    def __init__(self, forest: Forest, *, device: str = "gpu", gpu_id: int | None = None) -> None:
        if device not in DEVICES:
            raise UsageError(f"nvForest has no device {device!r}", do=f"choose one of {', '.join(DEVICES)}")
        nvforest = _import_nvforest()
        self.forest = forest
        self.device = device
        with warnings.catch_warnings():
            # nvForest brings a treelite of its own; 4.7 reads what 4.8 wrote (both are format 4), and says so.
            warnings.filterwarnings("ignore", message="(?s).*newer Treelite version", category=UserWarning)
            model = treelite_from_forest(forest)
            try:
                # RuntimeError without a GPU; CuPy and RAFT have kinds of their own when memory or a library is missing.
                which = {} if gpu_id is None else {"device_id": gpu_id}
                self._model = nvforest.load_from_treelite_model(model, device=device, **which)
            except Exception as error:
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise ResourceError(f"nvForest cannot use the {device}: {reason}", do=OTHERWISE) from error

    @classmethod
    def beside(cls, device: Device, forest: Forest) -> NvForestPredictor:
        """Where a device of ours computes: on its GPU, or on the CPU."""
        if device.has_own_memory:
            return cls(forest, device="gpu", gpu_id=getattr(device, "gpu_id", None))
        return cls(forest, device="cpu")

    def probabilities(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As :func:`~gpu_tomoclass.forest.predict.predict_probabilities`.

        Pixels with a missing value in a feature that the forest uses go that way too: nvForest sends them one way only.

        Parameters
        ----------
        features : numpy.ndarray
            (n_features, n_pixels) float32; NaN is a missing value.

        Returns
        -------
        numpy.ndarray
            (n_classes, n_pixels) float32; each column sums to 1.
        """
        check_features(self.forest, features)
        n_pixels = features.shape[1]
        if n_pixels == 0:
            return np.empty((self.forest.n_classes, 0), dtype=np.float32)
        rows = np.ascontiguousarray(features.T, dtype=self.forest.votes.dtype)
        mean_votes = _on_host(self._model.predict_proba(rows)).astype(np.float64, copy=False)
        if mean_votes.shape != (n_pixels, self.forest.n_classes):
            raise ModelError(f"nvForest gave {mean_votes.shape}, not {(n_pixels, self.forest.n_classes)}")
        result = np.ascontiguousarray((mean_votes / mean_votes.sum(axis=1, keepdims=True)).T, dtype=np.float32)
        missing = np.isnan(features[self.forest.used_features()]).any(axis=0)
        if missing.any():
            result[:, missing] = predict_probabilities(self.forest, np.ascontiguousarray(features[:, missing]))
        return result


def nvforest_version() -> str:
    """Version of nvForest, for provenance.

    Raises
    ------
    ResourceError
        If it is missing.
    """
    return str(getattr(_import_nvforest(), "__version__", "of unknown version"))


def _on_host(array: Any) -> npt.NDArray[Any]:
    """nvForest answers NumPy with NumPy on the CPU, and with CuPy on a GPU."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


def _import_nvforest() -> Any:
    try:
        with cupys_own_allocator():
            return importlib.import_module("nvforest")
    # Not only ImportError: CUDA libraries that do not fit each other fail in many ways while they are loaded.
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "nvforest"
        reason = "is not installed" if missing else f"cannot be loaded: {type(error).__name__}: {error}"
        raise ResourceError(
            f"nvForest {reason}", do="pip install 'gpu_tomoclass[rapids12]' or [rapids13], which bring it with cuML"
        ) from error
