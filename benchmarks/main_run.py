"""The whole work on one large tomogram, by the commands a user types: mark, train, plan, classify, resume, evaluate.

    gpu-tomoclass simulate pillar -o work/pillar.tif --shape 861,428,317
    python benchmarks/main_run.py work/pillar.tif work/pillar_truth.tif [--every 15] [--planes 861]

Strokes are painted by a script on every 15th plane, the model has 252 channels and 200 trees. The classification is
interrupted once on the way (SIGINT) and resumed. Each command is a process of its own; its wall time, processor time
and largest resident size are the system's. ``--planes`` classifies the first planes only; the time for the volume is
then extrapolated. Writes benchmarks/results/main_run.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from shared import processor

from gpu_tomoclass import __version__
from gpu_tomoclass.device.cores import usable_cores
from gpu_tomoclass.studies.strokes import draw_strokes
from gpu_tomoclass.volumes.opening import create_volume, open_volume

RESULTS = Path(__file__).parent / "results" / "main_run.json"
STOPPED = 6  # exit code of a run that was interrupted and can be resumed
TWS_HOURS = 861 * 14.6 / 3600  # measured 14.6 s per plane of this size and bank in Fiji, on other cores


def run(*arguments: object, expect: int = 0, interrupt_when: Callable[[], bool] = lambda: False) -> dict[str, float]:
    """One command as a user runs it; what the system says it cost.

    ``interrupt_when`` is asked now and then; once it says True, the process gets Ctrl-C.
    """
    command = [sys.executable, "-m", "gpu_tomoclass", *map(str, arguments)]
    began = time.perf_counter()
    pid = os.spawnv(os.P_NOWAIT, command[0], command)  # not subprocess, which would take the child's usage
    peak, interrupted = 0, False
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = largest_resident(pid) or peak  # the last answer: the first may still be of the forked parent
        if not interrupted and interrupt_when():
            os.kill(pid, signal.SIGINT)
            interrupted = True
        time.sleep(0.02 if interrupted else 0.2)
    _, status, usage = os.wait4(pid, 0)
    if (code := os.waitstatus_to_exitcode(status)) != expect:
        raise SystemExit(f"{' '.join(command)} ended with {code}, not {expect}")
    cost = {
        "seconds": round(time.perf_counter() - began, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_MB": round(peak / 1e6),
    }
    print(f"{arguments[0]}: {cost}", flush=True)
    return cost


def answer(*arguments: object) -> Any:
    """What a command says with ``--json``."""
    command = [sys.executable, "-m", "gpu_tomoclass", *map(str, arguments), "--json", "-q"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def largest_resident(pid: int) -> int:
    """Bytes that a process has had resident at most (Linux); ru_maxrss would begin with those of its parent."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def has_lines(journal: Path, n: int) -> Callable[[], bool]:
    """Whether so many slabs are recorded as done."""
    return lambda: journal.exists() and len(journal.read_bytes().splitlines()) >= n


def paint(volume: Path, truth: Path, strokes: Path, *, every: int, per_class: int, length: int) -> int:
    """Strokes on every n-th plane, from the middle of the first ``every``; their pixels."""
    n_pixels = 0
    with open_volume(truth) as labels:
        marked = range(every // 2, labels.shape[0], every)
        with create_volume(strokes, shape=(len(marked), *labels.shape[1:]), dtype=np.uint8, overwrite=True) as writer:
            for i, z in enumerate(marked):
                painted = draw_strokes(labels.plane(z), per_class=per_class, length=length, seed=z)
                n_pixels += int(np.count_nonzero(painted))
                writer.write_plane(i, painted)
    return n_pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path)
    parser.add_argument("truth", type=Path, help="classes 1..k")
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--strokes", type=int, default=2, help="per class on each marked plane")
    parser.add_argument("--length", type=int, default=20)
    parser.add_argument("--planes", type=int, help="classify the first planes only")
    parser.add_argument("--device", default="native")
    given = parser.parse_args()
    with open_volume(given.volume) as volume:
        shape, stored = volume.shape, volume.dtype.name
    n_planes = given.planes or shape[0]
    with tempfile.TemporaryDirectory(dir=given.volume.parent) as name:
        folder = Path(name)
        strokes, model, labels = folder / "strokes.tif", folder / "pillar.tcm", folder / "labels.ome.zarr"
        n_pixels = paint(
            given.volume, given.truth, strokes, every=given.every, per_class=given.strokes, length=given.length
        )
        steps: dict[str, Any] = {}
        steps["train"] = run(
            "train", given.volume, strokes, "--every", given.every, "-o", model,
            "--class-names", "vacuum,rubber,silica", "--device", given.device,
            "--cache", folder / "cache", "-q",
        )  # fmt: skip
        planned = answer("plan", given.volume, model, "-o", labels, "--device", given.device)
        planes = f"0:{n_planes}"
        classify = ("classify", given.volume, model, "-o", labels, "--device", given.device, "--planes", planes)
        partial = folder / (labels.name + ".partial") / "done.jsonl"
        halfway = has_lines(partial, n_planes // 2 // planned["slab_planes"])
        steps["classify, interrupted"] = run(*classify, expect=STOPPED, interrupt_when=halfway)
        n_first = 0
        for line in map(json.loads, partial.read_text().splitlines()):
            n_first += line["stop"] - line["start"]
        profile = folder / "profile.json"
        steps["classify, resumed"] = run(*classify, "--profile", profile)
        n_second = n_planes - n_first
        truth = given.truth
        if n_planes < shape[0]:
            truth = folder / "truth.tif"
            with (
                open_volume(given.truth) as whole,
                create_volume(truth, shape=(n_planes, *shape[1:]), dtype=np.uint8) as writer,
            ):
                for z in range(n_planes):
                    writer.write_plane(z, whole.plane(z))
        scores = answer("evaluate", labels, truth)
        both = [steps["classify, interrupted"], steps["classify, resumed"]]
        seconds = sum(step["seconds"] for step in both)
        record = {
            "what": "one large tomogram from strokes to scores, by command; classification interrupted once",
            "gpu_tomoclass": __version__,
            "machine": {"cores": usable_cores(), "load_at_the_end": os.getloadavg()[0], "processor": processor()},
            "volume": {"shape": shape, "dtype": stored, "bytes": given.volume.stat().st_size},
            "strokes": {"every": given.every, "pixels": n_pixels},
            "steps": steps,
            "planned": planned,
            "classified_planes": {"before_the_interruption": n_first, "after_it": n_second},
            "planes_per_second": round(n_planes / seconds, 3),
            "peak_MB": max(step["peak_MB"] for step in both),
            "seconds_for_the_volume": round(seconds * shape[0] / n_planes, 1),
            "extrapolated": n_planes != shape[0],
            "profile_of_the_resumed_part": json.loads(profile.read_text()),
            "scores": scores,
            "tws_hours_for_the_volume_on_another_machine": round(TWS_HOURS, 2),
        }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['planes_per_second']} planes/s, {record['peak_MB']} MB, {seconds:.0f} s for {n_planes} planes")


if __name__ == "__main__":
    main()
