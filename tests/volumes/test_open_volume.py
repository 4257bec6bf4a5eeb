"""The common part of volumes, whatever the format: what is opened how, new attempts, missing planes, fingerprints."""

import errno
import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes import ArrayVolume
from gpu_tomoclass.volumes import volume as volume_module
from gpu_tomoclass.volumes.detection import detect_format
from gpu_tomoclass.volumes.opening import create_volume, open_volume
from gpu_tomoclass.volumes.tiff import reader as tiff
from gpu_tomoclass.volumes.volume import ranges_text

VOXELS = np.random.default_rng(0).integers(0, 9, (5, 3, 4)).astype(np.uint8)


class Memory(ArrayVolume):
    """A volume whose reads fail as told: ``failures`` maps a plane to the errors of its next attempts."""

    def __init__(self, voxels=VOXELS, *, failures=None, **options):
        super().__init__(voxels, name="memory", **options)
        self.failures, self.reopened = failures or {}, 0

    def _read_plane(self, z):
        if self.failures.get(z):
            raise self.failures[z].pop(0)
        return super()._read_plane(z)

    def _reopen(self):
        self.reopened += 1


@pytest.fixture
def pauses(monkeypatch):
    found = []
    monkeypatch.setattr(volume_module.time, "sleep", found.append)
    return found


def test_planes_and_rows():
    volume = Memory(np.asfortranarray(VOXELS.astype(">u2")))
    assert volume.dtype == np.uint16
    assert volume.dtype.isnative
    plane = volume.plane(2)
    assert plane.flags.c_contiguous
    assert plane.dtype.isnative
    np.testing.assert_array_equal(plane, VOXELS[2])
    np.testing.assert_array_equal(volume.rows(2, 1, 3), VOXELS[2, 1:3])
    assert [z for z, _ in volume.planes(1, 5, 2)] == [1, 3]
    for z in (-1, 5):
        with pytest.raises(UsageError, match=f"no plane {z}, only 0 to 4"):
            volume.plane(z)


@pytest.mark.parametrize("wrong", [np.zeros((4, 3), np.uint8), np.zeros((3, 4), np.int8)])
def test_a_plane_that_is_not_as_declared(wrong):
    volume = Memory()
    volume.array = [wrong] * 5
    with pytest.raises(DataError, match=r"plane 1 is u?int8 \(\d, \d\), not uint8 \(3, 4\) as declared"):
        volume.plane(1)


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0)])
def test_no_voxels(shape):
    with pytest.raises(DataError, match="holds no voxels"):
        Memory(np.zeros(shape))


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_network_errors_are_tried_again(pauses, code):
    volume = Memory(failures={1: [OSError(code, os.strerror(code))] * 3})
    np.testing.assert_array_equal(volume.plane(1), VOXELS[1])
    assert (len(pauses), volume.reopened) == (3, 3)
    volume.failures = {2: [OSError(code, os.strerror(code))] * 4}
    with pytest.raises(DataError, match=f"memory: plane 2 cannot be read after 4 attempts: {os.strerror(code)}"):
        volume.plane(2)


def test_other_errors_are_not_tried_again(pauses):
    volume = Memory(failures={1: [OSError(errno.EISDIR, "Is a directory")]})
    with pytest.raises(DataError, match="plane 1 cannot be read: Is a directory"):
        volume.plane(1)
    assert pauses == []


def test_bugs_are_not_taken_for_bad_data():
    volume = Memory(failures={1: [KeyError("oops")]}, allow_missing_planes=True)
    with pytest.raises(KeyError):
        volume.plane(1)


def test_tiff_is_reopened_after_a_network_error(tmp_path, monkeypatch, pauses):
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", VOXELS, photometric="minisblack", compression="zlib")
    for name in ("a.tif", "b.tif"):
        with open_volume(tmp_path / name) as volume:
            # As on a stale network mount: the descriptors are no use any more.
            volume._file.close()
            volume._file = open(os.devnull, "rb", buffering=0)  # noqa: SIM115  (closed by the volume)
            volume._tif.filehandle.close()
            attempts = []
            read = tiff.TiffVolume._read_plane

            def flaky(self, z, read=read, attempts=attempts):
                attempts.append(z)
                if len(attempts) == 1:
                    raise OSError(errno.ESTALE, "Stale file handle")
                return read(self, z)

            monkeypatch.setattr(tiff.TiffVolume, "_read_plane", flaky)
            np.testing.assert_array_equal(volume.plane(3), VOXELS[3])
            monkeypatch.undo()
            monkeypatch.setattr(volume_module.time, "sleep", pauses.append)
            assert attempts == [3, 3]


def test_missing_planes_are_filled_and_listed():
    failures = {z: [DataError(f"plane {z} is bad")] for z in (0, 2, 3)}
    volume = Memory(failures={z: list(e) for z, e in failures.items()})
    with pytest.raises(DataError, match="plane 2 is bad"):
        volume.plane(2)
    assert volume.missing_planes == set()
    volume = Memory(failures=failures, allow_missing_planes=True, notes=["hello"])
    for _, plane in volume.planes():
        assert plane.shape == (3, 4)
    assert volume.missing_planes == {0, 2, 3}
    assert volume.notes == ["hello", "3 of 5 planes cannot be read and are filled with zeros: 0, 2 and 3"]


