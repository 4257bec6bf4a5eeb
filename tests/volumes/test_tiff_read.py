"""Every kind of TIFF that microscopes, Fiji and Python write comes out as tifffile's own reader sees it."""

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (7, 12, 18)


def voxels(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    rng = np.random.default_rng(4)
    if np.dtype(dtype).kind == "f":
        return (rng.standard_normal(shape) * 100).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def read(volume) -> np.ndarray:
    return np.stack([plane for _, plane in volume.planes()])


DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_plain_multipage(tmp_path, dtype, byteorder):
    data = voxels(dtype)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=byteorder) as tif:
        for plane in data:
            tif.write(plane, contiguous=False, metadata=None, photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        assert (volume.shape, volume.dtype, volume.axes, volume.voxel_size) == (SHAPE, data.dtype, "IYX", None)
        assert volume.dtype.isnative
        np.testing.assert_array_equal(read(volume), data)
        assert volume.notes == ["reading axis I as z (7 planes)"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_imagej(tmp_path, dtype):
    data = voxels(dtype)
    metadata = {"axes": "ZYX", "spacing": 3.9, "unit": "nm"}
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata=metadata, resolution=(1 / 1.3, 1 / 2.6))
    with open_volume(tmp_path / "a.tif") as volume:
        assert (volume.format, volume.axes, volume.notes) == ("ImageJ TIFF", "ZYX", [])
        assert volume.voxel_size == pytest.approx((3.9, 2.6, 1.3), rel=1e-8)  # fractions of 32-bit integers
        np.testing.assert_array_equal(read(volume), data)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_ome(tmp_path, dtype):
    data = voxels(dtype)
    metadata = {"axes": "ZYX"}
    for letter, size, unit in zip("ZYX", (0.002, 11.0, 5.0), ("µm", "Å", "nm"), strict=True):
        metadata |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata)
    with open_volume(tmp_path / "a.ome.tif") as volume:
        assert (volume.format, volume.axes) == ("OME-TIFF", "ZYX")
        assert volume.voxel_size == pytest.approx((2.0, 1.1, 5.0), rel=1e-8)
        np.testing.assert_array_equal(read(volume), data)


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"compression": "zstd"},
        {"compression": "packbits", "rowsperstrip": 5},
        {"compression": "zlib", "tile": (16, 16)},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"byteorder": ">", "compression": "lzw", "predictor": True},
    ],
)
@pytest.mark.parametrize("ome", [False, True])
def test_storage(tmp_path, options, ome):
    data = voxels("uint16")
    tifffile.imwrite(tmp_path / "a.tif", data, ome=ome, metadata={"axes": "ZYX"}, photometric="minisblack", **options)
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.shape == SHAPE
        np.testing.assert_array_equal(read(volume), data)
        np.testing.assert_array_equal(volume.rows(3, 2, 9), data[3, 2:9])
        assert options.get("compression", "").replace("zlib", "deflate") in volume.format
        assert ("BigTIFF" in volume.format) == ("bigtiff" in options)


@pytest.mark.parametrize("n_planes", [2, 9])  # from 8 pages on tifffile treats all pages like the first
def test_strips_out_of_order_are_not_taken_for_contiguous(tmp_path, n_planes):
    data = voxels("uint8", (n_planes, 4, 6))
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for plane in data:
            tif.write(plane, rowsperstrip=2, contiguous=False, metadata=None, photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tag = tif.pages[n_planes // 2].tags["StripOffsets"]
        tag.overwrite(tag.value[::-1])
    expected = data.copy()
    expected[n_planes // 2] = np.roll(data[n_planes // 2], 2, axis=0)
    with open_volume(path) as volume:
        np.testing.assert_array_equal(read(volume), expected)


def test_bilevel_masks_become_0_and_1(tmp_path):
    data = voxels("uint8") > 100
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack", metadata={"axes": "ZYX"})
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(read(volume), data)


def test_palette_image_gives_indices(tmp_path):
    data = voxels("uint8")
    table = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="palette", colormap=table, metadata=None)
    with open_volume(tmp_path / "a.tif") as volume:
        np.testing.assert_array_equal(read(volume), data)


@pytest.mark.parametrize("axes", ["QYX", "CYX", "TYX", "IYX"])
def test_other_first_axis_is_read_as_z_and_said(tmp_path, axes):
    data = voxels("uint16")
    imagej = axes[0] in "CT"
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=imagej, metadata={"axes": axes}, photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.shape == SHAPE
        assert volume.notes == [f"reading axis {volume.axes[0]} as z (7 planes)"]
        np.testing.assert_array_equal(read(volume), data)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("axes", ["zyx", "zxy", "yzx", "yxz", "xzy", "xyz"])
def test_axes_option(tmp_path, axes, compression):
    data = voxels("uint16")
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        compression=compression,
        metadata={"axes": "ZYX"} if compression else {"axes": "ZYX", "spacing": 3.0, "unit": "nm"},
        imagej=compression is None,
        resolution=(1.0, 0.5),
    )
    expected = data.transpose([axes.index(letter) for letter in "zyx"])
    with open_volume(tmp_path / "a.tif", axes=axes.upper()) as volume:
        assert volume.shape == expected.shape
        np.testing.assert_array_equal(read(volume), expected)
        np.testing.assert_array_equal(volume.plane(1), expected[1])
        assert any(axes.upper() in note for note in volume.notes)
        if compression is None:
            stored = dict(zip(axes, (3.0, 2.0, 1.0), strict=True))
            assert volume.voxel_size == tuple(stored[letter] for letter in "zyx")


def test_axes_named_in_the_file_are_followed(tmp_path):
    data = voxels("uint16")
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "XYZ"}, photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        np.testing.assert_array_equal(read(volume), data.transpose(2, 1, 0))
        assert any("XYZ" in note for note in volume.notes)


