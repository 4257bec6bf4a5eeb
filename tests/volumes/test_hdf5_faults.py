"""Damaged, incomplete and straying HDF5 files (faults 4, 5, 16, 18, 24)."""

import shutil

import h5py
import numpy as np
import pytest

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.hdf5 import probe
from gpu_tomoclass.volumes.hdf5.reader import open_hdf5
from gpu_tomoclass.volumes.opening import open_volume

SHAPE = (6, 20, 20)


def values():
    return np.random.default_rng(0).integers(1, 99, SHAPE).astype(np.uint16)


@pytest.fixture(autouse=True)
def no_helper(monkeypatch):
    """Thousands of files are opened here: without the helper process, which test_hdf5_probe.py is about."""
    monkeypatch.setattr(probe, "_inside", True)


@pytest.fixture
def path(tmp_path):
    """A file with one compressed volume, ``/g/a``."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("g/a", data=values(), chunks=(2, 10, 20), compression="gzip", shuffle=True)
    return tmp_path / "a.h5"


@pytest.mark.parametrize("keep", [9, 100, 1000, 4000, -1])
def test_truncated_file(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.h5: cannot be opened as HDF5: "):
        open_volume(f"{path}::/g/a")
    with pytest.raises(DataError, match=r"a\.h5: cannot be opened as HDF5: "):
        open_volume(path)


def test_missing_things_are_named(path):
    with pytest.raises(UsageError, match=r"b\.h5: there is no such file"):
        open_volume(f"{path.parent}/b.h5::/g/a")
    with pytest.raises(DataError, match=r"there is no 'b' in /g \(which holds a\)"):
        open_volume(f"{path}::/g/b")
    with pytest.raises(DataError, match=r"there is no 'h' in / \(which holds g\)"):
        open_volume(f"{path}::/h/a")
    with pytest.raises(DataError, match=r"there is no 'x' in /g/a \(which holds a dataset\)"):
        open_volume(f"{path}::/g/a/x")
    with pytest.raises(DataError, match=r"/g is a group, not a dataset; datasets inside: /g/a"):
        open_volume(f"{path}::/g")
    path.write_bytes(b"no HDF5")
    with pytest.raises(DataError, match="not HDF5"):
        open_volume(f"{path}::/g/a")


def test_damaged_chunk_names_the_plane(path):
    with h5py.File(path) as file:
        info = file["g/a"].id.get_chunk_info_by_coord((2, 10, 0))
    raw = bytearray(path.read_bytes())
    raw[info.byte_offset + 30 : info.byte_offset + 60] = bytes(30)
    path.write_bytes(raw)
    data = values()
    vol = open_volume(f"{path}::/g/a")
    np.testing.assert_array_equal(vol.plane(1), data[1])
    for z in (2, 3):
        with pytest.raises(
            DataError, match=f"a.h5::/g/a: plane {z} cannot be read: the chunk at .2, 10, 0. is damaged: "
        ):
            vol.plane(z)
    np.testing.assert_array_equal(vol.plane(4), data[4])
    vol = open_volume(f"{path}::/g/a", allow_missing_planes=True)
    planes = np.stack([plane for _, plane in vol.planes()])
    assert vol.missing_planes == {2, 3}
    assert not planes[2:4].any()
    np.testing.assert_array_equal(planes[4:], data[4:])


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damage_anywhere_is_an_error_of_ours(tmp_path, libver):
    """Flipped bytes give a DataError or values (HDF5 has no checksum on these values), never another exception."""
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        file.create_dataset("g/a", data=values(), chunks=(2, 10, 20), compression="gzip")
    raw = np.frombuffer((tmp_path / "a.h5").read_bytes(), np.uint8)
    rng = np.random.default_rng(1)
    refused = 0
    for i in range(120):
        damaged = raw.copy()
        end = raw.size if i % 2 else min(raw.size, 3000)
        damaged[rng.integers(0, end, 2)] = rng.integers(0, 256, 2)
        (tmp_path / "b.h5").write_bytes(damaged.tobytes())
        try:
            for _ in open_hdf5(f"{tmp_path}/b.h5::/g/a").planes():
                pass
        except DataError:
            refused += 1
    assert refused > 20


def test_chunks_that_were_never_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        part = file.create_dataset("part", SHAPE, "u2", chunks=(2, 10, 20), fillvalue=7)
        part[2:6] = 1
        file.create_dataset("none", SHAPE, "u2", chunks=(2, 10, 20))
        file.create_dataset("flat", SHAPE, "u2")
    with pytest.raises(DataError, match=r"the chunk at \(0, 0, 0\) was never written \(2 of 6 are missing\)"):
        open_volume(f"{tmp_path}/a.h5::part")
    vol = open_volume(f"{tmp_path}/a.h5::part", allow_missing_planes=True)
    note = "2 of 6 chunks were never written and read as the fill value 7"
    assert any(f"{note}, in planes 0 and 1" in text for text in vol.notes)
    assert vol.missing_planes == {0, 1}
    assert [int(plane.max()) for _, plane in vol.planes()] == [7, 7, 1, 1, 1, 1]
    vol = open_volume(f"{tmp_path}/a.h5::part", sparse=True)
    assert any(text == note for text in vol.notes)
    assert not vol.missing_planes
    assert [int(plane.max()) for _, plane in vol.planes()] == [7, 7, 1, 1, 1, 1]
    with pytest.raises(DataError, match="none of its 6 chunks was ever written"):
        open_volume(f"{tmp_path}/a.h5::none")
    with pytest.raises(DataError, match="values were never written"):
        open_volume(f"{tmp_path}/a.h5::flat")


def test_absurd_shape_is_refused_before_anything_is_allocated(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        big = file.create_dataset("a", (4, 2**31, 2**20), "u2", chunks=(1, 8, 8))
        big[0, :8, :8] = 1
    with pytest.raises(DataError, match=r"makes \d+ chunks: absurd"):
        open_volume(f"{tmp_path}/a.h5::a")


def test_links_into_other_files_are_refused(path):
    shutil.copy(path, path.parent / "b.h5")
    with h5py.File(path, "a") as file:
        file["ext"] = h5py.ExternalLink("b.h5", "/g")
        file["soft"] = h5py.SoftLink("/ext/a")
        file["round"] = h5py.SoftLink("/round2")
        file["round2"] = h5py.SoftLink("/round")
        file["dangling"] = h5py.SoftLink("/nothing")
    for name in ("/ext/a", "/soft"):
        with pytest.raises(DataError, match=r"'/ext' is a link into the file b\.h5, .*; open b\.h5::/g"):
            open_volume(f"{path}::{name}")
    with pytest.raises(DataError, match="lead in a circle"):
        open_volume(f"{path}::/round")
    with pytest.raises(DataError, match="there is no 'nothing'"):
        open_volume(f"{path}::/dangling")
    with open_volume(path) as vol:  # without opening the linked file
        assert any("/g/a is read, the only dataset" in note for note in vol.notes)
    with h5py.File(path.parent / "links.h5", "w") as file:
        file["entry/ext"] = h5py.ExternalLink("b.h5", "/g")
    with pytest.raises(DataError, match=r"three axes; it links to b\.h5::/g; open b\.h5::/g"):
        open_volume(path.parent / "links.h5")


def virtual(path, *sources):
    layout = h5py.VirtualLayout(SHAPE, dtype="u2")
    for i, (name, dataset) in enumerate(sources):
        layout[2 * i : 2 * i + 2] = h5py.VirtualSource(str(name), dataset, shape=SHAPE)[2 * i : 2 * i + 2]
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout)
    return f"{path}::/v"


def test_virtual_datasets_are_complete_and_stay_in_their_folder(path, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    shutil.copy(path, folder / "a.h5")
    master = folder / "v.h5"
    for source in (path, "../a.h5"):
        with pytest.raises(DataError, match="outside of its folder"):
            open_volume(virtual(master, (source, "/g/a")))
    (folder / "link.h5").symlink_to(path)
    with pytest.raises(DataError, match="outside of its folder"):
        open_volume(virtual(master, ("link.h5", "/g/a")))
    with pytest.raises(DataError, match=r"put together from c\.h5, which does not exist"):
        open_volume(virtual(master, ("a.h5", "/g/a"), ("c.h5", "/g/a")))
    with pytest.raises(DataError, match="there is no 'b' in /g"):
        open_volume(virtual(master, ("a.h5", "/g/b")))
    virtual(folder / "w.h5", ("a.h5", "/g/a"))
    with pytest.raises(DataError, match="which is virtual itself"):
        open_volume(virtual(master, ("w.h5", "/v")))


def test_values_in_other_files(tmp_path):
    (tmp_path / "raw.bin").write_bytes(values().tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", SHAPE, "u2", external=[(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(DataError, match=r"keeps its values in other files \(.*raw\.bin\)"):
        open_volume(f"{tmp_path}/a.h5::a")


def test_compressor_that_is_not_installed(tmp_path):
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((2, 10, 20))
    # Optional, so that the file can be made without the filter; the number belongs to no published filter.
    properties.set_filter(499, h5py.h5z.FLAG_OPTIONAL)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_UINT16, space, properties)
        file["a"][...] = values()
    with pytest.raises(DataError, match=r"HDF5 filter 499 \(without a name\), which is not installed; pip install"):
        open_volume(f"{tmp_path}/a.h5::a")


@pytest.mark.parametrize("dtype", ["c8", "S4", [("a", "u1"), ("b", "u1")], "f8,f8"])
def test_values_that_are_no_grey_values(tmp_path, dtype):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.zeros(SHAPE, dtype))
        file["empty"] = h5py.Empty("f4")
    with pytest.raises(DataError, match="no grey values"):
        open_volume(f"{tmp_path}/a.h5::a")
    with pytest.raises(DataError, match="holds no dataset with three axes"):
        open_volume(tmp_path / "a.h5")
    with pytest.raises(DataError, match="is an empty dataset"):
        open_volume(f"{tmp_path}/a.h5::empty")


def test_file_that_changes_while_it_is_read(path):
    vol = open_volume(f"{path}::/g/a")
    vol.plane(0)
    with h5py.File(path, "a") as file:
        file["g/more"] = 3
    with pytest.raises(DataError, match="changed during the run"):
        vol.check_unchanged()
    path.unlink()
    with pytest.raises(UsageError, match="no such file"):
        vol.plane(4)


def test_flipped_bits_in_the_index_never_give_other_values(tmp_path):
    """One bit at a time, wherever gzip and fletcher32 do not look: values as written, or an error."""
    data = values()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=data, chunks=(1, 20, 20), compression="gzip", fletcher32=True)
        places = []
        file["d"].id.chunk_iter(lambda info: places.append((info.byte_offset, info.size)))
        header = h5py.h5o.get_info(file["d"].id).addr
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    in_chunks = np.zeros(len(raw), bool)
    for offset, size in places:
        in_chunks[offset : offset + size] = True
    assert header < len(raw)
    # The index of chunks: a B-tree of version 1, "TREE" with node type 1, one key and one address per chunk.
    start = raw.index(b"TREE\x01")
    index = range(start + 8, start + 24 + 6 * 48 + 40)
    refused = 0
    for at in index:
        for bit in (0, 6):
            damaged = bytearray(raw)
            damaged[at] ^= 1 << bit
            (tmp_path / "b.h5").write_bytes(damaged)
            try:
                with open_hdf5(f"{tmp_path}/b.h5::d") as vol:
                    assert not vol.missing_planes
                    for z, plane in vol.planes():
                        np.testing.assert_array_equal(plane, data[z])
            except DataError:
                refused += 1
    assert refused > len(index)


def test_a_chunk_without_bytes(tmp_path):
    """The HDF5 library ends the process on it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("d", data=values(), chunks=(1, 20, 20), compression="gzip")
        size = file["d"].id.get_chunk_info(2).size
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    key = size.to_bytes(4, "little") + bytes(4) + (2).to_bytes(8, "little")  # size, filters left out, first plane
    at = raw.index(key)
    raw[at : at + 4] = bytes(4)
    (tmp_path / "a.h5").write_bytes(raw)
    with pytest.raises(DataError, match=r"the chunk at \(2, 0, 0\) has no bytes"):
        open_hdf5(f"{tmp_path}/a.h5::d")


def test_chunks_that_are_not_believed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        big = file.create_dataset("d", (1, 60000, 30000), "u1", chunks=(1, 60000, 30000), compression="gzip")
        big.id.write_direct_chunk((0, 0, 0), bytes(1000))
    with pytest.raises(DataError, match=r"a chunk .* of 1\.8 GB, stored in 1\.0 KB: that is not believed"):
        open_hdf5(f"{tmp_path}/a.h5::d")
