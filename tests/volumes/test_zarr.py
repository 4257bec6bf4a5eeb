"""Zarr and OME-Zarr volumes, against the library zarr as independent writer."""

import itertools
import warnings

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes import stored_axes as axes_module
from gpu_tomoclass.volumes.ome_zarr.array import ZarrArray, read_node
from gpu_tomoclass.volumes.ome_zarr.reader import open_zarr
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (7, 20, 33)
CHUNKS = (3, 8, 16)  # no axis is a multiple


def values(shape=SHAPE, dtype="uint16", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, shape).astype(dtype)
    if np.dtype(dtype) == bool:
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -5000), min(info.max, 5000), shape).astype(dtype)


def write_array(path, data, *, zarr_format=3, chunks=CHUNKS, **options):
    options.setdefault("config", {"write_empty_chunks": True})
    with warnings.catch_warnings():  # zarr warns about codecs outside its specification
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            path, shape=data.shape, dtype=data.dtype, chunks=chunks, zarr_format=zarr_format, **options
        )
        array[...] = data
    return path


def write_image(path, data, axes, *, zarr_format=2, scale=None, chunks=None, **image):
    """A minimal OME-Zarr image; ``axes`` is a list of names or of dictionaries."""
    axes = [{"name": a} if isinstance(a, str) else a for a in axes]
    level = {"path": "s0"}
    if scale is not None:
        level["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    multiscales = {"multiscales": [{"axes": axes, "datasets": [level], **image}]}
    if zarr_format == 2:
        multiscales["multiscales"][0].setdefault("version", "0.4")
    else:
        multiscales = {"ome": {"version": "0.5", **multiscales}}
    group = zarr.create_group(path, zarr_format=zarr_format, attributes=multiscales)
    group.create_array("s0", shape=data.shape, dtype=data.dtype, chunks=chunks or data.shape)[...] = data
    return path


def read_all(vol):
    return np.stack([plane for _, plane in vol.planes()])


V3_PIPELINES = {
    "none": {"compressors": None},
    "zstd": {"compressors": [ZstdCodec(level=3)]},
    "zstd checksum": {"compressors": [ZstdCodec(level=3, checksum=True)]},
    "gzip": {"compressors": [GzipCodec(level=5)]},
    "zstd crc": {"compressors": [ZstdCodec(), Crc32cCodec()]},
    "blosc": {"compressors": [BloscCodec(cname="lz4", shuffle="bitshuffle", typesize=2)]},
    "blosc zstd": {"compressors": [BloscCodec(cname="zstd", shuffle="shuffle", typesize=2), Crc32cCodec()]},
    "two": {"compressors": [GzipCodec(level=1), ZstdCodec()]},
    "transposed": {"filters": [TransposeCodec(order=(2, 0, 1))]},
    "transposed twice": {"filters": [TransposeCodec(order=(2, 0, 1)), TransposeCodec(order=(0, 2, 1))]},
    "big-endian": {"serializer": BytesCodec(endian="big")},
    "dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v2 keys": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "shards": {"chunks": (2, 8, 16), "shards": (4, 16, 32)},
    "shards crc": {"chunks": (1, 8, 16), "shards": (7, 24, 48), "compressors": [ZstdCodec(), Crc32cCodec()]},
    "shard index first": {
        "chunks": (4, 16, 32),
        "serializer": ShardingCodec(chunk_shape=(2, 16, 8), codecs=[BytesCodec(), GzipCodec()], index_location="start"),
        "compressors": None,
    },
}
with warnings.catch_warnings():  # that these codecs are not in the specification
    warnings.simplefilter("ignore")
    V3_PIPELINES["numcodecs"] = {"compressors": [zarr.codecs.numcodecs.Zlib(level=2)]}


@pytest.mark.parametrize("name", V3_PIPELINES)
def test_version_3_pipelines(tmp_path, name):
    data = values()
    path = write_array(tmp_path / "a.zarr", data, **V3_PIPELINES[name])
    vol = open_volume(path)
    assert (vol.shape, vol.dtype, vol.format, vol.notes) == (SHAPE, data.dtype, "Zarr 3 array", [])
    np.testing.assert_array_equal(read_all(vol), data)


V2_COMPRESSORS = {
    "none": None,
    "zstd": numcodecs.Zstd(level=2),
    "zstd checksum": numcodecs.Zstd(checksum=True),
    "blosc": numcodecs.Blosc(cname="blosclz", shuffle=1),
    "blosc zlib": numcodecs.Blosc(cname="zlib", shuffle=2),
    "blosc lz4hc": numcodecs.Blosc(cname="lz4hc", shuffle=0),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "lz4": numcodecs.LZ4(),
    "bz2": numcodecs.BZ2(),
}


@pytest.mark.parametrize("name", V2_COMPRESSORS)
@pytest.mark.parametrize("layout", ["C.", "F/", "C/big"])
def test_version_2_pipelines(tmp_path, name, layout):
    data = values(dtype=">i2" if "big" in layout else "<i2")
    path = write_array(
        tmp_path / "a.zarr",
        data,
        zarr_format=2,
        compressors=V2_COMPRESSORS[name],
        order=layout[0],
        chunk_key_encoding={"name": "v2", "separator": layout[1]},
    )
    vol = open_volume(path)
    assert vol.dtype.isnative
    np.testing.assert_array_equal(read_all(vol), data)


DTYPES = ["bool", *(f"{s}int{b}" for s in ("", "u") for b in (8, 16, 32, 64)), "float16", "float32", "float64"]


@pytest.mark.parametrize(("dtype", "zarr_format"), list(itertools.product(DTYPES, (2, 3))))
def test_value_types(tmp_path, dtype, zarr_format):
    data = values(dtype=dtype)
    vol = open_volume(write_array(tmp_path / "a.zarr", data, zarr_format=zarr_format))
    assert vol.dtype == ("uint8" if dtype == "bool" else dtype)
    assert ("true and false are read as 1 and 0" in vol.notes) == (dtype == "bool")
    np.testing.assert_array_equal(read_all(vol), data)


@pytest.mark.parametrize("chunks", [(1, 3, 11), (7, 20, 33), (100, 100, 100), (1, 20, 33), (7, 1, 5)])
def test_chunk_shapes_and_partial_regions(tmp_path, chunks):
    data = values()
    path = write_array(tmp_path / "a.zarr", data, chunks=chunks)
    np.testing.assert_array_equal(read_all(open_zarr(path)), data)
    array = ZarrArray(read_node(path))
    rng = np.random.default_rng(5)
    for _ in range(30):
        start = [int(rng.integers(0, n)) for n in SHAPE]
        stop = [int(rng.integers(a + 1, n + 1)) for a, n in zip(start, SHAPE, strict=True)]
        expected = data[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        np.testing.assert_array_equal(array.region(start, stop), expected)


def test_each_chunk_is_decoded_once_when_planes_are_read_in_order(tmp_path, monkeypatch):
    data = values()
    path = write_array(tmp_path / "a.zarr", data)
    calls = []
    real = ZarrArray._chunk
    monkeypatch.setattr(ZarrArray, "_chunk", lambda self, index: calls.append(index) or real(self, index))
    vol = open_zarr(path)
    assert calls == []
    np.testing.assert_array_equal(read_all(vol), data)
    assert sorted(calls) == sorted(set(calls))
    assert len(calls) == 3 * 3 * 3

    monkeypatch.setattr(axes_module, "LAYER_BYTES", 3 * 20 * 33 * 2 - 1)
    vol = open_zarr(path)
    np.testing.assert_array_equal(read_all(vol), data)
    assert any("decodes each chunk 3 times" in note for note in vol.notes)


def test_a_plane_belongs_to_the_caller(tmp_path):
    data = values()
    vol = open_zarr(write_array(tmp_path / "a.zarr", data))
    vol.plane(1)[:] = 0
    np.testing.assert_array_equal(vol.plane(1), data[1])
    np.testing.assert_array_equal(vol.plane(2), data[2])


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ome_zarr_with_units(tmp_path, zarr_format):
    units = {"z": "angstrom", "y": "nanometer", "x": "micrometer"}
    axes = [{"name": a, "type": "space", "unit": units[a]} for a in "zyx"]
    data = values()
    path = write_image(tmp_path / "i.ome.zarr", data, axes, zarr_format=zarr_format, scale=[20.0, 3.0, 0.004])
    vol = open_volume(path)
    assert vol.format == ("OME-Zarr 0.4" if zarr_format == 2 else "OME-Zarr 0.5")
    assert (vol.shape, vol.axes, vol.notes) == (SHAPE, "ZYX", [])
    assert vol.voxel_size == pytest.approx((2, 3, 4), rel=1e-12)
    np.testing.assert_array_equal(read_all(vol), data)


def test_scale_of_the_image_multiplies_that_of_the_level(tmp_path):
    axes = [{"name": a, "unit": "nanometer"} for a in "zyx"]
    transform = [{"type": "scale", "scale": [10, 10, 10]}, {"type": "translation", "translation": [1, 1, 1]}]
    path = write_image(tmp_path / "i.zarr", values(), axes, scale=[1, 2, 3], coordinateTransformations=transform)
    assert open_zarr(path).voxel_size == (10, 20, 30)


@pytest.mark.parametrize(("scale", "noted"), [([2, 2, 2], True), ([1, 1, 1], False), (None, False), ([0, 1, 1], True)])
def test_scale_without_unit_is_no_voxel_size(tmp_path, scale, noted):
    vol = open_zarr(write_image(tmp_path / "i.zarr", values(), "zyx", scale=scale))
    assert vol.voxel_size is None
    assert any("voxel size is ignored" in note for note in vol.notes) == noted


@pytest.mark.parametrize("stored_axes", ["tczyx", "czyx", "tzyx", "zyxc"])
def test_axes_of_length_one_are_dropped(tmp_path, stored_axes):
    data = values()
    shape = [dict(zip("zyx", SHAPE, strict=True)).get(a, 1) for a in stored_axes]
    path = write_image(
        tmp_path / "i.zarr",
        data.reshape(shape),
        [{"name": a, "unit": "nanometer"} for a in stored_axes],
        scale=["zyx".find(a) + 1 for a in stored_axes],
    )
    vol = open_zarr(path)
    assert vol.voxel_size == (1, 2, 3)
    np.testing.assert_array_equal(read_all(vol), data)


def test_channel_and_time_are_chosen(tmp_path):
    data = values((1, 3, *SHAPE))
    path = write_image(tmp_path / "i.zarr", data, "tczyx", chunks=(1, 2, 3, 8, 16))
    with pytest.raises(DataError, match=r"axis c of length 3.*--channel"):
        open_zarr(path)
    vol = open_volume(path, channel=2)
    np.testing.assert_array_equal(read_all(vol), data[0, 2])
    assert "index 2 of the axis c of length 3 is read" in vol.notes
    with pytest.raises(UsageError, match="no c 3, only 0 to 2"):
        open_zarr(path, channel=3)
    times = write_image(tmp_path / "t.zarr", data.reshape(3, 1, *SHAPE), "tczyx")
    np.testing.assert_array_equal(read_all(open_zarr(times, channel=1)), data[0, 1])
    both = write_image(tmp_path / "b.zarr", values((2, 3, *SHAPE)), "tczyx")
    with pytest.raises(DataError, match="too many axes"):
        open_zarr(both, channel=1)
    one = write_image(tmp_path / "o.zarr", values(), "zyx")
    assert open_zarr(one, channel=0).shape == SHAPE
    with pytest.raises(UsageError, match="no channel 1"):
        open_zarr(one, channel=1)


@pytest.mark.parametrize("order", ["zxy", "yzx", "xyz"])
@pytest.mark.parametrize("by", ["metadata", "axes"])
def test_other_orders_are_read_as_zyx(tmp_path, order, by):
    truth = values()
    data = np.ascontiguousarray(truth.transpose(["zyx".index(a) for a in order]))
    names = order if by == "metadata" else "zyx"
    scale = ["zyx".index(a) + 1 for a in order]
    path = write_image(
        tmp_path / "i.zarr", data, [{"name": a, "unit": "nanometer"} for a in names], scale=scale, chunks=(2, 5, 4)
    )
    vol = open_zarr(path, axes=None if by == "metadata" else order)
    assert (vol.axes, vol.voxel_size) == (order.upper(), (1, 2, 3))
    np.testing.assert_array_equal(read_all(vol), truth)
    assert any("read as ZYX" in note for note in vol.notes)
    plain = write_array(tmp_path / "p.zarr", data, dimension_names=list(names.upper()))
    np.testing.assert_array_equal(read_all(open_zarr(plain, axes=None if by == "metadata" else order)), truth)


def test_two_dimensional_images(tmp_path):
    data = values()[0]
    for vol in (
        open_zarr(write_image(tmp_path / "i.zarr", data, "yx")),
        open_zarr(write_array(tmp_path / "p.zarr", data, chunks=(8, 16))),
    ):
        assert vol.shape == (1, *data.shape)
        assert any("one plane" in note for note in vol.notes)
        np.testing.assert_array_equal(vol.plane(0), data)


def test_plain_arrays_of_other_dimensions(tmp_path):
    data = values()
    vol = open_zarr(write_array(tmp_path / "5.zarr", data[None, :, None], chunks=(1, 3, 1, 8, 16)))
    np.testing.assert_array_equal(read_all(vol), data)
    assert any("length 1 are left out" in note for note in vol.notes)
    four = write_array(tmp_path / "4.zarr", values((2, *SHAPE)), chunks=(1, *CHUNKS))
    with pytest.raises(DataError, match=r"no volume: the array has the shape \(2, 7, 20, 33\); choose one with --chan"):
        open_zarr(four)
    np.testing.assert_array_equal(read_all(open_zarr(four, channel=1)), values((2, *SHAPE))[1])
    with pytest.raises(DataError, match=r"no volume: the array has the shape \(5,\)"):
        open_zarr(write_array(tmp_path / "1.zarr", values((5,)), chunks=(2,)))
    with pytest.raises(UsageError, match="without channels"):
        open_zarr(write_array(tmp_path / "3.zarr", data), channel=0)
    zero = zarr.create_array(tmp_path / "0.zarr", shape=(0, 5, 5), chunks=(1, 5, 5), dtype="u1")
    assert zero.size == 0
    with pytest.raises(DataError, match=r"holds no voxels.*\(0, 5, 5\)"):
        open_volume(tmp_path / "0.zarr")


def test_groups_without_an_image_of_their_own(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    with pytest.raises(DataError, match="without an image or array"):
        open_zarr(tmp_path / "g.zarr")
    data = values()
    group.create_array("a", shape=SHAPE, dtype="u2", chunks=CHUNKS)[...] = data
    vol = open_volume(tmp_path / "g.zarr")
    assert "'a' is read, the only image in the group" in vol.notes
    np.testing.assert_array_equal(read_all(vol), data)
    write_image(tmp_path / "g.zarr" / "b", data + 1, "zyx", zarr_format=3)
    with pytest.raises(
        DataError, match=r"holds 2 images: a \(\[7, 20, 33\]\), b \(OME-Zarr image\).*name one.*g.zarr/a"
    ):
        open_zarr(tmp_path / "g.zarr")
    np.testing.assert_array_equal(read_all(open_volume(f"{tmp_path}/g.zarr/b")), data + 1)
    np.testing.assert_array_equal(read_all(open_volume(f"{tmp_path}/g.zarr/b/s0/")), data + 1)


@pytest.mark.parametrize("axes", [None, list("tczyx")])
def test_metadata_before_version_0_4(tmp_path, axes):
    data = values()
    path = write_image(tmp_path / "i.zarr", data[None, None], "tczyx", version="0.3" if axes else "0.1")
    group = zarr.open_group(path)
    image = dict(group.attrs["multiscales"][0])
    image.pop("axes")
    group.attrs["multiscales"] = [image | ({"axes": axes} if axes else {})]
    np.testing.assert_array_equal(read_all(open_zarr(path)), data)


def test_label_colours_of_another_program(tmp_path):
    path = write_image(tmp_path / "i.zarr", values(dtype="uint8"), "zyx")
    zarr.open_group(path).attrs["image-label"] = {
        "colors": [
            {"label-value": 2, "rgba": [1, 2, 3, 4]},
            {"label-value": 1},
            {"label-value": 0, "rgba": [0, 0, 0, 0]},
        ],
        "properties": [{"label-value": 3, "class": "x"}],
    }
    assert open_zarr(path).classes == (LabelClass(2, "label 2", (1, 2, 3)),)
    for damaged in ({"colors": 3}, [], {"colors": [{"label-value": "a", "rgba": [1, 2, 3]}]}):
        zarr.open_group(path).attrs["image-label"] = damaged
        assert open_zarr(path).classes == ()


def test_reading_changes_nothing(tmp_path):
    path = write_array(tmp_path / "a.zarr", values())
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with open_volume(path) as vol:
        read_all(vol)
        vol.check_unchanged()
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert vol.fingerprint()["shape"] == list(SHAPE)
    zarr.open_array(path)[4, 3, 2] = 7
    with pytest.raises(DataError, match="changed during the run"):
        vol.check_unchanged()
