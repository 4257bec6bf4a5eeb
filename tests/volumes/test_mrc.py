"""MRC volumes, against mrcfile as independent reader and writer."""

import warnings

import mrcfile
import numpy as np
import pytest

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.mrc.header import make_header
from gpu_tomoclass.volumes.mrc.mrc import MrcWriter, channel_paths, open_mrc
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (5, 6, 7)


def volume(dtype, *, shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(100, 30, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype, endpoint=True)


def write_mrc(path, data, **header):
    """A file made by mrcfile, with header fields changed afterwards ("cella_z" for a sub-field)."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(data)
        mrc.voxel_size = (13.0, 12.0, 11.0)  # x, y, z in Angstrom
    patch_header(path, **header)
    return path


def patch_header(path, **header):
    with warnings.catch_warnings():  # mrcfile warns about what the test breaks on purpose
        warnings.simplefilter("ignore", RuntimeWarning)
        with mrcfile.mmap(path, "r+", permissive=True) as mrc:
            for name, value in header.items():
                field, _, part = name.partition("_")
                target = mrc.header[field] if part else mrc.header
                target[part or field] = value


def set_imod_flags(path, flags):
    with open(path, "r+b") as file:
        file.seek(152)
        file.write(np.array([1146047817, flags], "<i4").tobytes())


def read_all(vol):
    return np.stack([plane for _, plane in vol.planes()])


def write_all(writer, data):
    with writer:
        for z in range(writer.shape[0]):
            writer.write_plane(z, data[z])


def test_a_file_of_mrcfile_is_read_as_it_is(tmp_path):
    for dtype in ("int8", "int16", "uint16", "float32", "float16"):
        data = volume(dtype)
        with open_volume(write_mrc(tmp_path / f"{dtype}.mrc", data)) as vol:
            assert (vol.shape, vol.dtype) == (SHAPE, np.dtype(dtype))
            assert vol.voxel_size == pytest.approx((1.1, 1.2, 1.3), rel=1e-6)  # float32 header
            np.testing.assert_array_equal(read_all(vol), data)
            np.testing.assert_array_equal(vol.rows(3, 2, 5), data[3, 2:5])


def test_big_endian_file(tmp_path):
    data = volume("int16")
    vol = open_mrc(write_mrc(tmp_path / "big.mrc", data.astype(">i2")))
    raw = (tmp_path / "big.mrc").read_bytes()
    assert raw[212:214] == b"\x11\x11", "the file under test must be big-endian"
    assert vol.dtype == np.dtype("int16").newbyteorder("=")
    assert vol.voxel_size == pytest.approx((1.1, 1.2, 1.3), rel=1e-6)
    np.testing.assert_array_equal(read_all(vol), data)


def test_single_image_is_one_plane(tmp_path):
    data = volume("float32")[0]
    vol = open_mrc(write_mrc(tmp_path / "image.mrc", data))
    assert vol.shape == (1, *data.shape)
    np.testing.assert_array_equal(vol.plane(0), data)


@pytest.mark.parametrize(("flags", "dtype"), [(0, "uint8"), (1, "int8")])
def test_imod_flag_says_whether_bytes_are_signed(tmp_path, flags, dtype):
    data = volume("int8")
    set_imod_flags(write_mrc(tmp_path / "m.mrc", data), flags)
    vol = open_mrc(tmp_path / "m.mrc")
    assert vol.dtype == dtype
    np.testing.assert_array_equal(read_all(vol), data.view(dtype))
    assert any("IMOD flag" in note and ("unsigned" in note) == (flags == 0) for note in vol.notes)


@pytest.mark.parametrize(("dmin", "dmax", "dtype"), [(0, 255, "uint8"), (-128, 127, "int8"), (0, 100, "int8")])
def test_bytes_without_an_imod_flag(tmp_path, dmin, dmax, dtype):
    data = volume("int8")
    vol = open_mrc(write_mrc(tmp_path / "m.mrc", data, dmin=dmin, dmax=dmax))
    assert vol.dtype == dtype
    assert any(note.startswith("mode 0") for note in vol.notes)
    np.testing.assert_array_equal(read_all(vol), data.view(dtype))


@pytest.mark.parametrize("order", ["zyx", "zxy", "yzx", "yxz", "xyz", "xzy"])
@pytest.mark.parametrize("by", ["header", "axes"])
def test_axes_are_read_as_zyx(tmp_path, order, by):
    truth = volume("int16")
    stored = np.ascontiguousarray(truth.transpose(["zyx".index(a) for a in order]))
    maps, mapr, mapc = ("xyz".index(a) + 1 for a in order)
    size_nm = {"z": 1.1, "y": 1.2, "x": 1.3}
    if by == "header":  # the cell and mx, my, mz belong to x, y, z, not to columns, rows, sections
        n = dict(zip("zyx", SHAPE, strict=True))
        header = {f"m{a}": n[a] for a in "zyx"} | {f"cella_{a}": 10 * size_nm[a] * n[a] for a in "zyx"}
        header |= {"maps": maps, "mapr": mapr, "mapc": mapc}
    else:  # a wrong header: the sizes stand at columns, rows, sections
        header = {
            f"cella_{a}": 10 * size_nm[b] * stored.shape["zyx".index(a)] for a, b in zip("zyx", order, strict=True)
        }
    path = write_mrc(tmp_path / "m.mrc", stored, **header)
    vol = open_mrc(path, axes=order if by == "axes" else None)
    assert vol.shape == SHAPE
    assert vol.axes == order.upper()
    np.testing.assert_array_equal(read_all(vol), truth)
    np.testing.assert_array_equal(vol.rows(2, 1, 4), truth[2, 1:4])
    assert vol.voxel_size == pytest.approx((1.1, 1.2, 1.3), rel=1e-6)
    assert (order == "zyx" and by == "header") or any("planes are read as ZYX" in note for note in vol.notes)


def test_four_bit_values(tmp_path):
    data = np.random.default_rng(1).integers(0, 16, (3, 4, 7), np.uint8)  # odd row length: half a byte of padding
    padded = np.pad(data, ((0, 0), (0, 0), (0, 1)))
    packed = padded[..., 0::2] | padded[..., 1::2] << 4
    path = write_mrc(tmp_path / "m.mrc", packed.view(np.int8))
    with open(path, "r+b") as file:
        file.write(np.array([7, 4, 3, 101], "<i4").tobytes())
    vol = open_mrc(path)
    assert vol.dtype == np.uint8
    np.testing.assert_array_equal(read_all(vol), data)


def test_extended_header_of_another_program_is_skipped(tmp_path):
    data = volume("float32")
    with mrcfile.new(tmp_path / "m.mrc") as mrc:
        mrc.set_data(data)
        mrc.set_extended_header(np.arange(1000, dtype="i2"))
        mrc.header.exttyp = b"SERI"
    vol = open_mrc(tmp_path / "m.mrc")
    np.testing.assert_array_equal(read_all(vol), data)
    assert vol.metadata == {}


@pytest.mark.parametrize(("cell", "size", "words"), [((0, 0, 0), None, ""), ((70, 60, 0), None, "in part")])
def test_missing_voxel_size(tmp_path, cell, size, words):
    path = write_mrc(tmp_path / "m.mrc", volume("int16"), cella_x=cell[0], cella_y=cell[1], cella_z=cell[2])
    vol = open_mrc(path)
    assert vol.voxel_size is size
    assert any(words in note for note in vol.notes) == bool(words)


def test_voxel_size_that_looks_like_a_default(tmp_path):
    for size, noted in ((1.0, True), (1.01, False)):
        path = tmp_path / f"{size}.mrc"
        write_mrc(path, volume("int16"), cella_x=7 * size, cella_y=6 * size, cella_z=5 * size)
        vol = open_mrc(path)
        assert vol.voxel_size == pytest.approx((size / 10,) * 3, rel=1e-6)
        assert any("exactly 1 Angstrom" in note for note in vol.notes) == noted


def test_stack_whose_depth_is_not_counted_in_the_header(tmp_path):
    # mz = 1 with the length of the whole stack makes one "voxel" as thick as the stack
    path = write_mrc(tmp_path / "m.mrc", volume("int16"), ispg=0, mz=1)
    vol = open_mrc(path)
    assert vol.voxel_size == pytest.approx((5.5, 1.2, 1.3), rel=1e-6)
    assert any("check it" in note for note in vol.notes)


@pytest.mark.parametrize(
    ("dtype", "mode"), [("float32", 2), ("int16", 1), ("uint16", 6), ("int8", 0), ("uint8", 6), ("float16", 12)]
)
def test_mrcfile_reads_what_we_write(tmp_path, dtype, mode):
    data = volume(dtype)
    path = tmp_path / "sub folder" / "ö ut.mrc"
    write_all(create_volume(path, shape=SHAPE, dtype=dtype, voxel_size=(1.1, 1.2, 1.3)), data)
    if dtype != "float16":  # whose standard deviation overflows in mrcfile's own check
        assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        assert int(mrc.header.mode) == mode
        assert mrc.is_volume()
        np.testing.assert_array_equal(mrc.data, data)
        assert tuple(mrc.voxel_size.item()) == pytest.approx((13, 12, 11), rel=1e-6)
        exact = data.astype(np.float64)
        header = [float(mrc.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
        # float32 fields
        np.testing.assert_allclose(header, [exact.min(), exact.max(), exact.mean(), exact.std()], rtol=2e-7)
    vol = open_volume(path)
    np.testing.assert_array_equal(read_all(vol), data)
    assert vol.dtype == (np.uint16 if dtype == "uint8" else dtype)
    assert vol.voxel_size == pytest.approx((1.1, 1.2, 1.3), rel=1e-6)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_statistics_keep_precision_far_from_zero(tmp_path):
    # one-pass sums of squares in float64 would be left with about 1e-16 * 1e12 / 1 = 1e-4 of the variance
    data = (1e6 + np.random.default_rng(3).normal(0, 1, (4, 50, 60))).astype(np.float32)
    data[2, 3, 4] = np.nan
    write_all(MrcWriter(tmp_path / "m.mrc", shape=data.shape, dtype=np.float32), data)
    with mrcfile.open(tmp_path / "m.mrc", header_only=True) as mrc:
        exact = data.astype(np.float64)
        assert float(mrc.header.rms) == pytest.approx(np.nanstd(exact), rel=1e-6)  # float32 field
        assert float(mrc.header.dmax) == np.nanmax(data)


def test_labels_carry_classes_and_metadata(tmp_path):
    classes = default_classes(["pore", "Träger", "particle"])
    data = np.random.default_rng(2).integers(0, 4, SHAPE, np.uint8)
    metadata = {"model": "abc", "nested": {"σ": [1, 2.5]}}
    writer = create_volume(tmp_path / "l.mrc", shape=SHAPE, dtype=np.uint8, classes=classes, metadata=metadata)
    with writer:
        for z in (3, 0, 4, 1, 2):
            writer.write_plane(z, data[z])
    vol = open_volume(tmp_path / "l.mrc")
    assert vol.dtype == np.uint8
    assert (vol.classes, vol.metadata) == (classes, metadata)
    np.testing.assert_array_equal(read_all(vol), data)
    with mrcfile.open(tmp_path / "l.mrc") as mrc:
        assert int(mrc.header.mode) == 0
        np.testing.assert_array_equal(mrc.data, data)
        labels = [label.strip() for label in mrc.get_labels()]
        assert labels[0].startswith("gpu_tomoclass")
        assert "label 3 = particle" in labels


def test_mrcfile_finds_fault_only_with_the_type_of_our_extended_header(tmp_path, capsys):
    data = np.ones(SHAPE, np.uint8)
    write_all(MrcWriter(tmp_path / "l.mrc", shape=SHAPE, dtype="uint8", classes=default_classes(["a"])), data)
    mrcfile.validate(tmp_path / "l.mrc")
    complaints = capsys.readouterr().out.splitlines()[1:]  # the first line only names the file
    assert complaints == ["Extended header type is undefined or unrecognised: exttyp = 'JSON'"]


def test_many_classes_need_sixteen_bits(tmp_path):
    classes = default_classes([f"c{i}" for i in range(200)])
    data = np.full(SHAPE, 200, np.uint8)
    write_all(MrcWriter(tmp_path / "l.mrc", shape=SHAPE, dtype="uint8", classes=classes), data)
    vol = open_mrc(tmp_path / "l.mrc")
    assert vol.classes == classes
    np.testing.assert_array_equal(read_all(vol), data)


def test_int8_is_marked_signed_for_imod(tmp_path):
    write_all(MrcWriter(tmp_path / "m.mrc", shape=SHAPE, dtype="int8"), volume("int8"))
    assert np.frombuffer((tmp_path / "m.mrc").read_bytes(), "<i4", 2, 152).tolist() == [1146047817, 5]


def test_one_file_per_channel(tmp_path):
    data = np.random.default_rng(4).random((5, 2, 6, 7)).astype(np.float32)
    writer = create_volume(
        tmp_path / "p.mrc", shape=SHAPE, dtype=np.float32, channels=["pore", "solid/1"], metadata={"a": 1}
    )
    write_all(writer, data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p_pore.mrc", "p_solid_1.mrc"]
    for i, path in enumerate([tmp_path / "p_pore.mrc", tmp_path / "p_solid_1.mrc"]):
        np.testing.assert_array_equal(mrcfile.read(path), data[:, i])
        assert open_mrc(path).metadata == {"a": 1}


def test_channel_names_become_distinct_file_names(tmp_path):
    names = [p.name for p in channel_paths(tmp_path / "p.rec", ["a b", "a/b", "..", "Pt/C 20%", "é"])]
    assert names == ["p_a_b.rec", "p_a_b_1.rec", "p_2.rec", "p_Pt_C_20.rec", "p_é.rec"]


@pytest.mark.parametrize("dtype", ["float64", "int32", "uint32", "complex64", "bool"])
def test_types_that_mrc_cannot_hold(tmp_path, dtype):
    with pytest.raises(UsageError, match=f"cannot hold {dtype}, only int8"):
        MrcWriter(tmp_path / "m.mrc", shape=SHAPE, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_wrong_planes_are_refused(tmp_path):
    writer = MrcWriter(tmp_path / "m.mrc", shape=SHAPE, dtype="uint8", classes=default_classes(["a"]))
    with pytest.raises(UsageError, match="plane 0 has shape"):
        writer.write_plane(0, np.zeros((6, 6), np.uint8))
    with pytest.raises(UsageError, match="no plane 5"):
        writer.write_plane(5, np.zeros((6, 7), np.uint8))
    with pytest.raises(UsageError, match="created as uint8"):
        writer.write_plane(0, np.zeros((6, 7), np.float32))
    with pytest.raises(UsageError, match="label 128 in plane 0"):
        writer.write_plane(0, np.full((6, 7), 128, np.uint8))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_wrong_axes(tmp_path):
    path = write_mrc(tmp_path / "m.mrc", volume("int16"))
    for axes in ("zy", "zyy", "czyx"):
        with pytest.raises(UsageError, match="not an order of z, y, x"):
            open_mrc(path, axes=axes)


def test_old_header_without_axes(tmp_path):
    data = volume("int16")
    vol = open_mrc(write_mrc(tmp_path / "m.mrc", data, mapc=0, mapr=0, maps=0))
    np.testing.assert_array_equal(read_all(vol), data)
    assert any("does not name its axes" in note for note in vol.notes)
    with pytest.raises(DataError, match=r"maps, mapr, mapc are \(3, 2, 2\)"):
        open_mrc(write_mrc(tmp_path / "n.mrc", data, mapc=2))


def test_offsets_beyond_four_gigabytes(tmp_path):
    shape = (3, 40_000, 20_000)  # planes of 1.6 GB, sparse on disk
    header, _ = make_header(shape=shape, mode=1, voxel_size=None, classes=(), content=None)
    last = np.arange(20_000, dtype="<i2")
    with open(tmp_path / "m.mrc", "wb") as file:
        file.write(header.tobytes())
        file.seek(1024 + 2 * 3 * 40_000 * 20_000 - last.nbytes)
        file.write(last.tobytes())
    vol = open_mrc(tmp_path / "m.mrc")
    np.testing.assert_array_equal(vol.rows(2, 39_999, 40_000), last[None])
    assert not vol.rows(1, 39_999, 40_000).any()


def test_a_channel_of_a_very_long_name(tmp_path):
    """A file name has at most 255 bytes: found before the first plane, by cutting the name of the channel."""
    from gpu_tomoclass.volumes import create_volume, volume_names

    channels = ["ä" * 3000, "ä" * 3000 + "b"]
    names = volume_names(tmp_path / "p.mrc", channels=channels)
    with create_volume(tmp_path / "p.mrc", shape=(1, 2, 2), dtype=np.float32, channels=channels) as writer:
        writer.write_plane(0, np.zeros((2, 2, 2), np.float32))
    assert sorted(str(path) for path in tmp_path.iterdir()) == sorted(names)
    assert len(set(names)) == 2
