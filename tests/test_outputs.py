"""Outputs appear complete or not at all."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpu_tomoclass import outputs
from gpu_tomoclass.errors import DataError, ResourceError


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("name", ["a.tif", "with space.tif", "-dash.tif", "größe 体.tif", "x" * 240 + ".tif"])
def test_file_appears_only_on_commit(tmp_path, name):
    target = tmp_path / "new" / "folder" / name
    with outputs.atomic(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"data")
        assert not target.exists()
    assert target.read_bytes() == b"data"
    assert names(target.parent) == [name]


def test_new_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    outputs.atomic(tmp_path / "out").commit()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_existing_file_is_kept_until_commit_and_needs_overwrite(tmp_path):
    target = tmp_path / "out.tif"
    target.write_bytes(b"old")
    with pytest.raises(DataError, match="exists already; choose another name or use --overwrite"):
        outputs.atomic(target)
    output = outputs.atomic(target, overwrite=True)
    output.temporary.write_bytes(b"new")
    assert target.read_bytes() == b"old"
    output.discard()
    assert (target.read_bytes(), names(tmp_path)) == (b"old", ["out.tif"])
    with outputs.atomic(target, overwrite=True) as temporary:
        temporary.write_bytes(b"new")
    assert (target.read_bytes(), names(tmp_path)) == (b"new", ["out.tif"])


def test_folder_replaces_a_store_but_not_a_directory_of_other_files(tmp_path):
    target = tmp_path / "out.zarr"
    target.mkdir()
    (target / "thesis.docx").write_bytes(b"precious")
    with pytest.raises(DataError, match="folder of other files"):
        outputs.atomic(target, overwrite=True, folder=True)
    (target / "zarr.json").write_text("{}")
    with outputs.atomic(target, overwrite=True, folder=True) as temporary:
        (temporary / "c").mkdir()
        (temporary / "c" / "0").write_bytes(b"chunk")
        assert names(target) == ["thesis.docx", "zarr.json"]
    assert (names(target), names(tmp_path)) == (["c"], ["out.zarr"])


@pytest.mark.parametrize("folder", [False, True])
def test_everything_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch, folder):
    """A power failure after the renaming must not leave an empty file with the final name."""
    events = []
    sync, names_of = os.fsync, {}
    real_open = os.open

    def open_and_remember(path, *args, **kwargs):
        descriptor = real_open(path, *args, **kwargs)
        names_of[descriptor] = Path(path).name
        return descriptor

    monkeypatch.setattr(os, "open", open_and_remember)
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(names_of[fd]) or sync(fd))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: events.append("rename") or replace(a, b))
    with outputs.atomic(tmp_path / "out", folder=folder) as temporary:
        (temporary / "c" if folder else temporary).write_bytes(b"data")
    inside = ["c", temporary.name] if folder else [temporary.name]
    assert sorted(events[: len(inside)]) == sorted(inside), "several at a time, in any order"
    assert events[len(inside) :] == ["rename", tmp_path.name]


def test_failed_folder_commit_leaves_the_old_store(tmp_path, monkeypatch):
    target = tmp_path / "out.zarr"
    target.mkdir()
    (target / "zarr.json").write_text("{}")
    output = outputs.atomic(target, overwrite=True, folder=True)
    rename = os.rename

    def fail_on_new(source, destination):
        if Path(source) == output.temporary:
            raise OSError(5, "Input/output error")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", fail_on_new)
    with pytest.raises(ResourceError, match="Input/output error"):
        output.commit()
    assert (names(target), names(tmp_path)) == (["zarr.json"], ["out.zarr"])


def test_a_replaced_store_is_removed_beside_other_work(tmp_path, monkeypatch):
    """The new one is there while the old one is still being removed; a killed program leaves a hidden name."""
    target, go_on, began = tmp_path / "out.zarr", threading.Event(), threading.Event()
    target.mkdir()
    (target / "zarr.json").write_text("old")
    rmtree = shutil.rmtree

    def slow(path, **how):
        began.set()
        assert go_on.wait(1200)
        rmtree(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", slow)
        with outputs.atomic(target, overwrite=True, folder=True) as temporary:
            (temporary / "zarr.json").write_text("new")
        assert began.wait(1200)
        assert (target / "zarr.json").read_text() == "new"
        (hidden,) = (path for path in tmp_path.iterdir() if path != target)
        assert hidden.name.startswith(".out.zarr.")
        assert hidden.suffix == ".old"
        go_on.set()
        outputs.wait_for_removals()
    assert names(tmp_path) == ["out.zarr"]


@pytest.mark.parametrize("folder", [False, True])
def test_other_kinds_of_thing_are_never_replaced(tmp_path, folder):
    target = tmp_path / "thing"
    os.mkfifo(target)
    with pytest.raises(DataError, match="not replaced"):
        outputs.atomic(target, overwrite=True, folder=folder)
    target.unlink()
    target.write_bytes(b"") if folder else target.mkdir()
    with pytest.raises(DataError, match="is a file" if folder else "is a folder"):
        outputs.atomic(target, overwrite=True, folder=folder)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    refused = pytest.raises(ResourceError, match=r"file: is a file, not a folder to write into; choose another name")
    with refused:
        outputs.atomic(tmp_path / "file" / "out.tif")
    with refused:
        outputs.check_output(tmp_path / "file" / "demo" / "report.html", overwrite=True)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_full_disk_names_needed_and_free_bytes(tmp_path):
    with (
        pytest.raises(ResourceError, match=r"disk is full; the output needs 12\.3 GB and .* are free; free some space"),
        outputs.writing(tmp_path / "out.tif", needed_bytes=12_300_000_000),
    ):
        raise OSError(28, "No space left on device")
    with pytest.raises(ResourceError, match=r"needs 1\.0 EB, and .* are free"):
        outputs.check_space(tmp_path / "not" / "there" / "out.tif", 10**18)
    outputs.check_space(tmp_path / "out.tif", 1)


def test_file_of_a_killed_process_is_removed_and_of_a_living_one_kept(tmp_path):
    target = tmp_path / "out.tif"
    code = "import os, sys; from gpu_tomoclass.outputs import atomic as p; p(sys.argv[1]); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, target], check=False)
    assert len(names(tmp_path)) == 1
    mine = outputs.atomic(target).temporary
    assert names(tmp_path) == [mine.name]
    second = outputs.atomic(target).temporary
    assert names(tmp_path) == sorted([mine.name, second.name])
    other_host = tmp_path / f".out.tif.{socket.gethostname()}x-1-00000000.partial"
    other_host.write_bytes(b"")
    outputs.atomic(target)
    assert other_host.exists()


@pytest.mark.parametrize(("n", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 KB"), (2**51, "2.3 PB")])
def test_size_text(n, text):
    assert outputs.size_text(n) == text
