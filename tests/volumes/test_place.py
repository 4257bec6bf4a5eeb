"""Where a volume lies survives every command and every format that is written, and other readers find it there."""

import json
import xml.etree.ElementTree as ElementTree

import h5py
import mrcfile
import numpy as np
import pytest
import SimpleITK
import tifffile
from memory_volume import CountedVolume

from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.labels import clean
from gpu_tomoclass.volumes import check_volume_target, convert, create_volume, open_volume, substack
from gpu_tomoclass.volumes.place import position
from gpu_tomoclass.volumes.ranges import ChannelRanges

SHAPE, VOXEL, ORIGIN = (6, 4, 5), (2.0, 1.0, 0.5), [30.0, 20.0, 10.0]
DATA = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
OUTPUTS = ("b.tif", "b.ome.tif", "b.mrc", "b.ome.zarr")


def write_mrc(path):
    with mrcfile.new(path, DATA.view(np.int8)) as mrc:
        mrc.voxel_size = tuple(10 * n for n in VOXEL[::-1])
        mrc.header.origin.x, mrc.header.origin.y, mrc.header.origin.z = (10 * n for n in ORIGIN[::-1])


def write_imagej(path):
    """As ImageJ writes it: the origin in pixels, so that the first voxel is at -origin * size."""
    pixels = {f"{letter}origin": -n / size for letter, n, size in zip("zyx", ORIGIN, VOXEL, strict=True)}
    tifffile.imwrite(path, DATA, imagej=True, resolution=(1 / VOXEL[2], 1 / VOXEL[1]),
                     metadata={"axes": "ZYX", "unit": "nm", "spacing": VOXEL[0], **pixels})  # fmt: skip


