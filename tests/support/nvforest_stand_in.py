"""A stand-in for nvForest where there is none: treelite's own predictor walks the trees.

It has the functions, parameters and answers of nvForest 26.10 (``_factory.py`` and ``_base.py`` of its source): rows in
C order in the type of the model, mean votes back (NumPy on the CPU, an array with ``get`` on a GPU), ``RuntimeError``
where there is no GPU.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import treelite


class OnGpu:
    """Like a CuPy array: must be asked for a copy."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def get(self) -> np.ndarray:
        return self._array


class Inference:
    def __init__(self, model: treelite.Model, device: str) -> None:
        self.model, self.device = model, device

    def predict_proba(self, X: np.ndarray, *, chunk_size: int | None = None) -> Any:
        assert X.flags.c_contiguous
        assert X.dtype == self.model.input_type  # nvForest would convert: another copy
        mean = treelite.gtil.predict(self.model, X)[:, 0]
        return mean if self.device == "cpu" else OnGpu(mean)


def module() -> Any:
    """What ``import nvforest`` gives; ``asked`` notes the devices of the forests that were loaded."""
    made: Any = types.ModuleType("nvforest")
    made.__version__, made.has_gpu, made.asked = "26.10.0", True, []

    def load_from_treelite_model(
        tl_model: treelite.Model, *, device: str = "auto", layout: str = "depth_first",
        default_chunk_size: int | None = None, align_bytes: int | None = None, precision: str | None = None,
        device_id: int | None = None, handle: object = None,
    ) -> Inference:  # fmt: skip
        assert isinstance(tl_model, treelite.Model)
        if device == "gpu" and not made.has_gpu:
            raise RuntimeError("Failed to detect a GPU device. Diagnostic:\n    cudaErrorInsufficientDriver")
        made.asked.append((device, device_id))
        return Inference(tl_model, device)

    made.load_from_treelite_model = load_from_treelite_model
    return made
