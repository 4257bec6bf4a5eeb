"""What happens to an unfinished run from outside: an error that says how to go on, never a wrong output."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from small_volume import SHAPE, digest

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.finished_files import checksum
from gpu_tomoclass.classification.lock import LOCK
from gpu_tomoclass.classification.plane_file import LENGTH_BYTES, PlaneFile
from gpu_tomoclass.classification.product_stores import ProductStores
from gpu_tomoclass.classification.products import Product
from gpu_tomoclass.classification.run_folder import finished_before, write_run
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.classification.staging import Staging
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, ResourceError, StoppedError, TomoclassError
from gpu_tomoclass.outputs import hidden_names, wait_for_removals
from gpu_tomoclass.volumes.ome_zarr.store import ZarrStore
from gpu_tomoclass.volumes.opening import open_volume

FORMATS: dict[str, dict[str, Any]] = {
    "labels.tif": {},
    "labels.ome.zarr": {},
    "sharded.ome.zarr": {"ome_version": "0.5", "sharded": True},
    "labels.mrc": {},
}


def run(path: Path, model: Any, output: Path, *, when_done: Callable[[], None] | None = None, **options: Any) -> Any:
    """Classify; ``when_done`` is called after the last plane and before anything has its final name."""

    def progress(done: int, total: int) -> None:
        if done == total and when_done is not None:
            when_done()

    options = {"probabilities": "uint8", "device": NumpyDevice(threads=1), **FORMATS[output.name], **options}
    with open_volume(path) as volume:
        return classify(volume, model, output=output, progress=progress, **options)


def everything(folder: Path) -> dict[str, str]:
    return {k: v for path in sorted(folder.iterdir()) for k, v in digest(path).items()}


@pytest.fixture(scope="module")
def whole(sample_path: Path, sample_model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    found = {}
    for name in FORMATS:
        folder = tmp_path_factory.mktemp("whole")
        run(sample_path, sample_model, folder / name)
        found[name] = everything(folder)
    return found


def chunk(folder: Path, z: int) -> Path:
    version_2 = folder / "0" / str(z) / "0" / "0"
    return version_2 if version_2.exists() else folder / "0" / "c" / str(z) / "0" / "0"


def slot(store: Path, z: int) -> slice:
    """Bytes of a plane of labels in a file of planes."""
    plane = PlaneFile(store)
    return slice(plane._at(z, 0), plane._at(z + 1, 0))


def remove(store: Path) -> None:
    if store.is_dir():
        chunk(store, 3).unlink()
    else:
        content = bytearray(store.read_bytes())
        content[slot(store, 3)] = bytes(slot(store, 3).stop - slot(store, 3).start)
        store.write_bytes(content)


def swap(store: Path) -> None:
    if store.is_dir():
        a, b = chunk(store, 3), chunk(store, 8)
        a.rename(store / "x")
        b.rename(a)
        (store / "x").rename(b)
    else:
        content = bytearray(store.read_bytes())
        a, b = slot(store, 3), slot(store, 8)
        content[a], content[b] = content[b], content[a]
        store.write_bytes(content)


def flip(store: Path) -> None:
    file = chunk(store, 3) if store.is_dir() else store
    at = len(file.read_bytes()) - 2 if store.is_dir() else slot(store, 3).start + LENGTH_BYTES + 40
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)


def labels_of(output: Path) -> Path:
    """The store of an unfinished run."""
    partial = output.with_name(f"{output.name}.partial")
    return partial / ("labels" if output.name == "labels.ome.zarr" else "labels.planes")


@pytest.mark.parametrize("damage", [remove, swap, flip])
@pytest.mark.parametrize("name", FORMATS)
def test_planes_damaged_during_the_run_are_never_published(
    sample_path: Path, sample_model: Any, tmp_path: Path, whole: Any, name: str, damage: Callable[[Path], None]
) -> None:
    def damaged() -> None:
        damage(labels_of(tmp_path / name))

    if name in ("labels.tif", "labels.mrc"):  # made while planes pass, from memory
        run(sample_path, sample_model, tmp_path / name, when_done=damaged)
    else:
        with pytest.raises(DataError, match=r"plane \d+ of the labels was damaged or removed.*repeat the same command"):
            run(sample_path, sample_model, tmp_path / name, when_done=damaged)
        assert not (tmp_path / name).exists()
        assert run(sample_path, sample_model, tmp_path / name).n_resumed >= 10
    assert everything(tmp_path) == whole[name]


@pytest.mark.parametrize("damage", [remove, swap, flip])
@pytest.mark.parametrize("name", ["labels.tif", "labels.ome.zarr"])
def test_planes_damaged_between_two_runs_are_computed_again(
    sample_path: Path, sample_model: Any, tmp_path: Path, whole: Any, name: str, damage: Callable[[Path], None]
) -> None:
    with pytest.raises(StoppedError):
        run(sample_path, sample_model, tmp_path / name, when_done=stop)
    damage(labels_of(tmp_path / name))
    assert run(sample_path, sample_model, tmp_path / name).n_resumed == SHAPE[0] - (2 if damage is swap else 1)
    assert everything(tmp_path) == whole[name]


def stop() -> None:
    raise StoppedError("stopped")


@pytest.mark.parametrize("n", [0, 1])
def test_metadata_of_the_unfinished_store_are_written_anew(
    sample_path: Path, sample_model: Any, tmp_path: Path, whole: Any, n: int
) -> None:
    name = "labels.ome.zarr"

    def damage() -> None:
        (tmp_path / f"{name}.partial" / "labels" / ".zattrs").write_text('{"a": 1}' if n else "{}")

    run(sample_path, sample_model, tmp_path / name, when_done=damage)
    assert everything(tmp_path) == whole[name]


def test_a_foreign_file_is_not_published(sample_path: Path, sample_model: Any, tmp_path: Path, whole: Any) -> None:
    name = "labels.ome.zarr"
    thesis = tmp_path / f"{name}.partial" / "labels" / "thesis.txt"
    with pytest.raises(DataError, match=r"not of this run: thesis.txt; move it away and repeat"):
        run(sample_path, sample_model, tmp_path / name, when_done=lambda: thesis.write_text("years") and None)
    thesis.unlink()
    run(sample_path, sample_model, tmp_path / name)
    assert everything(tmp_path) == whole[name]


@pytest.mark.parametrize("name", FORMATS)
def test_the_folder_is_removed_during_the_run(
    sample_path: Path, sample_model: Any, tmp_path: Path, whole: Any, name: str
) -> None:
    with pytest.raises(DataError, match=r"moved, removed or replaced while the run was at work; run it again"):
        run(sample_path, sample_model, tmp_path / name, when_done=lambda: shutil.rmtree(f"{tmp_path / name}.partial"))
    run(sample_path, sample_model, tmp_path / name)
    assert everything(tmp_path) == whole[name]


@pytest.fixture
def half_finished(sample_path: Path, sample_model: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Killed after the labels got their name and before the probabilities did."""
    finish = Staging._finish_product

    def fail(self: Staging, product: Product) -> list[str]:
        if product.name != "labels":
            raise ResourceError("killed")
        return finish(self, product)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Staging, "_finish_product", fail)
        with pytest.raises(ResourceError):
            run(sample_path, sample_model, tmp_path / request.param)
    return tmp_path / request.param


