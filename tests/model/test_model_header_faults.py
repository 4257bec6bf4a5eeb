"""Model files made to look right: hostile headers, array headers and archives, and what identifies a model."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.model import model as model_module
from gpu_tomoclass.model.fits import check_fits
from gpu_tomoclass.model.model import Model, save_model
from gpu_tomoclass.model.reading import load_model


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Name to bytes of the members of a good model file."""
    bank = FeatureBank.create(["gaussian_blur"], sigma_max=2)
    values = np.random.default_rng(0).normal(size=(60, bank.n_channels)).astype(np.float32)
    model = Model(
        forest=train_forest(values, 1 + (values[:, 0] > 0), n_trees=3).forest,
        bank=bank,
        classes=default_classes(["a", "b"]),
        intensity=IntensityScale("percentile", 2.5, -3.0, (0.0, 65535.0)),
        training={"settings": {"seed": 42}, "dtype": "uint16", "volume": {"shape": [4, 5, 6]}},
        created="2026-01-01T00:00:00+00:00",
    )
    path = tmp_path_factory.mktemp("good") / "m.tcm"
    save_model(model, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, path, *, method=zipfile.ZIP_DEFLATED, **changed):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in {**members, **{n.replace("_npy", ".npy"): d for n, d in changed.items()}}.items():
            archive.writestr(name, data)
    return path


def with_text(members, path, *, old, new):
    """The header's text changed, for what json.dumps would not write."""
    text = members["model.json"].decode()
    assert text.count(old) == 1
    return packed(members | {"model.json": text.replace(old, new).encode()}, path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"gain": 2.5', '"gain": 1e999'),
        ('"gain": 2.5', '"gain": NaN'),
        ('"gain": 2.5', '"gain": 1' + "0" * 400),
        ('"value": 1\n', '"value": 1e999\n'),
        ('"value": 1\n', '"value": 1.5\n'),
        ('"value": 1\n', '"value": "1"\n'),
        ('"value": 1\n', '"value": true\n'),
        ('"name": "a"', '"name": null'),
        ('"seed": 42', '"seed": 1e999'),
        ('"seed": 42', '"seed": ' + "[" * 100_000 + "]" * 100_000),
        ('"dtype": "uint16"', '"dtype": "nonsense"'),
        ('"dtype": "uint16"', '"dtype": "object"'),
        ('"dtype": "uint16"', '"dtype": 5'),
        ('"dtype": "uint16"', '"volume": [1], "dtype": "uint16"'),
    ],
)
def test_hostile_values_in_the_header_are_refused(members, tmp_path, old, new):
    if "volume" in new:  # the later of two equal keys counts
        members = members | {"model.json": members["model.json"].replace(b'"volume"', b'"other"')}
    with pytest.raises(ModelError, match=r"m\.tcm"):
        load_model(with_text(members, tmp_path / "m.tcm", old=old, new=new))


@pytest.mark.parametrize("shape", [7, [1, 2], [1, "a", None], [1, 2, 3.5], {"a": 1}])
def test_shapes_that_check_fits_cannot_use_are_refused_by_name(members, tmp_path, shape):
    header = json.loads(members["model.json"])
    header["training"]["volume"]["shape"] = shape
    with pytest.raises(ModelError, match=r"training\.volume\.shape"):
        load_model(packed(members | {"model.json": json.dumps(header).encode()}, tmp_path / "m.tcm"))


def test_a_bank_with_endless_sigmas_is_refused(members, tmp_path):
    """Differences of Gaussians grow with the square of the sigmas: these would be 1.25e9 channels."""
    header = json.loads(members["model.json"])
    header["bank"]["families"] = {"difference_of_gaussians": [0.5 + i / 1000 for i in range(50_000)]}
    with pytest.raises(ModelError, match="50000 sigmas"):
        load_model(packed(members | {"model.json": json.dumps(header).encode()}, tmp_path / "m.tcm"))


@pytest.mark.parametrize(
    "text",
    [
        "{[]: 1}",
        "{1: 1, 'a': 2}",
        "{'descr': '''<f4', ",
        "{'descr': (((",
        "-" * 9000 + "1",
        "\0",
        "",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': ('<i4', (2,)), 'fortran_order': False, 'shape': (1,), }",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (True,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1%s,), }" % ("0" * 30),
        "{'descr': '<i4', 'fortran_order': False, 'shape': (0,), }",
        "{'descr': '<i4', 'fortran_order': True, 'shape': (1,), }",
    ],
)
@pytest.mark.parametrize("member", ["feature.npy", "votes.npy"])
def test_array_headers_are_matched_not_evaluated(members, tmp_path, text, member):
    raw = text.encode() + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + bytes(8)
    with pytest.raises(ModelError, match=member.removesuffix(".npy")):
        load_model(packed(members | {member: array}, tmp_path / "m.tcm"))


