"""The golden sets: images and what Trainable Weka Segmentation made of them; see data/golden/README.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile

GOLDEN_FOLDER = Path(__file__).parents[1] / "data" / "golden"
GOLDEN_NAMES = ("small8", "small16", "small32")
OTHER_SETTINGS = ("blobs16", "blobs32f")
"""Images without the 272 default channels; see :meth:`GoldenSet.channels_of`."""


@dataclass(frozen=True)
class GoldenSet:
    """One image and what Trainable Weka Segmentation made of it; see data/golden/README.md. Read when first used."""

    name: str

    @property
    def image_path(self) -> Path:
        return GOLDEN_FOLDER / f"{self.name}.tif"

    @property
    def labels_path(self) -> Path:
        return GOLDEN_FOLDER / f"{self.name}_labels.tif"

    @property
    def model_path(self) -> Path:
        return GOLDEN_FOLDER / f"{self.name}.model"

    @property
    def arff_path(self) -> Path:
        """Only ``small8`` has one."""
        return GOLDEN_FOLDER / f"{self.name}.arff"

    @cached_property
    def image(self) -> np.ndarray:
        """(ny, nx) uint8, uint16 or float32."""
        return tifffile.imread(self.image_path)

    @cached_property
    def label_image(self) -> np.ndarray:
        """(ny, nx) uint8, 0 = unlabelled."""
        return tifffile.imread(self.labels_path)

    @cached_property
    def _features(self) -> tuple[tuple[str, ...], np.ndarray]:
        with np.load(GOLDEN_FOLDER / f"{self.name}_features.npz") as file:
            return tuple(str(name) for name in file["labels"]), file["features"]

    @property
    def channels(self) -> tuple[str, ...]:
        """The 272 channel names in TWS's order."""
        return self._features[0]

    @property
    def features(self) -> np.ndarray:
        """(272, ny, nx) float32."""
        return self._features[1]

    def features_of(self, *names: str) -> np.ndarray:
        """Channels by name: (len(names), ny, nx) float32."""
        return self.features[[self.channels.index(name) for name in names]]

    def channels_of(self, settings: str) -> dict[str, np.ndarray]:
        """Channels, (ny, nx) float32 by name, that TWS made with other settings: ``NAME_settings.npz``."""
        with np.load(GOLDEN_FOLDER / f"{self.name}_{settings}.npz") as file:
            return {str(name): values for name, values in zip(file["labels"], file["features"], strict=True)}

    @cached_property
    def result(self) -> dict[str, np.ndarray]:
        """``class_index`` uint8 (0-based), ``probability`` float32 (3, ny, nx), ``class_names``."""
        with np.load(GOLDEN_FOLDER / f"{self.name}_result.npz") as file:
            return {key: file[key] for key in file.files}
