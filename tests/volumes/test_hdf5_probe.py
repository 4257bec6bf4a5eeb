"""A file whose structure ends the process that reads it ends a helper process, and is an error."""

import os
import sys

import h5py
import numpy as np
import pytest

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.hdf5 import probe
from gpu_tomoclass.volumes.opening import open_volume

DATA = np.arange(2 * 4 * 5, dtype=np.uint16).reshape(2, 4, 5)
# A helper that says it is ready, and then dies as libhdf5 does (SIGSEGV), or leaves.
CRASHING = "import ctypes, sys; print('ready', flush=True); sys.stdin.readline(); ctypes.string_at(0)"
CIRCLING = "import os, sys; print('ready', flush=True); sys.stdin.readline(); os.kill(os.getpid(), 24)"  # SIGXCPU
LEAVING = "import sys; print('ready', flush=True); sys.stdin.readline(); sys.exit(7)"


@pytest.fixture
def helper(monkeypatch):
    fresh = probe._Helper()
    monkeypatch.setattr(probe, "_helper", fresh)
    yield fresh
    fresh.stop()


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["d"] = DATA
    return tmp_path / "a.h5"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (CRASHING, r"ends the process .*signal 11"),
        (LEAVING, r"ends the process .*exit code 7"),
        (CIRCLING, "goes round"),
    ],
)
def test_a_file_that_ends_its_reader(path, helper, monkeypatch, code, words):
    monkeypatch.setattr(probe, "_CODE", code)
    for _ in range(2):  # it does not pass the second time
        with pytest.raises(DataError, match=rf"a\.h5: is damaged: reading its structure {words}"):
            open_volume(path)
    monkeypatch.undo()
    assert helper._process is None


def test_the_helper_serves_all_files_and_answers_for_none_twice(path, helper):
    for options in ({}, {"axes": "zyx"}, {}):
        with open_volume(f"{path}::/d", **options) as volume:
            np.testing.assert_array_equal(volume[:], DATA)
    first = helper._process.pid
    (path.parent / "b.h5").write_bytes(path.read_bytes()[:900])
    for _ in range(2):  # any other fault is what the caller finds
        with pytest.raises(DataError, match="cannot be opened as HDF5"):
            open_volume(path.parent / "b.h5")
    assert helper._process.pid == first
    assert len(helper._passed) == 3
    os.kill(first, 9)
    helper._process.wait()
    (path.parent / "c.h5").write_bytes(path.read_bytes())
    with open_volume(path.parent / "c.h5") as volume:  # one that died in between is started again
        np.testing.assert_array_equal(volume[:], DATA)


def test_a_limit_of_computing_time(monkeypatch):
    """The soft limit is that far from what was used, and the hard one stays."""
    resource = pytest.importorskip("resource")
    before, used = resource.getrlimit(resource.RLIMIT_CPU), resource.getrusage(resource.RUSAGE_SELF)
    wanted = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: wanted.append((what, limits)))
    probe._limit_time()
    ((what, (soft, hard)),) = wanted
    assert (what, hard) == (resource.RLIMIT_CPU, before[1])
    assert 0 <= soft - int(used.ru_utime + used.ru_stime) - probe.CPU_SECONDS <= 5


def test_without_a_helper(path, helper, monkeypatch):
    """Where no process can be started, files are read as ever."""
    monkeypatch.setattr(sys, "executable", str(path.parent / "none"))
    with open_volume(path) as volume:
        np.testing.assert_array_equal(volume[:], DATA)
