"""Classifiers that Fiji saved: they must classify here as they did there."""

import gzip

import numpy as np
import pytest

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.forest.predict import predict_classes, predict_probabilities
from gpu_tomoclass.model.fiji import trees as fiji_trees
from gpu_tomoclass.model.fiji.classifier import import_fiji_model, load_fiji_model
from gpu_tomoclass.model.fiji.java_stream import JavaObject, JavaReader
from gpu_tomoclass.model.fiji.trees import TREE_CLASS, TreeShortcut, forest_of
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.model.reading import load_model

NAMES = ("small8", "small16", "small32")


def read_trees(data, *, shortcut):
    reader = JavaReader(data, check_class=lambda name: None, shortcut=shortcut)
    trees = reader.read().fields["m_bagger"].fields["m_Classifiers"]
    assert reader.read().name == "weka.core.Instances"
    assert reader.at_end
    return trees


def assert_same_forest(a, b):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_classifies_as_fiji(golden, name):
    fiji = load_fiji_model(golden[name].model_path)
    features = golden[name].features_of(*fiji.bank.channels)
    found = predict_probabilities(fiji.forest, features.reshape(len(features), -1))
    result = golden[name].result
    np.testing.assert_array_equal(found.reshape(result["probability"].shape), result["probability"])
    np.testing.assert_array_equal(found.argmax(axis=0), result["class_index"].ravel())
    assert fiji.class_names == tuple(result["class_names"])


@pytest.mark.parametrize("name", NAMES)
def test_classifies_as_fiji_from_our_own_features(golden, name):
    model = import_fiji_model(golden[name].model_path)
    features = model.bank.compute(model.intensity.apply(golden[name].image))
    found = predict_probabilities(model.forest, features.reshape(len(features), -1))
    result = golden[name].result
    labels = predict_classes(found, np.array([c.value for c in model.classes], np.uint8))
    np.testing.assert_array_equal(labels, result["class_index"].ravel() + 1)
    # Gabor differs in its last bits, so a value very close to a split point may take the other branch
    differ = (found != result["probability"].reshape(found.shape)).any(axis=0)
    assert differ.sum() <= 5


def test_says_what_the_file_says(golden):
    fiji = load_fiji_model(golden["small8"].model_path)
    assert (fiji.relation, fiji.seed, fiji.max_features, fiji.max_depth) == ("TWS-2D-v4.0.0-grayscale", 42, 2, 0)
    assert sorted(fiji.bank.channels) == sorted(golden["small8"].channels)
    assert fiji.forest.n_trees == 200
    assert fiji.oob_error == 3 / 152
    assert "display range" in " ".join(fiji.notes)


def test_becomes_a_model_file(golden, tmp_path):
    model = import_fiji_model(golden["small16"].model_path)
    assert model.intensity.kind == "as-is"
    assert [c.name for c in model.classes] == ["class 1", "class 2", "class 3"]
    save_model(model, tmp_path / "fiji.tcm")
    again = load_model(tmp_path / "fiji.tcm")
    assert again.hash == model.hash
    assert_same_forest(again.forest, model.forest)
    assert again.training["settings"]["seed"] == 42
    signed = import_fiji_model(golden["small16"].model_path, signed_16_bit=True)
    assert signed.intensity.apply(np.array([[-32768, 5]], np.int16)).tolist() == [[0, 32773]]


def test_gzip(golden, tmp_path):
    path = tmp_path / "classifier.model.gz"
    path.write_bytes(gzip.compress(golden["small8"].model_path.read_bytes()))
    assert_same_forest(load_fiji_model(path).forest, load_fiji_model(golden["small8"].model_path).forest)


@pytest.mark.parametrize("nodes_at_once", [1, 7, None])
def test_shortcut_reads_what_the_general_reader_reads(golden, monkeypatch, nodes_at_once):
    data = golden["small32"].model_path.read_bytes()
    slow = forest_of(read_trees(data, shortcut=None), n_features=272, n_classes=3)
    if nodes_at_once:
        monkeypatch.setattr(fiji_trees, "NODES_AT_ONCE", nodes_at_once)
    trees = read_trees(data, shortcut=TreeShortcut())
    # the first tree holds the description of a class and is read in the general way, but for what is below its root
    assert sum(isinstance(tree, fiji_trees.Nodes) for tree in trees) == 199
    assert_same_forest(forest_of(trees, n_features=272, n_classes=3), slow)