@pytest.mark.parametrize("half_finished", FORMATS, indirect=True)
def test_a_finished_product_is_deleted(sample_path: Path, sample_model: Any, half_finished: Path, whole: Any) -> None:
    kept = half_finished.rename(half_finished.with_name("kept"))
    with pytest.raises(
        DataError, match=r"was finished by the interrupted run and is gone now; put it back, or use --re"
    ):
        run(sample_path, sample_model, half_finished)
    kept.rename(half_finished)  # the one way
    assert run(sample_path, sample_model, half_finished).n_resumed == SHAPE[0]
    assert everything(half_finished.parent) == whole[half_finished.name]


@pytest.mark.parametrize("lost", ["plane", "lines", "journal"])
@pytest.mark.parametrize("half_finished", FORMATS, indirect=True)
def test_planes_lost_after_a_product_was_finished(
    sample_path: Path, sample_model: Any, half_finished: Path, whole: Any, lost: str
) -> None:
    """As by a power cut, which takes what was not synced: they are computed again, for the finished product too."""
    folder, name = Path(f"{half_finished}.partial"), half_finished.name
    journal = folder / "done.jsonl"
    n_lost = {"plane": 1, "lines": 5, "journal": SHAPE[0]}[lost]
    if lost == "plane":
        store = folder / "probabilities"
        if store.is_dir():
            (store / "0" / "0" / "3" / "0" / "0").unlink()  # of the first class
        else:
            remove(store.with_suffix(".planes"))
    else:
        lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line.strip()]
        assert len(lines) == SHAPE[0]
        journal.write_bytes(b"".join(lines[n_lost:]))
    assert run(sample_path, sample_model, half_finished).n_resumed == SHAPE[0] - n_lost
    wait_for_removals()
    assert everything(half_finished.parent) == whole[name]


