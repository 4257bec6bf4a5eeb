"""MRC in gzip: the same volume as mrcfile reads, a scratch file that goes, and damage that is seen."""

import gzip
import os
import tempfile

import mrcfile
import numpy as np
import pytest

from gpu_tomoclass.errors import DataError, ResourceError
from gpu_tomoclass.volumes.conversion import describe_volume
from gpu_tomoclass.volumes.mrc import compressed
from gpu_tomoclass.volumes.opening import open_volume

DATA = np.random.default_rng(0).normal(100, 20, (6, 15, 11)).astype(np.float32)


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def path(tmp_path):
    """Written by mrcfile."""
    with mrcfile.new(tmp_path / "emd_1.map.gz", data=DATA, compression="gzip") as file:
        file.voxel_size = 5.5
        file.header.origin.x = 30
    return tmp_path / "emd_1.map.gz"


def test_as_mrcfile_reads_it(path, scratch):
    with mrcfile.open(path) as file, open_volume(path) as volume:
        assert volume[3].tobytes() == file.data[3].tobytes()
        np.testing.assert_array_equal(volume[:], file.data)
        np.testing.assert_array_equal(volume.rows(2, 3, 7), file.data[2, 3:7])
        assert volume.voxel_size == pytest.approx((0.55,) * 3)
        assert volume.metadata["place"]["origin_nm"] == [0, 0, 3]
        assert volume.format == "MRC mode 2 (float32) in gzip"
        assert volume.files() == [str(path)]
        assert describe_volume(volume)["size_on_disk"] == os.path.getsize(path)
        assert len(os.listdir(scratch)) == 1
        again = open_volume(path, **volume.reading)
    np.testing.assert_array_equal(again[5], DATA[5])
    assert len(os.listdir(scratch)) == 1  # each opening has its own
    del again
    assert not os.listdir(scratch)


def test_turned_axes(path, scratch):
    with open_volume(path, axes="xyz") as volume:
        np.testing.assert_array_equal(volume[:], DATA.transpose(2, 1, 0))
    assert not os.listdir(scratch)


def test_damage(path, scratch):
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="is truncated: gzip's end is missing"):
        open_volume(path)
    with open_volume(path, allow_missing_planes=True) as volume:
        missing = set(volume.missing_planes)
        assert 5 in missing
        assert 0 not in missing
        np.testing.assert_array_equal(volume[0], DATA[0])
    path.write_bytes(raw[:-8] + b"\0\0\0\0" + raw[-4:])  # the checksum
    with pytest.raises(DataError, match="is damaged: CRC check failed"):
        open_volume(path)
    path.write_bytes(b"no gzip at all" * 100)
    with pytest.raises(DataError, match=r"is damaged: Not a gzipped file"):
        open_volume(path)
    path.write_bytes(gzip.compress(b"no MRC" * 1000))
    with pytest.raises(DataError, match="is not an MRC file"):
        open_volume(path)
    assert not os.listdir(scratch)


def test_no_more_is_unpacked_than_the_header_declares(path, scratch, monkeypatch):
    """A bomb: 40 MB of zeros behind the image, in 40 KB."""
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(40_000_000)))
    with pytest.raises(DataError, match="unpacks to more than the 4984 bytes that its header declares"):
        open_volume(path)
    assert not os.listdir(scratch)
    monkeypatch.setattr(compressed, "check_space", lambda folder, needed: (_ for _ in ()).throw(ResourceError("full")))
    with pytest.raises(ResourceError, match="full"):
        open_volume(path)
