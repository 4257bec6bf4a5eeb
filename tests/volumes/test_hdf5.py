"""HDF5 volumes, against h5py."""

import h5py
import numpy as np
import pytest

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes import indexed, stored_axes
from gpu_tomoclass.volumes.hdf5.reader import Hdf5Volume, open_hdf5
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (7, 20, 33)
GUESS = "the file does not name its axes: read as z, y, x"


def values(shape=SHAPE, dtype="uint16"):
    return (np.random.default_rng(0).random(shape) * 100).astype(dtype)


def write(path, data, name="/data", **options):
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset(name, data=data, **options)
        return f"{path}::{dataset.name}"


def read_all(vol):
    return np.stack([plane for _, plane in vol.planes()])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (3, 8, 16)},
        {"chunks": (1, 20, 33), "compression": "gzip"},
        {"chunks": (4, 5, 33), "compression": "lzf", "shuffle": True, "fletcher32": True},
        {"chunks": (7, 20, 1), "maxshape": (None, None, None)},
        {"chunks": (2, 2, 2), "scaleoffset": 0},
    ],
)
def test_layouts(tmp_path, options):
    data = values()
    with open_volume(write(tmp_path / "a.h5", data, "/entry/data/data", **options)) as vol:
        assert (vol.shape, vol.dtype, vol.axes, vol.voxel_size, vol.notes) == (SHAPE, data.dtype, "ZYX", None, [GUESS])
        np.testing.assert_array_equal(read_all(vol), data)
        np.testing.assert_array_equal(vol.plane(4), data[4])


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "<u2", ">u4", "i4", "i8", "f2", ">f4", "f8", "?"])
def test_value_types(tmp_path, dtype):
    data = values(dtype=dtype)
    vol = open_volume(write(tmp_path / "a.h5", data))
    assert vol.dtype == (np.uint8 if dtype == "?" else np.dtype(dtype).newbyteorder("="))
    assert vol.plane(0).dtype == vol.dtype
    np.testing.assert_array_equal(read_all(vol), data)


@pytest.mark.parametrize("order", ["zxy", "yzx", "yxz", "xyz", "xzy"])
@pytest.mark.parametrize("chunks", [None, (3, 4, 5)])
def test_other_orders_are_read_as_zyx(tmp_path, order, chunks, monkeypatch):
    truth = values()
    monkeypatch.setattr(indexed, "SLAB_BYTES", 3 * 20 * 33 * 2)
    data = np.ascontiguousarray(truth.transpose(["zyx".index(a) for a in order]))
    path = write(tmp_path / "a.h5", data, chunks=chunks)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["data"].attrs["element_size_um"] = [(1 + "zyx".index(a)) / 1000 for a in order]
    vol = open_volume(path, axes=order)
    assert (vol.shape, vol.axes) == (SHAPE, order.upper())
    assert vol.voxel_size == pytest.approx((1, 2, 3))
    np.testing.assert_array_equal(read_all(vol), truth)
    assert any("planes are read as ZYX" in note for note in vol.notes)
    with pytest.raises(UsageError, match="not an order of z, y, x"):
        open_volume(path, axes="zzx")


def test_each_layer_is_read_once(tmp_path, monkeypatch):
    data = values()
    path = write(tmp_path / "a.h5", data, chunks=(3, 8, 16), compression="gzip")
    calls = []
    real = Hdf5Volume._read_layer
    monkeypatch.setattr(Hdf5Volume, "_read_layer", lambda self, a, b: calls.append((a, b)) or real(self, a, b))
    vol = open_volume(path)
    assert calls == []
    np.testing.assert_array_equal(read_all(vol), data)
    assert calls == [(0, 3), (3, 6), (6, 7)]
    vol.plane(6)[:] = 0
    np.testing.assert_array_equal(vol.plane(6), data[6])
    monkeypatch.setattr(stored_axes, "LAYER_BYTES", 1)
    vol = open_volume(path)
    np.testing.assert_array_equal(read_all(vol), data)
    assert any("decodes each chunk 3 times" in note for note in vol.notes)


