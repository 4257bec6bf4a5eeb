"""Kill runs at random moments and repeat them; a program of its own, since it forks and so may not have threads.

Moments are counted in changes of the disk, not in seconds, so that a busy machine has as many kills as an idle one.
Half of the runs are killed right before a change, the others some time after one, at any instruction.

``python random_kills.py VOLUME MODEL FOLDER N`` prints JSON: how many runs were killed, how many of them left planes to
go on with, and those that then failed or gave other bytes than a run without interruption, with what differs.
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
from functools import partial
from pathlib import Path
from typing import Any

from small_volume import digest

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.volumes.opening import open_volume

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")  # events of Python
FAILED = 255
FORMATS = ("labels.tif", "labels.ome.zarr")  # MRC is assembled as TIFF is


def made(volume: str, model: Model, output: Path) -> int:
    """One run; how many planes it found done."""
    options = {"probabilities": "uint8", "uncertainty": "entropy", "device": NumpyDevice(threads=1)}
    with open_volume(volume) as opened:
        return classify(opened, model, output=output, **options).n_resumed


def changes_heard(before_change: Callable[[], None]) -> None:
    """From now on this process calls ``before_change`` before it opens a file to write, renames, removes, .."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        is_open = event == "open" and isinstance(arguments[0], (str, bytes))
        if event in CHANGES or (is_open and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            before_change()

    sys.addaudithook(heard)


def forked(work: Callable[[], int]) -> int:
    """What ``work`` gives in a process of its own, at most 254; 255 if it failed, negative if it was killed."""
    assert threading.active_count() == 1 == n_system_threads()
    pid = os.fork()
    if pid == 0:
        code = FAILED
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counted(work: Callable[[], int], record: Path) -> int:
    """How many changes of the disk ``work`` makes."""
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def work_heard() -> int:
        changes_heard(lambda: os.write(descriptor, b".") and None)
        return work()

    assert forked(work_heard) == 0, "the run fails without being killed"
    os.close(descriptor)
    return record.stat().st_size


def killed(work: Callable[[], int], n: int, *, seconds: float | None) -> int:
    """What :func:`forked` gives where ``work`` is killed before its n-th change (from 0), or so many seconds after."""

    def kill() -> None:
        if seconds is not None:
            time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def work_heard() -> int:
        left = n

        def before_change() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                kill() if seconds is None else threading.Thread(target=kill, daemon=True).start()

        changes_heard(before_change)
        return work()

    return forked(work_heard)


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


def names(folder: Path) -> set[str]:
    """What lies in a folder, hidden or not."""
    return {path.name for path in folder.iterdir()}


def main(volume: str, model_path: str, folder: Path, n: int) -> None:
    model, chance = load_model(model_path), random.Random(11)
    expected, outputs, n_changes = {}, {}, {}
    for name in FORMATS:
        (folder / "whole").mkdir()
        assert forked(lambda name=name: made(volume, model, folder / "whole" / name) + listed(folder)) == 0
        expected[name], outputs[name] = files(folder / "whole"), names(folder / "whole")
        shutil.rmtree(folder / "whole")
        for module in (folder / "modules").read_text().split():
            importlib.import_module(module)  # here, so that not every child has to
        (folder / "whole").mkdir()
        work = partial(made, volume, model, folder / "whole" / name)
        n_changes[name] = counted(work, folder / "changes")
        shutil.rmtree(folder / "whole")
    n_killed, resumed, wrong = 0, 0, []
    for i in range(n):
        name = FORMATS[i % len(FORMATS)]
        run = folder / f"run {i}"
        run.mkdir()
        work = partial(made, volume, model, run / name)
        # Of each format one run is killed while it tidies up: all outputs have their names, a hidden folder is left.
        moment = n_changes[name] - 4 if i < len(FORMATS) else chance.randrange(n_changes[name])
        seconds = None if i // len(FORMATS) % 2 == 0 else chance.uniform(0, 0.005)
        codes = [killed(work, moment, seconds=seconds)]
        n_killed += codes[0] == -signal.SIGKILL
        if names(run) != outputs[name]:  # one is missing, or an unfinished run or what it tidied up lies beside them
            codes.append(forked(work))
            resumed += 0 < codes[1] < FAILED
        found = files(run)
        differ = sorted({key for key, _ in found.items() ^ expected[name].items()} | (names(run) ^ outputs[name]))
        if differ or codes[0] not in (0, -signal.SIGKILL) or not all(0 <= code < FAILED for code in codes[1:]):
            wrong.append(f"run {i} of {name}, change {moment} of {n_changes[name]}, {seconds=}: {codes=}, {differ=}")
        shutil.rmtree(run)
    print(json.dumps({"killed": n_killed, "resumed": resumed, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
