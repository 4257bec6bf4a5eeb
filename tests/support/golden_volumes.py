"""The golden volumes: what TWS 3D made of them; see data/golden/README.md."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from gpu_tomoclass.features import CUBES, Aspect

GOLDEN_VOLUMES = Path(__file__).parents[1] / "data" / "golden" / "vol3d"


@dataclass(frozen=True)
class GoldenVolume:
    """One volume. Read when first used.

    Attributes
    ----------
    name : str
    sigma_max : float
        Of its features.
    aspect : Aspect
    """

    name: str
    sigma_max: float = 8.0
    aspect: Aspect = CUBES

    def path(self, ending: str) -> Path:
        return GOLDEN_VOLUMES / f"{self.name}{ending}"

    @cached_property
    def image(self) -> np.ndarray:
        """(nz, ny, nx) uint16 or float32."""
        return tifffile.imread(self.path(".tif"))

    @cached_property
    def _features(self) -> dict[str, np.ndarray]:
        with np.load(self.path("_features.npz")) as file:
            return dict(file)

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self._features["labels"])

    @property
    def planes(self) -> list[int]:
        """Those that features are kept of."""
        return self._features["planes"].tolist()

    @property
    def features(self) -> np.ndarray:
        """(channel, planes, ny, nx) float32."""
        return self._features["features"]

    @cached_property
    def training(self) -> dict[str, Any]:
        return json.loads(self.path(".train.json").read_text())

    @cached_property
    def result(self) -> dict[str, np.ndarray]:
        """class_index (nz, ny, nx) uint8, probability (class, nz, ny, nx) float32, class_names."""
        with np.load(self.path("_result.npz")) as file:
            return dict(file)


VOLUMES = {
    "vol3d16": GoldenVolume("vol3d16"),
    "needle32": GoldenVolume("needle32"),
    "aniso16": GoldenVolume("aniso16", 4.0, Aspect(0.5)),
}
