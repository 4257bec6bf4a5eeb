"""``.npy``, raw voxels, and the formats that libraries read, against what NumPy and SimpleITK write."""

import json
import sys
from collections.abc import Iterator

import click
import numpy as np
import pytest
import SimpleITK
import tifffile

from gpu_tomoclass.cli import cli, run
from gpu_tomoclass.cli.options import READING
from gpu_tomoclass.errors import DataError, ResourceError, UsageError
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (4, 5, 6)
DATA = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


def commands(group: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    for command in group.commands.values() if isinstance(group, click.Group) else ():
        yield f"{name} {command.name}", command
        yield from commands(command, f"{name} {command.name}")


def read_all(path, **options):
    with open_volume(path, **options) as volume:
        assert volume.plane(2).flags.c_contiguous
        return np.stack([plane for _, plane in volume.planes()]), volume


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">u2", "f4", ">f8", "?"])
@pytest.mark.parametrize("fortran", [False, True])
def test_npy(tmp_path, dtype, fortran):
    data = DATA.astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(data) if fortran else data)
    values, volume = read_all(tmp_path / "a.npy")
    np.testing.assert_array_equal(values, data)
    assert volume.format == "NumPy array"


def test_npy_with_channels_and_other_orders(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([DATA, DATA + 1]))
    np.testing.assert_array_equal(read_all(tmp_path / "a.npy", channel=1)[0], DATA + 1)
    np.save(tmp_path / "b.npy", DATA.transpose(2, 1, 0))
    np.testing.assert_array_equal(read_all(tmp_path / "b.npy", axes="xyz")[0], DATA)


def test_npy_that_cannot_be_used(tmp_path):
    np.save(tmp_path / "a.npy", DATA)
    raw = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(raw[:-1])
    with pytest.raises(DataError, match=r"needs \d+ bytes, the file has \d+"):
        open_volume(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(raw[:40])
    with pytest.raises(DataError, match="damaged NumPy header"):
        open_volume(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="no grey values"):
        open_volume(tmp_path / "b.npy")


def test_raw_voxels(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(7) + DATA.astype(">u2").tobytes())
    values, volume = read_all(tmp_path / "a.raw", shape=SHAPE, dtype=">u2", offset=7, voxel_size=2)
    np.testing.assert_array_equal(values, DATA)
    assert (volume.dtype, volume.voxel_size) == (np.uint16, (2, 2, 2))
    with open_volume(tmp_path / "a.raw", **volume.reading) as again:  # as a worker of a cluster does
        np.testing.assert_array_equal(again.plane(1), DATA[1])
    with pytest.raises(DataError, match="raw voxels, which is not read; say what they are: --shape"):
        open_volume(tmp_path / "a.raw")
    with pytest.raises(UsageError, match="need a shape and a type"):
        open_volume(tmp_path / "a.raw", shape=SHAPE)
    with pytest.raises(DataError, match="needs 10000 bytes, the file has 247"):
        open_volume(tmp_path / "a.raw", shape=(100, 10, 10), dtype="u1")
    with pytest.raises(UsageError, match="no type of NumPy"):
        open_volume(tmp_path / "a.raw", shape=SHAPE, dtype="grey")
    for shape in ((4, 5.5, 6), (4, 0, 6), (), "456"):
        with pytest.raises(UsageError, match="make no sense"):
            open_volume(tmp_path / "a.raw", shape=shape, dtype="u2")


def test_raw_voxels_on_the_command_line(tmp_path, capsys):
    """As Fiji's File > Import > Raw: size, type, byte order, offset; by every command that reads a volume."""
    raw, out = str(tmp_path / "a.raw"), str(tmp_path / "a.tif")
    (tmp_path / "a.raw").write_bytes(bytes(7) + DATA.astype(">u2").tobytes())
    given = ["--shape", "4,5,6", "--dtype", "uint16", "--byte-order", "big", "--offset", "7"]
    assert run(["convert", raw, "-o", out, *given, "--voxel-size", "2"]) == 0
    np.testing.assert_array_equal(tifffile.imread(out), DATA)
    assert run(["info", raw, "--shape", "4x5x6", "--dtype", ">u2", "--offset", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["shape"] == [4, 5, 6]
    assert run(["info", raw, "--shape", "4,5,6", "--dtype", "grey"]) == 2
    assert run(["info", raw, "--shape", "4,5,6", "--byte-order", "big"]) == 2
    assert run(["info", raw, "--byte-order", "big"]) == 2
    assert run(["info", raw]) == 3
    assert "--shape 850,400,400 --dtype uint16" in capsys.readouterr().err
    (tmp_path / "job.toml").write_text(
        'task = "convert"\nformat = ".tif"\nname = "b"\nshape = [4, 5, 6]\ndtype = ">u2"\noffset = 7\n'
        '[[volumes]]\npath = "a.raw"\n'
    )
    assert run(["batch", str(tmp_path / "job.toml")]) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), DATA)


def test_every_command_that_reads_a_volume_reads_raw_voxels():
    reading = {name: {p.name for p in command.params} for name, command in commands(cli)}
    volumes = {name for name, params in reading.items() if "axes" in params}
    assert len(volumes) >= 12
    for name in volumes:
        assert {*READING} <= reading[name], name


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii", "nii.gz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_itk(tmp_path, suffix, compressed):
    path = tmp_path / f"a.{suffix}"
    image = SimpleITK.GetImageFromArray(DATA)
    image.SetSpacing((5e-7, 6e-7, 2e-6))  # mm, x first
    SimpleITK.WriteImage(image, str(path), compressed)
    values, volume = read_all(path)
    np.testing.assert_array_equal(values, DATA)
    assert volume.voxel_size == pytest.approx((2.0, 0.6, 0.5), rel=1e-5)


def test_itk_files_that_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.mha"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(DATA), str(path))
    with open_volume(path) as volume:
        assert volume.voxel_size is None
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"LOCAL", b"/etc/passwd"))
    with pytest.raises(DataError, match="voxels in another file"):
        open_volume(path)
    path.write_bytes(raw[:60])
    with pytest.raises(DataError):
        open_volume(path)
    path.write_bytes(raw)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(
        ResourceError, match=r"SimpleITK, which is not installed; pip install 'gpu_tomoclass\[formats\]'"
    ):
        open_volume(path)


@pytest.mark.parametrize("suffix", ["dm3", "dm4", "ser"])
def test_damaged_microscope_files(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(b"no microscope wrote this" * 40)
    with pytest.raises(DataError, match="cannot be read by RosettaSciIO"):
        open_volume(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("name", "words"), [("a.am", "Amira"), ("a.ilp", "ilastik"), ("a.npz", "numpy.save"), ("a.zarr.zip", "unpack it")]
)
def test_what_is_not_read_is_named_with_a_way_out(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"# anything")
    with pytest.raises(DataError, match=words):
        open_volume(tmp_path / name)
