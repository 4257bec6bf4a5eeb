"""The weka engine: the trees that Fiji grew, and what the Java program itself grew from made-up rows."""

import hashlib

import numpy as np
import pytest

from gpu_tomoclass.annotations.arff import TrainingTable, load_arff, save_arff
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.forest.arrays import FIELDS, Forest
from gpu_tomoclass.forest.grow_weka import balanced_rows, train_weka
from gpu_tomoclass.forest.java_random import JavaRandom
from gpu_tomoclass.forest.weka_trees import MISSING, list_hash, manber_order, smallest_float32_not_below, weighted_log2
from gpu_tomoclass.model.fiji.classifier import load_fiji_model

ENGINES = ("compiled", "python")


def assert_same_forest(a, b):
    assert a.n_features == b.n_features
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def digest(forest):
    """Of every bit of a forest."""
    whole = hashlib.blake2b(digest_size=8)
    for name in FIELDS:
        whole.update(np.ascontiguousarray(getattr(forest, name)).tobytes())
    return whole.hexdigest()


def made_up(kind):
    """Rows that need no NumPy generator, whose numbers may change: (values, labels 1..k)."""
    random = JavaRandom(len(kind))
    n, n_features, n_classes = 240, 6, 3
    if kind == "many classes":
        n, n_classes = 256, 11
    if kind == "ties":
        draw = lambda: random.next_below(7)  # noqa: E731
    elif kind == "neighbours":  # neighbouring float32: their mean is one of them
        draw = lambda: 2**20 + random.next_below(9) / 8  # noqa: E731
    else:
        draw = random.next_double
    values = np.array([[draw() for _ in range(n_features)] for _ in range(n)])
    order = np.argsort(values[:, 0] + values[:, 1] * (kind != "neighbours"), kind="stable")
    labels = np.empty(n, dtype=np.uint8)
    labels[order] = 1 + np.arange(n) * n_classes // n
    for i in range(n):
        if random.next_below(6) == 0:
            labels[i] = 1 + random.next_below(n_classes)
    if kind == "missing":
        values[:, 4] = np.nan
        values[:, 3] = np.round(values[:, 3] * 5)
        for i in range(n):
            for j in range(n_features):
                if random.next_below(5) == 0:
                    values[i, j] = np.nan
    if kind == "copies":
        values[:, 2] = 3
        values, labels = np.repeat(values[::3], 3, axis=0), labels
    return values.astype(np.float32), labels


# What FastRandomForest 0.99 with Weka 3.9.7 on OpenJDK 17 made of these rows with 30 trees and seed -5: nodes,
# out-of-bag error, digest of the forest.
JAVA = {
    "plain": (2852, 0.29583333333333334, "838d096290d4770f"),
    "ties": (4124, 0.3416666666666667, "84d3d3904e54251d"),
    "missing": (4338, 0.35833333333333334, "bb0a1b0e8a03a0d6"),
    "copies": (3766, 0.6541666666666667, "a540484f3e0fac05"),
    "neighbours": (5866, 0.25, "51affd6b6b881889"),
    "many classes": (6110, 0.75390625, "85e3bde999bb7c6e"),
    "shallow": (438, 0.2833333333333333, "f4646967d8216535"),
    "balanced": (1594, 0.07909604519774012, "99f5be26bdb8f632"),
}
SETTINGS = {"shallow": {"max_depth": 3, "max_features": 4}, "balanced": {"balance": True}}


def java_rows(kind):
    values, labels = made_up(kind)
    if kind == "balanced":  # fewer of the second class
        kept = ~((labels == 2) & (np.arange(labels.size) % 3 > 0))
        values, labels = values[kept], labels[kept]
    return values, labels


@pytest.mark.parametrize(
    ("kind", "engine"),
    [*((kind, "compiled") for kind in JAVA), *((k, "python") for k in ("ties", "missing", "shallow", "balanced"))],
)
def test_same_forest_as_the_java_program(kind, engine):
    trained = train_weka(*java_rows(kind), n_trees=30, seed=-5, engine=engine, **SETTINGS.get(kind, {}))
    n_nodes, error, expected = JAVA[kind]
    assert (trained.forest.n_nodes, trained.oob_error, digest(trained.forest)) == (n_nodes, error, expected)
    assert trained.n_never_out_of_bag == 0


def golden_rows(golden_set):
    y, x = np.nonzero(golden_set.label_image)
    return golden_set.features[:, y, x].T, golden_set.label_image[y, x]


@pytest.mark.parametrize(
    ("name", "engine"), [(n, "compiled") for n in ("small8", "small16", "small32")] + [("small8", "python")]
)
def test_same_forest_as_fiji(golden, name, engine):
    fiji = load_fiji_model(golden[name].model_path)
    trained = train_weka(*golden_rows(golden[name]), engine=engine)  # columns in TWS's order
    assert trained.oob_error == fiji.oob_error
    order = np.array([fiji.bank.channels.index(channel) for channel in golden[name].channels], dtype=np.int32)
    ours = trained.forest
    feature = np.where(ours.feature < 0, np.int32(-1), order[ours.feature])
    by_bank = Forest(feature, *(getattr(ours, field) for field in FIELDS if field != "feature"), ours.n_features)
    assert_same_forest(by_bank, fiji.forest)