@pytest.mark.parametrize("again", [{}, {"restart": True, "overwrite": True}])
@pytest.mark.parametrize("half_finished", ["labels.tif", "labels.ome.zarr"], indirect=True)
def test_killed_while_a_finished_product_gets_a_store_again(
    sample_path: Path,
    sample_model: Any,
    half_finished: Path,
    whole: Any,
    again: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(f"{half_finished}.partial")
    (folder / "done.jsonl").unlink()
    made = ProductStores._made

    def fail(*args: Any, **how: Any) -> None:
        made(*args, **how)
        raise ResourceError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ProductStores, "_made", fail)
        with pytest.raises(ResourceError, match="killed"):
            run(sample_path, sample_model, half_finished)
    assert len(list(folder.glob("labels*.new"))) == 1
    run(sample_path, sample_model, half_finished, **again)
    wait_for_removals()
    assert everything(half_finished.parent) == whole[half_finished.name]


@pytest.mark.parametrize("half_finished", ["labels.tif", "labels.ome.zarr"], indirect=True)
def test_a_finished_product_is_replaced(sample_path: Path, sample_model: Any, half_finished: Path, whole: Any) -> None:
    folder, name = half_finished.parent, half_finished.name
    half_finished.rename(folder / "mine")
    if name == "labels.tif":
        tifffile.imwrite(half_finished, np.ones(SHAPE, np.uint8), imagej=True, metadata={"axes": "ZYX"})
    else:
        shutil.copytree(folder / "mine", half_finished)
        flip(half_finished)
    before = everything(half_finished.parent)
    with pytest.raises(DataError, match=r"was finished by the interrupted run and (holds other planes|cannot be used)"):
        run(sample_path, sample_model, half_finished)
    with pytest.raises(DataError, match="exists already"):
        run(sample_path, sample_model, half_finished, restart=True)
    after = everything(half_finished.parent)
    assert {k: v for k, v in after.items() if LOCK not in k} == {k: v for k, v in before.items() if LOCK not in k}
    run(sample_path, sample_model, half_finished, restart=True, overwrite=True)  # the other way
    shutil.rmtree(folder / "mine") if (folder / "mine").is_dir() else (folder / "mine").unlink()
    assert everything(folder) == whole[name]