def test_an_empty_array_of_absurd_width_is_refused(members, tmp_path):
    for width in (10**17, 10**30):
        raw = b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, %d), }\n" % width
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw
        with pytest.raises(ModelError, match="votes"):
            load_model(packed(members | {"votes.npy": array}, tmp_path / "m.tcm"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(members, tmp_path, method):
    """zipfile unpacks a whole chunk of these at once, whatever the read asks for."""
    with pytest.raises(ModelError, match="not stored"):
        load_model(packed(members, tmp_path / "m.tcm", method=method))


def test_a_model_packed_by_another_program_is_read(members, tmp_path):
    stored = load_model(packed(members, tmp_path / "stored.tcm", method=zipfile.ZIP_STORED))
    assert stored.hash == load_model(packed(members, tmp_path / "deflated.tcm")).hash


def test_changed_central_directories_are_refused_or_equal(members, tmp_path):
    """Names, sizes, methods, flags and offsets of the members, three bytes at a time; warnings count as failures."""
    path = packed(members, tmp_path / "m.tcm")
    good, expected = path.read_bytes(), load_model(path).hash
    start = struct.unpack("<I", good[good.rfind(b"PK\x05\x06") + 16 :][:4])[0]
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(400):
        content = bytearray(good)
        for place in rng.integers(start, len(good), 3):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert load_model(path).hash == expected
        except ModelError:
            n_refused += 1
    assert n_refused > 200


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_stay_unread(tmp_path, protocol):
    path = tmp_path / "m.tcm"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "trap"), protocol=protocol))
    with pytest.raises(ModelError, match="not a gpu_tomoclass model"):
        load_model(path)
    assert not (tmp_path / "trap").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.tcm")
    with pytest.raises(ModelError, match="not a regular file"):
        load_model(tmp_path / "m.tcm")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits memory on Linux")
@pytest.mark.parametrize("member", ["model.json", "child.npy"])
def test_bombs_are_refused_within_256_mb(members, tmp_path, member):
    """268 MB in 0.3 MB, declared honestly; unpacking it would end in a MemoryError under the limit."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (2**26,)})
    content = b" " * 2**28 if member == "model.json" else header.getvalue() + bytes(2**28)
    path = packed(members | {member: content}, tmp_path / "m.tcm")
    code = """
import resource, sys
from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.model.reading import load_model
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 256_000_000, used + 256_000_000))
try:
    load_model(sys.argv[1])
except ModelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "claims" in done.stdout


def test_older_definitions_are_refused_where_values_changed(members, tmp_path):
    """Row 36: features of another definition have other values, so the forest would see what it never learned."""
    assert load_model(packed(members, tmp_path / "m.tcm")).bank.definition_version == 1
    header = json.loads(members["model.json"])
    header["bank"]["families"] = {"gaussian_blur": [32.0]}
    changed = packed(members | {"model.json": json.dumps(header).encode()}, tmp_path / "n.tcm")
    with pytest.raises(ModelError, match=r"Gaussian_blur_32.0 has other values now \(definition_version 1.*train"):
        load_model(changed)


def test_the_hash_is_of_the_model_not_of_its_writer(members, tmp_path, monkeypatch):
    path = packed(members, tmp_path / "m.tcm")
    first = load_model(path).hash
    monkeypatch.setattr(model_module, "__version__", "99.0")
    assert load_model(path).hash == first
    changed = with_text(members, tmp_path / "n.tcm", old='"seed": 42', new='"seed": 43')
    assert load_model(changed).hash != first


def test_equal_training_in_another_process_gives_equal_bytes(tmp_path):
    """Other hashes of strings, other threads."""
    code = """
import sys, numpy as np
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.model.model import Model, save_model
bank = FeatureBank.create(["median"], sigma_max=2)
values = np.random.default_rng(0).normal(size=(80, bank.n_channels)).astype(np.float32)
forest = train_forest(values, 1 + (values[:, 0] > 0), n_trees=4, n_jobs=int(sys.argv[2])).forest
save_model(Model(forest, bank, default_classes(["a", "b"]), IntensityScale()), sys.argv[1])
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", str(tmp_path / "1.tcm"), "1"])
        exec(code, {})  # here
    arguments = [sys.executable, "-c", code, str(tmp_path / "2.tcm"), "2"]
    subprocess.run(arguments, check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    assert (tmp_path / "1.tcm").read_bytes() == (tmp_path / "2.tcm").read_bytes()


def test_swapped_axes_are_noted_and_voxel_kinds_compared(members, tmp_path):
    model = load_model(packed(members, tmp_path / "m.tcm"))
    assert "--axes" in check_fits(model, dtype=np.dtype(">u2"), shape=(6, 5, 4))[0]
    assert check_fits(model, dtype=np.dtype("u2"), shape=(40, 5, 6)) == []
    for other in ("u1", "i2", "f4"):
        with pytest.raises(ModelError, match="trained on uint16"):
            check_fits(model, dtype=np.dtype(other), force=True)


def test_voxel_sizes_along_z_count_for_banks_across_planes(members, tmp_path):
    """A filter of a plane does not see the distance of planes, one across planes does."""
    flat = replace(load_model(packed(members, tmp_path / "m.tcm")), voxel_size=(1.0, 1.0, 1.0))
    deep = replace(flat, bank=FeatureBank.create("weka-3d-default", sigma_max=1))
    other_depth = {"dtype": np.dtype("u2"), "voxel_size": (2.0, 1.0, 1.0)}
    assert check_fits(flat, **other_depth) == []
    with pytest.raises(ModelError, match="2 x 1 x 1 nm"):
        check_fits(deep, **other_depth)
    assert check_fits(deep, dtype=np.dtype("u2"), voxel_size=(1.005, 1.0, 1.0)) == []
    with pytest.raises(ModelError, match=r"1 x 1\.02 nm"):
        check_fits(flat, dtype=np.dtype("u2"), voxel_size=(1.0, 1.0, 1.02))
