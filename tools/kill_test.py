"""Kill a run before chosen file operations, repeat the command, and compare every byte of what it makes.

``python tools/kill_test.py --kills 100`` (``make kill-test``). A run makes labels, probabilities and uncertainty of a
small volume in one of the kinds of output; a process is killed (SIGKILL) right before its n-th change of the disk, for
n spread over the whole run and for every one of the last changes, in which outputs get their names and the unfinished
run is tidied up. Then the same call must complete, give the bytes of a run without interruption, and leave nothing else
beside them. In every second run the outputs replace older ones.

All work is done in forked processes: this one starts no threads, whose locks its children would find held for ever.
What the first of each kind has imported this one then imports, so that not every child has to.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classification import classify
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.model import load_model, save_model
from gpu_tomoclass.outputs import wait_for_removals
from gpu_tomoclass.volumes import create_volume, open_volume

# The kinds of output: name, and what create_volume is told.
KINDS: dict[str, dict[str, Any]] = {
    "labels.tif": {},
    "labels.ome.tif": {},
    "labels.ome.zarr": {},
    "sharded.ome.zarr": {"ome_version": "0.5", "sharded": True},
    "labels.mrc": {},
}
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")
IMPORTED = ("gpu_tomoclass", "zarr", "scipy")  # start no threads
LONGEST = 1200  # seconds that a process may take, on a busy machine
LAST = 12  # the last so many operations of a run are all tried


def sample(path: Path, model: Path) -> None:
    """Write a volume of 6 planes and a model of two classes for it."""
    from gpu_tomoclass.annotations import Annotation
    from gpu_tomoclass.classes import default_classes
    from gpu_tomoclass.features import FeatureBank
    from gpu_tomoclass.training import train

    array = np.random.default_rng(8).integers(0, 300, (6, 24, 21)).astype(np.uint16)
    array[:, 6:18, 5:15] += 250
    with create_volume(path, shape=(6, 24, 21), dtype=array.dtype, voxel_size=(1.0, 1.0, 1.0)) as writer:
        for z, plane in enumerate(array):
            writer.write_plane(z, plane)
    z, y, x = (a.ravel() for a in np.meshgrid([2], np.arange(24), np.arange(0, 21, 2), indexing="ij"))
    inside = (y >= 6) & (y < 18) & (x >= 5) & (x < 15)
    classes = default_classes(["out", "in"])
    annotation = Annotation.from_voxels(z, y, x, 1 + inside, shape=array.shape, classes=classes)
    bank = FeatureBank.create(["gaussian_blur"], sigma_max=2)
    with open_volume(path) as volume:
        device = choose_device("numpy", threads=1)
        save_model(train(volume, annotation, bank=bank, n_trees=8, max_depth=6, device=device).model, model)


def make(path: Path, model: Path, output: Path, *, overwrite: bool) -> None:
    """The call that is killed, and repeated."""
    with open_volume(path) as volume:
        classify(volume, load_model(model), output=output, overwrite=overwrite, probabilities="uint8",
                 uncertainty="entropy", device=choose_device("numpy", threads=1), **KINDS[output.name])  # fmt: skip


def forked(work: Callable[[], Any], before_change: Callable[[str], None]) -> int:
    """Run ``work`` in a process that says before each change of the disk what it will be; its exit status."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return waited(pid)
    code = 1
    try:
        sync = os.fsync

        def synced(descriptor: int) -> None:
            before_change("os.fsync")
            sync(descriptor)

        os.fsync = synced

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            if event in CHANGES:
                before_change(event)
            elif event == "open" and isinstance(arguments[0], (str, bytes)):
                flags = arguments[2] or 0
                if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not os.fsdecode(arguments[0]).startswith("/dev"):
                    before_change("open")

        sys.addaudithook(heard)
        work()
        wait_for_removals()  # os._exit does not
        code = 0
    except BaseException as error:
        print(f"  in the process: {error!r}", file=sys.stderr)
    finally:
        os._exit(code)