@pytest.mark.parametrize("half_finished", ["labels.mrc"], indirect=True)
def test_killed_between_the_files_of_a_product(
    sample_path: Path, sample_model: Any, half_finished: Path, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MRC has a file per class: one has its name, the other not. A foreign file there is another matter."""
    other = half_finished.with_name("other")
    other.mkdir()
    run(sample_path, sample_model, other / "labels.mrc")
    one, two = (f"labels_probabilities_{name}.mrc" for name in ("out", "in"))
    shutil.copy(other / two, half_finished.with_name(one))  # the planes of the other class
    with pytest.raises(DataError, match="exists already"):
        run(sample_path, sample_model, half_finished)
    shutil.copy(other / one, half_finished.with_name(one))
    shutil.rmtree(other)
    run(sample_path, sample_model, half_finished)
    assert everything(half_finished.parent) == whole["labels.mrc"]


def lock_is_free(folder: Path) -> bool:
    with open(folder / LOCK, "rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_the_lock_lives_as_long_as_the_folder(
    sample_path: Path, sample_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends with nothing done must not remove the folder of one that has begun meanwhile."""
    rename, seen = os.rename, []

    def watched(source: Any, target: Any) -> None:
        if str(source).endswith("labels.tif.partial"):
            seen.append(lock_is_free(Path(source)))
        rename(source, target)

    monkeypatch.setattr(os, "rename", watched)
    with pytest.raises(StoppedError), open_volume(sample_path) as volume:
        classify(volume, sample_model, output=tmp_path / "labels.tif", device=NumpyDevice(threads=1),
                 should_stop=lambda: True)  # fmt: skip
    run(sample_path, sample_model, tmp_path / "labels.tif")
    assert seen == [False, False]


def test_a_lock_of_a_folder_that_is_gone_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run removes the folder between our opening the lock and our holding it."""
    product = Product("labels", str(tmp_path / "labels.tif"), np.dtype(np.uint8))
    flock, folders = fcntl.flock, [tmp_path / "gone"]

    def late(handle: Any, how: int) -> None:
        if folders:
            os.rename(tmp_path / "labels.tif.partial", folders.pop())
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with Staging(tmp_path / "labels.tif", [product], shape=SHAPE, run={"a": 1}) as staging:
        assert staging.folder.is_dir()
        assert not lock_is_free(staging.folder)
        assert sorted(os.listdir(tmp_path / "gone")) == [LOCK]
        staging.write(Slab(0, {"labels": np.zeros((1, *SHAPE[1:]), np.uint8)}))
    assert (tmp_path / "labels.tif.partial" / "run.json").exists()


def test_a_plane_changed_between_reading_and_adopting_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a worker elsewhere, which may have been thought dead."""
    product = Product("labels", str(tmp_path / "labels.ome.zarr"), np.dtype(np.uint8))
    plane, read = np.ones((1, *SHAPE[1:]), np.uint8), ProductStores.stored
    with Staging(tmp_path / "labels.ome.zarr", [product], shape=SHAPE, run={"a": 1}) as staging:
        store = ZarrStore.open(staging.folder / "labels")
        for z in range(SHAPE[0]):
            store.write(z, plane)
        crc = {"labels": [checksum(plane[0])] * SHAPE[0]}

        def changing(self: ProductStores, name: str, z: int) -> np.ndarray | None:
            found = read(self, name, z)
            if z == 3:
                store.write(z, 2 * plane)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(ProductStores, "stored", changing)
            assert staging.adopt(0, crc)
        staging.record(0, crc)
        with pytest.raises(DataError, match="plane 3 of the labels was damaged"):
            staging.finish()


def test_what_lies_beside_the_output_is_not_read_to_see_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden file of another run that was killed, of a terabyte."""
    kind, gone = {"a": 1}, hidden_names.temporary_name(tmp_path / "labels.tif")
    pid = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    gone = gone.with_name(gone.name.replace(f"-{os.getpid()}-", f"-{pid.stdout.strip()}-"))
    with open(gone, "wb") as file:
        file.truncate(10**12)
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, **_: pytest.fail(f"{self} was read"))
    assert finished_before(tmp_path / "labels.tif.partial", str(tmp_path / "labels.tif"), kind) is None
    monkeypatch.setattr(Path, "read_text", read)
    gone.unlink()
    gone.mkdir()
    write_run(gone, kind)
    assert finished_before(tmp_path / "labels.tif.partial", str(tmp_path / "labels.tif"), kind) == gone / "run.json"


@pytest.mark.parametrize("how", ["text", "missing", "link"])
@pytest.mark.parametrize("name", ["labels.tif", "labels.ome.zarr"])
def test_stores_that_are_no_stores(sample_path: Path, sample_model: Any, tmp_path: Path, name: str, how: str) -> None:
    with pytest.raises(StoppedError):
        run(sample_path, sample_model, tmp_path / name, when_done=stop)
    store = labels_of(tmp_path / name)
    if how == "text":
        (store / ".zgroup" if store.is_dir() else store).write_text("{")
    elif how == "missing":
        shutil.rmtree(store / "0") if store.is_dir() else store.unlink()
    else:
        store.rename(tmp_path / "elsewhere")
        store.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TomoclassError, match="--restart"):
        run(sample_path, sample_model, tmp_path / name)
    run(sample_path, sample_model, tmp_path / name, restart=True)
    with open_volume(tmp_path / name) as volume:
        assert checksum(volume.plane(0)) != 0
