"""Kill runs at random moments and repeat them; a program of its own, since it forks and so may not have threads.

``python random_kills.py VOLUME MODEL FOLDER N`` prints JSON: how many runs were killed, how many of them left planes to
go on with, and those that then gave other bytes than a run without interruption.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from small_volume import digest

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.volumes.opening import open_volume

FORMATS = ("labels.tif", "labels.ome.zarr")  # MRC is assembled as TIFF is


def made(volume: str, model: Model, output: Path) -> int:
    """One run; how many planes it found done."""
    options = {"probabilities": "uint8", "uncertainty": "entropy", "device": NumpyDevice(threads=1)}
    with open_volume(volume) as opened:
        return classify(opened, model, output=output, **options).n_resumed


def forked(work: Callable[[], int], *, seconds: float | None = None) -> int | None:
    """The small number that ``work`` gives in a process of its own; None if that was killed after some time."""
    assert threading.active_count() == 1 == n_system_threads()
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if deadline is not None and time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.0005)


def listed(folder: Path) -> int:
    """Write the names of the modules that a run imports and that start no threads."""
    ours = [name for name in sys.modules if name.partition(".")[0] in ("gpu_tomoclass", "scipy", "zarr")]
    (folder / "modules").write_text("\n".join(ours))
    return 0


def n_system_threads() -> int:
    """Of this process, those of libraries too; 1 where the system does not tell."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


def files(folder: Path) -> dict[str, str]:
    """Hashes of all files in a folder."""
    return {k: v for path in sorted(folder.iterdir()) for k, v in digest(path).items()}


def main(volume: str, model_path: str, folder: Path, n: int) -> None:
    model, chance = load_model(model_path), random.Random(11)
    expected, longest = {}, 0.0
    for name in FORMATS:
        (folder / "whole").mkdir()
        began = time.monotonic()
        assert forked(lambda name=name: made(volume, model, folder / "whole" / name) + listed(folder)) == 0
        expected[name] = files(folder / "whole")
        shutil.rmtree(folder / "whole")
        for module in (folder / "modules").read_text().split():
            importlib.import_module(module)  # here, so that not every child has to
        (folder / "whole").mkdir()
        began = time.monotonic()
        assert forked(lambda name=name: made(volume, model, folder / "whole" / name)) == 0
        longest = max(longest, time.monotonic() - began)
        shutil.rmtree(folder / "whole")
    killed, resumed, wrong = 0, 0, []
    for i in range(n):
        name = FORMATS[i % len(FORMATS)]
        run = folder / f"run {i}"
        run.mkdir()

        def work(output: Path = run / name) -> int:
            return made(volume, model, output)

        killed += forked(work, seconds=chance.uniform(0, 1.1 * longest)) is None
        if not (run / name).exists() or (run / f"{name}.partial").exists():
            resumed += (forked(work) or 0) > 0
        if files(run) != expected[name]:
            wrong.append(f"run {i}: {sorted(path.name for path in run.iterdir())}")
        shutil.rmtree(run)
    print(json.dumps({"killed": killed, "resumed": resumed, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