@pytest.mark.parametrize("seed", range(6))
def test_engines_agree(seed):
    rng = np.random.default_rng(seed)
    n, n_features, n_classes = int(rng.integers(2, 150)), int(rng.integers(1, 9)), int(rng.integers(2, 6))
    values = rng.normal(0, 10.0 ** rng.integers(-30, 30), (n, n_features)).astype(np.float32)
    coarse = rng.random(n_features) < 0.5
    values[:, coarse] = rng.integers(-3, 4, (n, coarse.sum()))
    values[rng.random(values.shape) < rng.choice([0, 0.3])] = np.nan
    labels = rng.integers(1, n_classes + 1, n).astype(np.uint8)
    labels[:2] = 1, 2
    settings = {"n_trees": 6, "max_features": int(rng.integers(1, 5)), "seed": seed, "balance": bool(seed % 2)}
    a, b = (train_weka(values, labels, engine=engine, **settings) for engine in ENGINES)
    assert_same_forest(a.forest, b.forest)
    np.testing.assert_array_equal(a.oob_confusion, b.oob_confusion)
    # gains are sums of the same terms in the same order
    np.testing.assert_array_equal(a.feature_importance, b.feature_importance)
    assert (a.oob_error, a.class_counts, a.notes) == (b.oob_error, b.class_counts, b.notes)


def test_same_forest_whatever_the_threads():
    values, labels = made_up("ties")
    a, b = (train_weka(values, labels, n_trees=9, n_jobs=n) for n in (1, 3))
    assert_same_forest(a.forest, b.forest)
    assert a.oob_error == b.oob_error
    assert digest(train_weka(values, labels, n_trees=9, seed=43).forest) != digest(a.forest)


def test_from_rows_saved_for_fiji(golden, tmp_path):
    saved = load_arff(golden["small8"].arff_path)
    path = tmp_path / "rows.arff"
    save_arff(path, TrainingTable(saved.values, saved.label, saved.channels, saved.class_names))
    read = load_arff(path)
    first, again = (train_weka(t.values, t.label, n_trees=20, channels=t.channels) for t in (saved, read))
    assert_same_forest(first.forest, again.forest)
    # six decimals are not float32: the forest of the rows themselves is another one
    values, labels = golden_rows(golden["small8"])
    np.testing.assert_array_equal(labels, read.label)
    assert digest(train_weka(values, labels, n_trees=20).forest) != digest(first.forest)


def test_out_of_bag_error_leaves_out_rows_that_every_tree_has_seen():
    values, labels = made_up("plain")
    trained = train_weka(values, labels, n_trees=3)
    assert trained.n_never_out_of_bag > 20  # about 240 * (1 - 1/e)^3
    assert trained.oob_confusion.sum() == labels.size - trained.n_never_out_of_bag
    wrong = trained.oob_confusion.sum() - np.trace(trained.oob_confusion)
    assert trained.oob_error == wrong / trained.oob_confusion.sum()
    assert any("never out of bag" in note for note in trained.notes)


def test_importance_finds_the_features_that_matter():
    values, labels = made_up("plain")  # the class is the sum of the first two
    importance = train_weka(values, labels, n_trees=40).feature_importance
    assert importance.sum() == pytest.approx(1)
    assert set(np.argsort(importance)[-2:]) == {0, 1}


def test_gaps_in_labels_and_settings_that_reproduce():
    values, labels = made_up("plain")
    gaps = np.array([0, 3, 77, 255], np.uint8)[labels]
    trained = train_weka(values, gaps, n_trees=5)
    assert trained.class_values == (3, 77, 255)
    assert trained.class_counts == tuple(np.bincount(labels)[1:])
    assert_same_forest(trained.forest, train_weka(values, labels, n_trees=5).forest)
    settings = dict(trained.settings)
    assert settings.pop("engine") == "weka"
    assert_same_forest(trained.forest, train_weka(values, gaps, **settings).forest)


def test_constant_rows_make_leaves():
    trained = train_weka(np.zeros((40, 3), np.float32), np.arange(40) % 2 + 1, n_trees=4)
    assert trained.forest.n_nodes == 4
    assert trained.feature_importance.sum() == 0


# --- parts -----------------------------------------------------------------------------------------------------------


