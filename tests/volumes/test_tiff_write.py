"""TIFFs that are written: read back by tifffile, with the tags and texts that Fiji goes by."""

import json
import os
import signal
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.classes import LabelClass, default_classes
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.volumes.opening import create_volume, open_volume
from gpu_tomoclass.volumes.tiff import writer as tiff_writer

CLASSES = (LabelClass(1, "Pt", (0, 114, 178)), LabelClass(3, "Größe µ", (255, 255, 1)))
VOXEL_SIZE = (1.2, 0.68, 0.31)


def voxels(dtype, shape):
    return (np.random.default_rng(1).random(shape) * 120).astype(dtype)


def write(path, data, *, backwards=False, **options):
    nz = len(data)
    shape = (nz, *data.shape[-2:])
    with create_volume(path, shape=shape, dtype=data.dtype, **options) as writer:
        for z in reversed(range(nz)) if backwards else range(nz):
            writer.write_plane(z, data[z])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("shape", [(5, 7, 4), (1, 6, 3), (3, 5, 1), (2, 1, 6), (1, 1, 1), (1, 5, 1)])
def test_imagej(tmp_path, dtype, shape):
    data = voxels(dtype, shape)
    write(tmp_path / "a.tif", data, voxel_size=VOXEL_SIZE, metadata={"x": [1, "ü"]})
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_imagej
        assert not tif.is_bigtiff
        np.testing.assert_array_equal(tif.series[0].asarray().reshape(shape), data)
        assert len(tif.pages) == shape[0]
        assert [page.shape for page in tif.pages] == [shape[1:]] * shape[0]
        np.testing.assert_array_equal(np.stack([page.asarray() for page in tif.pages]), data)
        metadata = tif.imagej_metadata
        assert metadata["images"] == shape[0]
        assert (metadata["unit"], metadata["spacing"]) == ("micron", pytest.approx(1.2e-3))
        for tag, size in (("XResolution", 0.31), ("YResolution", 0.68)):
            numerator, denominator = tif.pages[0].tags[tag].value
            assert denominator / numerator * 1e3 == pytest.approx(size, rel=1e-8)  # a fraction of 32-bit integers
    with open_volume(tmp_path / "a.tif") as volume:
        assert (volume.shape, volume.dtype, volume.voxel_size) == (shape, np.dtype(dtype), VOXEL_SIZE)
        assert volume.metadata == {"x": [1, "ü"]}
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), data)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a.ome.tif", "uint8"), ("a.OME.TIFF", "float32"), ("a.btf", "uint16")]
    + [("a.tif", dtype) for dtype in ("int8", "int32", "uint32", "float64")],
)
@pytest.mark.parametrize("shape", [(5, 7, 4), (1, 6, 3), (3, 5, 1), (1, 1, 1), (1, 5, 1)])
def test_ome(tmp_path, name, dtype, shape):
    data = voxels(dtype, shape)
    write(tmp_path / name, data, voxel_size=VOXEL_SIZE, metadata={"x": "<&ü>"})
    with tifffile.TiffFile(tmp_path / name) as tif:
        assert tif.is_ome
        np.testing.assert_array_equal(tif.series[0].asarray().reshape(shape), data)
        pixels = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
        assert [pixels.get(f"Size{axis}") for axis in "ZYX"] == [str(n) for n in shape]
        assert (pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit")) == ("1.2", "nm")
        assert tif.pages[0].resolutionunit == tifffile.RESUNIT.CENTIMETER
        numerator, denominator = tif.pages[0].tags["XResolution"].value
        assert numerator / denominator == pytest.approx(1e7 / 0.31, rel=1e-8)
    with open_volume(tmp_path / name) as volume:
        assert (volume.shape, volume.dtype, volume.voxel_size) == (shape, np.dtype(dtype), VOXEL_SIZE)
        assert volume.metadata == {"x": "<&ü>"}
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), data)


