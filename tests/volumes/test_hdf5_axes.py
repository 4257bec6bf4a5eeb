"""Axes and voxel sizes that HDF5 files state, as the programs that write them do (their published formats)."""

import json

import h5py
import numpy as np
import pytest

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (3, 4, 5)  # z, y, x
TRUTH = np.arange(60, dtype=np.uint16).reshape(SHAPE)


def stored(order):
    return np.ascontiguousarray(TRUTH.transpose(["zyx".index(letter) for letter in order]))


def read_all(path, **options):
    with open_volume(path, **options) as volume:
        return np.stack([plane for _, plane in volume.planes()]), volume


@pytest.mark.parametrize("order", ["xyz", "zyx", "yzx"])
def test_ilastik(tmp_path, order):
    """vigra's axistags name the stored axes, slowest first."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("exported_data", data=stored(order))
        data.attrs["axistags"] = json.dumps({"axes": [{"key": letter, "typeFlags": 2} for letter in order]})
    values, volume = read_all(tmp_path / "a.h5")
    np.testing.assert_array_equal(values, TRUTH)
    assert volume.axes == order.upper()
    assert not any("does not name" in note for note in volume.notes)


def test_ilastik_probabilities(tmp_path):
    """Channels last, and chosen."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("exported_data", data=np.stack([TRUTH, TRUTH + 100], axis=-1), chunks=(2, 3, 3, 2))
        data.attrs["axistags"] = json.dumps({"axes": [{"key": letter} for letter in "zyxc"]})
        file.create_dataset("plain", data=np.stack([TRUTH, TRUTH + 100], axis=-1))
    with pytest.raises(DataError, match="has the axis c of length 2; choose one with --channel"):
        open_volume(f"{tmp_path}/a.h5::exported_data")
    np.testing.assert_array_equal(read_all(f"{tmp_path}/a.h5::exported_data", channel=1)[0], TRUTH + 100)
    with pytest.raises(UsageError, match="no c 2, only 0 to 1"):
        open_volume(f"{tmp_path}/a.h5::exported_data", channel=2)
    np.testing.assert_array_equal(read_all(f"{tmp_path}/a.h5::plain", axes="zyxc", channel=1)[0], TRUTH + 100)
    with pytest.raises(UsageError, match="do not name y and x"):
        open_volume(f"{tmp_path}/a.h5::plain", axes="zzxc")


def test_dimension_labels(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("d", data=stored("xzy"))
        for dimension, label in zip(data.dims, "xzy", strict=True):
            dimension.label = label
    np.testing.assert_array_equal(read_all(tmp_path / "a.h5")[0], TRUTH)


def test_emd_of_tomviz(tmp_path):
    with h5py.File(tmp_path / "a.emd", "w") as file:
        group = file.create_group("data/tomography")
        group.attrs["emd_group_type"] = 1
        group.create_dataset("data", data=stored("xyz"))
        for i, (name, n, step) in enumerate([("x", 5, 1.5), ("y", 4, 1.5), ("z", 3, 2.5)], start=1):
            dim = group.create_dataset(f"dim{i}", data=(np.arange(n) * step - 3).astype("f4"))
            dim.attrs["name"], dim.attrs["units"] = name, "[n_m]"
    values, volume = read_all(tmp_path / "a.emd")
    np.testing.assert_array_equal(values, TRUTH)
    assert volume.voxel_size == (2.5, 1.5, 1.5)
    assert volume.metadata["place"]["origin_nm"] == [-3, -3, -3]


def test_hspy(tmp_path):
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        group = file.create_group("Experiments/sample")
        group.create_dataset("data", data=TRUTH)
        for i, (name, scale, unit) in enumerate([("z", 2, "nm"), ("y", 0.5, "nm"), ("x", 5, "\u00c5")]):
            axis = group.create_group(f"axis-{i}")
            axis.attrs.update(name=name, scale=scale, units=unit, size=SHAPE[i], index_in_array=i, offset=10 * i)
    values, volume = read_all(tmp_path / "a.hspy")
    np.testing.assert_array_equal(values, TRUTH)
    assert volume.voxel_size == (2.0, 0.5, 0.5)
    assert volume.metadata["place"]["origin_nm"] == [0, 10, 2]


def test_bigdataviewer(tmp_path):
    """Unsigned values stored as signed ones; the voxel size stands in the XML file."""
    bright = TRUTH + 40000
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("t00000/s00/0/cells", data=bright.view(np.int16), chunks=(2, 3, 3))
        file["s00/resolutions"] = np.ones((1, 3))
    (tmp_path / "a.xml").write_text(
        "<SpimData><SequenceDescription><ViewSetups><ViewSetup><id>0</id><voxelSize><unit>nm</unit>"
        "<size>0.5 0.5 2.0</size></voxelSize></ViewSetup></ViewSetups></SequenceDescription></SpimData>"
    )
    values, volume = read_all(tmp_path / "a.h5")
    assert volume.dtype == np.uint16
    np.testing.assert_array_equal(values, bright)
    assert volume.voxel_size == (2.0, 0.5, 0.5)


def test_velox_and_matlab(tmp_path):
    metadata = json.dumps({"BinaryResult": {"PixelSize": {"width": "5e-10", "height": "5e-10"}}}).encode()
    with h5py.File(tmp_path / "velox.emd", "w") as file:
        group = file.create_group("Data/Image/0123abcd")
        group.create_dataset("Data", data=stored("yxz"))
        group.create_dataset("Metadata", data=np.frombuffer(metadata + bytes(20), np.uint8)[:, None])
    with h5py.File(tmp_path / "matlab.mat", "w") as file:  # save(.., '-v7.3') of A(row, column, plane)
        file.create_dataset("A", data=stored("zxy")).attrs["MATLAB_class"] = np.bytes_("uint16")
    for name in ("velox.emd", "matlab.mat"):
        np.testing.assert_array_equal(read_all(tmp_path / name)[0], TRUTH)


def test_what_is_said_wrongly_is_noted(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=TRUTH).attrs["axistags"] = "{"
    values, volume = read_all(tmp_path / "a.h5")
    np.testing.assert_array_equal(values, TRUTH)
    assert any("axes is damaged and was ignored" in note for note in volume.notes)
    assert any("read as z, y, x" in note for note in volume.notes)


@pytest.mark.parametrize("wrong", [{"index_in_array": 7}, {"index_in_array": float("inf")}, {"scale": "wide"}])
def test_damaged_axes_of_hyperspy(tmp_path, wrong):
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        group = file.create_group("Experiments/sample")
        group["data"] = TRUTH
        for i, name in enumerate("zyx"):
            group.create_group(f"axis-{i}").attrs.update({"name": name, "scale": 1.0, "units": "nm", **wrong})
    values, volume = read_all(tmp_path / "a.hspy")
    np.testing.assert_array_equal(values, TRUTH)
    assert volume.voxel_size is None
    assert any("axes is damaged and was ignored" in note for note in volume.notes)