def waited(pid: int) -> int:
    """The exit status of a process, which must end."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"a process hangs: not done after {LONGEST} s")


def done(work: Callable[[], Any]) -> bool:
    """Do the work in a process of its own; whether it went well."""
    return forked(work, lambda change: None) == 0


def count(work: Callable[[], Any], record: Path) -> list[str]:
    """The changes that ``work`` makes, in order."""
    descriptor = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    status = forked(work, lambda change: os.write(descriptor, f"{change}\n".encode()) and None)
    os.close(descriptor)
    assert status == 0, "the run fails without being killed"
    return record.read_text().splitlines()


def killed(work: Callable[[], Any], n: int) -> bool:
    """Run ``work`` until right before its n-th change (from 0); False if it made fewer."""
    left = n

    def before_change(change: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        left -= 1

    return os.WIFSIGNALED(forked(work, before_change))


def digest(folder: Path) -> dict[str, str]:
    """A hash of every file below the folder, by name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def moments(n_changes: int, n_kills: int) -> Iterator[int]:
    """Which changes to be killed at: the last ones, and others evenly spread."""
    last = list(range(max(0, n_changes - min(LAST, (n_kills + 1) // 2)), n_changes))
    spread = np.linspace(0, max(0, last[0] - 1), max(0, n_kills - len(last)) or 1).astype(int).tolist()
    yield from sorted({*spread, *last})


def campaign(kind: str, wanted: int, *, path: Path, model: Path, scratch: Path) -> int:
    """Kills in runs that make this kind of output; how many.

    Raises
    ------
    AssertionError
        If a repeated call fails or gives other bytes, or something is left over; says at which change.
    """
    whole = scratch / "whole"
    whole.mkdir()
    modules = scratch / "modules"

    def first() -> None:
        make(path, model, whole / kind, overwrite=False)
        modules.write_text("\n".join(name for name in sys.modules if name.partition(".")[0] in IMPORTED))

    assert done(first), "the run fails without being killed"
    for module in modules.read_text().split():
        importlib.import_module(module)
    expected = digest(whole)
    shutil.rmtree(whole)
    whole.mkdir()
    changes = count(lambda: make(path, model, whole / kind, overwrite=False), scratch / "changes")
    n_kills = 0
    for n in moments(len(changes), wanted):
        folder = scratch / f"{kind}-{n}"
        overwrite = bool(n_kills % 2)
        if overwrite:
            shutil.copytree(whole, folder)
            for file in folder.glob("*.*"):
                if file.is_file():
                    file.write_bytes(b"an older output")
                else:  # a store: of another time
                    (file / "old").write_text("an older output")
        else:
            folder.mkdir()
        output = folder / kind
        if killed(lambda output=output, overwrite=overwrite: make(path, model, output, overwrite=overwrite), n):
            n_kills += 1
        where = f"{kind}, killed before change {n} of {len(changes)} ({changes[n]}), {overwrite = }"
        if any(folder.glob("*.partial")) or any(folder.glob(".*")) or digest(folder) != expected:
            again = done(lambda output=output, overwrite=overwrite: make(path, model, output, overwrite=overwrite))
            assert again, f"{where}: the same call fails; there are {os.listdir(folder)}"
        found = digest(folder)
        assert found == expected, f"{where}: other bytes: {sorted({*found.items()} ^ {*expected.items()})[:6]}"
        left = [name for name in os.listdir(folder) if name.startswith(".") or name.endswith(".partial")]
        assert not left, f"{where}: left over: {left}"
        shutil.rmtree(folder)
    say(f"{kind}: {n_kills} kills among {len(changes)} changes of the disk, the same bytes after each")
    shutil.rmtree(whole)
    return n_kills


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all kinds of output together")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this one; repeatable")
    arguments = parser.parse_args()
    kinds = arguments.kind or list(KINDS)
    with tempfile.TemporaryDirectory() as name:
        path, model = Path(name, "volume.tif"), Path(name, "model.tcm")
        assert done(lambda: sample(path, model)), "the sample cannot be made"
        n_kills = 0
        for kind in kinds:
            scratch = Path(name) / kind
            scratch.mkdir()
            wanted = -(-arguments.kills // len(kinds))
            n_kills += campaign(kind, wanted, path=path, model=model, scratch=scratch)
    say(f"{n_kills} kills in all")


if __name__ == "__main__":
    main()