def test_random_numbers_of_java():
    """Printed by java.util.Random of OpenJDK 17."""
    random = JavaRandom(42)
    assert [random.next_int() for _ in range(2)] == [-1170105035, 234785527]
    random = JavaRandom(42)
    assert [random.next_below(10) for _ in range(6)] == [0, 3, 8, 4, 0, 5]
    random = JavaRandom(-7)
    assert [random.next_below(1 << 20) for _ in range(4)] == [282194, 945288, 705881, 991790]
    random = JavaRandom(5)  # with this bound many draws are rejected
    expected = [379250092, 189533474, 1313869424, 1049914506, 991787854, 963357722, 918177321, 1498325831]
    assert [random.next_below(1500000000) for _ in range(8)] == expected
    random = JavaRandom(42)
    assert [random.next_double() for _ in range(2)] == [0.7275636800328681, 0.6832234717598454]


def test_order_and_hash_of_java():
    """Printed by FastRfUtils.sort and Arrays.toString(..).hashCode()."""
    values = [5, 1, 5, 3, 1, 5, 5, 2, 3, 1, 4, 4, 5, MISSING, 1, MISSING, 2, 5, 3, 3]
    expected = [9, 4, 14, 1, 16, 7, 8, 3, 18, 19, 11, 10, 6, 5, 17, 2, 12, 0, 13, 15]
    assert manber_order(np.array(values, np.float32)).tolist() == expected
    assert list_hash(np.array([3, 0, 2, 1])) == -1239582342
    assert list_hash(np.array([10, 200, 3000, 47])) == -2031211631


def test_logarithm():
    """SplitCriteria.fastLog2 in Java, in float32, and the true logarithm."""
    x = np.array([3, 1, 1000.7, 0.3])
    java = np.array([1.5833333, -5.9604645e-8, 9.968971, -1.7466667], np.float32).astype(float)
    np.testing.assert_array_equal(weighted_log2(x), x * java)
    many = np.arange(1, 5000, dtype=float)
    # a parabola for the mantissa is within 0.01 bits of the logarithm
    np.testing.assert_allclose(weighted_log2(many) / many, np.log2(many), atol=0.01)
    assert weighted_log2(np.array([0.0, 1e-6])).tolist() == [0, 0]


def test_thresholds_ask_the_same_of_every_float32():
    rng = np.random.default_rng(0)
    near = rng.normal(size=200).astype(np.float32)
    split = np.concatenate([near, near + rng.normal(0, 1e-9, 200), [0, 1e-46, -1e-46, 4e38, -4e38, np.inf, -np.inf]])
    threshold = smallest_float32_not_below(split)
    assert threshold.dtype == np.float32
    assert np.isfinite(threshold).all()
    around = (
        np.nextafter(threshold[:-4], np.float32(-np.inf)),
        threshold[:-4],
        np.nextafter(threshold[:-4], np.float32(np.inf)),
    )
    for x in around:
        np.testing.assert_array_equal(x < threshold[:-4], x.astype(float) < split[:-4])


def test_balanced_rows_of_weka():
    """Printed by weka.filters.supervised.instance.Resample with bias 1."""
    classes = np.array([1 if i % 5 == 0 else 2 if i % 7 == 0 else 0 for i in range(20)])
    expected = [17, 6, 2, 11, 9, 9, 5, 10, 15, 10, 0, 0, 14, 7, 14, 14, 14, 14]
    assert balanced_rows(classes).tolist() == expected


# --- what can go wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_trees": 0}, "n_trees is 0"),
        ({"max_features": 0}, "max_features is 0"),
        ({"max_depth": -1}, "max_depth is -1"),
        ({"seed": 2**31}, "seed is 2147483648"),
        ({"engine": "gpu"}, "engine 'gpu'"),
        ({"n_jobs": 0}, "workers must be 1 or more, not 0"),
    ],
)
def test_settings_that_make_no_sense(settings, said):
    with pytest.raises(UsageError, match=said):
        train_weka(*made_up("plain"), **settings)


def test_rows_that_cannot_be_used():
    values, labels = made_up("plain")
    with pytest.raises(DataError, match="all 240 training rows are of class 1"):
        train_weka(values, np.ones_like(labels))
    with pytest.raises(DataError, match="infinite values, in the channels 2"):
        train_weka(np.where(np.arange(6) == 2, np.inf, values), labels)
    with pytest.raises(DataError, match=r"beyond 1.7e\+38 .* in the channels f5"):
        train_weka(np.where(np.arange(6) == 5, np.float32(2e38), values), labels, channels=[f"f{i}" for i in range(6)])


def test_without_a_compiler(monkeypatch):
    values, labels = made_up("plain")
    expected = train_weka(values, labels, n_trees=3, engine="compiled")
    assert expected.notes == train_weka(values, labels, n_trees=3).notes
    monkeypatch.setenv("CXX", "/no/such/compiler")
    with pytest.raises(ResourceError, match="no C\\+\\+ compiler"):
        train_weka(values, labels, n_trees=3, engine="compiled")
    slow = train_weka(values, labels, n_trees=3)
    assert_same_forest(slow.forest, expected.forest)
    assert "slow Python engine" in slow.notes[0]