@pytest.mark.parametrize("name", ["labels.tif", "labels.ome.tif"])
def test_labels_have_a_colour_map_and_names(tmp_path, name):
    data = np.random.default_rng(0).choice(np.array([0, 1, 3], np.uint8), (4, 6, 8))
    write(tmp_path / name, data, classes=CLASSES)
    with tifffile.TiffFile(tmp_path / name) as tif:
        page = tif.pages[0]
        assert page.photometric == tifffile.PHOTOMETRIC.MINISBLACK  # else ITK, VTK and OpenCV read colours
        table = page.tags["ColorMap"].value
        colours = np.array(table).reshape(3, 256) // 257
        assert tuple(colours[:, 1]) == (0, 114, 178)
        assert tuple(colours[:, 3]) == (255, 255, 1)
        assert not np.delete(colours, [1, 3], axis=1).any()
        np.testing.assert_array_equal(tif.series[0].asarray(), data)
        if tif.is_imagej:
            own = json.loads(tif.imagej_metadata["Info"])["gpu_tomoclass"]
            assert own["classes"][1] == {"value": 3, "name": "Größe µ", "colour": [255, 255, 1]}
    with open_volume(tmp_path / name) as volume:
        assert volume.classes == CLASSES
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), data)


@pytest.mark.parametrize("name", ["p.tif", "p.ome.tif"])
@pytest.mark.parametrize("nz", [1, 4])
def test_channels(tmp_path, name, nz):
    channels = ["original", "Gaussian_blur_1.0", "Hessian_2.0"]
    data = voxels("float32", (nz, 3, 6, 8))
    write(tmp_path / name, data, channels=channels, voxel_size=VOXEL_SIZE)
    with tifffile.TiffFile(tmp_path / name) as tif:
        assert tif.series[0].axes == ("ZCYX" if nz > 1 else "CYX")
        np.testing.assert_array_equal(tif.series[0].asarray().reshape(data.shape), data)
        if tif.is_imagej:
            assert tif.imagej_metadata["channels"] == 3
            assert tif.imagej_metadata["Labels"] == channels * nz
        else:
            found = ElementTree.fromstring(tif.ome_metadata).findall(".//{*}Channel")
            assert [channel.get("Name") for channel in found] == channels
    with open_volume(tmp_path / name, channel=2) as volume:
        assert volume.metadata["channels"] == channels
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), data[:, 2])


def test_many_channels_of_one_plane(tmp_path):
    channels = [f"feature_{i}" for i in range(252)]
    data = voxels("float32", (1, 252, 5, 6))
    write(tmp_path / "f.tif", data, channels=channels)
    with tifffile.TiffFile(tmp_path / "f.tif") as tif:
        assert tif.imagej_metadata["Labels"] == channels
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "f.tif"), data[0])


def test_planes_in_any_order(tmp_path):
    data = voxels("uint16", (9, 5, 6))
    write(tmp_path / "a.tif", data, backwards=True)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), data)


def test_beyond_four_gigabytes_is_bigtiff(tmp_path, monkeypatch):
    """The limit is lowered, so that the file is small; the sizes are checked against the real limit below."""
    monkeypatch.setattr(tiff_writer, "CLASSIC_BYTES", 1000)
    data = voxels("uint8", (20, 7, 9))
    write(tmp_path / "a.tif", data, classes=default_classes(["a", "b"]), voxel_size=VOXEL_SIZE)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        assert tif.is_ome
        assert len(tif.pages) == 20
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), data)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.format == "OME-TIFF (BigTIFF)"
        assert volume.voxel_size == VOXEL_SIZE
        np.testing.assert_array_equal(volume.plane(19), data[19])


@pytest.mark.parametrize(("nz", "big"), [(4060, False), (4100, True)])
def test_sizes_around_four_gigabytes(tmp_path, nz, big):
    """Sparse files: only the last plane is written, and found again where it should be."""
    path = tmp_path / "a.tif"
    writer = create_volume(path, shape=(nz, 1024, 1024), dtype=np.uint8, metadata={"a": 1})
    plane = voxels("uint8", (1024, 1024))
    writer.write_plane(nz - 1, plane)
    writer._written[:] = True
    writer.finish()
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff == big
        assert len(tif.pages) == nz
        np.testing.assert_array_equal(tif.pages[nz - 1].asarray(), plane)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume.plane(nz - 1), plane)
        assert volume.shape[0] == nz


