"""Processes of a Dask cluster classify as this process does, byte for byte, whatever happens to them."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import distributed
import numpy as np
import psutil
import pytest
from dask_processes import dask_scheduler, dask_worker, until

import gpu_tomoclass
from gpu_tomoclass.classification import cluster as cluster_module
from gpu_tomoclass.classification import cluster_worker
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.cluster import Cluster, ClusterWorkers
from gpu_tomoclass.classification.staging import Staging
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, ResourceError, StoppedError, UsageError
from gpu_tomoclass.model.model import save_model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.volumes import ArrayVolume
from gpu_tomoclass.volumes.opening import create_volume, open_volume

N_PLANES = 12


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes."""
    with Cluster("local:2", device="numpy", threads=2) as running:
        yield running


def run(path, model, output, *, planes_before_stop=None, on_progress=lambda n: None, **options):
    """Classify; stop after so many planes."""
    done = 0

    def progress(n, total):
        nonlocal done
        assert done <= n <= total
        done = n
        on_progress(n)

    def should_stop():
        return planes_before_stop is not None and done >= planes_before_stop

    options = {"probabilities": "uint8", "uncertainty": "entropy", **options}
    if "cluster" not in options:
        options["device"] = NumpyDevice(threads=2)
    with open_volume(path) as volume:
        return classify(volume, model, output=output, should_stop=should_stop, progress=progress, **options)


