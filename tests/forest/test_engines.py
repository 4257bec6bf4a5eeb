"""One door to the engines: each gives what its own module gives; ``auto`` is Fiji's forest wherever that can be."""

import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpu_tomoclass.errors import ResourceError, TomoclassError, UsageError
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.forest.grow import ENGINES, grow_forest
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.forest.grow_weka import train_weka
from gpu_tomoclass.forest.predict import predict_probabilities


def rows(n=200, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 4)).astype(np.float32)
    return values, (1 + (values[:, 0] + rng.normal(0, 0.5, n) > 0)).astype(np.uint8)


def assert_same(a, b):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a.forest, name), getattr(b.forest, name), err_msg=name)
    assert a.settings == b.settings
    assert (a.oob_error, a.class_values, a.class_counts) == (b.oob_error, b.class_values, b.class_counts)


@pytest.mark.parametrize(("engine", "train"), [("weka", train_weka), ("sklearn", train_forest), ("auto", train_weka)])
def test_each_engine_is_its_own_module(engine, train):
    options = {"n_trees": 12, "max_features": 3, "max_depth": 5, "balance": True, "seed": 9}
    trained = grow_forest(*rows(), engine=engine, **options)
    assert_same(trained, train(*rows(), **options))
    assert trained.settings["engine"] == {"auto": "weka"}.get(engine, engine)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in reduce")  # scikit-learn sums such values
@pytest.mark.parametrize(
    ("options", "scale", "said"),
    [
        ({"min_samples_leaf": 3}, 1, "no smallest number of pixels in a leaf"),
        ({"seed": 2**31}, 1, "takes no seed of 2147483648"),
        ({}, 7e37, "cannot split values beyond 1.7e\\+38"),
    ],
)
def test_auto_is_scikit_learn_where_fiji_has_no_such_forest(options, scale, said):
    values, labels = rows()
    values = values * np.float32(scale)
    trained = grow_forest(values, labels, n_trees=5, **options)
    assert_same(trained, train_forest(values, labels, n_trees=5, **options))
    assert re.search(f"the forest is scikit-learn's, not Fiji's: that one .*{said}", trained.notes[0])


def test_auto_without_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    trained = grow_forest(*rows(), n_trees=5)
    assert_same(trained, train_forest(*rows(), n_trees=5))
    assert "cannot be compiled here" in trained.notes[0]
    # asked for by name, it is grown all the same, slowly, and says so
    slow = grow_forest(*rows(), n_trees=2, engine="weka")
    assert slow.settings["engine"] == "weka"
    assert any("slow Python engine" in note for note in slow.notes)


def test_what_an_engine_does_not_have():
    with pytest.raises(UsageError, match="forest engine 'luck' is unknown; choose one of auto, weka, sklearn, cuml"):
        grow_forest(*rows(), engine="luck")
    with pytest.raises(UsageError, match=r"min_samples_leaf is 2.*--forest sklearn"):
        grow_forest(*rows(), engine="weka", min_samples_leaf=2)
    with pytest.raises(UsageError, match="seed is -1"):
        grow_forest(*rows(), engine="sklearn", seed=-1)
    assert grow_forest(*rows(), engine="weka", seed=-1, n_trees=2).settings["seed"] == -1


def test_cuml_is_asked_only_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuml", None)
    assert grow_forest(*rows(), n_trees=2).settings["engine"] == "weka"
    with pytest.raises(ResourceError, match="cuML is not installed"):
        grow_forest(*rows(), engine="cuml")


def test_the_default_does_not_wait_for_scikit_learn():
    """Its import takes longer than growing the forest."""
    code = (
        "import sys, numpy as np\nfrom gpu_tomoclass.forest.grow import grow_forest\n"
        "trained = grow_forest(np.eye(6, 2, dtype=np.float32), np.array([1, 2, 1, 2, 1, 2]), n_trees=2)\n"
        "assert trained.settings['engine'] == 'weka', trained.notes\n"
        "sys.exit(','.join({'sklearn', 'cuml', 'treelite', 'nvforest', 'cupy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


ODD = [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, 0.0, -0.0]


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in reduce")
@settings(max_examples=150, deadline=None)
@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.integers(0, 12), st.integers(0, 3)),
        elements=st.sampled_from(np.float32([*ODD, 1, 2, 3])) | st.floats(width=32),
    ),
    labels=st.lists(st.integers(-1, 4) | st.sampled_from([255, 256]), min_size=0, max_size=12),
    engine=st.sampled_from([e for e in ENGINES if e != "cuml"]),
    balance=st.booleans(),
)
def test_any_rows_give_a_valid_forest_or_an_error_for_the_user(values, labels, engine, balance):
    """Few rows, one class, no rows, missing, infinite and extreme values, labels that are none."""
    try:
        trained = grow_forest(values, np.array(labels, dtype=np.int64), engine=engine, balance=balance, n_trees=3)
    except TomoclassError:
        return
    assert trained.forest.n_classes == len(trained.class_values) == len(set(labels)) >= 2
    pixels = np.ascontiguousarray(values.T)
    probabilities = predict_probabilities(trained.forest, pixels)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-6)  # float32 rounding of at most 7 numbers
