"""The engines that grow forests, side by side: seconds to fit, and accuracy on planes without strokes.

    python benchmarks/forest_engines.py --needle VOLUME TRUTH --pillar VOLUME TRUTH

Every case: strokes on some planes, the same rows to every engine with several seeds, in turn; scored on pixels of
planes in between. ``binned`` is scikit-learn on values replaced by the number of their quantile (256 of them): the
splits that cuML can find, grown without a GPU. Writes benchmarks/results/forest_engines.json and prints tables.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device.cores import worker_count
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.prepare import prepare_plane
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.forest.grow_weka import train_weka
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.forest.trained import TrainedForest
from gpu_tomoclass.labels.evaluate import Confusion
from gpu_tomoclass.studies.simulation.pillar import simulate_sample
from gpu_tomoclass.studies.strokes import draw_strokes
from gpu_tomoclass.training.in_order import map_in_order
from gpu_tomoclass.volumes.opening import open_volume

RESULTS = Path(__file__).parent / "results" / "forest_engines.json"
N_BINS = 256
TEST_PIXELS = 20_000  # per plane


class Case(NamedTuple):
    """Rows (n, 252) float32 and labels (n,) from 1, to train on and to score on."""

    values: np.ndarray
    labels: np.ndarray
    test_values: np.ndarray
    test_labels: np.ndarray


def rows_of(
    plane_of: Callable[[int], np.ndarray], truth_of: Callable[[int], np.ndarray], nz: int, *, n_marked: int,
    n_test: int, strokes: int, length: int, workers: int,
) -> Case:  # fmt: skip
    """Strokes on ``n_marked`` planes and pixels of ``n_test`` planes half-way between two of them."""
    bank = FeatureBank.create("paper")
    step = nz / n_marked
    marked = [int(step * (i + 0.5)) for i in range(n_marked)]
    between = [(a + b) // 2 for a, b in itertools.pairwise(marked)]
    tested = [between[i] for i in np.linspace(0, len(between) - 1, n_test).astype(int)]

    def rows(z: int) -> tuple[int, np.ndarray, np.ndarray]:
        truth = truth_of(z)
        if z in tested:
            pixels = np.random.default_rng(z).permutation(truth.size)[:TEST_PIXELS]
            y, x = np.unravel_index(np.sort(pixels), truth.shape)
            labels = truth[y, x]
        else:
            painted = draw_strokes(truth, per_class=strokes, length=length, seed=z)
            y, x = np.nonzero(painted)
            labels = painted[y, x]
        return z, bank.compute(plane_of(z))[:, y, x].T, labels

    parts: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {True: [], False: []}
    for z, values, labels in map_in_order(rows, iter([*marked, *tested]), workers=workers):
        parts[z in tested].append((values, labels))
    joined = [np.concatenate(part) for kind in (False, True) for part in zip(*parts[kind], strict=True)]
    return Case(*joined)


def volume_case(volume_path: str, truth_path: str, *, stop: int | None, **options: Any) -> Case:
    with open_volume(volume_path) as volume, open_volume(truth_path) as truth:
        scale = IntensityScale.for_volume(volume)
        nz = volume.shape[0] if stop is None else stop
        return rows_of(
            lambda z: prepare_plane(volume, z, scale=scale).image, lambda z: truth.plane(z) + np.uint8(1), nz, **options
        )


def phantom_case(**options: Any) -> Case:
    sample = simulate_sample(seed=1)
    return rows_of(
        lambda z: sample.volume[z].astype(np.float32), lambda z: sample.truth[z], sample.volume.shape[0], **options
    )


def binned(values: np.ndarray, edges: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.searchsorted(e, v) for e, v in zip(edges, values.T, strict=True)], axis=1).astype(np.float32)


def quantiles(values: np.ndarray) -> list[np.ndarray]:
    steps = np.linspace(0, 1, N_BINS + 1)[1:-1]
    return [np.unique(np.quantile(v, steps, method="inverted_cdf")) for v in values.T]


def score(trained: TrainedForest, values: np.ndarray, labels: np.ndarray, threads: int) -> Confusion:
    probabilities = predict_probabilities(trained.forest, np.ascontiguousarray(values.T), n_threads=threads)
    confusion = Confusion(default_classes([str(v) for v in trained.class_values]))
    confusion.update(labels, np.array(trained.class_values, np.uint8)[probabilities.argmax(axis=0)])
    return confusion


def accuracy_of(case: Case, *, seeds: int, workers: int) -> dict[str, dict[str, list[float]]]:
    """Per engine: accuracy and mean IoU on the test pixels, out-of-bag error, seconds; one number per seed."""
    edges = quantiles(case.values)
    inputs = {
        "weka": (train_weka, case.values, case.test_values),
        "sklearn": (train_forest, case.values, case.test_values),
        "binned": (train_forest, binned(case.values, edges), binned(case.test_values, edges)),
    }
    found: dict[str, dict[str, list[float]]] = {
        name: {"accuracy": [], "mean_iou": [], "oob_error": [], "seconds": []} for name in inputs
    }
    for seed in range(seeds):
        for name, (train, values, test_values) in inputs.items():
            started = time.perf_counter()
            trained = train(values, case.labels, seed=seed, n_jobs=workers)
            seconds = time.perf_counter() - started
            confusion = score(trained, test_values, case.test_labels, workers)
            numbers = (confusion.accuracy, confusion.mean_iou, trained.oob_error, seconds)
            for key, number in zip(found[name], numbers, strict=True):
                found[name][key].append(round(float(number), 6))
    return found


def seconds_of(case: Case, n_rows: int, *, repeats: int, workers: int) -> dict[str, list[float]]:
    """Seconds to fit 200 trees on ``n_rows`` of the case's test pixels, engines in turn."""
    chosen = np.random.default_rng(0).permutation(case.test_labels.size)[:n_rows]
    values, labels = np.ascontiguousarray(case.test_values[chosen]), case.test_labels[chosen]
    if chosen.size < n_rows:
        raise SystemExit(f"there are only {chosen.size} test pixels for {n_rows} rows")
    found: dict[str, list[float]] = {"weka": [], "sklearn": []}
    train_weka(values[:500], labels[:500], n_trees=1)  # the compiler runs once per machine
    for seed in range(repeats):
        for name, train in (("weka", train_weka), ("sklearn", train_forest)):
            started = time.perf_counter()
            train(values, labels, seed=seed, n_jobs=workers)
            found[name].append(round(time.perf_counter() - started, 3))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--needle", nargs=2, metavar=("VOLUME", "TRUTH"), required=True)
    parser.add_argument("--pillar", nargs=2, metavar=("VOLUME", "TRUTH"), required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 50_000])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--keep", metavar="FOLDER", help="keep the rows of the cases here and use those kept")
    options = parser.parse_args()
    workers = worker_count(options.workers)
    planes = {"n_marked": 10, "n_test": 3, "workers": workers}
    makers: dict[str, Callable[[], Case]] = {
        "needle": lambda: volume_case(*options.needle, stop=204, strokes=3, length=12, **planes),
        "pillar": lambda: volume_case(*options.pillar, stop=None, strokes=5, length=24, **planes),
        "phantom": lambda: phantom_case(strokes=5, length=24, **{**planes, "n_marked": 6}),
    }
    record: dict[str, Any] = {"accuracy": {}, "seconds": {}}
    cases = {}
    for name, make in makers.items():
        path = Path(options.keep) / f"{name}.npz" if options.keep else None
        if path is not None and path.exists():
            with np.load(path) as file:
                cases[name] = Case(**file)
        else:
            cases[name] = make()
            if path is not None:
                np.savez(path, **cases[name]._asdict())
        found = accuracy_of(cases[name], seeds=options.seeds, workers=workers)
        record["accuracy"][name] = {"rows": int(cases[name].labels.size), "test": int(cases[name].test_labels.size),
                                    **found}  # fmt: skip
        print(f"{name}: {cases[name].labels.size} rows, {cases[name].test_labels.size} test pixels")
        for engine, numbers in found.items():
            accuracy, iou = np.array(numbers["accuracy"]), np.array(numbers["mean_iou"])
            print(f"  {engine:8} accuracy {100 * accuracy.mean():.2f} +- {100 * accuracy.std():.2f} %, mean IoU "
                  f"{iou.mean():.4f} +- {iou.std():.4f}, out-of-bag {100 * np.mean(numbers['oob_error']):.2f} %, "
                  f"fit {min(numbers['seconds']):.2f} s", flush=True)  # fmt: skip
    for n_rows in options.rows:
        found = seconds_of(cases["pillar"], n_rows, repeats=options.seeds, workers=workers)
        record["seconds"][str(n_rows)] = found
        print(f"{n_rows} rows x {cases['pillar'].values.shape[1]} channels, 200 trees: "
              + ", ".join(f"{name} {min(s):.2f} s" for name, s in found.items()), flush=True)  # fmt: skip
    record |= {
        "threads": workers,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
        "version": __version__,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(RESULTS)


if __name__ == "__main__":
    main()
