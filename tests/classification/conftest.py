"""A small volume and a model for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_volume import SHAPE

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume


@pytest.fixture(scope="session")
def sample_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TIFF of SHAPE, uint16: a bright box in noise."""
    random = np.random.default_rng(8)
    array = random.integers(0, 300, SHAPE).astype(np.uint16)
    array[:, 6:18, 5:15] += 250
    path = tmp_path_factory.mktemp("sample") / "volume.tif"
    with create_volume(path, shape=SHAPE, dtype=array.dtype, voxel_size=(1.0, 1.0, 1.0)) as writer:
        for z, plane in enumerate(array):
            writer.write_plane(z, plane)
    return path


@pytest.fixture(scope="session")
def sample_model(sample_path: Path) -> Model:
    z, y, x = (a.ravel() for a in np.meshgrid([2, 8], np.arange(24), np.arange(0, 21, 2), indexing="ij"))
    inside = (y >= 6) & (y < 18) & (x >= 5) & (x < 15)
    classes = default_classes(["out", "in"])
    annotation = Annotation.from_voxels(z, y, x, 1 + inside, shape=SHAPE, classes=classes)
    bank = FeatureBank.create(["gaussian_blur", "sobel_filter", "neighbors"], sigma_max=2)
    with open_volume(sample_path) as volume:
        return train(volume, annotation, bank=bank, n_trees=8, max_depth=6, device=NumpyDevice()).model