def test_file_appears_complete_or_not_at_all(tmp_path):
    data = voxels("uint8", (4, 5, 6))
    path = tmp_path / "a b ü.tif"
    with create_volume(path, shape=data.shape, dtype=data.dtype) as writer:
        for z in range(4):
            assert not path.exists()
            writer.write_plane(z, data[z])
    assert os.listdir(tmp_path) == [path.name]
    with pytest.raises(DataError, match="exists already"):
        create_volume(path, shape=data.shape, dtype=data.dtype)
    before = path.read_bytes()

    def write_some(planes, error=None):
        with create_volume(path, shape=data.shape, dtype=data.dtype, overwrite=True) as writer:
            for z in planes:
                writer.write_plane(z, data[1])
            if error:
                raise error

    with pytest.raises(ZeroDivisionError):
        write_some([0], ZeroDivisionError)
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="planes were not written: 1, 3"):
        write_some([0, 2])
    assert (path.read_bytes(), os.listdir(tmp_path)) == (before, [path.name])


def test_killed_writer_leaves_nothing_that_looks_finished(tmp_path):
    code = """
import os, signal, sys, numpy as np
from gpu_tomoclass.volumes import create_volume
writer = create_volume(sys.argv[1], shape=(50, 64, 64), dtype=np.uint8)
for z in range(49):
    writer.write_plane(z, np.ones((64, 64), np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "out.tif"
    result = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not path.exists()
    write(path, voxels("uint8", (2, 3, 4)))
    assert os.listdir(tmp_path) == ["out.tif"]  # what was left behind is gone


def test_too_little_space_is_an_error_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu_tomoclass.outputs.disk.free_bytes", lambda target: 10**9)
    with pytest.raises(ResourceError, match=r"a\.tif: needs 8\.0 GB, and 1\.0 GB are free"):
        create_volume(tmp_path / "a.tif", shape=(1000, 1000, 2000), dtype=np.float32)
    assert os.listdir(tmp_path) == []


def test_disk_that_fills_up(tmp_path, monkeypatch):
    writer = create_volume(tmp_path / "a.tif", shape=(2, 3, 4), dtype=np.uint8)

    class Full:
        def seek(self, position):
            return position

        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    writer._file.close()
    writer._file = Full()
    with pytest.raises(ResourceError, match="disk is full; the output needs 24 bytes"), writer:
        writer.write_plane(0, np.zeros((3, 4), np.uint8))
    assert os.listdir(tmp_path) == []


def test_file_size_limit(tmp_path):
    code = """
import resource, sys, numpy as np
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.volumes import create_volume
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    create_volume(sys.argv[1], shape=(10, 64, 64), dtype=np.uint8)
except ResourceError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, tmp_path / "a.tif"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "a.tif: the file grew beyond what the disk or a limit allows" in result.stdout
    assert os.listdir(tmp_path) == []


def test_wrong_planes_are_refused(tmp_path):
    writer = create_volume(tmp_path / "a.tif", shape=(2, 3, 4), dtype=np.uint8)
    with pytest.raises(UsageError, match=r"plane 0 is uint8 \(4, 3\), expected uint8 \(3, 4\)"):
        writer.write_plane(0, np.zeros((4, 3), np.uint8))
    with pytest.raises(UsageError, match="plane 0 is uint16"):
        writer.write_plane(0, np.zeros((3, 4), np.uint16))
    for z in (-1, 2):
        with pytest.raises(UsageError, match=f"no plane {z} to write"):
            writer.write_plane(z, np.zeros((3, 4), np.uint8))
    writer.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": np.float16}, r"no float16 that other programs read; write \.ome\.zarr"),
        ({"dtype": np.uint8, "metadata": {"a": object()}}, "not JSON"),
        ({"dtype": np.uint16, "classes": CLASSES}, "classes belong to uint8"),
        ({"dtype": np.uint8, "ome_version": "0.4"}, "ome_version='0.4' means nothing for TIFF"),
    ],
)
def test_what_tiff_cannot_hold(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        create_volume(tmp_path / "a.tif", shape=(2, 3, 4), **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "text", ['{"gpu_tomoclass": {"classes": [{"value": "x"}]}}', '{"gpu_tomoclass": 3}', '{"gpu_tomoclass"']
)
def test_damaged_own_metadata_is_noted(tmp_path, text):
    data = voxels("uint8", (2, 3, 4))
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "ZYX", "Info": text})
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.classes == ()
        assert volume.notes == ["class names and metadata in the file are damaged and were ignored"]
