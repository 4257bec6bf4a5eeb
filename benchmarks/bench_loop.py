"""From the end of a stroke to the new overlay of the plane in view: a session against `train` and `preview`.

``python benchmarks/bench_loop.py [--rounds 5] [--moments 20] [--json FILE]``. One simulated 317 x 428 plane of a volume
of five, 252 channels, 200 trees, 5,000 marked pixels. *first*: the stroke ends in the moment in which the plane is
looked at, so nothing of it is known; *first, in view*: the plane was in view for 2 s before, in which its features are
computed ahead, as they are while a person paints; *cached*: a stroke is added to what was learnt; *commands*: the same
with ``train`` and ``preview``, features on disk. *left off*: from a new stroke until the thread has left whatever it
did, for strokes at random moments (--moments each round); what is reported is the 50th and 95th percentile and the
longest. Wall and CPU seconds (all threads); on a busy machine only the latter, over the number of cores, say what an
idle one needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from shared import processor

import gpu_tomoclass as gt
from gpu_tomoclass.device import usable_cores
from gpu_tomoclass.studies.simulation.pillar import simulate_sample
from gpu_tomoclass.studies.strokes import draw_strokes

SHAPE = (5, 317, 428)
N_MARKED = 5000
TARGETS = {"first": 1.0, "first, in view": 1.0, "cached": 0.5}
IN_VIEW = 2.0  # seconds
LEFT_OFF = 0.1  # the target
MOMENT = 2.5  # seconds; strokes come at most so long after the last one's work has begun


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def marks_of(truth: np.ndarray) -> np.ndarray:
    """Strokes of about 5,000 pixels."""
    marks = np.zeros_like(truth)
    for per_class in range(2, 40):
        marks = draw_strokes(truth, per_class=per_class, length=40, seed=1)
        if (marks > 0).sum() >= N_MARKED:
            break
    return marks


def paint(session: gt.Session, z: int, marks: np.ndarray) -> None:
    """All of it but one stroke's pixels; painted while nothing learns."""
    for value in np.unique(marks[marks > 0]):
        session.paint(z, marks == value, int(value))


def until(session: gt.Session, kind: str, z: int | None, act: Callable[[], object]) -> tuple[tuple[float, float], dict]:
    """Act, and wait for an event of a kind, for a plane; the seconds and what the events said."""
    came, said = threading.Event(), {}

    def listener(event: gt.Event) -> None:
        if event.kind in ("trained", "overlay"):
            said.setdefault(event.kind, event.data["seconds"])
        if (
            event.kind == kind
            and (z is None or event.data["z"] == z)
            and (kind != "work" or event.data["what"] == "forest")
        ):
            came.set()

    leave = session.listen(listener)
    clock = Clock()
    act()
    assert came.wait(300)
    seconds = clock.read()
    leave()
    return seconds, said


def moments(session: gt.Session, z: int, n: int) -> list[tuple[float, float]]:
    """Seconds (wall, CPU) from a stroke, at a random moment of the work, until the thread begins to learn from it."""
    rng, found = np.random.default_rng(0), []
    for number in range(n):
        time.sleep(rng.uniform(0, MOMENT))
        y, x = rng.uniform(20, SHAPE[1] - 20), rng.uniform(20, SHAPE[2] - 60)
        if number % 4 == 3:
            session.look_at(int(rng.integers(SHAPE[0])))  # a person leafs, too
        way = [(y, x), (y + 4, x + 30)]
        found.append(until(session, "work", None, lambda way=way: session.stroke(z, way, value=1, width=3))[0])
    return found


def one_round(
    volume: np.ndarray, truth: np.ndarray, cache: Path, n_moments: int
) -> tuple[dict[str, tuple[float, float]], list[tuple[float, float]]]:
    """Seconds (wall, CPU) by what was measured, and those from strokes at random moments."""
    z = SHAPE[0] // 2
    marks, found = marks_of(truth[z]), {}
    names = [f"class {v}" for v in np.unique(truth)]
    for name, in_view in (("first, in view", IN_VIEW), ("first", 0.0)):
        session = gt.Session(volume, class_names=names)
        session.live = False
        session.look_at(0)
        assert session.wait(600)  # what is compiled and imported once
        paint(session, z, marks)

        def first(session: gt.Session = session) -> None:
            session.look_at(z)
            session.live = True

        if in_view:
            session.look_at(z)
            time.sleep(in_view)
        found[name], steps = until(session, "overlay", z, first)
        found |= {f"{name}: {k}": (s, np.nan) for k, s in parts(steps).items()}
        assert session.wait(600)
        if in_view:
            session.close()
    with session:
        found["cached"], steps = until(
            session, "overlay", z, lambda: session.stroke(z, [(60.5, 60.5), (70.5, 90.5)], value=2, width=7)
        )
        found |= {f"cached: {k}": (s, np.nan) for k, s in parts(steps).items()}
        annotation = session.strokes.annotation()
        left_off = moments(session, z, n_moments)
    features = gt.FeatureCache(cache)
    clock = Clock()
    model = gt.train(volume, annotation, cache=features)
    gt.preview(model, volume, plane=z, cache=features)
    found["commands"] = clock.read()
    return found, left_off


def parts(steps: dict) -> dict[str, float]:
    """Rows, forest and plane."""
    trained, overlay = steps["trained"], steps["overlay"]
    return {"features, rows": trained["rows"], "forest grown": trained["forest"], "plane asked": overlay["forest"]}


def main() -> None:
    """Run the rounds, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "loop.json")
    options = parser.parse_args()
    sample = simulate_sample(shape=SHAPE, diameter=0.9 * SHAPE[1], seed=3)
    seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    left_off: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            found, of_round = one_round(sample.volume, sample.truth, Path(folder), options.moments)
            left_off += of_round
            for name, value in found.items():
                seconds[name].append(value)
            print(f"round {number + 1} of {options.rounds}", flush=True)
    n_cores = usable_cores()
    print(f"{'':34}{'wall min':>10}{'median':>10}{'CPU min':>10}{f'CPU/{n_cores}':>10}{'target':>10}")
    result: dict[str, object] = {
        "processor": processor(),
        "cores": n_cores,
        "marked": int((marks_of(sample.truth[2]) > 0).sum()),
    }
    for name, values in seconds.items():
        wall, cpu = [w for w, _ in values], [c for _, c in values]
        target = TARGETS.get(name)
        print(f"{name:34}{min(wall):10.3f}{statistics.median(wall):10.3f}{min(cpu):10.3f}{min(cpu) / n_cores:10.3f}"
              f"{'' if target is None else f'{target:.1f}':>10}")  # fmt: skip
        known = {} if np.isnan(min(cpu)) else {"cpu_min": round(min(cpu), 4)}
        result[name] = {"wall_min": round(min(wall), 4), "wall_median": round(statistics.median(wall), 4), **known}
    for text, column, per in (("wall", 0, 1), (f"CPU/{n_cores}", 1, n_cores)):
        p50, p95, longest = (float(f) / per for f in np.percentile([m[column] for m in left_off], [50, 95, 100]))
        print(f"left off, {text:24}{p50:10.3f}{p95:10.3f}{longest:10.3f}  (p50, p95, longest of {len(left_off)})"
              f"{LEFT_OFF:10.1f}")  # fmt: skip
        result[f"left off, {text.partition('/')[0]}"] = {
            "p50": round(p50, 4), "p95": round(p95, 4), "longest": round(longest, 4), "strokes": len(left_off),
        }  # fmt: skip
    result["load"] = round(os.getloadavg()[0], 1)
    options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
