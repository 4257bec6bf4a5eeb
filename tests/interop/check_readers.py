"""What we write, opened by the programs that people open it with: values, voxel size, origin, axes, classes, channels.

``make interop`` runs this in an environment of its own (extra ``interop``); a package that is missing there is a
failure. Each reader says the voxel size in units of its own, which stand beside it. The file's name keeps it out of
``make test``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mrcfile
import ncempy.io.dm
import ncempy.io.mrc
import ncempy.io.ser
import ngff_zarr
import numpy as np
import pytest
import rsciio.mrc
import rsciio.tiff
import SimpleITK
import tifffile
import vtk
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from PIL import Image
from vtk.util.numpy_support import vtk_to_numpy

from gpu_tomoclass import LabelClass, create_volume, open_volume

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from microscope_files import write_dm, write_ser

SHAPE, VOXEL, ORIGIN = (4, 5, 6), (2.0, 0.6, 0.5), (30.0, 20.0, 10.0)  # z, y, x; nm
RANDOM = np.random.default_rng(0)
CLASSES = [
    LabelClass(1, "pore", (0, 114, 178)),
    LabelClass(2, "Träger", (230, 159, 0)),
    LabelClass(3, "c", (0, 158, 115)),
]
LABELS = RANDOM.integers(0, 4, SHAPE).astype(np.uint8)
SHARES = RANDOM.dirichlet([1, 1, 1], SHAPE).astype(np.float32).transpose(3, 0, 1, 2)  # c, z, y, x
FEATURES = RANDOM.normal([[[[100]]], [[[-3]]], [[[1e4]]]], 5, (3, *SHAPE)).astype(np.float32)
NAMES = ["original", "Gaussian_blur_1.0", "Hessian_4.0"]


def grey(dtype: str) -> np.ndarray:
    low, high = (-3000, 3000) if dtype in ("int16", "float32") else (0, 250 if dtype == "uint8" else 60000)
    return np.random.default_rng(1).integers(low, high, SHAPE).astype(dtype)


def write(path: Path, array: np.ndarray, **options: object) -> Path:
    place = {"place": {"origin_nm": list(ORIGIN), "start": [0, 0, 0]}}
    shape = array.shape[-3:]
    with create_volume(path, shape=shape, dtype=array.dtype, voxel_size=VOXEL, metadata=place, **options) as writer:
        for z in range(shape[0]):
            writer.write_plane(z, array[..., z, :, :] if array.ndim == 4 else array[z])
    return path


TIFF = [(f"a{suffix}", dtype) for suffix in (".tif", ".ome.tif") for dtype in ("uint8", "uint16", "int16", "float32")]
MRC = ["int16", "uint16", "float32", "int8"]
ZARR = [{"ome_version": "0.4"}, {"ome_version": "0.5"}, {"ome_version": "0.5", "sharded": True}]


# --- TIFF ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), TIFF)
def test_tiff(tmp_path: Path, name: str, dtype: str) -> None:
    array = grey(dtype)
    path = write(tmp_path / name, array)
    with tifffile.TiffFile(path) as tif:
        assert (tif.series[0].axes, tif.series[0].shape) == ("ZYX", SHAPE)
        np.testing.assert_array_equal(tif.asarray(), array)
    itk = SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk), array)
    assert itk.GetSize() == SHAPE[::-1]
    if ".ome." in name:  # resolution in cm, which ITK gives in mm; ImageJ's is without a unit
        assert itk.GetSpacing()[:2] == pytest.approx((0.5e-6, 0.6e-6), rel=1e-5)
    reader = vtk.vtkTIFFReader()
    reader.SetFileName(str(path))
    reader.SetOrientationType(1)  # first row on top, as stored
    reader.Update()
    found = vtk_to_numpy(reader.GetOutput().GetPointData().GetScalars()).reshape(SHAPE)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(("name", "dtype"), TIFF)
def test_tiff_in_hyperspy(tmp_path: Path, name: str, dtype: str) -> None:
    """Of OME-TIFF it reads the resolution tags alone, when it is told to."""
    ome = ".ome." in name
    (signal,) = rsciio.tiff.file_reader(write(tmp_path / name, grey(dtype)), force_read_resolution=ome)
    np.testing.assert_array_equal(signal["data"], grey(dtype))
    depth, height, width = signal["axes"]
    nm = {"µm": 1e3, "cm": 1e7}
    sizes = [axis["scale"] * nm[axis["units"]] for axis in (height, width)]
    assert sizes == pytest.approx(VOXEL[1:], rel=1e-5)
    if not ome:  # it gives ImageJ's spacing without the unit
        assert depth["scale"] == pytest.approx(0.002)


@pytest.mark.parametrize("name", ["l.tif", "l.ome.tif"])
def test_label_tiff(tmp_path: Path, name: str) -> None:
    """Grey values 1, 2, 3 everywhere, and the colours in a map."""
    path = write(tmp_path / name, LABELS, classes=CLASSES)
    itk = SimpleITK.ReadImage(str(path))
    assert itk.GetNumberOfComponentsPerPixel() == 1
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk), LABELS)
    reader = vtk.vtkTIFFReader()
    reader.SetFileName(str(path))
    reader.Update()
    assert reader.GetOutput().GetNumberOfScalarComponents() == 1
    with Image.open(path) as picture:
        for z in range(SHAPE[0]):
            picture.seek(z)
            np.testing.assert_array_equal(np.asarray(picture), LABELS[z])
    with tifffile.TiffFile(path) as tif:
        colours = tif.pages.first.colormap >> 8
        assert [tuple(colours[:, c.value].tolist()) for c in CLASSES] == [c.colour for c in CLASSES]
        text = tif.imagej_metadata["Info"] if tif.is_imagej else tif.ome_metadata
        assert "pore" in text
    (signal,) = rsciio.tiff.file_reader(path)
    np.testing.assert_array_equal(signal["data"], LABELS)


@pytest.mark.parametrize(("array", "names"), [(SHARES, [c.name for c in CLASSES]), (FEATURES, NAMES)])
@pytest.mark.parametrize("name", ["p.tif", "p.ome.tif"])
def test_channels_in_tiff(tmp_path: Path, name: str, array: np.ndarray, names: list[str]) -> None:
    path = write(tmp_path / name, array, channels=names)
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "ZCYX"
        np.testing.assert_array_equal(tif.asarray(), array.transpose(1, 0, 2, 3))
        if tif.is_imagej:
            assert tif.imagej_metadata["Labels"][:3] == names
            low, high = np.reshape(tif.imagej_metadata["Ranges"], (3, 2)).T
            assert (low <= array.min(axis=(1, 2, 3))).all()
            assert (high >= array.max(axis=(1, 2, 3))).all()
        else:
            assert [
                c["Name"] for c in tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]["Channel"]
            ] == names
    flat = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))  # ITK knows no channels: planes one by one
    np.testing.assert_array_equal(flat.reshape(SHAPE[0], 3, *SHAPE[1:]), array.transpose(1, 0, 2, 3))


# --- MRC -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", MRC)
def test_mrc(tmp_path: Path, dtype: str) -> None:
    array = grey(dtype) if dtype != "int8" else (LABELS - 2).view(np.int8)
    path = write(tmp_path / "a.mrc", array)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, array)
        assert [float(mrc.voxel_size[letter]) for letter in "zyx"] == pytest.approx([10 * n for n in VOXEL])
        assert [float(mrc.header.origin[letter]) for letter in "zyx"] == pytest.approx([10 * n for n in ORIGIN])
    plain = tmp_path / "plain.mrc"
    with create_volume(plain, shape=SHAPE, dtype=array.dtype, voxel_size=VOXEL) as writer:
        for z in range(SHAPE[0]):
            writer.write_plane(z, array[z])
    # ncempy takes z for tilt angles, of 1, wherever there is an extended header: ours has the metadata.
    for file, depth in ((path, 1.0), (plain, 20.0)):
        found = ncempy.io.mrc.mrcReader(str(file))
        np.testing.assert_array_equal(found["data"], array)
        assert list(found["pixelSize"]) == pytest.approx([depth, 6, 5])
        assert found["pixelUnit"] == "A"
    (signal,) = rsciio.mrc.file_reader(str(path))
    # Readers disagree about the sign of mode 0: mrcfile and ncempy have it as MRC2014 says, these read bytes unsigned.
    as_bytes = array.view("u1") if dtype == "int8" else array
    np.testing.assert_array_equal(signal["data"], as_bytes)
    assert [axis["scale"] for axis in signal["axes"]] == pytest.approx(VOXEL)
    assert [axis["units"] for axis in signal["axes"]] == [None, "nm", "nm"]  # of a stack it names no unit
    reader = vtk.vtkMRCReader()
    reader.SetFileName(str(path))
    reader.Update()
    out = reader.GetOutput()
    np.testing.assert_array_equal(vtk_to_numpy(out.GetPointData().GetScalars()).reshape(SHAPE), as_bytes)
    assert out.GetSpacing() == pytest.approx([10 * n for n in VOXEL[::-1]])
    itk = SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk).view(as_bytes.dtype), as_bytes)
    assert itk.GetSpacing() == pytest.approx([10 * n for n in VOXEL[::-1]])
    assert itk.GetOrigin() == pytest.approx([10 * n for n in ORIGIN[::-1]])


def test_label_mrc(tmp_path: Path) -> None:
    path = write(tmp_path / "l.mrc", LABELS, classes=CLASSES)
    for found in (mrcfile.read(path), ncempy.io.mrc.mrcReader(str(path))["data"]):
        np.testing.assert_array_equal(found, LABELS)
    with mrcfile.open(path) as mrc:
        assert b"label 1 = pore" in b"".join(mrc.header.label.tolist())


def test_channels_in_mrc(tmp_path: Path) -> None:
    write(tmp_path / "p.mrc", SHARES, channels=["a", "b", "c"])
    for i, name in enumerate("abc"):
        np.testing.assert_array_equal(mrcfile.read(tmp_path / f"p_{name}.mrc"), SHARES[i])


# --- OME-Zarr --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ZARR, ids=str)
def test_zarr(tmp_path: Path, how: dict[str, object]) -> None:
    array = grey("uint16")
    path = write(tmp_path / "a.ome.zarr", array, **how)
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][:], array)
    (node,) = list(Reader(parse_url(path))())
    np.testing.assert_array_equal(np.asarray(node.data[0]), array)
    assert [axis["name"] for axis in node.metadata["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in node.metadata["axes"]} == {"nanometer"}
    scale, translation = node.metadata["coordinateTransformations"][0]
    assert (scale["scale"], translation["translation"]) == (list(VOXEL), list(ORIGIN))
    image = ngff_zarr.from_ngff_zarr(str(path), validate=True).images[0]
    np.testing.assert_array_equal(np.asarray(image.data), array)
    assert (dict(image.scale), dict(image.translation)) == (
        dict(zip("zyx", VOXEL, strict=True)), dict(zip("zyx", ORIGIN, strict=True)),
    )  # fmt: skip
    assert set(image.axes_units.values()) == {"nanometer"}


def test_zarr_of_portals(tmp_path: Path) -> None:
    """Chunks of 256^3 voxels, three levels, angstrom."""
    array = grey("int16")
    path = write(tmp_path / "a.zarr", array, portal=True)
    group = zarr.open_group(path, mode="r")
    assert [group[name].chunks for name in ("0", "1", "2")] == [(256, 256, 256)] * 3
    (node,) = list(Reader(parse_url(path))())
    assert [level.shape for level in node.data] == [SHAPE, (2, 3, 3), (1, 2, 2)]
    np.testing.assert_array_equal(np.asarray(node.data[0]), array)
    assert {axis["unit"] for axis in node.metadata["axes"]} == {"angstrom"}
    images = ngff_zarr.from_ngff_zarr(str(path), validate=True).images
    np.testing.assert_array_equal(np.asarray(images[0].data), array)
    for i, image in enumerate(images):
        assert [image.scale[axis] for axis in "zyx"] == pytest.approx([10 * 2**i * n for n in VOXEL])
        middle = [10 * (o + (2**i - 1) / 2 * n) for o, n in zip(ORIGIN, VOXEL, strict=True)]
        assert [image.translation[axis] for axis in "zyx"] == pytest.approx(middle)
        assert set(image.axes_units.values()) == {"angstrom"}


@pytest.mark.parametrize("how", ZARR, ids=str)
def test_label_zarr(tmp_path: Path, how: dict[str, object]) -> None:
    path = write(tmp_path / "l.ome.zarr", LABELS, classes=CLASSES, **how)
    node = next(iter(Reader(parse_url(path))()))
    np.testing.assert_array_equal(np.asarray(node.data[0]), LABELS)
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    label = attributes.get("ome", attributes)["image-label"]
    assert {p["label-value"]: p["class"] for p in label["properties"]} == {
        0: "unlabelled",
        1: "pore",
        2: "Träger",
        3: "c",
    }
    colours = {c["label-value"]: tuple(c["rgba"][:3]) for c in label["colors"]}
    assert [colours[c.value] for c in CLASSES] == [c.colour for c in CLASSES]


@pytest.mark.parametrize(("array", "names"), [(SHARES, [c.name for c in CLASSES]), (FEATURES, NAMES)])
@pytest.mark.parametrize("how", ZARR, ids=str)
def test_channels_in_zarr(tmp_path: Path, how: dict[str, object], array: np.ndarray, names: list[str]) -> None:
    path = write(tmp_path / "p.ome.zarr", array, channels=names, **how)
    node = next(iter(Reader(parse_url(path))()))
    np.testing.assert_array_equal(np.asarray(node.data[0]), array)
    assert [axis["name"] for axis in node.metadata["axes"]] == ["c", "z", "y", "x"]
    assert node.metadata["channel_names"] == names
    for (low, high), channel in zip(node.metadata["contrast_limits"], array, strict=True):
        assert low <= channel.min()
        assert channel.max() <= high
    image = ngff_zarr.from_ngff_zarr(str(path), validate=True).images[0]
    assert dict(image.scale) == {"c": 1.0, **dict(zip("zyx", VOXEL, strict=True))}
    np.testing.assert_array_equal(np.asarray(image.data), array)


# --- what others read as we do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["dm3", "dm4"])
def test_dm_as_ncempy_reads_it(tmp_path: Path, suffix: str) -> None:
    """The files of the tests are valid files."""
    write_dm(tmp_path / f"a.{suffix}", grey("uint16"), voxel=VOXEL)
    found = ncempy.io.dm.dmReader(str(tmp_path / f"a.{suffix}"))
    with open_volume(tmp_path / f"a.{suffix}") as volume:
        np.testing.assert_array_equal(volume[:], found["data"])
        assert volume.voxel_size == pytest.approx([float(n) for n in found["pixelSize"]])
    assert list(found["pixelUnit"]) == ["nm"] * 3


def test_ser_as_ncempy_reads_it(tmp_path: Path) -> None:
    write_ser(tmp_path / "a_1.ser", grey("uint16"), pixel=VOXEL[1:])
    found = ncempy.io.ser.serReader(str(tmp_path / "a_1.ser"))
    with open_volume(tmp_path / "a_1.ser") as volume:
        np.testing.assert_array_equal(volume[:], found["data"])
        assert [1e9 * float(n) for n in found["pixelSize"]] == pytest.approx(volume.voxel_size[:0:-1])  # x, y


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii.gz"])
def test_itk_files_have_the_place_that_itk_says(tmp_path: Path, suffix: str) -> None:
    image = SimpleITK.GetImageFromArray(grey("int16"))
    image.SetSpacing([1e-6 * n for n in VOXEL[::-1]])
    image.SetOrigin([1e-6 * n for n in ORIGIN[::-1]])
    SimpleITK.WriteImage(image, str(tmp_path / f"a.{suffix}"))
    with open_volume(tmp_path / f"a.{suffix}") as volume:
        np.testing.assert_array_equal(volume[:], grey("int16"))
        assert volume.voxel_size == pytest.approx(VOXEL, rel=1e-5)
        assert volume.metadata["place"]["origin_nm"] == pytest.approx(ORIGIN, rel=1e-5)
        json.dumps(volume.metadata)
