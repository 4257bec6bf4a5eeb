"""Files that are no classifier of Fiji, or a damaged, hostile or foreign one: an error that says so, soon."""

import gzip
import struct

import numpy as np
import pytest

from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.model.fiji import classifier as fiji
from gpu_tomoclass.model.fiji import java_stream
from gpu_tomoclass.model.fiji.classifier import FOREST_CLASS, import_fiji_model, load_fiji_model
from gpu_tomoclass.model.fiji.java_stream import FIRST_HANDLE, MAGIC, JavaReader
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.model.reading import load_model


@pytest.fixture(scope="module")
def good(golden):
    return golden["small8"].model_path.read_bytes()


@pytest.fixture
def load(tmp_path):
    def load(data, **options):
        path = tmp_path / "classifier.model"
        path.write_bytes(data)
        return load_fiji_model(path, **options)

    return load


def text(value):
    return struct.pack(">H", len(value)) + value.encode()


def described(name, *fields, flags=2, parent=b"p"):
    """A class in the stream; fields are (type code, name)."""
    listed = b"".join(code.encode() + text(n) + (b"t" + text("Lx;") if code in "L[" else b"") for code, n in fields)
    return b"r" + text(name) + bytes(8) + bytes([flags]) + struct.pack(">H", len(fields)) + listed + b"x" + parent


def anything(data):
    return JavaReader(data, check_class=lambda name: None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not begin like a Java object stream"),
        (b"PK\x03\x04 a zip", "does not begin like a Java object stream"),
        (b"@relation 'TWS'", "does not begin like a Java object stream"),
        (b"\xac\xed\x00\x04rest", "does not begin like a Java object stream"),
        (b"\x1f\x8b and no more", "damaged gzip|Unknown compression|cannot be read"),
        (gzip.compress(b"not Java", mtime=0), "does not begin like a Java object stream"),
        (MAGIC, "ends at byte 4"),
        (MAGIC + b"p", "the classifier is NoneType"),
        (MAGIC + b"t" + text("a forest"), "the classifier is str"),
        (
            MAGIC + b"s" + described("weka.classifiers.functions.SMO"),
            "classifier is weka.classifiers.functions.SMO, only",
        ),
        (MAGIC + b"s" + described("weka.classifiers.trees.RandomForest"), "weka.classifiers.trees.RandomForest, only"),
        (MAGIC + b"s" + described(FOREST_CLASS), "not trained"),
        (MAGIC + b"s" + described(FOREST_CLASS, ("L", "m_bagger")) + b"s" + described("java.net.URL"), "java.net.URL"),
    ],
)
def test_something_else(load, data, said):
    with pytest.raises(ModelError, match=said) as caught:
        load(data)
    assert "classifier.model" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_fiji_model(tmp_path / "none.model")
    with pytest.raises(UsageError, match="folder"):
        load_fiji_model(tmp_path)


def test_cut_anywhere(load, good):
    rng = np.random.default_rng(0)
    cuts = [*range(4, 400, 9), *(len(good) - k for k in (1, 2, 17, 60)), *rng.integers(400, len(good), 40).tolist()]
    for cut in cuts:
        with pytest.raises(ModelError, match=f"ends at byte {cut}|not trained"):
            load(good[:cut])


def test_cut_between_the_two_objects_is_whole(load, good):
    """Weka's own programs save the classifier alone, or with a header; the classifier has a copy of it."""
    reader = anything(good)
    reader.read()
    assert load(good[: reader.position]).relation == "TWS-2D-v4.0.0-grayscale"


def test_cut_gzip(load, good):
    with pytest.raises(ModelError, match="gzip"):
        load(gzip.compress(good)[:-5000])


def test_any_damage_is_an_error_or_a_valid_forest(load, good):
    """Bytes changed in the header, in the description of classes and in the trees."""
    rng = np.random.default_rng(1)
    n_refused = 0
    for i in range(75):
        damaged = bytearray(good)
        end = (2000, 45000, len(good))[i % 3]
        for at in rng.integers(4, end, rng.integers(1, 4)):
            damaged[at] = rng.choice([0, 1, 0x70, 0x71, 0x73, 0x75, 0x7F, 0xFF, rng.integers(256)])
        try:
            model = load(bytes(damaged))
        except ModelError:
            n_refused += 1
        else:
            model.forest.validate()
    assert n_refused > 15


def swapped(data, old, new):
    """Names of equal length leave the stream whole."""
    assert len(old) == len(new)
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"Laplacian_2.0", b"Edges____2.0_", "Edges____2.0_"),
        (b"original", b"Original", "Original"),
        (b"TWS-2D-v4.0.0-grayscale", b"TWS-3D-v4.0.0-grayscale", "3-D features"),
        (b"TWS-2D-v4.0.0-grayscale", b"TWS-2D-v4.0.0-RGB......", "colour images"),
        (b"java.util.HashMap", b"java.util.HashSet", "java.util.HashSet"),
        (b"m_NumIterations", b"m_NumiteratioNs", "m_NumIterations of .* is NoneType, not int"),
        (b"m_bagger", b"m_beggar", "not trained"),
        (b"m_randomSeed", b"m_randomseed", "m_randomSeed"),
        (b"m_SplitPoint", b"m_SplitPlace", "lacks the attribute or the split point"),
        (b"m_RelationName", b"m_relationName", "m_RelationName"),
    ],
)
def test_foreign_parts(load, good, old, new, said):
    with pytest.raises(ModelError, match=said):
        load(swapped(good, old, new))


