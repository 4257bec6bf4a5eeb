"""Damaged, odd and misleading metadata and structures of Zarr stores (faults 24, 51, 53)."""

import shutil

import numpy as np
import pytest
import zarr
from zarr_files import SHAPE, edit_json, write_array, write_image

from gpu_tomoclass.annotations import load_annotation
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.ome_zarr.reader import open_zarr
from gpu_tomoclass.volumes.opening import open_volume


@pytest.mark.parametrize("cut", [0, 1, 20, 200, -1])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_truncated_metadata(tmp_path, zarr_format, cut):
    write_array(tmp_path / "a.zarr", zarr_format=zarr_format)
    file = tmp_path / "a.zarr" / ("zarr.json" if zarr_format == 3 else ".zarray")
    file.write_text(file.read_text().rstrip()[:cut])
    with pytest.raises(DataError, match=rf"{file.name}: is damaged: "):
        open_volume(tmp_path / "a.zarr")


def first_codec(**change):
    return lambda meta: meta["codecs"][0].update(change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(zarr_format=4), "'zarr_format' is 4"),
        (lambda m: m.update(node_type="table"), "'node_type' is 'table'"),
        (lambda m: m.update(data_type="complex64"), "'data_type' is 'complex64'"),
        (lambda m: m.update(data_type={"name": "numpy.datetime64"}), "'data_type' is {"),
        (lambda m: m.pop("shape"), "'shape' is None"),
        (lambda m: m.update(shape=[8, -1, 16]), r"'shape' is \[8, -1, 16\]"),
        (lambda m: m.update(shape=[8, 16.0, 16]), r"'shape' is \[8, 16.0, 16\]"),
        (lambda m: m.update(shape=[8, 16]), "'chunk_shape' is"),
        (lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[2, 0, 16]), "'chunk_shape' is"),
        (lambda m: m["chunk_grid"].update(name="rectangular"), "'chunk_grid' is 'rectangular'"),
        (lambda m: m["chunk_grid"].update(configuration=[]), "'chunk_grid' has no configuration"),
        (lambda m: m["chunk_key_encoding"].update(name="suffix"), "'chunk_key_encoding' is 'suffix'"),
        (lambda m: m["chunk_key_encoding"]["configuration"].update(separator="../"), r"'separator' is '../'"),
        (lambda m: m.update(codecs=[]), r"'codecs' is \[\]"),
        (lambda m: m.update(codecs=[{"name": "zstd"}]), "'codecs' holds 'zstd'"),
        (lambda m: m["codecs"].append({"name": "pcodec"}), "'codecs' holds 'pcodec', which cannot be read here"),
        (first_codec(configuration={"endian": "middle"}), "'endian' is 'middle'"),
        (first_codec(name="vlen-bytes"), "'codecs' holds 'vlen-bytes'"),
        (first_codec(name="transpose", configuration={"order": [0, 0, 1]}), "'order' of the codec transpose"),
        (lambda m: m.update(fill_value="seven"), "'fill_value' is 'seven'"),
        (lambda m: m.update(fill_value=70000), "'fill_value' is 70000"),
        (lambda m: m.update(storage_transformers=[{"name": "x"}]), "'storage_transformers' is not empty"),
        (lambda m: m.update(attributes=3), "'attributes' is no JSON object"),
        (lambda m: m.update(shape=[2**31, 2**20, 1]), "makes .* chunks: absurd"),
        (
            lambda m: m.update(
                shape=[2**31, 2**20, 1],
                chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2**31, 2**20, 1]}},
            ),
            "4503599627370496 bytes, more than",
        ),
    ],
)
def test_broken_metadata_of_version_3(tmp_path, change, words):
    write_array(tmp_path / "a.zarr")
    edit_json(tmp_path / "a.zarr" / "zarr.json", change)
    with pytest.raises(DataError, match=rf"zarr\.json: field {words}|zarr\.json: .*{words}"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(zarr_format=3), "'zarr_format' is 3"),
        (lambda m: m.update(dtype="<c8"), "'dtype' is '<c8'"),
        (lambda m: m.update(dtype="<U8"), "'dtype' is '<U8'"),
        (lambda m: m.update(dtype="nonsense"), "'dtype' is 'nonsense'"),
        (lambda m: m.update(dtype=[["a", "<u2"]]), "'dtype' is"),
        (lambda m: m.update(order="K"), "'order' is 'K'"),
        (lambda m: m.update(chunks=[2, 8]), "'chunks' is"),
        (lambda m: m.update(compressor={"id": "snappy"}), "'compressor' is 'snappy'"),
        (lambda m: m.update(compressor="zstd!"), "'compressor' is 'zstd!'"),
        (lambda m: m.update(filters=[{"id": "delta", "dtype": "<u2"}]), r"'filters' holds \['delta'\]"),
        (lambda m: m.update(dimension_separator="-"), "'dimension_separator' is '-'"),
    ],
)
def test_broken_metadata_of_version_2(tmp_path, change, words):
    write_array(tmp_path / "a.zarr", zarr_format=2)
    edit_json(tmp_path / "a.zarr" / ".zarray", change)
    with pytest.raises(DataError, match=rf"\.zarray: field {words}"):
        open_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ms: ms.clear(), "'multiscales' is damaged"),
        (lambda ms: ms[0].pop("datasets"), "'multiscales' is damaged: KeyError"),
        (lambda ms: ms[0].update(datasets=[]), "'multiscales' is damaged"),
        (lambda ms: ms[0].update(axes=[{"type": "space"}] * 3), "'multiscales' is damaged"),
        (lambda ms: ms[0].update(axes=3), "'multiscales' is damaged"),
        (lambda ms: ms[0].update(axes=["y", "x"]), r"'axes' names \['y', 'x'\] for an array of shape \(8, 16, 16\)"),
        (lambda ms: ms[0].update(axes=["z", "y", "y"]), "'axes' names"),
        (lambda ms: ms[0]["datasets"][0].update(path="s1"), "'datasets': there is no array at 's1'"),
        (lambda ms: ms[0]["datasets"][0].update(path=""), "'datasets': there is no array at ''"),
    ],
)
def test_broken_multiscales(tmp_path, change, words):
    write_image(tmp_path / "i.zarr")
    edit_json(tmp_path / "i.zarr" / ".zattrs", lambda attributes: change(attributes["multiscales"]))
    with pytest.raises(DataError, match=rf"\.zattrs: field {words}"):
        open_volume(tmp_path / "i.zarr")


