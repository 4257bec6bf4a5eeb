"""Folders of single-plane TIFFs: order, agreement, gaps, damage."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.folder import natural_key
from gpu_tomoclass.volumes.opening import open_volume

VOXELS = np.random.default_rng(2).integers(0, 60000, (12, 5, 7)).astype(np.uint16)


def write_folder(folder, names, data=VOXELS, **options):
    folder.mkdir(exist_ok=True)
    for name, plane in zip(names, data, strict=False):
        tifffile.imwrite(folder / name, plane, **options)
    return folder


def read(volume):
    return np.stack([plane for _, plane in volume.planes()])


@pytest.mark.parametrize("pattern", ["p{}.tif", "{}.TIF", "plane_{:04d}.tiff", "2024-11-03 sample 2 z={}.tif"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"imagej": True}, {"byteorder": ">"}])
def test_natural_order(tmp_path, pattern, options):
    folder = write_folder(tmp_path / "stack ü", [pattern.format(z) for z in range(12)], **options)
    with open_volume(folder) as volume:
        assert (volume.shape, volume.dtype, volume.axes) == ((12, 5, 7), np.uint16, "ZYX")
        assert (volume.format, volume.notes) == ("folder of 12 TIFF files", [])
        np.testing.assert_array_equal(read(volume), VOXELS)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True))
def test_natural_key_orders_by_number(numbers):
    names = [f"a{n}.tif" for n in numbers]
    assert sorted(names, key=natural_key) == [f"a{n}.tif" for n in sorted(numbers)]


def test_voxel_size_classes_and_axes(tmp_path):
    options = {"imagej": True, "metadata": {"unit": "nm", "spacing": 3.0}, "resolution": (1.0, 0.5)}
    folder = write_folder(tmp_path / "f", [f"{z}.tif" for z in range(12)], **options)
    with open_volume(folder) as volume:
        assert volume.voxel_size == (3.0, 2.0, 1.0)
    with open_volume(folder, axes="yzx") as volume:
        assert (volume.shape, volume.voxel_size) == ((5, 12, 7), (2.0, 3.0, 1.0))
        np.testing.assert_array_equal(read(volume), VOXELS.transpose(1, 0, 2))


def test_other_files_are_left_alone(tmp_path):
    folder = write_folder(tmp_path / "f", [f"{z}.tif" for z in range(12)])
    (folder / "notes.txt").write_text("hello")
    (folder / "._1.tif").write_bytes(b"macOS puts such files beside the real ones")
    with open_volume(folder) as volume:
        assert volume.shape == (12, 5, 7)


def test_odd_file_is_named(tmp_path):
    folder = write_folder(tmp_path / "f", [f"{z}.tif" for z in range(12)])
    tifffile.imwrite(folder / "5.tif", VOXELS[0][:, :6])
    with pytest.raises(DataError, match=r"5\.tif: is 5 x 6 uint16, and most of the 12 files are 5 x 7 uint16"):
        open_volume(folder)
    tifffile.imwrite(folder / "5.tif", VOXELS[0].astype(np.uint8))
    with pytest.raises(DataError, match=r"5\.tif: is 5 x 7 uint8, and most of the 12 files are 5 x 7 uint16"):
        open_volume(folder)
    tifffile.imwrite(folder / "5.tif", VOXELS)
    with pytest.raises(DataError, match=r"5\.tif: holds 12 planes"):
        open_volume(folder)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["a1.tif", "a2.tif", "a4.tif", "a7.tif"], "gaps: 3 numbers are absent (3, 5 and 6)"),
        (["a7.tif", "a22.tif", "a37.tif"], None),  # a sub-stack
        (["a0.tif", "a15.tif", "a45.tif"], "gaps: 1 numbers are absent (30)"),
        (["a1.tif", "b1.tif"], "no single numbered sequence; they are read as a1.tif, b1.tif"),
        (["left.tif", "right.tif"], "no single numbered sequence"),
        (["a1.tif", "a01.tif"], "numbers occur twice"),
        (["a0.tif", "a1.tif", "a99999999999.tif"], "gaps: 99999999997 numbers are absent"),
    ],
)
def test_numbering(tmp_path, names, note):
    folder = write_folder(tmp_path / "f", names)
    with open_volume(folder) as volume:
        assert volume.shape[0] == len(names)
        if note is None:
            assert volume.notes == []
        else:
            assert len(volume.notes) == 1
            assert note in volume.notes[0]


def test_damaged_file(tmp_path):
    folder = write_folder(tmp_path / "f", [f"{z}.tif" for z in range(12)])
    content = (folder / "3.tif").read_bytes()
    (folder / "3.tif").write_bytes(content[:-10])
    with pytest.raises(DataError, match=r"3\.tif: damaged"):
        open_volume(folder)
    with open_volume(folder, allow_missing_planes=True) as volume:
        voxels = read(volume)
        assert volume.missing_planes == {3}
        assert volume.notes == ["1 of 12 planes cannot be read and are filled with zeros: 3"]
        assert not voxels[3].any()
        np.testing.assert_array_equal(np.delete(voxels, 3, 0), np.delete(VOXELS, 3, 0))
    with pytest.raises(UsageError, match="missing planes cannot be filled when the axes are yzx"):
        open_volume(folder, axes="yzx", allow_missing_planes=True)
    for name in folder.iterdir():
        name.write_bytes(content[:-10])
    with pytest.raises(DataError, match="none of 12 files can be read"):
        open_volume(folder, allow_missing_planes=True)


def test_file_that_changes_or_goes_while_reading(tmp_path):
    folder = write_folder(tmp_path / "f", [f"{z}.tif" for z in range(12)])
    with open_volume(folder) as volume:
        volume.check_unchanged()
        tifffile.imwrite(folder / "4.tif", VOXELS[0][:3])
        with pytest.raises(DataError, match="plane 4 has changed"):
            volume.plane(4)
        with pytest.raises(DataError, match=r"4\.tif: changed during the run"):
            volume.check_unchanged()
        (folder / "4.tif").unlink()
        with pytest.raises(DataError, match="plane 4 cannot be read: No such file"):
            volume.plane(4)


def test_colour_files(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (3, 5, 7, 3)).astype(np.uint8)
    folder = write_folder(tmp_path / "f", ["1.tif", "2.tif", "3.tif"], data, photometric="rgb")
    with pytest.raises(DataError, match="colour image with 3"):
        open_volume(folder)
    with open_volume(folder, channel=2) as volume:
        np.testing.assert_array_equal(read(volume), data[..., 2])
    with pytest.raises(UsageError, match="series=1 means nothing for a folder"):
        open_volume(folder, series=1)
