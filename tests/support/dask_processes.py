"""Processes of Dask's own command line, and waiting for what other processes do."""

import contextlib
import json
import os
import subprocess
import sys
import time

DASK = [sys.executable, "-P", "-c", "from dask.__main__ import main; main()"]


@contextlib.contextmanager
def dask(*arguments, **environment):
    """A process of Dask's command line."""
    process = subprocess.Popen(
        [*DASK, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def dask_scheduler(folder):
    """A scheduler; its address and its process."""
    file = folder / "scheduler.json"
    with dask("scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", file) as process:
        until(lambda: file.exists() and file.read_text().endswith("}"))
        yield json.loads(file.read_text())["address"], process


def dask_worker(address, **environment):
    options = ("--nthreads", 1, "--no-dashboard", "--memory-limit", 0)
    return dask("worker", address, "--no-nanny", *options, **environment)


def until(condition, *, seconds=1200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.002)
