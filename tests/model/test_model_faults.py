"""A model file is data: round trips exactly, and anything else is refused by name, without running or inflating it."""

import dataclasses
import gzip
import io
import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.model import model as model_module
from gpu_tomoclass.model.fits import check_fits
from gpu_tomoclass.model.model import Model, describe_model, save_model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.training.drift import channel_quantiles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    bank = FeatureBank.create(["gaussian_blur", "median"], sigma_max=2)
    values = rng.normal(size=(120, bank.n_channels)).astype(np.float32)
    labels = 1 + (values[:, 0] > 0) + (values[:, 1] > 0.5)
    return Model(
        forest=train_forest(values, labels, n_trees=6).forest,
        bank=bank,
        classes=default_classes(["a", "b", "ü"]),
        intensity=IntensityScale("percentile", 2.5, -3.0, (0.0, 65535.0)),
        voxel_size=(1.0, 2.0, 3.0),
        training={"settings": {"seed": 42}, "dtype": "uint16", "volume": {"shape": [4, 5, 6]}},
        versions={"python": "3"},
        created="2026-01-01T00:00:00+00:00",
        quantiles=np.stack([channel_quantiles(values), channel_quantiles(2 * values)]),
    )


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "m.tcm"
    save_model(model, path)
    return path


def rewritten(path, *, header=None, members=None, drop=()):
    """The file with its header or members changed."""
    with zipfile.ZipFile(path) as archive:
        content = {n: archive.read(n) for n in archive.namelist()}
    if header is not None:
        fields = json.loads(content["model.json"])
        header(fields)
        content["model.json"] = json.dumps(fields).encode()
    content.update(members or {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            if name not in drop:
                archive.writestr(name, data)
    return path


def test_round_trip(model, saved):
    again = load_model(saved)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again.forest, name), getattr(model.forest, name))
        assert getattr(again.forest, name).dtype == getattr(model.forest, name).dtype
    for name in ("bank", "classes", "intensity", "voxel_size", "training", "versions", "created", "hash"):
        assert getattr(again, name) == getattr(model, name), name
    np.testing.assert_array_equal(again.quantiles, model.quantiles)
    assert again.quantiles.dtype == np.float32
    json.dumps(describe_model(again))


def test_equal_models_are_equal_files(model, saved, tmp_path):
    save_model(load_model(saved), tmp_path / "again.tcm")
    assert (tmp_path / "again.tcm").read_bytes() == saved.read_bytes()


def test_the_documented_reader_agrees(model, saved):
    """The example of docs/model-file.md, run as it stands."""
    page = (ROOT / "docs" / "model-file.md").read_text(encoding="utf-8")
    scope = {}
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], scope)
    pixels = np.random.default_rng(1).normal(size=(model.bank.n_channels, 30)).astype(np.float32)
    ours = predict_probabilities(model.forest, pixels)
    for i in range(30):
        name, theirs = scope["classify"](saved, pixels[:, i])
        np.testing.assert_allclose(ours[:, i], theirs, atol=1e-6)  # float32 result
        assert name == model.classes[int(ours[:, i].argmax())].name


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_equal(model, tmp_path_factory, data):
    """Cut anywhere or with any byte changed: a ModelError, or (unused bytes of the archive) the same model."""
    path = tmp_path_factory.mktemp("damaged") / "m.tcm"
    save_model(model, path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = load_model(path)
    except ModelError:
        return
    assert found.hash == model.hash


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("name", ["pickle", "gzip", "java", "tiff", "hdf5", "text", "empty", "npz", "zip"])
def test_foreign_files_are_refused_unread(tmp_path, name):
    trap = tmp_path / "trap"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.pkl", pickle.dumps(Trap(trap)))
    npz = io.BytesIO()
    np.savez(npz, x=np.array([Trap(trap)], dtype=object))
    content = {
        "pickle": pickle.dumps(Trap(trap)),
        "gzip": gzip.compress(pickle.dumps(Trap(trap))),
        "java": b"\xac\xed\x00\x05sr\x00\x08hr.irb",
        "tiff": b"II*\x00\x08\x00\x00\x00",
        "hdf5": b"\x89HDF\r\n\x1a\n",
        "text": b"hello there",
        "empty": b"",
        "npz": npz.getvalue(),
        "zip": archive.getvalue(),
    }[name]
    path = tmp_path / "m.tcm"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="gpu-tomoclass train") as caught:
        load_model(path)
    assert not trap.exists()
    if name == "pickle":
        assert "not loaded" in str(caught.value)