def test_broken_scale_costs_only_the_voxel_size(tmp_path):
    for transforms in (3, [3], [{"type": "scale", "scale": [1]}], [{"type": "scale", "scale": ["a", 1, 1]}], [{}]):
        path = write_image(tmp_path / "i.zarr")
        edit_json(
            path / ".zattrs",
            lambda a, t=transforms: a["multiscales"][0]["datasets"][0].update(coordinateTransformations=t),
        )
        vol = open_zarr(path)
        assert vol.voxel_size is None
        assert any("'coordinateTransformations' is damaged" in note for note in vol.notes)
        shutil.rmtree(path)


@pytest.mark.parametrize(
    "path", ["../other.zarr", "{tmp}/other.zarr", "s0/../../other.zarr", "link", "link/x", 5, "s0\0"]
)
def test_paths_must_not_leave_the_store(tmp_path, path):
    write_array(tmp_path / "other.zarr", zarr_format=2)
    shutil.copytree(tmp_path / "other.zarr", tmp_path / "other.zarr" / "x")
    image = write_image(tmp_path / "i.zarr")
    (image / "link").symlink_to(tmp_path / "other.zarr")
    target = path.format(tmp=tmp_path) if isinstance(path, str) else path
    edit_json(image / ".zattrs", lambda a: a["multiscales"][0]["datasets"][0].update(path=target))
    with pytest.raises(DataError, match="leaves the store"):
        open_volume(image)


def test_link_to_the_store_itself_is_followed(tmp_path):
    image = write_image(tmp_path / "i.zarr")
    (image / "s1").symlink_to(image / "s0")
    edit_json(image / ".zattrs", lambda a: a["multiscales"][0]["datasets"][0].update(path="s1"))
    (tmp_path / "link.zarr").symlink_to(image)
    assert open_volume(tmp_path / "link.zarr").plane(0).all()