@pytest.mark.parametrize("axes", ["zy", "zyy", "abc", "zyxc"])
def test_wrong_axes_option(tmp_path, axes):
    tifffile.imwrite(tmp_path / "a.tif", voxels("uint8"))
    with pytest.raises(UsageError, match="axes"):
        open_volume(tmp_path / "a.tif", axes=axes)


def test_turned_volume_reads_the_file_once_per_slab(tmp_path, monkeypatch):
    from gpu_tomoclass.volumes.reordered import ReorderedVolume
    from gpu_tomoclass.volumes.tiff import reader as tiff

    data = voxels("uint8", (6, 10, 8))
    tifffile.imwrite(tmp_path / "a.tif", data, metadata={"axes": "ZYX"}, compression="zlib")
    decoded = []
    original = tiff.TiffVolume._decode
    monkeypatch.setattr(tiff.TiffVolume, "_decode", lambda self, z: decoded.append(z) or original(self, z))
    with ReorderedVolume(open_volume(tmp_path / "a.tif"), order="yxz", slab_bytes=3 * 60) as volume:
        np.testing.assert_array_equal(read(volume), data.transpose(2, 0, 1))
    assert decoded == [0, 1, 2, 3, 4, 5] * 3  # 8 planes of 60 bytes, 3 at a time


def test_two_dimensional_image_is_one_plane(tmp_path):
    data = voxels("uint16")[0]
    tifffile.imwrite(tmp_path / "a.tif", data)
    with open_volume(tmp_path / "a.tif") as volume:
        assert (volume.shape, volume.notes) == ((1, 12, 18), ["a single image, read as a volume of one plane"])
        np.testing.assert_array_equal(volume.plane(0), data)


@pytest.mark.parametrize(("ny", "nx"), [(1, 5), (5, 1), (1, 1), (3, 3), (4, 4)])
@pytest.mark.parametrize("nz", [1, 2, 3])
@pytest.mark.parametrize("imagej", [False, True])
def test_thin_volumes(tmp_path, nz, ny, nx, imagej):
    data = voxels("uint8", (nz, ny, nx))
    if imagej:  # with fewer axes tifffile takes a width of 1 for a number of samples
        stored, axes = data.reshape(1, nz, 1, ny, nx, 1), "TZCYXS"
    else:
        stored, axes = data, "ZYX"
    tifffile.imwrite(tmp_path / "a.tif", stored, imagej=imagej, metadata={"axes": axes}, photometric="minisblack")
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.shape == data.shape
        np.testing.assert_array_equal(read(volume), data)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_colour_stack_needs_a_channel(tmp_path, planarconfig):
    data = voxels("uint8", (5, 12, 18, 3))
    stored = data if planarconfig == "contig" else np.moveaxis(data, -1, 1).copy()
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planarconfig)
    with pytest.raises(DataError, match=r"colour image with 3 colour samples .* --channel 0 to 2"):
        open_volume(tmp_path / "a.tif")
    with open_volume(tmp_path / "a.tif", channel=1) as volume:
        np.testing.assert_array_equal(read(volume), data[..., 1])
    with pytest.raises(UsageError, match="no channel 3"):
        open_volume(tmp_path / "a.tif", channel=3)


