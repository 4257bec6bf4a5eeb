"""OME-Zarr as cryo-ET portals keep it: a store that mrc2omezarr 0.3 wrote is read, and ours is laid out as that one.

``tests/data/portal/mrc2omezarr.zarr`` was made of a volume of int16, ``1000 z + 50 y + x``, with voxels of
5 Angstrom and ``--chunk-size 8`` instead of 256. (It swaps the edges z and x of voxels that are no cubes.)
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from skimage.measure import block_reduce

import gpu_tomoclass as gt
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes.ome_zarr import store

THEIRS = Path(__file__).parents[1] / "data" / "portal" / "mrc2omezarr.zarr"
Z, Y, X = np.indices((9, 11, 10))
VALUES = (1000 * Z + 50 * Y + X).astype(np.int16)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(store, "PORTAL_CHUNK", 8)
    return monkeypatch


def write(path, array, **options):
    shape = array.shape[-3:]
    with gt.create_volume(path, shape=shape, dtype=array.dtype, portal=True, **options) as writer:
        for z in range(shape[0]):
            writer.write_plane(z, array[..., z, :, :])
    return path


def test_what_mrc2omezarr_wrote_is_read():
    with gt.open_volume(THEIRS) as volume:
        assert volume.voxel_size == pytest.approx((0.5, 0.5, 0.5))
        assert volume.notes == []
        np.testing.assert_array_equal(np.asarray(volume), VALUES)


@pytest.mark.parametrize("run_bytes", [10**9, 1])  # all planes of a chunk at once, and in parts
def test_the_layout_is_that_of_mrc2omezarr(tmp_path, small_chunks, run_bytes):
    small_chunks.setattr(store, "RUN_BYTES", run_bytes)
    small_chunks.setattr(store, "LEAST_RUN", 2)
    ours = write(tmp_path / "a.zarr", VALUES, voxel_size=(0.5, 0.5, 0.5))
    (image,) = json.loads((ours / ".zattrs").read_text())["multiscales"]
    (expected,) = json.loads((THEIRS / ".zattrs").read_text())["multiscales"]
    assert (image["axes"], image["version"]) == (expected["axes"], expected["version"])
    for level, as_theirs in zip(image["datasets"], expected["datasets"], strict=True):
        assert level["path"] == as_theirs["path"]
        scale, *shift = level["coordinateTransformations"]
        assert scale["scale"] == pytest.approx(as_theirs["coordinateTransformations"][0]["scale"])
        # A mean lies in the middle of its voxels, which theirs does not say.
        assert [t["type"] for t in shift] == ([] if level["path"] == "0" else ["translation"])
        array, other = (json.loads((root / level["path"] / ".zarray").read_text()) for root in (ours, THEIRS))
        for key in ("chunks", "compressor", "dimension_separator", "filters", "order", "shape", "zarr_format"):
            assert array[key] == other[key], key
        assert array["dtype"] == "<i2"  # theirs has floats in coarse levels
    np.testing.assert_array_equal(zarr.open_group(ours, mode="r")["0"][:], VALUES)
    half = zarr.open_group(ours, mode="r")["1"][:]
    whole = block_reduce(np.pad(VALUES, ((0, 1), (0, 1), (0, 0)), mode="edge").astype(float), (2, 2, 2), np.mean)
    np.testing.assert_array_equal(half, np.rint(whole))
    with gt.open_volume(ours) as volume:
        assert volume.voxel_size == pytest.approx((0.5, 0.5, 0.5))
        np.testing.assert_array_equal(np.asarray(volume), VALUES)


def test_chunks_have_the_portal_s_size(tmp_path):
    ours = write(tmp_path / "a.zarr", np.zeros((2, 3, 4), np.uint8))
    assert json.loads((ours / "0" / ".zarray").read_text())["chunks"] == [256, 256, 256]


def test_labels_and_channels(tmp_path, small_chunks):
    labels = np.random.default_rng(0).integers(0, 3, (9, 11, 10)).astype(np.uint8)
    classes = default_classes(["a", "b"])
    place = {"place": {"origin_nm": [1.0, 2.0, 3.0], "start": [0, 0, 0]}}
    ours = write(tmp_path / "l.zarr", labels, classes=classes, voxel_size=(1.0, 1.0, 1.0), metadata=place)
    np.testing.assert_array_equal(zarr.open_group(ours, mode="r")["2"][:], labels[::4, ::4, ::4])
    with gt.open_volume(ours) as volume:
        assert volume.classes == classes
        assert volume.metadata["place"]["origin_nm"] == pytest.approx([1, 2, 3])
    shares = np.random.default_rng(0).random((2, 9, 11, 10)).astype(np.float32)
    ours = write(tmp_path / "p.zarr", shares, channels=["a", "b"])
    group = zarr.open_group(ours, mode="r")
    assert group["0"].chunks == (1, 8, 8, 8)
    np.testing.assert_array_equal(group["0"][:], shares)
    for how in ({"ome_version": "0.5"}, {"sharded": True, "ome_version": "0.5"}):
        with pytest.raises(UsageError, match=r"portals keep OME-Zarr 0\.4"):
            write(tmp_path / "x.zarr", labels, **how)


def test_from_the_command_line(tmp_path, small_chunks, command):
    assert command("convert", THEIRS, "-o", tmp_path / "a.ome.zarr", "--portal").code == 0
    axes = json.loads((tmp_path / "a.ome.zarr" / ".zattrs").read_text())["multiscales"][0]["axes"]
    assert {axis["unit"] for axis in axes} == {"angstrom"}
    with gt.open_volume(tmp_path / "a.ome.zarr") as volume:
        np.testing.assert_array_equal(np.asarray(volume), VALUES)
    done = command("convert", THEIRS, "-o", tmp_path / "a.tif", "--portal")
    assert done.code == 2
    assert "portal=True means nothing for TIFF" in done.err
