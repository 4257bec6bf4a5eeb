"""Training rows made by hand, for the tests of validation, selection and drift."""

import numpy as np

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.training.cross_validation import family_channels
from gpu_tomoclass.training.rows import TrainingRows


def made_rows(*, useful=("median",), n_strokes=12, length=15, spread=1.0, strength=3.0, seed=0):
    """Three families of which only the useful ones know the class; a stroke is a run of pixels in y = number."""
    random = np.random.default_rng(seed)
    bank = FeatureBank.create(["gaussian_blur", "median", "neighbors"], sigma_max=2)
    labels = np.repeat(1 + np.arange(n_strokes) % 3, length).astype(np.uint8)
    n = labels.size
    values = random.normal(size=(n, bank.n_channels)).astype(np.float32)
    # Pixels of a stroke resemble each other beyond their class: what makes random folds too good.
    values += np.repeat(random.normal(size=(n_strokes, bank.n_channels)), length, axis=0).astype(np.float32) * spread
    for family in useful:
        values[:, family_channels(bank)[family]] += strength * labels[:, None]
    stroke = np.repeat(np.arange(n_strokes), length)
    places = np.stack([stroke % 2, stroke // 4, 2 * stroke, np.tile(np.arange(length), n_strokes)], axis=1).astype(
        np.int32
    )
    order = random.permutation(n)
    return TrainingRows(
        bank=bank,
        classes=default_classes(["a", "b", "c"]),
        values=values[order],
        labels=labels[order],
        places=places[order],
        samples=[values],
        scale=IntensityScale(),
        voxel_size=None,
        sources=[{}, {}],
    )