def test_fingerprint(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOXELS.astype(">u2"), photometric="minisblack", byteorder=">")
    status = (tmp_path / "a.tif").stat()
    with open_volume(tmp_path / "a.tif") as volume:
        found = volume.fingerprint()
    assert found == {
        "name": "a.tif",
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "shape": [5, 3, 4],
        "dtype": "uint16",
        "crc32": [zlib.crc32(VOXELS[z].astype("<u2").tobytes()) for z in (0, 2, 4)],
    }
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("change", ["size", "time", "gone"])
def test_change_while_reading(tmp_path, change):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOXELS, photometric="minisblack")
    with open_volume(path) as volume:
        assert volume.files() == [str(path)]
        volume.check_unchanged()
        if change == "size":
            with open(path, "ab") as file:
                file.write(b"x")
        elif change == "time":
            os.utime(path, ns=(0, 0))
        else:
            path.unlink()
        with pytest.raises(DataError, match=r"a\.tif: (changed|disappeared) during the run"):
            volume.check_unchanged()


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([4], "4"),
        ([1, 2], "1 and 2"),
        ([5, 1, 3, 4], "1, 3 to 5"),
        (range(0, 40, 2), "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, ..."),
    ],
)
def test_ranges_text(numbers, text):
    assert ranges_text(numbers) == text


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.tif", b"II*\0", "tiff"),
        ("a", b"MM\0*", "tiff"),
        ("a.rec", b"II+\0", "tiff"),  # the content decides
        ("a.tif", b"\x89HDF\r\n\x1a\n", "hdf5"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "hdf5"),
        ("a.mrc", b"whatever", "mrc"),
        ("a.REC", b"whatever", "mrc"),
        ("a", bytes(208) + b"MAP " + bytes(900), "mrc"),
    ],
)
def test_detection_of_files(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert detect_format(tmp_path / name).kind == expected


def test_detection_of_folders_and_inner_paths(tmp_path):
    for name, mark in (("a.zarr", "zarr.json"), ("b", ".zarray"), ("a.zarr/labels/classes", ".zgroup")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / mark).write_text("{}")
        assert detect_format(tmp_path / name).kind == "zarr"
    (tmp_path / "planes").mkdir()
    (tmp_path / "planes" / "x.TIFF").write_bytes(b"")
    assert detect_format(tmp_path / "planes").kind == "folder"
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert detect_format(f"{tmp_path}/a.h5::/entry/data").kind == "hdf5"
    (tmp_path / "odd::name.tif").write_bytes(b"II*\0")
    assert detect_format(tmp_path / "odd::name.tif").kind == "tiff"


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("a.txt", b"hello world", DataError, "is a text file, not a volume"),
        ("a.h5", b"hello world", DataError, "is a text file, not HDF5"),
        ("a.tif::/x", b"II*\0", DataError, "is a TIFF, not HDF5, so it has no datasets"),
        ("a.zip", b"PK\x03\x04", DataError, "is a ZIP archive"),
        ("a.npy", b"\x93NUMPY", DataError, "damaged NumPy header"),
        ("a.mrc", b"", DataError, r"is empty \(0 bytes\)"),
        ("b/a.tif", None, UsageError, "there is no such file or folder"),
    ],
)
def test_what_cannot_be_opened(tmp_path, name, content, kind, message):
    if content is not None:
        (tmp_path / name.partition("::")[0]).write_bytes(content)
    with pytest.raises(kind, match=message) as caught:
        open_volume(f"{tmp_path}/{name}")
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_volume(tmp_path):
    with pytest.raises(DataError, match=r"folder without TIFF planes .it holds nothing. and no Zarr store"):
        open_volume(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="it holds 1 other entries"):
        open_volume(tmp_path)
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(DataError, match=r"is no Zarr store: it has none of zarr\.json"):
        open_volume(tmp_path / "a.zarr")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is no ordinary file"):
        open_volume(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "option", "format"),
    [("a.mrc", "series", "MRC"), ("a.mrc", "channel", "MRC"), ("a.h5", "series", "HDF5"), ("z", "series", "Zarr")],
)
def test_options_that_mean_nothing_are_refused(tmp_path, name, option, format):
    if name == "z":
        (tmp_path / name).mkdir()
        (tmp_path / name / "zarr.json").write_text("{}")
    else:
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
        if name == "a.mrc":
            (tmp_path / name).write_bytes(bytes(208) + b"MAP " + bytes(900))
    with pytest.raises(UsageError, match=f"{option}=0 means nothing for {format}; leave out {option}"):
        open_volume(tmp_path / name, **{option: 0})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.png", {}, r"the suffix '\.png' names no format"),
        ("a", {}, "the suffix '' names no format"),
        ("a.tif", {"shape": (3, 0, 4)}, "not three positive numbers"),
        ("a.tif", {"shape": (3, 4)}, "not three positive numbers"),
        ("a.mrc", {"ome_version": "0.5"}, "ome_version='0.5' means nothing for MRC"),
    ],
)
def test_what_cannot_be_created(tmp_path, name, options, message):
    with pytest.raises(UsageError, match=message):
        create_volume(tmp_path / name, **{"shape": (3, 4, 5), "dtype": np.uint8, **options})


def test_importing_volume_is_light():
    """The command line starts fast because formats are imported when they are met."""
    code = "import sys, gpu_tomoclass.volumes.volume; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"tifffile", "zarr", "h5py", "mrcfile", "scipy", "sklearn"} & set(result.stdout.split())
