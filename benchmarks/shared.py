"""What several benchmarks need: the processor's name, a model whose meaning does not matter."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

import numpy as np

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.volume import Volume


def processor() -> str:
    """Its name, where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def model_of_two_classes(volume: Volume, features: str, *, n_trees: int = 200) -> Model:
    """Taught bright and dark pixels of the middle plane; what they mean does not matter."""
    nz, ny, nx = volume.shape
    plane = volume.plane(nz // 2)
    y, x = (a.ravel() for a in np.mgrid[0:ny:7, 0:nx:7])
    bright = plane[y, x] > np.median(plane)
    classes = default_classes(["dark", "bright"])
    annotation = Annotation.from_voxels(np.full_like(y, nz // 2), y, x, 1 + bright, shape=volume.shape, classes=classes)
    bank = FeatureBank.create(features)
    return train(volume, annotation, bank=bank, n_trees=n_trees, device=choose_device("native")).model