def write_zarr(path):
    with create_volume(path, shape=SHAPE, dtype="u1", voxel_size=VOXEL) as writer:
        for z, plane in enumerate(DATA):
            writer.write_plane(z, plane)
    attributes = json.loads((path / ".zattrs").read_text())
    micrometres = [n / 1000 for n in ORIGIN]
    image = attributes["multiscales"][0]
    for axis in image["axes"]:
        axis["unit"] = "micrometer"
    image["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [n / 2000 for n in VOXEL]}]
    image["coordinateTransformations"] = [  # of all levels, after those of the level
        {"type": "scale", "scale": [2, 2, 2]}, {"type": "translation", "translation": micrometres},
    ]  # fmt: skip
    (path / ".zattrs").write_text(json.dumps(attributes))


def write_hspy(path):
    with h5py.File(path, "w") as file:
        group = file.create_group("Experiments/made")
        group["data"] = DATA
        for i, letter in enumerate("zyx"):
            axis = {"name": letter, "scale": VOXEL[i], "offset": ORIGIN[i], "units": "nm", "index_in_array": i}
            group.create_group(f"axis-{i}").attrs.update(axis)


def write_itk(path):
    image = SimpleITK.GetImageFromArray(DATA)
    image.SetSpacing([1e-6 * n for n in VOXEL[::-1]])  # mm
    image.SetOrigin([1e-6 * n for n in ORIGIN[::-1]])
    SimpleITK.WriteImage(image, str(path))


def placed(array, metadata):
    volume = CountedVolume(array)
    volume.voxel_size, volume.metadata = VOXEL, metadata
    return volume


SOURCES = {
    "a.mrc": write_mrc, "a.tif": write_imagej, "a.ome.zarr": write_zarr, "a.hspy": write_hspy,
    "a.nrrd": write_itk, "a.mha": write_itk,
}  # fmt: skip


def stated(path):
    """(z, y, x) in nm as the format itself says it, without our own metadata."""
    name = str(path)
    if name.endswith(".mrc"):
        with mrcfile.open(path) as mrc:
            return [float(mrc.header.origin[letter]) / 10 for letter in "zyx"]
    if name.endswith(".zarr"):
        image = json.loads((path / ".zattrs").read_text())["multiscales"][0]
        _, translation = image["datasets"][0]["coordinateTransformations"]
        assert {axis["unit"] for axis in image["axes"]} == {"nanometer"}
        return translation["translation"]
    with tifffile.TiffFile(path) as tif:
        if tif.is_ome:
            plane = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Plane")
            assert plane.get("PositionXUnit") == "nm"
            return [float(plane.get(f"Position{letter}")) for letter in "ZYX"]
        info = tif.imagej_metadata
        resolution = [tif.pages.first.tags[tag].value for tag in (283, 282)]
        sizes = [info["spacing"], *(below / above for above, below in resolution)]  # micrometres
        return [-1000 * info[f"{letter}origin"] * size for letter, size in zip("zyx", sizes, strict=True)]


@pytest.mark.parametrize("source", SOURCES)
def test_every_format_that_states_it_is_believed(tmp_path, source):
    SOURCES[source](tmp_path / source)
    with open_volume(tmp_path / source) as volume:
        assert volume.voxel_size == pytest.approx(VOXEL, rel=1e-5)
        assert position(volume.metadata, volume.voxel_size) == pytest.approx(ORIGIN, rel=1e-5)
        np.testing.assert_array_equal(volume[:].view(np.uint8), DATA)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_format_that_is_written_states_it(tmp_path, name):
    write_imagej(tmp_path / "a.tif")
    with open_volume(tmp_path / "a.tif") as volume:
        convert(volume, tmp_path / name)
        substack(volume, tmp_path / f"s{name}", every=2, start=1)
        clean(volume, tmp_path / f"c{name}", min_size=1)
    assert stated(tmp_path / name) == pytest.approx(ORIGIN)
    assert stated(tmp_path / f"s{name}") == pytest.approx([32, 20, 10])
    assert stated(tmp_path / f"c{name}") == pytest.approx(ORIGIN)
    with open_volume(tmp_path / name) as volume:
        assert volume.metadata["place"]["origin_nm"] == pytest.approx(ORIGIN)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_part_of_a_volume_without_a_place(tmp_path, name):
    """Viewers put such a volume at 0, so its part begins where the whole has it."""
    volume = placed(DATA, {})
    substack(volume, tmp_path / name, every=1, start=2)
    assert stated(tmp_path / name) == pytest.approx([4, 0, 0])
    substack(volume, tmp_path / f"s{name}", every=2, start=0)
    with open_volume(tmp_path / f"s{name}") as whole:
        assert "place" not in whole.metadata


@pytest.mark.parametrize("name", ["b.tif", "b.ome.zarr"])
def test_a_start_without_an_origin_is_a_position_elsewhere(tmp_path, name):
    """MRC's origin 0 with nstart: on the way back it is a start again."""
    place = {"place": {"origin_nm": [0, 0, 0], "start": [3, 4, 6]}}
    volume = placed(DATA, place)
    convert(volume, tmp_path / name)
    assert stated(tmp_path / name) == [6, 4, 3]
    with open_volume(tmp_path / name) as again:
        assert again.metadata["place"] == place["place"]
        convert(again, tmp_path / "c.mrc")
    with mrcfile.open(tmp_path / "c.mrc") as mrc:
        assert [int(mrc.header[f"n{letter}start"]) for letter in "zyx"] == [3, 4, 6]


def test_coarser_levels_lie_around_the_same_place(tmp_path):
    volume = placed(np.zeros((2, 300, 520), np.uint16), {"place": {"origin_nm": ORIGIN, "start": [0, 0, 0]}})
    convert(volume, tmp_path / "a.ome.zarr")
    levels = json.loads((tmp_path / "a.ome.zarr" / ".zattrs").read_text())["multiscales"][0]["datasets"]
    for level in levels:
        scale, translation = (t[t["type"]] for t in level["coordinateTransformations"])
        corners = [t - s / 2 for t, s in zip(translation, scale, strict=True)]
        assert corners == pytest.approx([o - v / 2 for o, v in zip(ORIGIN, VOXEL, strict=True)])


def test_channels_are_shown_as_far_as_their_values_reach(tmp_path):
    """Display ranges of ImageJ and windows of omero, channel by channel; shares from 0 to 1."""
    values = np.random.default_rng(1).normal([[[[100]]], [[[-3]]], [[[0]]]], 5, (3, 4, 5, 6)).astype(np.float32)
    values[2], values[1, 0, 0, 0] = 7, np.nan
    shares = np.clip(np.abs(values) / 200, 0, 0.9)
    expected = [(values[c][np.isfinite(values[c])].min(), values[c][np.isfinite(values[c])].max()) for c in (0, 1)]
    for name, array, shown in (("f", values, [*expected, (7, 14)]), ("p", np.nan_to_num(shares), [(0, 1)] * 3)):
        for suffix in (".tif", ".ome.zarr"):
            with create_volume(
                tmp_path / f"{name}{suffix}", shape=array.shape[1:], dtype="f4", channels=["a", "b", "c"]
            ) as writer:
                for z in range(4):
                    writer.write_plane(z, array[:, z])
        with tifffile.TiffFile(tmp_path / f"{name}.tif") as tif:
            np.testing.assert_allclose(tif.imagej_metadata["Ranges"], np.ravel(shown), rtol=1e-12)
            assert tif.imagej_metadata["Labels"][:3] == ["a", "b", "c"]
        channels = json.loads((tmp_path / f"{name}.ome.zarr" / ".zattrs").read_text())["omero"]["channels"]
        windows = [channel["window"] for channel in channels]
        np.testing.assert_allclose([(w["start"], w["end"]) for w in windows], shown, rtol=1e-12)
    assert ChannelRanges(0).shown() is None
    nothing = ChannelRanges(1)
    nothing.add(np.full((1, 2, 2), np.nan, np.float32))
    assert nothing.shown() == [(0, 1)]


@pytest.mark.parametrize("name", OUTPUTS)
def test_too_small_a_disk_is_refused_before_the_first_plane(tmp_path, monkeypatch, name):
    volume = CountedVolume(np.broadcast_to(np.uint16(0), (10, 2000, 3000)))
    monkeypatch.setattr("gpu_tomoclass.outputs.disk.free_bytes", lambda target: 10**6)
    for call in (
        lambda: convert(volume, tmp_path / name),
        lambda: create_volume(tmp_path / name, shape=volume.shape, dtype=volume.dtype),
        lambda: check_volume_target(tmp_path / name, dtype=volume.dtype, shape=volume.shape),
    ):
        with pytest.raises(ResourceError, match=r"needs .* and 1\.0 MB are free"):
            call()
    assert volume.planes_read == []
    assert not list(tmp_path.iterdir())