def test_voxel_size(tmp_path):
    path = write(tmp_path / "a.h5", values((1, *SHAPE)))
    for value, expected in [
        ([0.001, 0.002, 0.004], (1, 2, 4)),
        ([9, 0.001, 0.002, 0.004], (1, 2, 4)),
        ([0.001, 0.002], None),
        ([0, 1, 1], None),
        ("large", None),
        ([np.nan, 1, 1], None),
    ]:
        with h5py.File(tmp_path / "a.h5", "a") as file:
            file["data"].attrs["element_size_um"] = value
        assert open_hdf5(path).voxel_size == (None if expected is None else pytest.approx(expected))


def test_numbers_of_axes(tmp_path):
    file = tmp_path / "a.h5"
    data = values()
    vol = open_volume(write(file, data[:, :, None, :, None], "/five"))
    np.testing.assert_array_equal(read_all(vol), data)
    assert any("length 1 are left out of the shape (7, 20, 1, 33, 1)" in note for note in vol.notes)
    vol = open_volume(write(file, data[0], "/two"))
    assert vol.shape == (1, 20, 33)
    assert any("one plane" in note for note in vol.notes)
    np.testing.assert_array_equal(vol.plane(0), data[0])
    np.testing.assert_array_equal(open_volume(write(file, data[:1, None, :1], "/thin")).plane(0), data[:1, 0])
    for name, shape in [("/four", (2, 3, 4, 5)), ("/one", (9,)), ("/scalar", ())]:
        with pytest.raises(DataError, match=r"no volume: the dataset has the shape"):
            open_volume(write(file, np.zeros(shape), name))
    with pytest.raises(DataError, match=r"holds no voxels.*\(0, 4, 5\)"):
        open_volume(write(file, np.zeros((0, 4, 5)), "/none", chunks=(1, 4, 5), maxshape=(None, 4, 5)))


def test_links_inside_the_file_are_followed(tmp_path):
    data = values()
    write(tmp_path / "a.h5", data, "/entry/instrument/data")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["entry/data"] = h5py.SoftLink("/entry/instrument")
        file["entry/short"] = h5py.SoftLink("data/../data/data")
        file["hard"] = file["entry/instrument/data"]
    for name in ("/entry/data/data", "entry/short", "//hard/", "entry/instrument/./data"):
        np.testing.assert_array_equal(read_all(open_volume(f"{tmp_path}/a.h5::{name}")), data)


def test_virtual_dataset_in_the_same_folder(tmp_path):
    data = values()
    for z in range(7):
        write(tmp_path / f"part{z}.h5", data[z], "/p")
    layout = h5py.VirtualLayout(SHAPE, dtype=data.dtype)
    for z in range(7):
        layout[z] = h5py.VirtualSource(f"part{z}.h5", "/p", shape=data[z].shape)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_virtual_dataset("all", layout)
    vol = open_volume(f"{tmp_path}/master.h5::/all")
    np.testing.assert_array_equal(read_all(vol), data)
    assert len(vol.files()) == 8


def test_file_alone_lists_what_is_inside(tmp_path):
    write(tmp_path / "a.h5", values(), "/entry/data/data")
    write(tmp_path / "a.h5", values()[0], "/entry/flat")
    write(tmp_path / "a.h5", values((2, *SHAPE), "f4"), "/exported_data")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["again"] = h5py.SoftLink("/entry")
        file["entry/loop"] = file["entry"]  # a hard link that makes a circle
    with pytest.raises(DataError) as caught:
        open_volume(tmp_path / "a.h5")
    message = str(caught.value)
    assert "/entry/data/data (7, 20, 33) uint16" in message
    assert "/exported_data (2, 7, 20, 33) float32" in message
    assert "flat" not in message
    assert message.endswith("a.h5::/entry/data/data")
    assert message.count("/entry/data/data (") == 1


def test_reading_changes_nothing(tmp_path):
    path = write(tmp_path / "a.h5", values(), chunks=(2, 8, 8), compression="gzip")
    before = (tmp_path / "a.h5").read_bytes(), (tmp_path / "a.h5").stat().st_mtime_ns
    vol = open_volume(path)
    read_all(vol)
    vol.check_unchanged()
    assert ((tmp_path / "a.h5").read_bytes(), (tmp_path / "a.h5").stat().st_mtime_ns) == before
    assert vol.fingerprint()["size"] == len(before[0])