def test_missing_and_folder(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_model(tmp_path / "none.tcm")
    with pytest.raises(ModelError, match="directory"):
        load_model(tmp_path)


@pytest.mark.parametrize("field", ["format_version", "definition_version"])
def test_newer_models_ask_for_an_upgrade(saved, field):
    rewritten(saved, header=lambda h: h.update({field: 99, "made_by": "9.9.0"}))
    with pytest.raises(ModelError, match=r"made by 9\.9\.0.*upgrade"):
        load_model(saved)


@pytest.mark.parametrize("wrong", [None, 7, "x", [], {}, True, 1.5, [1], {"a": 1}])
@pytest.mark.parametrize("field", ["bank", "classes", "intensity", "n_features", "training", "versions", "created"])
def test_header_fields_are_checked(saved, field, wrong):
    legal = {"training": ({}, {"a": 1}), "versions": ({}, {"a": 1}), "created": ("x",)}
    rewritten(saved, header=lambda h: h.update({field: wrong}))
    if any(wrong == value and type(wrong) is type(value) for value in legal.get(field, ())):
        assert load_model(saved).classes
        return
    with pytest.raises(ModelError):
        load_model(saved)


@pytest.mark.parametrize("field", ["bank", "classes", "intensity", "voxel_size_nm", "n_features", "training", "format"])
def test_missing_header_fields_are_named(saved, field):
    rewritten(saved, header=lambda h: h.pop(field))
    with pytest.raises(ModelError, match=field):
        load_model(saved)


def test_members_are_exactly_those(saved):
    rewritten(saved, members={"extra.py": b"1"})
    with pytest.raises(ModelError, match="extra"):
        load_model(saved)
    rewritten(saved, drop=("extra.py", "child.npy"))
    with pytest.raises(ModelError, match="child"):
        load_model(saved)


@pytest.mark.parametrize("value", ["0.5", None, 0.5, {}, [True], [0.5, -0.1], [1.5], ["0.5"]])
def test_mean_margins_are_shares(saved, value):
    rewritten(saved, header=lambda h: h["training"].update(mean_margins=value))
    with pytest.raises(ModelError, match=r"training\.mean_margins"):
        load_model(saved)
    rewritten(saved, header=lambda h: h["training"].update(mean_margins=[1, 0.5]))
    assert load_model(saved).training["mean_margins"] == [1, 0.5]


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_quantiles_may_be_absent(model, saved):
    """Models from Fiji and from tables know nothing of their volume; it is another model then."""
    rewritten(saved, drop=("quantiles.npy",))
    without = load_model(saved)
    assert without.quantiles is None
    assert without.hash != model.hash


def changed(quantiles, how):
    q = quantiles.copy()
    if how == "nan":
        q[1, 1, 3] = np.nan
    elif how == "infinite":
        q[0, 0, -1] = np.inf
    elif how == "falling":
        q[1, 0, 5] = q[1, 0, 4] - 1
    elif how == "more channels":
        q = np.concatenate([q, q[:, :1]], axis=1)
    elif how == "fewer levels":
        q = q[:, :, 1:].copy()
    elif how == "flat":
        q = q[0]
    elif how == "empty":
        q = q[:0]
    elif how == "double":
        q = q.astype(np.float64)
    else:
        q = q.astype(np.int32)
    return q


@pytest.mark.parametrize(
    "how", ["nan", "infinite", "falling", "more channels", "fewer levels", "flat", "empty", "double", "whole"]
)
def test_bad_quantiles_are_refused(model, saved, how):
    rewritten(saved, members={"quantiles.npy": npy(changed(model.quantiles, how))})
    with pytest.raises(ModelError, match="quantiles"):
        load_model(saved)
    with pytest.raises(ModelError, match="quantiles"):
        dataclasses.replace(model, quantiles=changed(model.quantiles, how))


def test_quantiles_that_are_no_array_are_refused(saved, tmp_path):
    for content in (b"", b"hello", pickle.dumps(Trap(tmp_path / "trap"))):
        rewritten(saved, members={"quantiles.npy": content})
        with pytest.raises(ModelError, match="quantiles"):
            load_model(saved)
    assert not (tmp_path / "trap").exists()
    rewritten(saved, members={"quantiles2.npy": b""})
    with pytest.raises(ModelError, match="quantiles2"):
        load_model(saved)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_quantiles_are_refused_or_right(model, tmp_path_factory, data):
    """Any bytes of the member changed, behind a checksum that fits: refused, or finite, rising, of the right shape."""
    path = tmp_path_factory.mktemp("fuzzed") / "m.tcm"
    save_model(model, path)
    content = bytearray(npy(model.quantiles))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    rewritten(path, members={"quantiles.npy": bytes(content[: data.draw(st.integers(1, len(content)))])})
    try:
        found = load_model(path).quantiles
    except ModelError:
        return
    assert found.shape[0] >= 1
    assert found.shape[1:] == model.quantiles.shape[1:]
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=1) >= 0).all()


