"""Planes of an unfinished run in one file: what was written is read, and nothing else passes for a plane."""

import os

import numcodecs
import numpy as np
import pytest

from gpu_tomoclass.classification import plane_file
from gpu_tomoclass.classification.plane_file import LENGTH_BYTES, PAGE, PlaneFile
from gpu_tomoclass.errors import DataError


@pytest.mark.parametrize(("dtype", "n_channels"), [("uint8", 0), ("float32", 3)])
def test_planes_in_any_order(tmp_path, dtype, n_channels):
    lead = (n_channels,) if n_channels else ()
    values = np.random.default_rng(0).random((*lead, 4, 7, 9)).astype(dtype)
    file = PlaneFile.create(tmp_path / "a.planes", plane=(7, 9), dtype=np.dtype(dtype), n_channels=n_channels)
    file.write(2, values[..., 2:, :, :])
    with pytest.raises(DataError, match="holds no plane 1"):
        file.read(1)
    with pytest.raises(DataError, match="holds no plane 9"):
        file.read(9)
    file.write(0, values[..., :2, :, :])
    again = PlaneFile(tmp_path / "a.planes")
    for z in range(4):
        np.testing.assert_array_equal(again.read(z), values[..., z, :, :])
        assert again.read(z).dtype == dtype


@pytest.mark.parametrize("piece", [40, 9 * 4])
def test_channels_that_the_compressor_does_not_take_at_once(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(plane_file, "PIECE", piece)
    taken = []
    blosc = plane_file.BLOSC

    class Limited:
        def encode(self, values):
            taken.append(values.nbytes)
            return blosc.encode(values)

    monkeypatch.setattr(plane_file, "BLOSC", Limited())
    values = np.random.default_rng(0).random((2, 3, 7, 9)).astype(np.float32)
    file = PlaneFile.create(tmp_path / "a.planes", plane=(7, 9), dtype=np.dtype(np.float32), n_channels=2)
    file.write(0, values[:, ::-1])
    file.write(0, values)
    assert max(taken) <= piece
    for z in range(3):
        np.testing.assert_array_equal(PlaneFile(tmp_path / "a.planes").read(z), values[:, z])


def test_pieces_are_what_blosc_and_linux_take():
    assert plane_file.PIECE <= numcodecs.blosc.MAX_BUFFERSIZE
    assert plane_file.PIECE + 16 <= 0x7FFFF000  # https://man7.org/linux/man-pages/man2/read.2.html


def test_holes_take_no_room(tmp_path):
    file = PlaneFile.create(tmp_path / "a.planes", plane=(400, 400), dtype=np.dtype(np.uint8))
    file.write(0, np.ones((8, 400, 400), np.uint8))
    status = os.stat(tmp_path / "a.planes")
    assert status.st_size > 7 * 400 * 400
    assert 512 * status.st_blocks <= 17 * PAGE  # the header, and a page for each plane; some systems round up


@pytest.mark.parametrize("damage", [b"\xff" * LENGTH_BYTES, (5).to_bytes(LENGTH_BYTES, "little")], ids=["long", "cut"])
def test_damaged_slots(tmp_path, damage):
    file = PlaneFile.create(tmp_path / "a.planes", plane=(7, 9), dtype=np.dtype(np.uint8))
    file.write(0, np.ones((1, 7, 9), np.uint8))
    content = bytearray((tmp_path / "a.planes").read_bytes())
    content[PAGE : PAGE + LENGTH_BYTES] = damage
    (tmp_path / "a.planes").write_bytes(content)
    with pytest.raises(DataError, match=r"holds no plane 0|plane 0 is damaged"):
        file.read(0)


def test_another_file(tmp_path):
    (tmp_path / "a.planes").write_bytes(b"{}")
    with pytest.raises(DataError, match="is no file of planes"):
        PlaneFile(tmp_path / "a.planes")
