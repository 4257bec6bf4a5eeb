"""Tables and classifiers that anybody may have made or broken: an error for the user, or something valid.

Any rows at all are given to the engines in tests/forest/test_engines.py, damaged models in test_model_faults.py.
"""

import dataclasses

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_tomoclass.annotations.arff import TrainingTable, load_arff, save_arff
from gpu_tomoclass.annotations.loading import load_annotation
from gpu_tomoclass.errors import DataError, ModelError, TomoclassError
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.model.fiji.classifier import load_fiji_model
from gpu_tomoclass.training.train_model import train_from_table

CHANNELS = ("original", "Gaussian_blur_1.0", "Gaussian_blur_2.0", "Neighbors_1_0", "Neighbors_1_1", "Neighbors_1_2",
            "Neighbors_1_3", "Neighbors_1_4", "Neighbors_1_5", "Neighbors_1_6", "Neighbors_1_7", "Neighbors_2_0",
            "Neighbors_2_1", "Neighbors_2_2", "Neighbors_2_3", "Neighbors_2_4", "Neighbors_2_5", "Neighbors_2_6",
            "Neighbors_2_7")  # fmt: skip


def table():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, len(CHANNELS))).astype(np.float32)
    values[rng.random(values.shape) < 0.05] = np.nan
    return TrainingTable(values, (1 + np.arange(30) % 3).astype(np.uint8), CHANNELS, ("one", "two 2", "it's"))


def outcome(load, path, kind):
    """What was loaded and None, or None and the error of this kind; any other error goes up."""
    try:
        return load(path), None
    except kind as error:
        return None, error


# --- row 30: attributes that are not the bank's ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(order=st.permutations(range(len(CHANNELS))), seed=st.integers(-3, 3))
def test_attributes_in_any_order_mean_the_same(order, seed):
    """Prediction goes by names: a table with shuffled columns makes a model of the same bank."""
    whole = table()
    shuffled = dataclasses.replace(whole, values=whole.values[:, order], channels=tuple(CHANNELS[i] for i in order))
    options = {"n_trees": 4, "seed": seed, "engine": "weka"}
    model = train_from_table(shuffled, **options).model
    assert model.bank == train_from_table(whole, **options).model.bank
    pixels = np.nan_to_num(whole.values)[:, [whole.channels.index(c) for c in model.bank.channels]]
    right = predict_probabilities(model.forest, np.ascontiguousarray(pixels.T)).argmax(axis=0) + 1 == whole.label
    assert right.mean() > 0.6  # its own rows, most of them seen in training; by mixed-up columns it would be a third


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_attributes_that_are_not_ours_are_named(data):
    names = list(CHANNELS)
    what = data.draw(st.sampled_from(["missing", "renamed", "twice", "added"]))
    at = data.draw(st.integers(1, len(names) - 1))
    odd = data.draw(
        st.sampled_from(["Gaussian_blur_x", "Laplacian", "Membrane_projections_9_19_1", "Hue", "", "é", "?"])
    )
    if what == "missing":
        odd = names.pop(at)
    elif what == "renamed":
        names[at] = odd
    elif what == "twice":
        odd = names[at]
        names.append(odd)
    else:
        names.append(odd)
    values = np.ones((30, len(names)), np.float32)
    wrong = TrainingTable(values, table().label, tuple(names), table().class_names)
    # one family less or a whole sigma less is still a bank; a part of one is not
    if what == "missing" and not odd.startswith("Neighbors"):
        train_from_table(wrong, n_trees=2)
        return
    with pytest.raises(ModelError) as caught:
        train_from_table(wrong, n_trees=2)
    assert repr(odd) in str(caught.value) or odd in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_tables_are_refused_or_whole(tmp_path, data):
    """Bytes changed, lines removed, doubled or cut: a DataError that names the file, or a table in order."""
    path = tmp_path / "t.arff"
    save_arff(path, table(), exact=data.draw(st.booleans()), overwrite=True)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["byte", "cut", "line", "twice"]))
        end = content.find(b"\n", at) + 1 or len(content)
        if how == "byte":
            content[at] = data.draw(st.sampled_from([0, 10, 34, 37, 39, 44, 45, 48, 63, 92, 101, 123, 125, 255]))
        elif how == "cut":
            del content[at:]
        elif how == "line":
            del content[at:end]
        else:
            content[at:at] = content[at:end]
        if not content:
            break
    path.write_bytes(content)
    found, refusal = outcome(load_arff, path, DataError)
    if refusal is not None:
        assert refusal.where == str(path)
        return
    assert found.values.shape == (found.label.size, len(found.channels))
    assert set(found.label.tolist()) <= set(range(1, len(found.class_names) + 1))
    try:
        train_from_table(found, n_trees=2).model.forest.validate()
    except TomoclassError:
        return


# --- rows 27, 28: label images of any values -------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "float32"]),
    values=st.lists(st.integers(-2, 300) | st.floats(-1, 3, width=16), min_size=1, max_size=5),
    seed=st.integers(0, 9),
)
def test_label_images_of_any_values(tmp_path, dtype, values, seed):
    wanted = np.array(values, dtype=np.float64)
    info = np.iinfo(dtype) if dtype != "float32" else None
    if info is not None:
        wanted = np.rint(wanted.clip(info.min, info.max))
    image = np.random.default_rng(seed).choice(wanted, (2, 6, 7)).astype(dtype)
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, image, imagej=dtype in ("uint8", "uint16", "float32"), metadata={"axes": "ZYX"})
    is_label = (image == np.rint(image)) & (image >= 0) & (image <= 255)
    classes = set(np.unique(image[image > 0]).tolist())
    if is_label.all() and len(classes) >= 2:
        found = load_annotation(path, volume_shape=image.shape)
        z, y, x = np.nonzero(image)
        assert found.label.size == z.size
        np.testing.assert_array_equal(np.sort(found.label), np.sort(image[z, y, x].astype(np.uint8)))
    else:
        with pytest.raises(DataError, match=r"labels\.tif"):
            load_annotation(path, volume_shape=image.shape)


# --- row 34: Fiji's classifiers --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_classifiers_are_refused_or_walk_to_their_leaves(golden, tmp_path, data):
    """Bytes changed anywhere; where it still loads, every walk ends and every probability is finite."""
    good = golden["small8"].model_path.read_bytes()
    content = bytearray(good)
    region = data.draw(st.sampled_from([3000, 45_000, len(good)]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, region - 1))
        content[at] = data.draw(st.integers(0, 255) | st.sampled_from([0x70, 0x71, 0x73, 0x7F, 0xFF]))
    path = tmp_path / "damaged.model"
    path.write_bytes(content)
    fiji, refusal = outcome(load_fiji_model, path, ModelError)
    if refusal is not None:
        assert str(refusal.where) == str(path)
        return
    pixels = np.random.default_rng(0).normal(0, 1000, (fiji.forest.n_features, 20)).astype(np.float32)
    pixels[:, :5] = np.nan
    assert np.isfinite(predict_probabilities(fiji.forest, pixels)).all()