@pytest.mark.filterwarnings("ignore:.*are stored as RGB:DeprecationWarning")
def test_three_planes_that_tifffile_took_for_colours(tmp_path):
    data = voxels("uint8", (3, 12, 18))
    tifffile.imwrite(tmp_path / "a.tif", data)  # without photometric= this is a planar RGB image
    with pytest.raises(DataError, match="--channel 0 to 2, or read them as planes with --axes zyx"):
        open_volume(tmp_path / "a.tif")
    with open_volume(tmp_path / "a.tif", axes="zyx") as volume:
        assert "reading axis S as z (3 planes)" in volume.notes
        np.testing.assert_array_equal(read(volume), data)
    with open_volume(tmp_path / "a.tif", channel=1) as volume:
        np.testing.assert_array_equal(read(volume), data[1:2])


@pytest.mark.parametrize(
    ("axes", "shape", "chosen"),
    [
        ("ZCYX", (5, 2, 12, 18), lambda a: a[:, 1]),
        ("TZYX", (2, 5, 12, 18), lambda a: a[1]),
        ("CYX", (2, 12, 18), lambda a: a[1:]),
    ],
)
@pytest.mark.parametrize("imagej", [False, True])
def test_channel_picks_from_four_axes(tmp_path, axes, shape, chosen, imagej):
    data = voxels("uint16", shape)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=imagej, ome=not imagej, metadata={"axes": axes})
    if len(shape) == 4:
        with pytest.raises(DataError, match=r"holds 2 (channels|time points) .* --channel 0 to 1"):
            open_volume(tmp_path / "a.tif")
    with open_volume(tmp_path / "a.tif", channel=1) as volume:
        np.testing.assert_array_equal(read(volume), chosen(data))
        assert "reading number 1 (counted from 0) of 2" in volume.notes[0]


def test_five_axes_and_pointless_channel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", voxels("uint8", (2, 3, 2, 4, 6)), imagej=True, metadata={"axes": "TZCYX"})
    with pytest.raises(DataError, match="5 axes"):
        open_volume(tmp_path / "a.tif", channel=0)
    tifffile.imwrite(tmp_path / "b.tif", voxels("uint8"), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(UsageError, match="no channels to choose from"):
        open_volume(tmp_path / "b.tif", channel=0)


def test_several_images_need_series(tmp_path):
    data, thumbnail = voxels("uint16"), voxels("uint8")[0, :4, :4]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(data, photometric="minisblack", metadata={"axes": "ZYX"})
        tif.write(thumbnail, photometric="minisblack", metadata={"axes": "YX"})
    with pytest.raises(DataError, match=r"2 images \(0: ZYX 7 x 12 x 18 uint16; 1: YX 4 x 4 uint8\); .*--series"):
        open_volume(tmp_path / "a.tif")
    for series, expected in ((0, data), (1, thumbnail[None])):
        with open_volume(tmp_path / "a.tif", series=series) as volume:
            np.testing.assert_array_equal(read(volume), expected)
    with pytest.raises(UsageError, match="no series 2, only 0 to 1"):
        open_volume(tmp_path / "a.tif", series=2)


def test_pyramid_is_read_at_full_resolution(tmp_path):
    data = voxels("uint8", (64, 64))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(data, subifds=1, tile=(16, 16), metadata={"axes": "YX"})
        tif.write(data[::2, ::2], subfiletype=1, tile=(16, 16))
    with open_volume(tmp_path / "a.ome.tif") as volume:
        np.testing.assert_array_equal(volume.plane(0), data)
        assert "read at full resolution; the file also holds 1 reduced copies" in volume.notes


def test_planes_of_one_odd_page_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for z in range(20):
            shape = (8, 6) if z == 13 else (6, 8)  # the same number of bytes
            tif.write(np.full(shape, z, np.uint8), contiguous=False, metadata=None, photometric="minisblack")
    with pytest.raises(DataError, match="page 13 differs from page 0 in ImageWidth, ImageLength"):
        open_volume(tmp_path / "a.tif")


def test_complex_values_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 4, 6), np.complex64), photometric="minisblack")
    with pytest.raises(DataError, match="complex64, which are no grey values"):
        open_volume(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("unit", "spacing", "expected"),
    [
        ("nm", 2.0, (2.0, 0.5, 0.5)),
        ("micron", 0.002, (2.0, 500.0, 500.0)),
        ("um", 0.002, (2.0, 500.0, 500.0)),
        ("\\u00B5m", 0.002, (2.0, 500.0, 500.0)),
        ("angstrom", 20.0, (2.0, 0.05, 0.05)),
        ("A", 20.0, (2.0, 0.05, 0.05)),
        ("mm", 0.5, (5e5, 5e5, 5e5)),
        ("nm", None, (0.5, 0.5, 0.5)),
        ("pixel", 2.0, None),
        ("inch", None, None),  # half an inch per pixel is a printing resolution
        ("furlong", 2.0, None),
    ],
)
def test_imagej_units(tmp_path, unit, spacing, expected):
    metadata = {"axes": "ZYX", "unit": unit} | ({} if spacing is None else {"spacing": spacing})
    tifffile.imwrite(tmp_path / "a.tif", voxels("uint8"), imagej=True, metadata=metadata, resolution=(2.0, 2.0))
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.voxel_size == (expected if expected is None else pytest.approx(expected, rel=1e-8))
        if spacing is None and expected:
            assert volume.notes == ["the file gives no spacing of planes: taken as the pixel size, 0.5 nm"]
        if unit in ("inch", "furlong"):
            assert len(volume.notes) == 1
            assert "voxel size ignored" in volume.notes[0]


