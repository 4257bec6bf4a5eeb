"""DigitalMicrograph and TIA files, laid out by hand, through RosettaSciIO; HyperSpy's stores, made by zarr-python.

``make interop`` reads the same files with ncempy.
"""

import struct

import numpy as np
import pytest
import zarr
from microscope_files import write_dm, write_ser

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.opening import open_volume

DATA = np.random.default_rng(0).integers(0, 60000, (4, 5, 6)).astype(np.uint16)


def opened(path, **options):
    with open_volume(path, **options) as volume:
        return volume[:], volume


@pytest.mark.parametrize("suffix", ["dm3", "dm4"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_digital_micrograph(tmp_path, suffix, dtype):
    path = tmp_path / f"a.{suffix}"
    data = DATA.astype(dtype)
    write_dm(path, data, voxel=(0.002, 0.6, 0.5), units=("µm", "nm", "nm"), origin=(3, -2, 1))
    values, volume = opened(path)
    np.testing.assert_array_equal(values, data)
    assert (volume.dtype, volume.format) == (dtype, "DigitalMicrograph")
    assert volume.voxel_size == pytest.approx((2, 0.6, 0.5), rel=1e-6)
    # Origin is the pixel at position 0.
    assert volume.metadata["place"]["origin_nm"] == pytest.approx([-6, 1.2, -0.5], rel=1e-6)


def test_digital_micrograph_without_a_spacing_of_planes(tmp_path):
    write_dm(tmp_path / "a.dm4", DATA, voxel=(1, 0.5, 0.5), units=("", "nm", "nm"))
    _, volume = opened(tmp_path / "a.dm4")
    assert volume.voxel_size == pytest.approx((0.5, 0.5, 0.5))
    assert any("no spacing of planes" in note for note in volume.notes)
    raw = (tmp_path / "a.dm4").read_bytes()
    for damaged in (raw[: len(raw) // 2], raw.replace(b"%%%%", b"%!%%"), raw.replace(b"\x14\x00\x09", b"\x58\x00\x09")):
        (tmp_path / "a.dm4").write_bytes(damaged)
        with pytest.raises(DataError):
            opened(tmp_path / "a.dm4")


@pytest.mark.parametrize("version", [0x0210, 0x0220])  # offsets of 32 and of 64 bits
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_tia_series(tmp_path, version, dtype):
    data = DATA.astype(dtype)
    write_ser(tmp_path / "a_1.ser", data, pixel=(0.6, 0.5), version=version)
    values, volume = opened(tmp_path / "a_1.ser")
    np.testing.assert_array_equal(values, data)
    assert (volume.dtype, volume.axes) == (dtype, "ZYX")
    assert volume.voxel_size == pytest.approx((0.6, 0.6, 0.5))
    assert any("no spacing of planes" in note for note in volume.notes)


@pytest.mark.parametrize("version", [0x0210, 0x0220])
def test_sizes_of_a_series_are_compared_with_the_file_first(tmp_path, monkeypatch, version):
    """So many or so large elements as 32 bits can say; the file holds less, and nobody asks for their memory."""
    write_ser(tmp_path / "a.ser", DATA.astype(np.uint16), pixel=(0.6, 0.5), version=version)
    raw = (tmp_path / "a.ser").read_bytes()
    _, ny, nx = DATA.shape
    element = raw.index(struct.pack("<HII", 2, nx, ny))
    monkeypatch.setattr("rsciio.tia.file_reader", lambda *_, **__: pytest.fail("the reader was asked"))
    dimension = 30 if version == 0x0210 else 34
    for at, damage in (
        (18, struct.pack("<I", 2**32 - 1)),  # elements
        (element + 2, struct.pack("<II", 2**16, 2**16)),  # columns and rows
        (dimension, struct.pack("<I", 2**31)),  # of the grid
        (dimension + 24, struct.pack("<I", 2**31)),  # letters of its name
    ):
        (tmp_path / "a.ser").write_bytes(raw[:at] + damage + raw[at + len(damage) :])
        with pytest.raises(DataError, match=r"it says that it holds|is not believed"):
            opened(tmp_path / "a.ser")
    (tmp_path / "a.ser").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match="is cut or damaged"):
        opened(tmp_path / "a.ser")


def write_zspy(path, titles=("made",), order="zyx"):
    """As HyperSpy does: a group per signal, its axes as groups beside the data; Zarr version 2, chunks in folders."""
    root = zarr.create_group(path, zarr_format=2, attributes={"file_format": "HyperSpy", "file_format_version": "3.1"})
    for title in titles:
        group = root.create_group(f"Experiments/{title}")
        data = DATA.transpose(["zyx".index(letter) for letter in order])
        array = group.create_array(
            "data",
            shape=data.shape,
            dtype=data.dtype,
            chunks=(2, 5, 3),
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        array[...] = data
        for number, letter in enumerate(order):
            scale, offset = {"z": (0.002, 0.003), "y": (0.6, 0), "x": (0.5, -1)}[letter]
            unit = "µm" if letter == "z" else "nm"
            axis = {"name": letter, "scale": scale, "offset": offset, "units": unit, "size": data.shape[number]}
            group.create_group(
                f"axis-{number}", attributes={**axis, "_type": "UniformDataAxis", "navigate": number == 0}
            )


@pytest.mark.parametrize("order", ["zyx", "yxz"])
def test_zspy(tmp_path, order):
    write_zspy(tmp_path / "a.zspy", order=order)
    for inner in ("", "/Experiments/made", "/Experiments/made/data"):
        values, volume = opened(f"{tmp_path}/a.zspy{inner}")
        np.testing.assert_array_equal(values, DATA)
        assert volume.voxel_size == pytest.approx((2, 0.6, 0.5))
        assert volume.metadata["place"]["origin_nm"] == pytest.approx([3, 0, -1])
        assert volume.format == "HyperSpy Zarr"


def test_zspy_of_several_signals_and_damaged(tmp_path):
    write_zspy(tmp_path / "a.zspy", titles=("haadf", "bf"))
    with pytest.raises(DataError, match=r"holds 2 signals: bf \(\[4, 5, 6\]\), haadf"):
        opened(tmp_path / "a.zspy")
    np.testing.assert_array_equal(opened(tmp_path / "a.zspy" / "Experiments" / "bf")[0], DATA)
    write_zspy(tmp_path / "b.zspy")
    (tmp_path / "b.zspy/Experiments/made/axis-1/.zattrs").write_text('{"name": "y", "index_in_array": 7}')
    values, volume = opened(tmp_path / "b.zspy")
    np.testing.assert_array_equal(values, DATA)
    assert volume.voxel_size is None
    assert any("about its axes is damaged" in note for note in volume.notes)
