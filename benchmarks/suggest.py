"""Where to mark next: corrections on random planes against corrections at suggested places, by a scripted operator.

    python benchmarks/suggest.py [--seeds 0 1 2 3 4] [--features weka-default] [--needle TRUTH VOLUME]

Both begin with the same strokes on two planes. In each round, the one looks at two random planes and corrects the
largest wrong areas by strokes; the other gets suggested patches and puts two short strokes into each, one where it is
wrong and one where it is right. Accuracy is that of planes that nobody marks, by pixels marked. Writes
benchmarks/results/suggest.json after each case and goes on where it was stopped; prints a table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import gpu_tomoclass as gt
from gpu_tomoclass.studies.simulation.phantom import simulate_phantom
from gpu_tomoclass.studies.simulation.pillar import simulate_sample
from gpu_tomoclass.studies.strokes import correction_strokes, draw_strokes

RESULTS = Path(__file__).parent / "results" / "suggest.json"
ROUNDS = 4
CORRECTIONS, LENGTH = 12, 20  # strokes on a plane, and pixels that one aims at
PLACES, SHORT = 5, 9  # suggested in a round, and pixels that a stroke there aims at
WEDGE = np.arange(-76.0, 77.0, 2.0)


def cases(seed: int, needle: list[str] | None) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, volume and truth (1..k)."""
    found = []
    for name, options in (("pillar", {}), ("pillar, quarter of the dose", {"counts": 10.0})):
        sample = simulate_sample(seed=seed + 1, **options)
        found.append((name, sample.volume, sample.truth))
    noisy = {"angles": WEDGE, "poisson": 0.5, "max_shift": 1.0}
    planes = [simulate_phantom(size=160, seed=100 * seed + z, **noisy) for z in range(10)]
    found.append(
        ("phantom with wedge", np.stack([p for p, _ in planes]), np.stack([t for _, t in planes]) + np.uint8(1))
    )
    if needle:
        truth, volume = (np.asarray(gt.open_volume(path)) for path in needle)
        useful = [z for z, plane in enumerate(truth) if np.unique(plane).size > 1]
        found.append(("needle", volume[useful], truth[useful].astype(np.uint8) + np.uint8(1)))
    return found


def annotation(strokes: dict[int, np.ndarray], truth: np.ndarray) -> gt.Annotation:
    painted = np.zeros_like(truth)
    for z, plane in strokes.items():
        painted[z] = plane
    z, y, x = np.nonzero(painted)
    classes = gt.default_classes([f"class {i}" for i in range(1, int(truth.max()) + 1)])
    return gt.Annotation.from_voxels(z, y, x, painted[z, y, x], shape=truth.shape, classes=classes)


def learn(volume, truth, *, by: str, seed: int, features: str, scored: list[int], device) -> list[dict]:
    random = np.random.default_rng([seed, 7])
    open_planes = [z for z in range(len(volume)) if z not in scored]
    first = [open_planes[len(open_planes) // 4], open_planes[3 * len(open_planes) // 4]]
    strokes = {z: draw_strokes(truth[z], per_class=2, length=LENGTH, seed=seed + z) for z in first}
    mask = np.ones(volume.shape, np.uint8)
    mask[scored] = 0
    curve = []
    for turn in range(ROUNDS + 1):
        marks = annotation(strokes, truth)
        model = gt.train(volume, marks, features=features, n_trees=60, engine="sklearn", device=device, workers=1)
        right = [(model.predict(volume[z], device=device).labels == truth[z]).mean() for z in scored]
        curve.append({"pixels": int(marks.z.size), "accuracy": float(np.mean(right))})
        if turn == ROUNDS:
            return curve
        if by == "planes":
            for z in random.choice(open_planes, 2, replace=False).tolist():
                found = model.predict(volume[z], device=device).labels
                before = strokes.get(z, np.zeros_like(truth[z]))
                strokes[z] = correction_strokes(truth[z], found, before, n=CORRECTIONS, length=LENGTH, seed=seed + turn)
            continue
        for s in gt.suggest(model, volume, marks, n=PLACES, n_planes=8, mask=mask, device=device):
            box = np.s_[s.y : s.y + s.height, s.x : s.x + s.width]
            plane = strokes.setdefault(s.z, np.zeros_like(truth[s.z]))
            true, wrong = truth[s.z][box], truth[s.z][box] != s.labels
            plane[box] = correction_strokes(true, s.labels, plane[box], n=1, length=SHORT, seed=seed + turn)
            right = np.where(wrong, true, 0)  # as if what is right were wrong
            n = 1 if wrong.any() else 2
            plane[box] = correction_strokes(true, right, plane[box], n=n, length=SHORT, seed=seed + turn + 50)
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--features", default="weka-default")
    parser.add_argument("--needle", nargs=2, metavar=("TRUTH", "VOLUME"))
    parser.add_argument("--output", default=str(RESULTS))
    options = parser.parse_args()
    device, began, output = gt.choose_device("native"), time.perf_counter(), Path(options.output)
    record = json.loads(output.read_text())["cases"] if output.exists() else []
    done = {(case["case"], case["seed"]) for case in record}
    for seed in options.seeds:
        for name, volume, truth in cases(seed, options.needle):
            if (name, seed) in done:
                continue
            scored = list(range(2, len(volume), max(3, len(volume) // 5)))[:5]
            settings = {"seed": seed, "features": options.features, "scored": scored, "device": device}
            curves = {by: learn(volume, truth, by=by, **settings) for by in ("planes", "places")}
            record.append({"case": name, "seed": seed, **curves})
            both = "   ".join(
                f"{by} " + " ".join(f"{c['pixels']}:{100 * c['accuracy']:.1f}" for c in curve)
                for by, curve in curves.items()
            )
            print(f"{name} {seed}: {both}", flush=True)
            made = {"features": options.features, "cases": record, "seconds": round(time.perf_counter() - began)}
            output.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