def outputs(folder):
    """Hashes of all files below a folder, hidden ones too."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


@pytest.fixture(scope="module")
def plain(sample_path, sample_model, tmp_path_factory):
    """What a run in this process writes, by name of the output."""
    found = {}
    for name in ("labels.tif", "labels.ome.zarr"):
        folder = tmp_path_factory.mktemp("plain")
        run(sample_path, sample_model, folder / name)
        found[name] = outputs(folder)
    return found


def test_the_same_bytes(sample_path, sample_model, tmp_path, plain, cluster, monkeypatch):
    workers, record = set(), ClusterWorkers._record

    def watched(self, done, finished):
        workers.add(done.worker)
        record(self, done, finished)

    monkeypatch.setattr(ClusterWorkers, "_record", watched)
    for name, slab_planes in (("labels.tif", None), ("labels.ome.zarr", 5)):
        folder = tmp_path / name
        folder.mkdir()
        result = run(sample_path, sample_model, folder / name, cluster=cluster, slab_planes=slab_planes)
        assert outputs(folder) == plain[name]
        assert result.device == "numpy"
        assert result.profile["threads"] == 2
        assert result.profile["seconds"]["compute"] > 0
        assert set(result.seconds_per_plane) >= {"gaussian_blur", "forest"}
        with open_volume(folder / name) as labels:
            values = np.stack([plane for _, plane in labels.planes()])
        assert result.counts == {"out": int((values == 1).sum()), "in": int((values == 2).sum())}
    assert workers == set(cluster.threads_per_worker())
    assert len(workers) == 2


@pytest.mark.parametrize("first_on_cluster", [True, False])
def test_stopped_with_and_resumed_without_a_cluster(
    sample_path, sample_model, tmp_path, plain, cluster, first_on_cluster
):
    where = [{"cluster": cluster}, {}]
    first, second = where if first_on_cluster else where[::-1]
    with pytest.raises(StoppedError, match=r"stopped: \d+ of 12 planes are done and kept"):
        run(sample_path, sample_model, tmp_path / "labels.tif", planes_before_stop=3, **first)
    result = run(sample_path, sample_model, tmp_path / "labels.tif", **second)
    assert 3 <= result.n_resumed < N_PLANES  # what was in work was finished, nothing else was begun
    assert outputs(tmp_path) == plain["labels.tif"]


def test_a_killed_worker(sample_path, sample_model, tmp_path, plain, cluster):
    """It is stopped in the middle of a plane and then killed: another worker does its planes."""
    pids = cluster.client.run(os.getpid)
    victim, pid = next(iter(pids.items()))
    killer = threading.Timer(0.4, os.kill, (pid, signal.SIGKILL))

    def attack(n):
        if n == 3:
            os.kill(pid, signal.SIGSTOP)
            killer.start()

    result = run(sample_path, sample_model, tmp_path / "labels.ome.zarr", cluster=cluster, on_progress=attack)
    assert outputs(tmp_path) == plain["labels.ome.zarr"]
    assert f"worker {victim} died; others took its planes" in result.notes
    cluster.client.wait_for_workers(2, timeout=1200)  # one has taken its place
    assert pid not in cluster.client.run(os.getpid).values()


def test_planes_that_kill_every_worker(sample_path, sample_model, tmp_path, monkeypatch):
    def die(job, start, stop):
        os._exit(1)

    monkeypatch.setattr(cluster_module, "FAILURES", 0)
    monkeypatch.setattr(cluster_module, "classify_planes", die)
    with (
        Cluster("local:1", device="numpy") as fragile,
        pytest.raises(ResourceError, match=r"every worker that was given planes \d.* died; the last was tls://"),
    ):
        run(sample_path, sample_model, tmp_path / "labels.tif", cluster=fragile, slab_planes=N_PLANES)


@pytest.fixture
def damaged(sample_path, tmp_path):
    """The sample as OME-Zarr whose plane 7 is damaged."""
    path = tmp_path / "in" / "volume.ome.zarr"
    with (
        open_volume(sample_path) as sample,
        create_volume(path, shape=sample.shape, dtype=sample.dtype, voxel_size=sample.voxel_size) as writer,
    ):
        for z, plane in sample.planes():
            writer.write_plane(z, plane)
    (path / "0" / "7" / "0" / "0").write_bytes(b"damaged")
    return path


def test_a_damaged_plane(damaged, sample_model, tmp_path, cluster):
    """An error of the same kind as without a cluster, once; what was done is kept."""
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"chunk 7/0/0 is damaged") as caught:
        run(damaged, sample_model, tmp_path / "out" / "labels.tif", cluster=cluster)
    assert caught.value.exit_code == 3
    assert any("met by worker tls://127.0.0.1" in note for note in caught.value.__notes__)
    assert any("planes are done and kept" in note for note in caught.value.__notes__)

    def times_begun(dask_scheduler):
        moves = [(key, then) for key, _, then, *_ in dask_scheduler.transition_log]
        (failed,) = (key for key, then in moves if then == "erred")
        return moves.count((failed, "processing"))

    assert cluster.client.run_on_scheduler(times_begun) == 1
    with open_volume(damaged, allow_missing_planes=True) as volume:
        result = classify(volume, sample_model, output=tmp_path / "out" / "other.tif", cluster=cluster)
    assert result.counts["unlabelled"] == 24 * 21
    assert any("filled with zeros: 7" in note for note in result.notes)


def test_files_that_a_worker_does_not_see(sample_path, sample_model, tmp_path, cluster):
    copy = tmp_path / "copy.tif"
    for change, kind, said in (
        (
            Path.unlink,
            ResourceError,
            r"copy.tif: there is no such file or folder \(found by worker tls://.* on .*\); give paths in a",
        ),
        (lambda path: path.write_bytes(path.read_bytes()), DataError, r"another file here than .*: mtime_ns differ"),
    ):
        shutil.copy2(sample_path, copy)
        with open_volume(copy) as volume:
            change(copy)
            with pytest.raises(kind, match=said):
                classify(volume, sample_model, output=tmp_path / "labels.tif", cluster=cluster)
    assert [path.name for path in tmp_path.iterdir()] == ["copy.tif"]


def test_a_volume_in_memory(sample_model, tmp_path, cluster):
    volume = ArrayVolume(np.zeros((2, 24, 21), np.uint16), voxel_size=(1.0, 1.0, 1.0))
    with pytest.raises(UsageError, match="numpy array: is not in a file that workers could open"):
        classify(volume, sample_model, output=tmp_path / "labels.tif", cluster=cluster)
    with pytest.raises(UsageError, match="a device and a cluster contradict each other"):
        classify(volume, sample_model, output=tmp_path / "labels.tif", cluster=cluster, device=NumpyDevice())


def test_what_a_worker_wrote_is_not_there(sample_path, sample_model, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "VISIBLE", (0.01, 0.01))
    adopt, asked = Staging.adopt, []

    def late(self, start, crc):
        asked.append(start)
        return asked.count(start) > 2 and adopt(self, start, crc)

    monkeypatch.setattr(Staging, "adopt", late)
    run(sample_path, sample_model, tmp_path / "late.tif", cluster=cluster)
    assert len(asked) == 3 * N_PLANES
    monkeypatch.setattr(Staging, "adopt", lambda *_: False)
    with pytest.raises(ResourceError, match=r"what worker tls://.* wrote is not there"):
        run(sample_path, sample_model, tmp_path / "never.tif", cluster=cluster)


def test_a_worker_whose_run_is_over_writes_nothing(sample_path, sample_model, tmp_path):
    """The client was killed, and another run has taken its place before the worker has noticed."""
    save_model(sample_model, tmp_path / "model.tcm")
    (tmp_path / "lock").write_text("somebody else")
    with open_volume(sample_path) as volume:
        job = cluster_worker.Job(
            key="a", code=cluster_worker.code_digest(), volume=str(sample_path), reading=volume.reading,
            fingerprint=volume.fingerprint(), folder=str(tmp_path), owner="me", stores={},
            model_hash=sample_model.hash, options=cluster_worker.RunOptions(), scale=sample_model.intensity, first=0,
            device="numpy",
        )  # fmt: skip
    opened = cluster_worker._Opened(job, 1)
    with pytest.raises(ResourceError, match="belongs to another run now"):
        opened.classify(0, 1, "here")


def test_a_memory_limit_holds_for_every_worker(sample_path, sample_model, tmp_path, cluster):
    with pytest.raises(ResourceError, match=r"one thread needs .* the limit is 1.0 MB \(found by worker"):
        run(sample_path, sample_model, tmp_path / "labels.tif", cluster=cluster, memory_limit=10**6)


def test_slabs_become_smaller_towards_the_end(sample_path, sample_model, tmp_path, cluster, monkeypatch):
    """Workers on GPUs ask for many planes at once: all of them should end together."""
    sizes, record = [], ClusterWorkers._record

    def watched(self, done, finished):
        sizes.append(len(done.crc["labels"]))
        self._preferred["a GPU"] = 100
        record(self, done, finished)
        self._preferred = {"a GPU": 100}

    monkeypatch.setattr(ClusterWorkers, "_record", watched)
    with open_volume(sample_path) as volume:
        classify(volume, sample_model, output=tmp_path / "labels.tif", cluster=cluster)
    assert sum(sizes) == N_PLANES
    assert max(sizes) == 2  # 9 are left when the first is done: 9 // (2 * 2 threads)
    assert sizes[-1] == 1


def test_other_users_of_this_machine_are_kept_out(cluster):
    """Whoever can talk to a scheduler can run programs as its user."""
    scheduler = cluster.client.cluster.scheduler
    assert scheduler.address.startswith("tls://127.0.0.1:")

    async def connect(protocol, security, *, seconds):
        address = scheduler.address.replace("tls://", protocol)
        options = security.get_connection_args("client")
        comm = await asyncio.wait_for(distributed.comm.connect(address, timeout=seconds, **options), seconds)
        comm.abort()

    asyncio.run(connect("tls://", cluster.client.security, seconds=1200))
    for protocol, security in (("tcp://", distributed.Security()), ("tls://", distributed.Security.temporary())):
        with pytest.raises(OSError):  # noqa: PT011  (whatever the handshake says)
            asyncio.run(connect(protocol, security, seconds=0.5))  # it tries again until then
    pages = [scheduler.http_server.port, *cluster.client.run(lambda dask_worker: dask_worker.http_server.port).values()]
    for port, page in itertools.product(pages, ("health", "info/main/workers.html", "json/identity.json", "metrics")):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=1200)


def test_a_running_cluster_and_its_end(sample_path, sample_model, tmp_path, plain):
    """Workers that leave and are not replaced, a scheduler that is gone: an error."""
    with dask_scheduler(tmp_path) as (address, scheduler), contextlib.ExitStack() as stack:
        worker = stack.enter_context(dask_worker(address))
        with Cluster(address, device="numpy", patience=1200) as remote:
            assert remote.description.startswith("1 worker, numpy: NumPy")
            (tmp_path / "whole").mkdir()
            run(sample_path, sample_model, tmp_path / "whole" / "labels.tif", cluster=remote)
            assert outputs(tmp_path / "whole") == plain["labels.tif"]
            assert remote.client.run(lambda: len(cluster_worker._runs)) == dict.fromkeys(remote.threads_per_worker(), 0)

            remote.patience = 0.5
            with pytest.raises(ResourceError, match=r"has had no worker for 0.5 seconds; start some") as caught:
                run(
                    sample_path,
                    sample_model,
                    tmp_path / "alone.tif",
                    cluster=remote,
                    on_progress=lambda n: worker.kill() if n == 2 else None,
                )
            assert any("planes are done and kept" in note for note in caught.value.__notes__)

            remote.patience = 20
            stack.enter_context(dask_worker(address))
            remote.client.wait_for_workers(1, timeout=1200)
            with pytest.raises(ResourceError, match="does not answer any more"):
                run(
                    sample_path,
                    sample_model,
                    tmp_path / "alone.tif",
                    cluster=remote,
                    on_progress=lambda n: scheduler.kill() if n == 6 else None,
                )
    result = run(sample_path, sample_model, tmp_path / "alone.tif")
    assert 6 <= result.n_resumed < N_PLANES


def test_workers_with_different_devices(cluster, monkeypatch):
    answers = {"a": {"device": "cuda"}, "b": {"device": "native"}}
    same = {"version": gpu_tomoclass.__version__, "code": cluster_worker.code_digest(), "description": "", "notes": []}
    monkeypatch.setattr(cluster, "ask_all", lambda *_: {name: {**same, **answer} for name, answer in answers.items()})
    with pytest.raises(ResourceError, match=r"different devices: cuda \(worker a\), native \(worker b\); .*--device"):
        cluster._check_workers()


# -- the command ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def long_run(sample_path, sample_model, tmp_path_factory):
    """A folder with a volume of 240 planes and a model; the labels of a run without interruption."""
    folder = tmp_path_factory.mktemp("long")
    save_model(sample_model, folder / "m.tcm")
    with open_volume(sample_path) as sample:
        planes = np.stack([plane for _, plane in sample.planes()])
    size = (1.0, 1.0, 1.0)
    with create_volume(folder / "v.tif", shape=(240, 24, 21), dtype=planes.dtype, voxel_size=size) as writer:
        for z in range(240):
            writer.write_plane(z, planes[z % N_PLANES])
    (folder / "plain").mkdir()
    model = load_model(folder / "m.tcm")
    run(folder / "v.tif", model, folder / "plain" / "labels.tif", probabilities=None, uncertainty=None)
    return folder


def start(arguments):
    code = "from gpu_tomoclass.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def until_some_are_done(process, output):
    journal = Path(f"{output}.partial") / "done.jsonl"
    until(lambda: process.poll() is not None or (journal.exists() and journal.stat().st_size > 200))
    assert process.poll() is None, process.stderr.read()


def test_signals_to_all_processes(long_run, tmp_path):
    """Ctrl-C reaches the workers too: they finish their planes; then a killed client leaves no process behind."""
    output = tmp_path / "labels.tif"
    options = ["--device", "numpy", "--dask", "local:2", "--workers", "2"]
    arguments = ["classify", long_run / "v.tif", long_run / "m.tcm", "-o", output, *options]
    process = start(arguments)
    until_some_are_done(process, output)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=1200)
    assert process.returncode == 6, said
    assert f"resume with: gpu-tomoclass {' '.join(map(str, arguments))}" in said
    assert "note: cluster: 2 workers, numpy: NumPy" in said
    assert "Traceback" not in said

    process = start(arguments)
    journal = tmp_path / "labels.tif.partial" / "done.jsonl"
    before = journal.stat().st_size
    until(lambda: process.poll() is not None or journal.stat().st_size > before + 200)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.communicate()
    until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children))

    model = load_model(long_run / "m.tcm")
    result = run(long_run / "v.tif", model, output, probabilities=None, uncertainty=None)
    assert 2 < result.n_resumed < 240
    assert outputs(tmp_path) == outputs(long_run / "plain")


def test_options_that_do_not_go_together(sample_path, sample_model, tmp_path):
    save_model(sample_model, tmp_path / "m.tcm")
    arguments = ["classify", sample_path, tmp_path / "m.tcm", "-o", tmp_path / "o.tif", "--dask", "local:2"]
    process = start([*arguments, "--gpu-id", "1"])
    _, said = process.communicate(timeout=1200)
    assert process.returncode == 2
    assert "--gpu-id does not go with --dask; set CUDA_VISIBLE_DEVICES" in said
