"""Interrupted in any way, a run goes on where it was, and the result is the same, byte for byte."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import random_kills
from commands import run_here
from small_volume import SHAPE, digest

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.finished_files import checksum
from gpu_tomoclass.classification.plane_file import PlaneFile
from gpu_tomoclass.classification.products import Product
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.classification.staging import Staging
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, ModelError, ResourceError, StoppedError
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.volumes.ome_zarr.level import Level
from gpu_tomoclass.volumes.opening import open_volume
from gpu_tomoclass.volumes.tiff.writer import TiffWriter

RANDOM_KILLS = Path(random_kills.__file__)
FORMATS = ("labels.tif", "labels.ome.zarr", "labels.mrc")


def run(sample_path, sample_model, output, *, planes_before_stop=None, **options):
    """Classify on one thread; stop after so many planes."""
    done = 0

    def progress(n, total):
        nonlocal done
        done = n

    def should_stop():
        return planes_before_stop is not None and done >= planes_before_stop

    options = {"probabilities": "uint8", "uncertainty": "entropy", "device": NumpyDevice(threads=1), **options}
    with open_volume(sample_path) as volume:
        return classify(volume, sample_model, output=output, should_stop=should_stop, progress=progress, **options)


def outputs(folder):
    """Hashes of all files in a folder."""
    return {k: v for path in sorted(folder.iterdir()) for k, v in digest(path).items()}


@pytest.fixture(scope="module")
def uninterrupted(sample_path, sample_model, tmp_path_factory):
    """What each format holds after a run without interruption."""
    found = {}
    for name in FORMATS:
        folder = tmp_path_factory.mktemp("whole")
        run(sample_path, sample_model, folder / name)
        found[name] = outputs(folder)
    return found


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("n", [1, 3, 5])  # a few more are in work
def test_stopped_and_resumed(sample_path, sample_model, tmp_path, uninterrupted, name, n):
    said = r"stopped: \d+ of 12 planes are done and kept in .*partial; repeat"
    with pytest.raises(StoppedError, match=said) as caught:
        run(sample_path, sample_model, tmp_path / name, planes_before_stop=n)
    assert caught.value.exit_code == 6
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.partial"]
    result = run(sample_path, sample_model, tmp_path / name)
    assert n <= result.n_resumed < 12
    assert any("had been done by an interrupted run" in note for note in result.notes)
    assert sum(result.counts.values()) == np.prod(SHAPE)
    assert outputs(tmp_path) == uninterrupted[name]


def test_stopped_before_anything_was_done(sample_path, sample_model, tmp_path):
    with pytest.raises(StoppedError, match="no plane was finished"):
        run(sample_path, sample_model, tmp_path / "labels.tif", planes_before_stop=0)
    assert list(tmp_path.iterdir()) == []


def test_killed_at_random_moments(sample_path, sample_model, tmp_path):
    """SIGKILL while stores are made, planes written, files assembled or renamed; the killed runs have a parent without
    threads, whose locks they would else find held for ever."""
    save_model(sample_model, tmp_path / "m.tcm")
    (tmp_path / "runs").mkdir()
    words = [sys.executable, RANDOM_KILLS, sample_path, tmp_path / "m.tcm", tmp_path / "runs", 12]
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=1200, check=False, env=alone)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == [], done.stderr
    assert found["killed"] >= 6  # half of them at a change; the others some time after one, perhaps when all was done
    assert found["resumed"] >= 4


def test_signals_of_a_real_process(sample_path, sample_model, tmp_path):
    """SIGTERM finishes the planes in work: exit 6, and the command it prints completes the run.

    The first, which writes TIFF, does without libraries whose import takes longer than its work.
    """
    model = tmp_path / "m.tcm"
    save_model(sample_model, model)
    code = (
        "import os, signal, sys, time\n"
        "from gpu_tomoclass.classification import staging\n"
        "from gpu_tomoclass.cli import run\n"
        "write = staging.Staging.write\n"
        "def slow(self, slab):\n"
        "    write(self, slab)\n"
        "    if self.n_done == 3: os.kill(os.getpid(), getattr(signal, os.environ['SIGNAL']))\n"
        "staging.Staging.write = slow\n"
        "code = run(sys.argv[1:])\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
        "sys.exit(code)\n"
    )
    (tmp_path / "out").mkdir()
    for number, name in enumerate(("SIGTERM", "SIGINT")):
        output = tmp_path / "out" / FORMATS[number]
        arguments = ["classify", str(sample_path), str(model), "-o", str(output), "--device", "numpy"]
        arguments += ["--probabilities=uint8", "--uncertainty=entropy", "--workers", "1"]
        process = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "SIGNAL": name},
            timeout=1200,
        )
        assert process.returncode == 6, process.stderr
        imported = set(process.stdout.splitlines()[-1].split())
        assert "numpy" in imported
        assert name == "SIGINT" or not imported & {"zarr", "scipy", "sklearn", "skimage", "h5py", "dask", "cupy"}
        assert f"resume with: gpu-tomoclass {' '.join(arguments)}" in process.stderr
        assert not output.exists()
        done = run_here(*arguments)
        assert done.code == 0, done.err
        assert "had been done by an interrupted run" in done.err
        (tmp_path / name).mkdir()
        run(sample_path, load_model(model), tmp_path / name / FORMATS[number])
        assert outputs(tmp_path / name).items() <= outputs(tmp_path / "out").items()


@pytest.fixture
def half_done(sample_path, sample_model, tmp_path):
    """An interrupted run."""
    with pytest.raises(StoppedError):
        run(sample_path, sample_model, tmp_path / "labels.tif", planes_before_stop=5)
    return tmp_path / "labels.tif.partial"


def test_a_torn_line_costs_that_slab(sample_path, sample_model, tmp_path, uninterrupted, half_done):
    journal = half_done / "done.jsonl"
    text = journal.read_bytes()
    n = len([line for line in text.split(b"\n") if line])
    foreign = b'\x00\xff{}\n[]\n3\n{"start": 0, "stop": 99, "crc": {}, "notes": []}\n'
    for damaged, believed in ((text, n), (text[:-20], n - 1), (text + b'{"start": 1', n), (foreign + text, n)):
        journal.write_bytes(damaged)
        with pytest.raises(StoppedError, match=f"stopped: {believed} of 12"):  # nothing new is read
            run(sample_path, sample_model, tmp_path / "labels.tif", planes_before_stop=0)
    journal.write_bytes(text[:-20])
    run(sample_path, sample_model, tmp_path / "labels.tif")
    assert outputs(tmp_path) == uninterrupted["labels.tif"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nan": "fill"}, 'settings.nan was "error", is "fill"'),
        ({"probabilities": "float32"}, "outputs.probabilities was"),
        ({"uncertainty": None}, "outputs.uncertainty was"),
        ({"planes": (0, 5)}, "settings.planes was"),
        ({"intensity": "none"}, None),  # the same scale: integers are not scaled
    ],
)
def test_another_run_is_refused_by_name(sample_path, sample_model, tmp_path, half_done, change, said):
    before = digest(half_done)
    if said is None:
        run(sample_path, sample_model, tmp_path / "labels.tif", **change)
        return
    with pytest.raises(ModelError, match="interrupted run of another kind") as caught:
        run(sample_path, sample_model, tmp_path / "labels.tif", **change)
    assert said in str(caught.value)
    assert "--restart" in str(caught.value)
    after = digest(half_done)
    assert {k: v for k, v in after.items() if "lock" not in k} == {k: v for k, v in before.items() if "lock" not in k}
    assert run(sample_path, sample_model, tmp_path / "labels.tif", restart=True, **change).n_resumed == 0


def test_another_input_or_model_is_refused(sample_path, sample_model, tmp_path, half_done):
    copy = tmp_path / "copy"
    copy.mkdir()
    changed = copy / sample_path.name
    content = bytearray(sample_path.read_bytes())
    content[-7] ^= 1
    changed.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"input\.(crc32|mtime_ns) was"):
        run(changed, sample_model, tmp_path / "labels.tif")
    other = type(sample_model)(sample_model.forest.restricted(range(sample_model.forest.n_features)), sample_model.bank,
                               sample_model.classes, sample_model.intensity)  # fmt: skip
    with pytest.raises(ModelError, match=r"model\.hash was"):
        run(sample_path, other, tmp_path / "labels.tif")


def test_two_runs_on_one_output(sample_path, sample_model, tmp_path):
    product = Product("labels", str(tmp_path / "labels.tif"), np.dtype(np.uint8))
    with Staging(tmp_path / "labels.tif", [product], shape=SHAPE, run={"a": 1}) as first:
        first.write(Slab(0, {"labels": np.zeros((1, *SHAPE[1:]), np.uint8)}))
        with pytest.raises(ResourceError, match=rf"is being written by process {os.getpid()} on .* since 2") as caught:
            run(sample_path, sample_model, tmp_path / "labels.tif")
        assert caught.value.exit_code == 5
    # The lock file is still there, but nobody holds it.
    assert (tmp_path / "labels.tif.partial" / "lock").exists()
    assert run(sample_path, sample_model, tmp_path / "labels.tif", restart=True).n_planes == 12


def test_a_folder_of_other_files_is_not_touched(sample_path, sample_model, tmp_path):
    folder = tmp_path / "labels.tif.partial"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(DataError, match=r"not of an interrupted run: thesis.txt"):
            run(sample_path, sample_model, tmp_path / "labels.tif", restart=restart)
    assert (folder / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "store"), [("labels.ome.zarr", Level), ("labels.tif", PlaneFile)], ids=["zarr", "tiff"]
)
def test_a_full_disk_keeps_what_is_done(sample_path, sample_model, tmp_path, uninterrupted, monkeypatch, name, store):
    write = store.write

    def full(self, start, planes, **how):
        if start >= 6:
            raise OSError(28, "No space left on device")
        write(self, start, planes, **how)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write", full)
        with pytest.raises(ResourceError, match="the disk is full") as caught:
            run(sample_path, sample_model, tmp_path / name)
    assert caught.value.exit_code == 5
    assert re.search("[56] of 12 planes are done and kept", caught.value.__notes__[0])  # the other writer's plane
    assert run(sample_path, sample_model, tmp_path / name).n_resumed in (5, 6)
    assert outputs(tmp_path) == uninterrupted[name]


def test_a_disk_that_is_full_for_outputs_ahead_fails_at_the_end_only(
    sample_path, sample_model, tmp_path, uninterrupted, monkeypatch
):
    """The planes are kept: what could not be made while they passed is made once more."""
    write_plane, left = TiffWriter.write_plane, [20]

    def full(self, z, plane):
        left[0] -= 1
        if left[0] < 0:
            raise ResourceError("the disk is full")
        write_plane(self, z, plane)

    with monkeypatch.context() as patched:
        patched.setattr(TiffWriter, "write_plane", full)
        with pytest.raises(ResourceError, match="the disk is full"):
            run(sample_path, sample_model, tmp_path / "labels.tif")
    assert sorted(os.listdir(tmp_path)) == ["labels.tif.partial"]
    assert run(sample_path, sample_model, tmp_path / "labels.tif").n_resumed == 12
    assert outputs(tmp_path) == uninterrupted["labels.tif"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("n_finished", [0, 1, 2])
def test_a_failure_while_finishing(sample_path, sample_model, tmp_path, uninterrupted, monkeypatch, name, n_finished):
    """Each product gets its name by itself; the next run goes on with the others."""
    finish = Staging._finish_product
    finished = []

    def fail(self, product):
        if len(finished) == n_finished:
            raise ResourceError("the disk is full")
        finished.append(product.name)
        return finish(self, product)

    with monkeypatch.context() as patched:
        patched.setattr(Staging, "_finish_product", fail)
        with pytest.raises(ResourceError):
            run(sample_path, sample_model, tmp_path / name)
    result = run(sample_path, sample_model, tmp_path / name)
    assert result.n_resumed == 12
    assert sum(result.counts.values()) == np.prod(SHAPE)
    assert outputs(tmp_path) == uninterrupted[name]


def test_existing_outputs_are_not_replaced_and_stay_until_the_end(sample_path, sample_model, tmp_path):
    target = tmp_path / "labels.tif"
    target.write_text("old")
    with pytest.raises(DataError, match="exists already"):
        run(sample_path, sample_model, target)
    with pytest.raises(StoppedError):
        run(sample_path, sample_model, target, planes_before_stop=3, overwrite=True)
    assert target.read_text() == "old"
    run(sample_path, sample_model, target, overwrite=True)
    assert open_volume(target).shape == SHAPE


def test_a_damaged_run_file(sample_path, sample_model, tmp_path, half_done):
    (half_done / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run.json: the interrupted run cannot be read.*--restart"):
        run(sample_path, sample_model, tmp_path / "labels.tif")


def test_the_journal_is_plain(half_done):
    lines = [json.loads(line) for line in (half_done / "done.jsonl").read_text().splitlines() if line]
    assert all(set(line) == {"start", "stop", "crc", "notes"} for line in lines)
    assert checksum(np.zeros((2, 2), np.uint8)) == 558161692  # CRC-32 of four zero bytes
