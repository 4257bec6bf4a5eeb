"""NeXus files that we write: what NXtomoproc requires, read by h5py alone; and read again with classes and place."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

import gpu_tomoclass as gt
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes import convert

# https://manual.nexusformat.org/classes/applications/NXtomoproc.html: required groups with their class, and fields
REQUIRED = {
    "entry": ("NXentry", ["title", "definition"]),
    "entry/instrument": ("NXinstrument", []),
    "entry/instrument/source": ("NXsource", ["type", "name", "probe"]),
    "entry/sample": ("NXsample", ["name"]),
    "entry/reconstruction": ("NXprocess", ["program", "version", "date"]),
    "entry/reconstruction/parameters": ("NXparameters", ["raw_file"]),
    "entry/data": ("NXdata", ["data", "x", "y", "z"]),
}
RNG = np.random.default_rng(2)


def write(path, array, **options):
    with gt.create_volume(path, shape=array.shape[-3:], dtype=array.dtype, **options) as writer:
        for z in range(array.shape[-3]):
            writer.write_plane(z, array[..., z, :, :])


def test_the_definition_is_followed(tmp_path):
    labels = RNG.integers(1, 3, (3, 5, 4)).astype(np.uint8)
    classes = gt.default_classes(["vacuum", "silica"])
    place = {"origin_nm": [10.0, 20.0, 30.0], "start": [0, 0, 0]}
    metadata = {"made_by": "gpu_tomoclass 0.1.0", "input": {"name": "v.mrc"}, "place": place}
    write(tmp_path / "l.nxs", labels, voxel_size=(2.0, 1.0, 0.5), classes=classes, metadata=metadata)
    with h5py.File(tmp_path / "l.nxs") as file:
        for name, (kind, fields) in REQUIRED.items():
            assert file[name].attrs["NX_class"] == kind
            assert {*fields} <= {*file[name]}, name
        assert file["entry/definition"].asstr()[()] == "NXtomoproc"
        assert file["entry/instrument/source/probe"].asstr()[()] == "electron"
        assert file["entry/reconstruction/parameters/raw_file"].asstr()[()] == "v.mrc"
        data = file[file.attrs["default"]][file["entry"].attrs["default"]]
        assert (data.attrs["signal"], list(data.attrs["axes"])) == ("data", ["z", "y", "x"])
        np.testing.assert_array_equal(data["data"], labels)
        np.testing.assert_allclose(data["z"], [10, 12, 14])
        np.testing.assert_allclose(data["x"], [30, 30.5, 31, 31.5])
        assert data["y"].attrs["units"] == "nm"
        assert {*data["data"].attrs} >= {"transform", "offset", "scaling"}
    with gt.open_volume(tmp_path / "l.nxs") as found:
        np.testing.assert_array_equal(np.asarray(found), labels)
        assert found.voxel_size == pytest.approx((2.0, 1.0, 0.5))
        assert found.classes == classes
        assert found.metadata["place"] == place
        assert found.metadata["input"] == {"name": "v.mrc"}


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_voxels_of_any_number_and_a_single_plane(tmp_path, dtype):
    array = (RNG.normal(size=(1, 6, 5)) * 100).astype(dtype)
    write(tmp_path / "v.nxs", array, voxel_size=(3.0, 1.0, 1.0))
    with gt.open_volume(tmp_path / "v.nxs") as found:
        assert found.dtype == dtype
        np.testing.assert_array_equal(np.asarray(found), array)
        assert found.voxel_size == pytest.approx((3.0, 1.0, 1.0))
        convert(found, tmp_path / "w.mrc" if dtype != np.uint16 else tmp_path / "w.tif")
    write(tmp_path / "u.nxs", array)
    with gt.open_volume(tmp_path / "u.nxs") as found:
        assert found.voxel_size is None


def test_channels_are_the_first_axis(tmp_path):
    array = RNG.random((2, 3, 4, 5)).astype(np.float32)
    write(tmp_path / "p.nxs", array, voxel_size=(1.0, 1.0, 1.0), channels=["a", "b"])
    for i in range(2):
        with gt.open_volume(tmp_path / "p.nxs", channel=i) as found:
            np.testing.assert_array_equal(np.asarray(found), array[i])


def test_an_output_is_complete_or_not_there(tmp_path):
    target = tmp_path / "x.nxs"
    writer = gt.create_volume(target, shape=(2, 3, 3), dtype=np.uint8)
    writer.write_plane(0, np.zeros((3, 3), np.uint8))
    with pytest.raises(UsageError, match="1 of 2 planes were not written, the first is 1"):
        writer.finish()
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="hold numbers"):
        gt.create_volume(target, shape=(2, 3, 3), dtype=np.complex64)
    write(target, np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DataError, match="exists already"):
        write(target, np.zeros((2, 3, 3), np.uint8))
    with h5py.File(target, "r+") as file:
        del file["entry/reconstruction/parameters/gpu_tomoclass"]
        file["entry/reconstruction/parameters/gpu_tomoclass"] = "{"
    with pytest.raises(DataError, match="is damaged"):
        gt.open_volume(target)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file size limit that raises instead of killing")
def test_write_error_is_a_sentence_and_leaves_nothing(tmp_path):
    """Whatever is being written then: groups, voxels, or what HDF5 has kept back until the file is closed."""
    code = """
import resource, signal, sys, numpy as np
import gpu_tomoclass as gt
from gpu_tomoclass.errors import ResourceError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
values = np.random.default_rng(0).integers(0, 250, (9, 90, 90), np.uint8)
for classes in ([], gt.default_classes(["a", "b"])):
    for limit in (1000, 9000, 14_000, 20_000, 60_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            with gt.create_volume(sys.argv[1], shape=values.shape, dtype="uint8", classes=classes) as writer:
                for z, plane in enumerate(values):
                    writer.write_plane(z, plane)
        except ResourceError as error:
            print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.nxs"], capture_output=True, text=True, timeout=1200
    )
    assert result.stdout.count("m.nxs: the file grew beyond") == 10, result.stderr
    assert (result.returncode, result.stderr) == (0, "")  # HDF5 has not broken down, either
    assert list(tmp_path.iterdir()) == []