def test_classifiers_of_old_versions_have_the_legacy_hessian(load, good):
    assert load(good).bank.hessian == "current"
    old = swapped(good, b"TWS-2D-v4.0.0-grayscale", b"segment................")
    found = load(old)
    assert found.bank.hessian == "legacy"
    assert any("as TWS before 3.2.25 did" in note for note in found.notes)
    asked = load(old, hessian="current")
    assert asked.bank.hessian == "current"
    assert any("as TWS does since 3.2.25" in note for note in asked.notes)
    assert load(good, hessian="legacy").bank.hessian == "legacy"


def test_the_legacy_hessian_survives_the_model_file(load, good, tmp_path):
    path = tmp_path / "old.model"
    path.write_bytes(swapped(good, b"TWS-2D-v4.0.0-grayscale", b"segment................"))
    save_model(import_fiji_model(path), tmp_path / "m.tcm")
    assert load_model(tmp_path / "m.tcm").bank.hessian == "legacy"


def test_headers_that_contradict_each_other(load, good):
    reader = anything(good)
    info = reader.read().fields["m_Info"]
    handle = {id(item): struct.pack(">i", number) for number, item in reader.known.items()}
    attributes = [item for item in info.fields["m_Attributes"].written if not isinstance(item, bytes)]
    few = b"".join(b"q" + handle[id(a)] for a in (attributes[0], attributes[5], attributes[-1]))
    count = struct.pack(">i", 3)
    new_list = b"sq" + handle[id(reader.classes["java.util.ArrayList"])] + count + b"w\x04" + count + few + b"x"
    header = b"sq" + handle[id(reader.classes["weka.core.Instances"])] + struct.pack(">ii", 2, 0) + new_list
    header += b"pp" + b"t" + text("segment")  # m_Instances, m_NamesToAttributeIndices, m_RelationName
    with pytest.raises(ModelError, match="name other channels"):
        load(good[: reader.position] + header)
    with pytest.raises(ModelError, match="the class is attribute 1 of 3"):
        load(good[: reader.position] + header.replace(struct.pack(">ii", 2, 0), struct.pack(">ii", 1, 0)))


def test_number_of_trees(load, good):
    at = good.index(b"ur" + text("[Lweka.classifiers.Classifier;")) - 4  # m_NumIterations, before the array of trees
    assert good[at : at + 4] == struct.pack(">i", 200)
    with pytest.raises(ModelError, match="has 200 trees and says that it has 201"):
        load(good[:at] + struct.pack(">i", 201) + good[at + 4 :])


def test_gzip_bomb(load, monkeypatch):
    monkeypatch.setattr(fiji, "ALWAYS_ALLOWED", 1 << 20)
    with pytest.raises(ModelError, match=r"unpacks from .* to more than"):
        load(gzip.compress(MAGIC + bytes(100_000_000), compresslevel=1))


def test_nesting_is_limited(monkeypatch):
    monkeypatch.setattr(java_stream, "MAX_NESTING", 500)
    box = described("Box", ("L", "inside"))
    inner = b"s" + b"q" + struct.pack(">i", FIRST_HANDLE)
    fits = anything(MAGIC + b"s" + box + inner * 200 + b"p").read()
    assert fits.fields["inside"].fields["inside"].name == "Box"
    with pytest.raises(ModelError, match="nested more than 500"):
        anything(MAGIC + b"s" + box + inner * 100_000).read()


def test_number_of_objects_is_limited(monkeypatch, good):
    monkeypatch.setattr(java_stream, "MAX_OBJECTS", 5000)
    with pytest.raises(ModelError, match="more than 5000 objects"):
        anything(good).read()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"u" + described("[D") + struct.pack(">i", 2**31 - 1) + bytes(80), "ends at byte"),
        (b"u" + described("[D") + struct.pack(">i", -1), "array of -1 elements"),
        (b"u" + described("[Lx;") + struct.pack(">i", 2**31 - 1), "ends at byte"),
        (b"u" + described("D") + struct.pack(">i", 1) + bytes(8), "is of the class D"),
        (b"|" + struct.pack(">q", 2**62), "ends at byte"),
        (b"|" + struct.pack(">q", -1), "ends at byte"),
        (b"t\x00\x02\xff\xfe", "text cannot be read"),
        (b"q" + struct.pack(">i", FIRST_HANDLE + 3), "no object 3 to refer to"),
        (b"s" + b"t" + text("no class"), "an object has no class"),
        (b"s" + described("Loop", parent=b"q" + struct.pack(">i", FIRST_HANDLE)), "extends something that is no class"),
        (b"s" + described("Own", flags=4), "only its own code can read"),
        (b"s" + described("Odd", ("Q", "field")), "unknown type 'Q'"),
        (b"~" + described("Enum"), "an enum constant where an object"),
        (b"}", "a proxy class where an object"),
        (b"{", "an exception where an object"),
        (b"v" + described("Some"), "a class where an object"),
        (b"\x00", "byte 0x00 where an object"),
    ],
)
def test_streams_that_cannot_be(data, said):
    with pytest.raises(ModelError, match=said):
        anything(MAGIC + data).read()


def test_java_text():
    """Zero takes two bytes, a character outside the basic plane two surrogates of three bytes each."""
    stored = b"a\xc0\x80\xc3\xa9\xed\xa0\xbd\xed\xb8\x80"
    assert anything(MAGIC + b"t" + struct.pack(">H", len(stored)) + stored).read() == "a\0é\U0001f600"
