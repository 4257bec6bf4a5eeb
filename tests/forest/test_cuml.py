"""The cuML adapter, with a stand-in for cuML where there is none: what it is asked, what is made of its answers."""

import sys
import types

import cuml_stand_in
import numpy as np
import pytest
import treelite
import treelite.sklearn
from cuml_stand_in import StandIn, features_looked_at

from gpu_tomoclass.device import cupys_own_allocator
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.forest.grow_cuml import share_of_features, train_cuml
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn


def rows(n=300, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 5)).astype(np.float32)
    labels = 2 + (values[:, 0] > 0) * 1 + (values[:, 1] + rng.normal(0, 0.5, n) > 0.5) * 5
    return values, labels.astype(np.uint8)


@pytest.fixture
def cuml(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)  # which needs a driver
    for name, module in cuml_stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return sys.modules["cuml"]


def test_every_setting_that_matters_is_given_and_the_trees_come_back(cuml):
    values, labels = rows()
    trained = train_cuml(values, labels, n_trees=40, seed=5, max_depth=9, min_samples_leaf=2)
    assert StandIn.made.settings | {"verbose": False} == {
        "n_estimators": 40, "split_criterion": "entropy", "bootstrap": True, "max_samples": 1.0, "max_depth": 9,
        "max_leaves": -1, "max_features": 0.5, "n_bins": 256, "min_samples_leaf": 2, "min_samples_split": 2,
        "min_impurity_decrease": 0.0, "max_batch_size": 4096, "random_state": 5, "n_streams": 4, "oob_score": True,
        "class_weight": None, "verbose": False, "output_type": "numpy",
    }  # fmt: skip
    expected = forest_from_sklearn(StandIn.made.grown)
    for name in set(FIELDS) - {"left_fraction"}:  # no data counts in this stand-in
        np.testing.assert_array_equal(getattr(trained.forest, name), getattr(expected, name), err_msg=name)
    assert trained.class_values == tuple(np.unique(labels))
    assert sum(trained.class_counts) == labels.size
    called = StandIn.made.oob_decision_function_.argmax(axis=1)
    assert trained.oob_error == pytest.approx((np.unique(labels)[called] != labels).mean())
    assert trained.feature_importance.sum() == pytest.approx(1)
    assert trained.settings["engine"] == "cuml"
    assert trained.settings["cuml"] == "26.10.00"


def test_cupy_gives_its_memory_back_and_keeps_its_allocator(cuml, monkeypatch):
    """``import cuml`` sets the allocator to RMM's; the pool still holds what features took when cuML begins."""
    values, labels = rows()
    calls = []
    pool = types.SimpleNamespace(malloc="the pool's", free_all_blocks=lambda: calls.append("freed"))
    for before in ("the pool's", "somebody's"):
        cupy = types.SimpleNamespace(get_default_memory_pool=lambda: pool)
        cupy.cuda = types.SimpleNamespace(get_allocator=lambda kept=before: kept, set_allocator=calls.append)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        train_cuml(values, labels, n_trees=2)
        assert calls == [before, "freed"]
        calls.clear()
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with cupys_own_allocator():
        monkeypatch.setitem(sys.modules, "cupy", cupy)  # as cuML's import does
    assert calls == ["the pool's"]


def test_balance_and_few_rows(cuml):
    values, labels = rows(n=120)
    train_cuml(values, labels, n_trees=5, balance=True)
    assert StandIn.made.settings["class_weight"] == "balanced"
    assert StandIn.made.settings["n_bins"] == 120  # cuML warns about more bins than rows
    train_cuml(values, labels, n_trees=5, max_features=99)
    assert StandIn.made.settings["max_features"] == 1.0


def test_as_many_features_are_looked_at_as_were_asked_for():
    assert features_looked_at(2, 41) == 1  # cuML's own way: one too few
    for n_features in (*range(1, 400), 3003, 20_000):
        for wanted in {1, 2, 3, n_features // 2 or 1, n_features}:
            if wanted <= n_features:
                assert features_looked_at(share_of_features(wanted, n_features), n_features) == wanted


def test_rows_that_cuml_had_not_judged(cuml, monkeypatch):
    """Depending on its version, rows that every tree has seen have NaN or 0 in the out-of-bag votes."""
    values, labels = rows()
    fit = StandIn.fit

    def fit_few(self, X, y, sample_weight=None):
        fit(self, X, y)
        self.oob_decision_function_[:7] = np.nan
        self.oob_decision_function_[7:9] = 0
        self.feature_importances_ = np.full(5, np.nan, np.float32)

    monkeypatch.setattr(StandIn, "fit", fit_few)
    trained = train_cuml(values, labels, n_trees=60)
    assert trained.n_never_out_of_bag == 9
    assert trained.oob_confusion.sum() == 291
    assert trained.feature_importance.tolist() == [0] * 5


def test_missing_values_are_refused_before_cuml_sees_them(cuml):
    values, labels = rows()
    values[3, 2] = np.nan
    with pytest.raises(DataError, match="1 training rows have missing values, which cuML does not take; choose"):
        train_cuml(values, labels)


@pytest.mark.parametrize(
    ("version", "fits"), [("26.06.01", False), ("25.12", False), ("26.8.0", True), ("27.02a3", True)]
)
def test_oldest_version(cuml, version, fits):
    cuml.__version__ = version
    if fits:
        assert train_cuml(*rows(), n_trees=2).forest.n_trees == 2
    else:
        with pytest.raises(ResourceError, match=f"cuML {version} is too old, 26.8 or newer is needed"):
            train_cuml(*rows(), n_trees=2)


def test_without_cuml(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuml", None)
    with pytest.raises(ResourceError, match=r"cuML is not installed; pip install .*\[rapids12\].*--forest weka"):
        train_cuml(*rows())


def test_cuml_that_cannot_be_loaded_or_fails(cuml, monkeypatch):
    def no_gpu(self, X, y, sample_weight=None):
        raise RuntimeError("cudaErrorNoDevice:\n  no CUDA-capable device is detected")

    monkeypatch.setattr(StandIn, "fit", no_gpu)
    with pytest.raises(ResourceError, match=r"26.10.00 did not grow the forest: cudaErrorNoDevice: no CUDA-capable"):
        train_cuml(*rows())

    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise OSError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "cuml", Broken("cuml"))
    with pytest.raises(ResourceError, match="cuML cannot be loaded: OSError: libcudart"):
        train_cuml(*rows())


def test_settings_that_make_no_sense(cuml):
    for setting in ({"n_trees": 0}, {"max_depth": 0}, {"criterion": "luck"}, {"seed": -1}, {"n_bins": 1}):
        with pytest.raises(UsageError, match=next(iter(setting))):
            train_cuml(*rows(), **setting)


def test_stand_in_hands_over_a_treelite_model(cuml):
    train_cuml(*rows(), n_trees=3)
    assert isinstance(StandIn.made.as_treelite(), treelite.Model)
