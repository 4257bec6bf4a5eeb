"""What we write as OME-Zarr, read by zarr and checked by ome-zarr-models."""

import json

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import v04, v05

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes.ome_zarr.store import SHARD_PLANES, TILE, tile
from gpu_tomoclass.volumes.ome_zarr.writer import ZarrWriter
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (4, 5, 6)
MODELS = {"0.4": v04, "0.5": v05}


def write(path, data, **options):
    shape = (data.shape[0], *data.shape[-2:])
    with create_volume(path, shape=shape, dtype=data.dtype, **options) as writer:
        for z in np.random.default_rng(0).permutation(len(data)):
            writer.write_plane(int(z), data[z])
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "float16", "uint64"])
def test_zarr_reads_what_we_write(tmp_path, version, dtype):
    data = np.random.default_rng(1).normal(50, 20, SHAPE).astype(dtype)
    path = write(tmp_path / "out.ome.zarr", data, voxel_size=(1.5, 2, 0.25), ome_version=version)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    assert group["0"].dtype == data.dtype
    np.testing.assert_array_equal(group["0"][...], data)
    image = MODELS[version].Image.from_zarr(group)
    multiscales = image.attributes.multiscales if version == "0.4" else image.attributes.ome.multiscales
    assert [(a.name, a.unit) for a in multiscales[0].axes] == [(a, "nanometer") for a in "zyx"]
    assert multiscales[0].datasets[0].coordinateTransformations[0].scale == [1.5, 2, 0.25]
    vol = open_volume(path)
    assert (vol.shape, vol.dtype, vol.voxel_size, vol.notes) == (SHAPE, data.dtype, (1.5, 2, 0.25), [])
    np.testing.assert_array_equal(np.stack([p for _, p in vol.planes()]), data)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_carry_names_and_colours(tmp_path, version):
    classes = default_classes(["pore", "Träger"])
    metadata = {"model": {"hash": "ab"}, "n": [1, 2.5]}
    data = np.random.default_rng(2).integers(0, 3, SHAPE, np.uint8)
    path = write(tmp_path / "l.ome.zarr", data, classes=classes, metadata=metadata, ome_version=version)
    label = MODELS[version].ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
    image_label = label.attributes.image_label if version == "0.4" else label.attributes.ome.image_label
    assert [(c.label_value, c.rgba) for c in image_label.colors[1:]] == [(c.value, (*c.colour, 255)) for c in classes]
    assert image_label.colors[0].rgba == (0, 0, 0, 0)
    properties = [p.model_dump(by_alias=True) for p in image_label.properties]
    assert [(p["label-value"], p["class"]) for p in properties[1:]] == [(1, "pore"), (2, "Träger")]
    vol = open_volume(path)
    assert (vol.classes, vol.metadata, vol.voxel_size) == (classes, metadata, None)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_channels(tmp_path, version, dtype):
    data = (np.random.default_rng(3).random((4, 3, 5, 6)) * 200).astype(dtype)
    channels = ["pore", "solid", "9"]
    path = write(tmp_path / "p.ome.zarr", data, channels=channels, voxel_size=(1, 2, 3), ome_version=version)
    group = zarr.open_group(path, mode="r")
    assert group["0"].chunks == (1, 1, 5, 6)
    np.testing.assert_array_equal(group["0"][...], data.transpose(1, 0, 2, 3))
    image = MODELS[version].Image.from_zarr(group)
    attributes = json.loads((path / (".zattrs" if version == "0.4" else "zarr.json")).read_text())
    omero = attributes["omero"] if version == "0.4" else attributes["attributes"]["ome"]["omero"]
    assert [c["label"] for c in omero["channels"]] == channels
    shown = data.max(axis=(0, 2, 3)).tolist() if dtype == "float32" else [255.0] * 3  # test_place.py has more of it
    assert [c["window"]["end"] for c in omero["channels"]] == shown
    if version == "0.4":  # the model of 0.5 does not look at omero
        assert [c.color for c in image.attributes.omero.channels] == ["0072B2", "E69F00", "009E73"]
    for i in range(3):
        vol = open_volume(path, channel=i)
        assert vol.voxel_size == (1, 2, 3)
        np.testing.assert_array_equal(np.stack([p for _, p in vol.planes()]), data[:, i])


def test_every_chunk_is_written_even_if_it_holds_only_zeros(tmp_path):
    for version, chunk in (("0.4", "0/2/0/0"), ("0.5", "0/c/2/0/0")):
        path = write(tmp_path / f"{version}.zarr", np.zeros(SHAPE, np.uint8), ome_version=version)
        assert (path / chunk).is_file()
        assert open_volume(path).plane(2).sum() == 0


def test_chunks_of_version_0_5_have_a_checksum(tmp_path):
    path = write(tmp_path / "a.zarr", np.ones(SHAPE, np.uint16), ome_version="0.5")
    codecs = [codec["name"] for codec in json.loads((path / "0" / "zarr.json").read_text())["codecs"]]
    assert codecs == ["bytes", "blosc", "crc32c"]


