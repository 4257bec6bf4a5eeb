"""info, reslice and substack, checked against NumPy's transpose and slicing through tifffile."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.conversion import describe_volume, reslice, substack
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (9, 6, 11)
TRANSPOSED = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 0, 1)}


def make(path, dtype="uint16", shape=SHAPE, **options):
    data = (np.random.default_rng(3).random(shape) * 3).astype(dtype)
    with create_volume(path, shape=shape, dtype=dtype, voxel_size=(4.0, 2.0, 1.0), **options) as writer:
        for z in range(shape[0]):
            writer.write_plane(z, data[z])
    return data


@pytest.mark.parametrize("tilt_axis", ["x", "y", "z"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("memory_bytes", [1, 1000, 2**30])
def test_reslice(tmp_path, tilt_axis, dtype, memory_bytes):
    classes = default_classes(["a", "b"]) if dtype == "uint8" else ()
    data = make(tmp_path / "in.tif", dtype, classes=classes, metadata={"who": "me"})
    calls = []
    with open_volume(tmp_path / "in.tif") as volume:
        reslice(
            volume,
            tmp_path / "out.tif",
            tilt_axis=tilt_axis,
            memory_bytes=memory_bytes,
            progress=lambda done, total: calls.append((done, total)),
        )
    expected = data.transpose(TRANSPOSED[tilt_axis])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), expected)
    assert calls == [(i + 1, len(expected)) for i in range(len(expected))]
    with open_volume(tmp_path / "out.tif") as volume:
        assert volume.voxel_size == tuple((4.0, 2.0, 1.0)[axis] for axis in TRANSPOSED[tilt_axis])
        assert volume.classes == tuple(classes)
        assert volume.metadata == {"who": "me", "reslice": [tilt_axis]}


@pytest.mark.parametrize(("tilt_axis", "times"), [("y", 2), ("x", 3)])
def test_reslicing_again_gives_the_input(tmp_path, tilt_axis, times):
    data = make(tmp_path / "0.tif")
    for i in range(times):
        with open_volume(tmp_path / f"{i}.tif") as volume:
            reslice(volume, tmp_path / f"{i + 1}.tif", tilt_axis=tilt_axis)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / f"{times}.tif"), data)
    with open_volume(tmp_path / f"{times}.tif") as volume:
        assert volume.voxel_size == (4.0, 2.0, 1.0)
        assert volume.metadata["reslice"] == [tilt_axis] * times


def test_reslice_reads_rows_not_planes(tmp_path, monkeypatch):
    """With the tilt axis along y an uncompressed input is read once, however little memory there is."""
    from gpu_tomoclass.volumes.tiff import reader as tiff

    data = make(tmp_path / "in.tif")
    rows = []
    original = tiff.TiffVolume._read_rows
    monkeypatch.setattr(
        tiff.TiffVolume, "_read_rows", lambda self, z, a, b: rows.append(b - a) or original(self, z, a, b)
    )
    with open_volume(tmp_path / "in.tif") as volume:
        reslice(volume, tmp_path / "out.tif", tilt_axis="y", memory_bytes=1)
    assert sum(rows) == data.shape[0] * data.shape[1]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)),
    tilt_axis=st.sampled_from("xyz"),
    memory_bytes=st.integers(1, 300),
)
def test_reslice_of_any_shape(tmp_path, shape, tilt_axis, memory_bytes):
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    with create_volume(tmp_path / "in.tif", shape=shape, dtype=np.uint16, overwrite=True) as writer:
        for z in range(shape[0]):
            writer.write_plane(z, data[z])
    with open_volume(tmp_path / "in.tif") as volume:
        reslice(volume, tmp_path / "out.tif", tilt_axis=tilt_axis, memory_bytes=memory_bytes, overwrite=True)
    with open_volume(tmp_path / "out.tif") as volume:
        result = np.stack([plane for _, plane in volume.planes()])
    np.testing.assert_array_equal(result, data.transpose(TRANSPOSED[tilt_axis]))


@pytest.mark.parametrize(
    ("every", "start", "planes"),
    [(3, None, [1, 4, 7]), (3, 0, [0, 3, 6]), (1, None, list(range(9))), (4, 8, [8]), (15, None, [7])],
)
def test_substack(tmp_path, every, start, planes):
    data = make(tmp_path / "in.tif", "uint8", classes=default_classes(["a", "b"]))
    with open_volume(tmp_path / "in.tif") as volume:
        substack(volume, tmp_path / "out.tif", every=every, start=start)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif").reshape(-1, 6, 11), data[planes])
    with open_volume(tmp_path / "out.tif") as volume:
        assert volume.metadata["substack"] == {"every": every, "start": planes[0], "nz": 9}
        assert volume.voxel_size == (4.0 * every, 2.0, 1.0)
        assert [c.name for c in volume.classes] == ["a", "b"]


def test_reslice_forgets_where_a_substack_came_from(tmp_path):
    make(tmp_path / "in.tif", metadata={"substack": {"every": 2, "start": 0, "nz": 18}})
    with open_volume(tmp_path / "in.tif") as volume:
        reslice(volume, tmp_path / "out.tif", tilt_axis="y")
    with open_volume(tmp_path / "out.tif") as volume:
        assert "substack" not in volume.metadata


@pytest.mark.parametrize(
    ("every", "start", "message"),
    [(0, None, "every 0"), (3, 9, "plane 9, the first"), (3, -1, "plane -1"), (30, None, "plane 15")],
)
def test_substack_without_planes(tmp_path, every, start, message):
    make(tmp_path / "in.tif")
    with open_volume(tmp_path / "in.tif") as volume, pytest.raises(UsageError, match=message):
        substack(volume, tmp_path / "out.tif", every=every, start=start)
    assert not (tmp_path / "out.tif").exists()


def test_output_is_never_the_input(tmp_path):
    make(tmp_path / "in.tif")
    (tmp_path / "link.tif").symlink_to(tmp_path / "in.tif")
    before = (tmp_path / "in.tif").read_bytes()
    with open_volume(tmp_path / "in.tif") as volume:
        for name in ("in.tif", "link.tif"):
            with pytest.raises(UsageError, match="is the input"):
                substack(volume, tmp_path / name, overwrite=True)
        with pytest.raises(UsageError, match="tilt axis 'w' is unknown"):
            reslice(volume, tmp_path / "out.tif", tilt_axis="w")
    assert (tmp_path / "in.tif").read_bytes() == before


def test_existing_output_and_changed_input(tmp_path):
    make(tmp_path / "in.tif")
    (tmp_path / "out.tif").write_bytes(b"old")
    with open_volume(tmp_path / "in.tif") as volume:
        with pytest.raises(DataError, match="exists already"):
            substack(volume, tmp_path / "out.tif")

        def touch(done, total):
            (tmp_path / "in.tif").touch()

        with pytest.raises(DataError, match=r"in\.tif: changed during the run"):
            substack(volume, tmp_path / "out.tif", every=2, overwrite=True, progress=touch)
    assert (tmp_path / "out.tif").read_bytes() == b"old"


def test_description(tmp_path):
    data = make(tmp_path / "in.tif", "float32", shape=(5, 6, 7))
    data[2, 0, :3] = np.nan, np.inf, -np.inf
    with create_volume(tmp_path / "b.tif", shape=(5, 6, 7), dtype=np.float32, metadata={"a": 1}) as writer:
        for z in range(5):
            writer.write_plane(z, data[z])
    with open_volume(tmp_path / "b.tif") as volume:
        found = describe_volume(volume)
    finite = data[2][np.isfinite(data[2])]
    assert json.loads(json.dumps(found)) == found
    assert found["mean"] == pytest.approx(finite.mean(dtype=np.float64), rel=1e-12)  # order of summation
    assert found["size_on_disk"] == (tmp_path / "b.tif").stat().st_size
    expected = {
        "format": "ImageJ TIFF",
        "shape": [5, 6, 7],
        "axes": "ZYX",
        "dtype": "float32",
        "voxel_size_nm": None,
        "classes": [],
        "metadata": {"a": 1},
        "missing_planes": [],
        "sampled_plane": 2,
        "min": float(finite.min()),
        "max": float(finite.max()),
        "non_finite": 3,
        "notes": [],
    }
    assert {name: found[name] for name in expected} == expected


def test_description_of_labels_and_of_nothing_finite(tmp_path):
    make(tmp_path / "a.tif", "uint8", classes=default_classes(["Pt", "void"]))
    with open_volume(tmp_path / "a.tif") as volume:
        found = describe_volume(volume)
        assert found["classes"] == ["1: Pt", "2: void"]
        assert isinstance(found["max"], int)
    tifffile.imwrite(tmp_path / "b.tif", np.full((6, 4, 5), np.nan, np.float32), photometric="minisblack")
    with open_volume(tmp_path / "b.tif") as volume:
        found = describe_volume(volume)
        assert (found["min"], found["max"], found["mean"], found["non_finite"]) == (None, None, None, 20)


def test_size_of_a_folder(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    for z in range(3):
        tifffile.imwrite(folder / f"{z}.tif", np.zeros((4, 5), np.uint8))
    with open_volume(folder) as volume:
        assert describe_volume(volume)["size_on_disk"] == sum(p.stat().st_size for p in folder.iterdir())