def test_object_arrays_and_lying_shapes_are_refused(saved, tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(tmp_path / "trap")], dtype=object), allow_pickle=True)
    rewritten(saved, members={"feature.npy": buffer.getvalue()})
    with pytest.raises(ModelError, match="feature"):
        load_model(saved)
    assert not (tmp_path / "trap").exists()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (2**60,)})
    rewritten(saved, members={"feature.npy": header.getvalue() + b"\0" * 100})
    with pytest.raises(ModelError, match=r"feature\.npy claims"):
        load_model(saved)


def test_a_bomb_does_not_inflate(saved):
    """268 MB of zeros in 0.3 MB: refused by what it claims beside the size of the file, with memory flat."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (100,)})
    rewritten(saved, members={"feature.npy": header.getvalue() + bytes(2**28)})
    assert saved.stat().st_size < 2**19
    code = (
        "import resource, sys\nfrom gpu_tomoclass.model.reading import load_model\n"
        "import gpu_tomoclass.forest.arrays\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_model(sys.argv[1])\nexcept Exception as error:\n    print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, 'MiB')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=True)
    message, grown = done.stdout.splitlines()
    assert "claims to hold 268" in message
    assert int(grown.split()[0]) < 64


def test_an_interrupted_write_keeps_the_old_file(model, saved, monkeypatch):
    before = saved.read_bytes()
    with pytest.raises(DataError, match="--overwrite"):
        save_model(model, saved)

    def fails(array):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_module, "_npy_bytes", fails)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, saved, overwrite=True)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_what_fits(model):
    uint16 = np.dtype(np.uint16)
    assert check_fits(model, dtype=uint16, voxel_size=(9.0, 2.01, 2.99)) == []
    with pytest.raises(ModelError, match=r"uint16.*float32"):
        check_fits(model, dtype=np.dtype(np.float32))
    with pytest.raises(ModelError, match="--force"):
        check_fits(model, dtype=uint16, voxel_size=(1.0, 2.1, 3.0))
    assert len(check_fits(model, dtype=uint16, voxel_size=(1.0, 2.1, 3.0), force=True)) == 1
    with pytest.raises(ModelError, match="channels"):
        Model(model.forest, FeatureBank.create(["median"]), model.classes, model.intensity)