@pytest.mark.parametrize(
    ("per_unit", "unit", "expected"),
    [(72.0, "inch", None), (300.0, "inch", None), (2e7, "centimeter", 0.5), (2.54e7, "inch", 1.0), (1.0, "none", None)],
)
def test_plain_resolution(tmp_path, per_unit, unit, expected):
    tifffile.imwrite(
        tmp_path / "a.tif", voxels("uint8"), metadata=None, resolution=(per_unit, per_unit), resolutionunit=unit
    )
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.voxel_size == (expected if expected is None else pytest.approx((expected,) * 3, rel=1e-8))


def test_default_pixel_size_beside_a_spacing_is_noted(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", voxels("uint8"), imagej=True, metadata={"spacing": 3.36, "unit": "nm"})
    with open_volume(tmp_path / "a.tif") as volume:
        assert volume.voxel_size == (3.36, 1.0, 1.0)
        assert "planes are 3.36 nm apart and pixels 1 nm wide" in volume.notes[-1]


def test_imagej_signed_16_bit(tmp_path):
    data = voxels("uint16")
    metadata = {"axes": "ZYX", "cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "gray value"}
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata=metadata)
    with open_volume(tmp_path / "a.tif") as volume:
        np.testing.assert_array_equal(read(volume), data)
        assert "signed 16-bit" in volume.notes[0]


def test_file_written_by_imagej_itself_with_one_directory(tmp_path):
    """Fiji writes stacks above 4 GB with a single directory and all planes behind it."""
    data = voxels("uint16")
    description = f"ImageJ=1.54f\nimages={len(data)}\nslices={len(data)}\nunit=nm\nspacing=2.0\nloop=false\n"
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">") as tif:
        tif.write(data[0], description=description, metadata=None, photometric="minisblack", resolution=(1.0, 1.0))
    with open(tmp_path / "a.tif", "ab") as file:
        file.write(data[1:].astype(">u2").tobytes())
    with open_volume(tmp_path / "a.tif") as volume:
        np.testing.assert_array_equal(read(volume), data)
        assert volume.voxel_size == (2.0, 1.0, 1.0)


def test_opening_reads_headers_only(tmp_path):
    """A sparse file of 60 GB, one directory: opened at once, and a plane far beyond 4 GB is found."""
    path = tmp_path / "big.tif"
    nz, ny, nx = 15_000, 2000, 2000
    with tifffile.TiffWriter(path) as tif:
        text = f"ImageJ=1.54f\nimages={nz}\nslices={nz}\n"
        offset, _ = tif.write(None, shape=(ny, nx), dtype=np.uint8, description=text, metadata=None, returnoffset=True)
    with open(path, "r+b") as file:
        file.truncate(offset + nz * ny * nx)
        file.seek(offset + 14_999 * ny * nx + 5 * nx + 7)
        file.write(b"\x2a")
    with open_volume(path) as volume:
        assert volume.shape == (nz, ny, nx)
        assert volume.rows(14_999, 5, 6)[0, 7] == 42
        assert volume.plane(14_999).sum(dtype=np.int64) == 42