def test_things_that_are_no_store(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        open_zarr(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").write_text("x")
    with pytest.raises(DataError, match=r"is a text file, not|but a file"):
        open_volume(tmp_path / "a.zarr")
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(DataError, match="no Zarr store"):
        open_zarr(tmp_path / "b.zarr")


def test_odd_values_in_metadata_are_named_or_cost_only_the_voxel_size(tmp_path):
    path = write_image(tmp_path / "a.zarr")

    def odd_unit(content):
        content["multiscales"][0]["axes"][0]["unit"] = {"a": 1}
        content["multiscales"][0]["datasets"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [2, 1, 1]}]

    edit_json(path / ".zattrs", odd_unit)
    with open_zarr(path) as volume:
        assert volume.voxel_size is None
        assert any("the voxel size is ignored" in note for note in volume.notes)
    edit_json(path / ".zattrs", lambda c: c["multiscales"][0]["datasets"][0].update(path="\ud800"))
    with pytest.raises(DataError, match="leaves the store"):
        open_zarr(path)
    edit_json(path / ".zattrs", lambda c: c.update(multiscales=[]))
    with pytest.raises(DataError, match="field 'multiscales' is damaged: an empty list"):
        open_zarr(path)


def test_shard_that_is_a_folder(tmp_path):
    write_array(tmp_path / "a.zarr", chunks=(1, 16, 16), shards=(4, 16, 16))
    (tmp_path / "a.zarr/c/1/0/0").unlink()
    (tmp_path / "a.zarr/c/1/0/0").mkdir()
    with pytest.raises(DataError, match="shard c/1/0/0 is a folder"):
        open_zarr(tmp_path / "a.zarr")


def test_version_0_6_is_named(tmp_path):
    path = write_image(tmp_path / "a.zarr")

    def newer(content):
        image = content["multiscales"][0]
        image.update(version="0.6.dev2", coordinateSystems=[{"name": "physical", "axes": image.pop("axes")}])

    edit_json(path / ".zattrs", newer)
    with pytest.raises(DataError, match=r"is OME-Zarr 0\.6\.dev2, whose axes stand in 'coordinateSystems'.*open the"):
        open_zarr(path)


def test_large_chunks_are_not_believed_to_come_from_a_few_bytes(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(1, 40000, 40000), dtype="u1", chunks=(1, 40000, 40000), fill_value=1)
    (tmp_path / "a.zarr/c/0/0").mkdir(parents=True)
    (tmp_path / "a.zarr/c/0/0/0").write_bytes(bytes(1000))
    with pytest.raises(DataError, match=r"declares planes of 1\.6 GB, stored in"):
        open_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_sparse_label_images(tmp_path, zarr_format):
    """Zarr's writers leave out chunks of nothing but the fill value; zarr-python reads such a store as written."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 4:6], labels[6, 2:9] = 1, 2
    path = tmp_path / "l.zarr"
    zarr.create_array(path, data=labels, chunks=(1, 16, 16), zarr_format=zarr_format)
    with pytest.raises(DataError, match="missing"):
        open_volume(path)
    with open_volume(path, sparse=True) as volume:
        assert not volume.missing_planes
        assert any("6 of 8 chunks are not there and hold the fill value 0" in note for note in volume.notes)
        np.testing.assert_array_equal(np.stack([plane for _, plane in volume.planes()]), zarr.open_array(path)[...])
    annotation = load_annotation(path, volume_shape=SHAPE)
    assert annotation.counts() == {1: 32, 2: 112}


def test_time_points_are_planes_where_there_is_no_z(tmp_path):
    path = write_image(tmp_path / "a.zarr")
    edit_json(path / ".zattrs", lambda c: c["multiscales"][0]["axes"][0].update(name="t"))
    with open_zarr(path) as volume:
        assert volume.shape == SHAPE
        assert any("reading axis t as z (8 planes)" in note for note in volume.notes)
    with open_zarr(path, channel=3) as volume:
        assert volume.shape == (1, *SHAPE[1:])


@pytest.mark.parametrize("name", ["plain", "sharded"])
@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_chunk_that_is_a_link_out_of_the_store(tmp_path, name, link):
    """A store from elsewhere must not make a plane of any file of the reader; links within it are its own affair."""
    options = {"shards": (4, 16, 16)} if name == "sharded" else {}
    data = write_array(tmp_path / "a.zarr", compressors=None, **options)
    (tmp_path / "secret").mkdir()
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0"
    moved = chunk if link == "file" else chunk.parent
    moved.rename(tmp_path / "secret" / "it")
    moved.symlink_to(tmp_path / "secret" / "it")
    with pytest.raises(DataError, match="is a link out of the store"):  # of shards, tables are read at opening
        open_volume(tmp_path / "a.zarr").plane(0)
    moved.unlink()
    (tmp_path / "secret" / "it").rename(tmp_path / "a.zarr" / "inside")
    moved.symlink_to(tmp_path / "a.zarr" / "inside")
    with open_volume(tmp_path / "a.zarr") as volume:
        np.testing.assert_array_equal(volume.plane(0), data[0])
