"""Fiji's 3-D classifiers and training rows, against what TWS 3D itself made of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from golden_volumes import VOLUMES, GoldenVolume

from gpu_tomoclass.annotations.arff import TWS_3D_RELATION, load_arff, save_arff
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.channel_names import grey_dimensions
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.forest.grow_weka import train_weka
from gpu_tomoclass.model.fiji.classifier import import_fiji_model, load_fiji_model
from gpu_tomoclass.training.train_model import train_from_table

# Classifier and the volume it was trained on.
CLASSIFIERS = {"vol3d16": "vol3d16", "needle32": "needle32", "needle32_default": "needle32"}


@cache
def features_of(volume: str, n_channels: int) -> np.ndarray:
    """(channel, nz, ny, nx)."""
    features = "weka-3d" if n_channels == 95 else "weka-3d-default"
    return FeatureBank.create(features).compute_volume(VOLUMES[volume].image)


@pytest.mark.parametrize("name", list(CLASSIFIERS))
@pytest.mark.parametrize("native", [False, True], ids=["numpy", "native"])
def test_classifies_as_fiji_does(name: str, native: bool) -> None:
    """All classes, and the probabilities as float32."""
    golden, volume = GoldenVolume(name), VOLUMES[CLASSIFIERS[name]]
    model = import_fiji_model(golden.path(".model"))
    assert model.bank == FeatureBank.create("weka-3d" if name != "needle32_default" else "weka-3d-default")
    assert [c.name for c in model.classes] == [str(c) for c in golden.result["class_names"]]
    device = NativeDevice(threads=2) if native else NumpyDevice()
    classifier = Classifier(model, device)
    labels, probabilities = classifier.classify(volume.image.astype(np.float32), want_probabilities=True)
    np.testing.assert_array_equal(labels - 1, golden.result["class_index"])
    # The kernels add the votes of trees in another order: the last bit may differ.
    atol = 6.1e-8 if native else 0
    np.testing.assert_allclose(probabilities, golden.result["probability"], atol=atol, rtol=0)


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_the_forest_grows_again_from_rows_and_seed(name: str) -> None:
    """Node by node, from rows in TWS's order: class by class, inside a class slice by slice."""
    golden = GoldenVolume(name)
    fiji, settings = load_fiji_model(golden.path(".model")), golden.training
    z, y, x, label = np.array(settings["voxels_z_y_x_class"]).T
    values = features_of(CLASSIFIERS[name], fiji.bank.n_channels)[:, z, y, x].T
    grown = train_weka(values, label, n_trees=settings["trees"], seed=settings["seed"], balance=settings["balance"])
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(grown.forest, field), getattr(fiji.forest, field), err_msg=field)
    assert grown.oob_error == fiji.oob_error == settings["oob_error"]


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_training_rows_of_fiji(name: str, tmp_path: Path) -> None:
    """They are the values here, to the decimals that ARFF has; trained from them, a model looks across planes."""
    golden = GoldenVolume(name)
    table = load_arff(golden.path(".arff"))
    assert table.relation == TWS_3D_RELATION
    result = train_from_table(table, n_trees=5)
    assert result.model.bank.channels == table.channels
    assert result.model.bank.dimensions == {3}
    z, y, x, label = np.array(golden.training["voxels_z_y_x_class"]).T
    if not golden.training["balance"]:  # else rows are drawn again
        values = features_of(CLASSIFIERS[name], len(table.channels))[:, z, y, x].T
        np.testing.assert_array_equal(table.label, label)
        np.testing.assert_allclose(table.values, values, rtol=1e-7, atol=5.1e-7)
    save_arff(tmp_path / "again.arff", result.table)
    assert load_arff(tmp_path / "again.arff").relation == TWS_3D_RELATION


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_classifiers_without_a_telling_relation_are_known_by_order_and_names(name: str) -> None:
    """As TWS saves them that was trained by a script."""
    channels = load_fiji_model(GoldenVolume(name).path(".model")).bank.channels
    assert grey_dimensions("segment", channels) == (3, [])


def test_the_hessian_formula_of_planes_does_not_matter_here() -> None:
    assert load_fiji_model(GoldenVolume("vol3d16").path(".model"), hessian="legacy").bank.hessian == "current"


def test_strokes_of_the_label_image_are_the_rows() -> None:
    """What the golden rows say of themselves: class by class, slice by slice, in raster order."""
    golden = VOLUMES["vol3d16"]
    labels = tifffile.imread(golden.path("_labels.tif"))
    rows = np.array(golden.training["voxels_z_y_x_class"])
    found = np.concatenate([np.argwhere(labels == k) for k in range(1, labels.max() + 1)])
    np.testing.assert_array_equal(found, rows[:, :3])


def test_2d_names_under_a_3d_relation_are_refused() -> None:
    with pytest.raises(ModelError, match=r"3-D features .* have no 'Sobel_filter_1\.0'"):
        grey_dimensions(TWS_3D_RELATION, ["original", "Mean_1.0", "Sobel_filter_1.0"])