def test_nodes_of_another_form_are_read_in_the_general_way(golden):
    """The number of decimals is no part of the pattern, a null in place of a reference is of another form."""
    data = golden["small8"].model_path.read_bytes()
    slow = forest_of(read_trees(data, shortcut=None), n_features=272, n_classes=3)
    reader = JavaReader(data, check_class=lambda name: None)
    reader.read()
    tree_class = reader.classes[TREE_CLASS]
    node = b"sq" + b"\0\x7e" + (tree_class.handle & 0xFFFF).to_bytes(2, "big") + b"\0\0\0\0\0\2q"
    starts = [i for i in range(len(data)) if data.startswith(node, i)]
    assert len(starts) > 3000
    for i in starts[500::400][::-1]:
        data = data[: i + len(node) - 1] + b"p" + data[i + len(node) + 4 :]  # m_BatchSize is null
    trees = read_trees(data, shortcut=TreeShortcut())
    assert 100 < sum(isinstance(tree, fiji_trees.Nodes) for tree in trees) < 199
    assert_same_forest(forest_of(trees, n_features=272, n_classes=3), slow)


def leaf(*votes):
    return JavaObject(TREE_CLASS, {"m_Attribute": -1, "m_ClassProbs": np.array(votes, float)})


def question(attribute, split, left, right, share=0.5):
    return JavaObject(
        TREE_CLASS,
        {
            "m_Attribute": attribute,
            "m_SplitPoint": split,
            "m_Prop": np.array([share, 1 - share]),
            "m_Successors": [left, right],
        },
    )


def test_arrays_of_a_small_forest():
    inner = question(1, 0.1, leaf(3, 0), leaf(0, 1), share=0.25)
    trees = [question(0, 2.0, inner, leaf(1, 1)), leaf(0, 2), question(2, -1.0, leaf(5, 0), leaf(0, 4))]
    forest = forest_of(trees, n_features=3, n_classes=2)
    assert forest.roots.tolist() == [0, 5, 6]
    assert forest.feature.tolist() == [0, 1, -1, -1, -1, -1, 2, -1, -1]
    assert forest.child.tolist() == [1, 3, 0, 1, 2, 3, 7, 4, 5]
    assert forest.votes.tolist() == [[1, 1], [3, 0], [0, 1], [0, 2], [5, 0], [0, 4]]
    assert forest.left_fraction.tolist() == [0.5, 0.25, 0, 0, 0, 0, 0.5, 0, 0]
    assert forest.threshold[1] >= 0.1 > np.nextafter(forest.threshold[1], np.float32(0))


def chain(depth):
    tree = leaf(1, 0)
    for i in range(depth):
        tree = question(0, float(i), tree, leaf(0, 1)) if i % 2 else question(0, float(i), leaf(0, 1), tree)
    return tree


def test_depth_does_not_matter():
    assert forest_of([chain(30000)], n_features=1, n_classes=2).depth == 30000


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (leaf(1, 0, 0), "does not hold 2 votes"),
        (JavaObject(TREE_CLASS, {"m_Attribute": -1}), "does not hold 2 votes"),
        (JavaObject(TREE_CLASS, {}), "lacks the attribute"),
        (JavaObject("weka.classifiers.trees.J48", {}), "of the class weka.classifiers.trees.J48"),
        (None, "a node is NoneType"),
        (question(0, np.nan, leaf(1, 0), leaf(0, 1)), "split point is not a number"),
        (question(0, 1.0, leaf(1, 0), None), "a node is NoneType"),
        (question(7, 1.0, leaf(1, 0), leaf(0, 1)), r"feature\[1\] is 7"),
        (question(-2, 1.0, leaf(1, 0), leaf(0, 1)), r"feature\[1\] is -2"),
        (question(0, 1.0, leaf(1, 0), leaf(0, 1), share=1.5), r"left_fraction\[1\]"),
        (question(0, 1.0, leaf(1, 0), leaf(0, -1)), "votes"),
        (question(0, 1.0, leaf(1, 0), leaf(0, 0)), "must vote"),
    ],
)
def test_no_tree(tree, said):
    with pytest.raises(ModelError, match=said):
        forest_of([leaf(1, 0), tree], n_features=2, n_classes=2)


def test_cycles_and_shared_nodes():
    loop = question(0, 1.0, leaf(1, 0), leaf(0, 1))
    loop.fields["m_Successors"][1] = question(0, 0.5, leaf(1, 0), loop)
    shared = leaf(1, 1)
    for tree in (loop, question(0, 1.0, shared, shared)):
        with pytest.raises(ModelError, match="two parents"):
            forest_of([tree], n_features=1, n_classes=2)