def test_large_planes_are_cut_into_equal_tiles(tmp_path):
    assert [tile(n) for n in (1, TILE, TILE + 1, 2 * TILE, 2 * TILE + 1, 5000)] == [1, 1024, 513, 1024, 683, 1000]
    data = np.random.default_rng(4).integers(0, 255, (2, 1100, 3), np.uint8)
    path = write(tmp_path / "a.zarr", data)
    assert zarr.open_array(path / "0", mode="r").chunks == (1, 550, 3)
    vol = open_volume(path)
    np.testing.assert_array_equal(np.stack([p for _, p in vol.planes()]), data)


@pytest.mark.parametrize("name", ["with space.zarr", "-x.ome.zarr", "ü.zarr", "a" * 200 + ".zarr", "sub/sub/a.zarr"])
def test_names(tmp_path, name):
    write(tmp_path / name, np.ones(SHAPE, np.uint8))
    assert open_volume(tmp_path / name).plane(0).all()


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match=r"version '0.3' cannot be written, only 0.4 and 0.5"):
        create_volume(tmp_path / "a.zarr", shape=SHAPE, dtype="u1", ome_version="0.3")
    for dtype in ("bool", "complex64"):
        with pytest.raises(UsageError, match="hold integers and floats"):
            ZarrWriter(tmp_path / "a.zarr", shape=SHAPE, dtype=dtype)
    writer = ZarrWriter(tmp_path / "a.zarr", shape=SHAPE, dtype="uint8")
    with pytest.raises(UsageError, match=r"plane 0 is uint8 \(5, 5\), not uint8 \(5, 6\)"):
        writer.write_plane(0, np.zeros((5, 5), np.uint8))
    with pytest.raises(UsageError, match="plane 0 is float64"):
        writer.write_plane(0, np.zeros((5, 6)))
    for z in (-1, 4):
        with pytest.raises(UsageError, match=f"no plane {z}, only 0 to 3"):
            writer.write_plane(z, np.zeros((5, 6), np.uint8))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.5 sharded"])
@pytest.mark.parametrize("kind", ["labels", "image", "channels"])
def test_pyramid(tmp_path, version, kind):
    """Coarser levels: labels keep their values, images are means whose place a translation tells."""
    random = np.random.default_rng(5)
    lead = (2,) if kind == "channels" else ()
    data = random.integers(0, 4, (70, *lead, 9, 515), np.uint8)
    options = {"classes": default_classes(["a", "b", "c"])} if kind == "labels" else {}
    options |= {"channels": ["a", "b"]} if kind == "channels" else {}
    options |= {"ome_version": version[:3], **({"sharded": True} if "sharded" in version else {})}
    path = tmp_path / "p.ome.zarr"
    with create_volume(path, shape=(70, 9, 515), dtype=np.uint8, voxel_size=(2, 1, 1), **options) as writer:
        for z in range(70):
            writer.write_plane(z, data[z])
    group = zarr.open_group(path, mode="r")
    full = data.transpose(1, 0, 2, 3) if lead else data
    assert [group[name].shape[-3:] for name in ("0", "1", "2")] == [(70, 9, 515), (35, 9, 258), (35, 9, 129)]
    assert "3" not in group
    if kind == "labels":
        np.testing.assert_array_equal(group["2"][...], data[::2, :, ::4])
    else:
        wide = np.concatenate([full, full[..., -1:]], axis=-1).astype(float)
        expected = wide.reshape(*lead, 35, 2, 9, 258, 2).mean(axis=(-1, -4))
        np.testing.assert_array_equal(group["1"][...], np.rint(expected))
    models = MODELS[version[:3]]
    image = (models.ImageLabel if kind == "labels" else models.Image).from_zarr(group)
    attributes = image.attributes if version == "0.4" else image.attributes.ome
    datasets = attributes.multiscales[0].datasets
    assert [d.path for d in datasets] == ["0", "1", "2"]
    assert datasets[2].coordinateTransformations[0].scale[-3:] == [4, 1, 4]
    if kind != "labels":
        assert datasets[2].coordinateTransformations[1].translation[-3:] == [1, 0, 1.5]
    with open_volume(path, **({"channel": 1} if lead else {})) as volume:
        np.testing.assert_array_equal(volume.plane(69), full[-1, -1] if lead else full[-1])
    # another reader
    (node, *_) = Reader(parse_url(path, mode="r"))()
    assert [level.shape[-3:] for level in node.data] == [(70, 9, 515), (35, 9, 258), (35, 9, 129)]
    np.testing.assert_array_equal(np.asarray(node.data[0]), full)


def test_shards_hold_many_planes(tmp_path):
    data = np.random.default_rng(6).integers(0, 99, (SHARD_PLANES + 3, 5, 6), np.uint8)
    path = tmp_path / "s.zarr"
    options = {"shape": data.shape, "dtype": "u1", "ome_version": "0.5", "sharded": True}
    with create_volume(path, **options) as writer:
        for z, plane in enumerate(data):
            writer.write_plane(z, plane)
    assert sorted(p.name for p in (path / "0" / "c").iterdir()) == ["0", "1"]
    np.testing.assert_array_equal(zarr.open_array(path / "0", mode="r")[...], data)
    writer = create_volume(tmp_path / "t.zarr", **options)
    with pytest.raises(UsageError, match=r"plane 1 comes out of order"):
        writer.write_plane(1, data[1])
    writer.discard()
    with pytest.raises(UsageError, match=r"OME-Zarr 0.4 has no shards.*0.5"):
        create_volume(tmp_path / "t.zarr", shape=data.shape, dtype="u1", sharded=True)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
