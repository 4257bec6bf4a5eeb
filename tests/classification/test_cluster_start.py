"""Clusters that cannot be used say why, and local ones start with a GPU for each process."""

import os
import shutil
import socket
import sys
import time
from pathlib import Path

import pytest
from dask_processes import dask_scheduler, dask_worker

import gpu_tomoclass
from gpu_tomoclass.classification import cluster_worker
from gpu_tomoclass.classification.cluster import Cluster
from gpu_tomoclass.errors import ResourceError, UsageError

ROOT = Path(gpu_tomoclass.__file__).parents[1]


@pytest.mark.parametrize("address", ["local", "local:", "local:-1", "local:two", "node1:8786", "tcp://", "tcp://a b:1"])
def test_addresses_that_are_none(address):
    with pytest.raises(UsageError, match="is no Dask cluster"):
        Cluster(address)


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("local:0", {}, "must have 1 or more processes, not 0"),
        ("local:4", {"threads": 2}, "2 threads do not fit: local:4 has more processes"),
        ("tcp://node1:8786", {"threads": 2}, "2 threads do not fit: the workers of a running cluster have their own"),
    ],
)
def test_numbers_that_do_not_fit(address, options, said):
    with pytest.raises(UsageError, match=said):
        Cluster(address, **options)


@pytest.mark.parametrize("package", ["distributed", "cryptography"])
def test_a_package_is_missing(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResourceError, match=rf"{package}.*pip install 'gpu_tomoclass\[dask\]'") as caught:
        Cluster("local:1", device="numpy").__enter__()
    assert caught.value.exit_code == 5


def test_no_scheduler_answers():
    began = time.monotonic()
    with pytest.raises(ResourceError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1 within 0.5 seconds"):
        Cluster("tcp://127.0.0.1:1", patience=0.5).__enter__()
    assert time.monotonic() - began < 60
    with socket.create_server(("127.0.0.1", 0)) as silent:  # somebody else's port
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ResourceError, match=f"no Dask scheduler answers at {address} within 0.5 seconds"):
            Cluster(address, patience=0.5).__enter__()
    assert time.monotonic() - began < 60
    for address, said in (("pigeon://roof:1", "unknown address scheme"), ("tls://127.0.0.1:1", "TLS")):
        with pytest.raises(UsageError, match=f"{address} cannot be used: {said}"):
            Cluster(address, patience=0.5).__enter__()


def test_workers_of_another_version(tmp_path):
    """Real workers that find another gpu_tomoclass first; and a scheduler without any."""
    (tmp_path / "ancient" / "gpu_tomoclass").mkdir(parents=True)
    (tmp_path / "ancient" / "gpu_tomoclass" / "__init__.py").write_text("__version__ = '0.0.1'\n")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("other", "edited"):
        shutil.copytree(ROOT / "gpu_tomoclass", tmp_path / name / "gpu_tomoclass", ignore=ignore)
        shutil.copytree(ROOT / "kernels", tmp_path / name / "kernels", ignore=ignore)
    (tmp_path / "other" / "gpu_tomoclass" / "__init__.py").write_text('__version__ = "0.0.2"\n')
    with open(tmp_path / "edited" / "gpu_tomoclass" / "slabs.py", "a") as file:
        file.write("# one more line\n")
    with dask_scheduler(tmp_path) as (address, _):
        with pytest.raises(ResourceError, match=r"has had no worker for 0.3 seconds; start some with dask worker tcp:"):
            Cluster(address, patience=0.3).__enter__()
        for name, said in (
            ("ancient", r"worker tcp://.* cannot run gpu_tomoclass .*ModuleNotFoundError.*; install the same version"),
            ("other", r"worker tcp://.* has gpu_tomoclass 0\.0\.2, this is .*; install the same version"),
            ("edited", r"worker tcp://.* has gpu_tomoclass of other sources"),
        ):
            with (
                dask_worker(address, PYTHONPATH=str(tmp_path / name)),
                pytest.raises(ResourceError, match=said),
            ):
                Cluster(address, device="numpy").__enter__()
    with pytest.raises(ResourceError, match="is not that of the client"):
        cluster_worker.check_code("other")


def test_a_gpu_for_each_process(tmp_path, monkeypatch):
    """What the processes would be started with; a process of its own sees two simulated GPUs, this one tries none."""

    def started(**given):
        raise RuntimeError([worker["options"]["env"] for worker in given["workers"].values()])

    (tmp_path / "cupy.py").write_text(
        "import sys\nfrom simulated_cupy import SimulatedCupy\nsys.modules[__name__] = SimulatedCupy(gpus=2)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr("distributed.SpecCluster", started)
    for visible, expected in ((None, ["0", "1"]), ("3,GPU-8f2c", ["3", "GPU-8f2c"]), ("5, 1,2", ["5", "1"])):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        with pytest.raises(ResourceError, match="cannot be started") as caught:
            Cluster("local:2", device="cuda").__enter__()
        assert str([{"CUDA_VISIBLE_DEVICES": gpu} for gpu in expected]) in str(caught.value)
    with pytest.raises(UsageError, match="local:3 needs 3 GPUs, 2 are visible"):
        Cluster("local:3", device="cuda").__enter__()
