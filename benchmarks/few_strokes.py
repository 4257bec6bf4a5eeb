"""How many strokes does an adapted model need to equal a volume's own? Old rows pooled with few new strokes.

    python benchmarks/few_strokes.py [--seeds 0 1 2 3 4] [--needle TRUTH SOURCE TARGET]

A model is trained on one volume (8 strokes per class on each of four planes) and adapted to another. Then strokes on
the other are added, few and more, alone and pooled with the old rows by several weights. Accuracy is that of planes
without strokes. Writes benchmarks/results/few_strokes.json after each case and goes on where it was stopped; prints a
table.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import transfer

import gpu_tomoclass as gt
from gpu_tomoclass.studies.simulation.pillar import simulate_sample

RESULTS = Path(__file__).parent / "results" / "few_strokes.json"
PER_CLASS, LENGTH = 8, 24
STROKES = ((1, 1), (1, 4), (2, 8))  # on so many planes, so many per class
WEIGHTS = (None, 0.1, 1.0)  # of old rows; None: without


def cases(seed: int, needle: list[str] | None) -> list[tuple[str, transfer.Case, transfer.Case]]:
    """Name, the volume that a model is of, and another."""

    def pillar(name: str, **options: float) -> transfer.Case:
        sample = simulate_sample(**options)
        marked = [3, 9, 15, 21]
        return transfer.Case(name, sample.volume, sample.truth, marked, [1, 6, 12, 18, 23])

    source = pillar("pillar", seed=100 * seed + 1)
    found = [
        ("pillar, a quarter of the dose", source, pillar("dose", seed=100 * seed + 2, counts=10.0)),
        ("pillar, 5 iterations", source, pillar("iterations", seed=100 * seed + 3, iterations=5)),
    ]
    if needle:
        truth, *volumes = needle
        old, new = transfer.given(truth, volumes, n_marked=4, n_scored=6)
        for case in (old, new):  # other planes for each seed
            case.marked = [z + seed for z in case.marked]
            case.scored = [z for z in case.scored if z not in case.marked]
        found.append(("needle", old, new))
    return found


def strokes(case: transfer.Case, *, planes: int, per_class: int, seed: int) -> gt.Annotation:
    chosen = case.marked[:: max(1, len(case.marked) // planes)][:planes]
    return transfer.annotation_of(case, per_class=per_class, length=LENGTH, planes=chosen, seed=seed)


def measured(old: transfer.Case, new: transfer.Case, *, seed: int, trees: int, features: str, device) -> dict:
    """Accuracies in order of what was marked."""
    growing = {"n_trees": trees, "engine": "sklearn", "workers": 1, "device": device}

    def accuracy(model: gt.Model) -> float:
        right = [(model.predict(new.array[z], device=device).labels == new.truth[z]).mean() for z in new.scored]
        return round(float(np.mean(right)), 4)

    everything = {"planes": 4, "per_class": PER_CLASS, "seed": seed}
    source = gt.train(old.array, strokes(old, **everything), features=features, keep_rows=True, **growing)
    own = gt.train(new.array, strokes(new, **everything), features=features, **growing)
    useful = min(new.scored), max(new.scored) + 1
    adapted = gt.adapt(source, new.array, device=device, planes=useful, n_planes=len(new.scored))
    found = {"as given": accuracy(source), "adapted": accuracy(adapted.model), "own": accuracy(own), "few": []}
    for planes, per_class in STROKES:
        marks = strokes(new, planes=planes, per_class=per_class, seed=seed)
        row = {"planes": planes, "per_class": per_class, "pixels": int(marks.z.size)}
        for weight in WEIGHTS:
            if weight is None:
                row["alone"] = accuracy(gt.train(new.array, marks, features=features, **growing))
            else:
                pooled = gt.train(new.array, marks, old=adapted.model, old_weight=weight, **growing)
                row[f"old rows {weight:g}"] = accuracy(pooled)
        found["few"].append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--features", default="weka-default")
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--needle", nargs=3, metavar=("TRUTH", "SOURCE", "TARGET"))
    parser.add_argument("--output", default=str(RESULTS))
    options = parser.parse_args()
    device, output = gt.choose_device("native", threads=1), Path(options.output)
    record = json.loads(output.read_text()) if output.exists() else {"cases": []}
    record |= {"features": options.features, "trees": options.trees, "version": gt.__version__}
    done = {(case["case"], case["seed"]) for case in record["cases"]}
    for seed in options.seeds:
        for name, old, new in cases(seed, options.needle):
            if (name, seed) in done:
                continue
            began = time.process_time()
            found = measured(old, new, seed=seed, trees=options.trees, features=options.features, device=device)
            seconds = round(time.process_time() - began, 1)
            record["cases"].append({"case": name, "seed": seed, **found, "cpu_seconds": seconds})
            output.write_text(json.dumps(record, indent=1) + "\n")
            print(name, seed, json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
