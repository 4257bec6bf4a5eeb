"""Forest prediction on this CPU: our kernels, our NumPy path, scikit-learn and, where it is installed, nvForest.

    python benchmarks/bench_forest.py [--forests small,standard,large] [--rounds 7]

Every engine has the same trees and the same 135,676 pixels of 252 features, in the layout that it likes best (rows of
pixels for scikit-learn and nvForest, rows of channels for ours), and the same number of threads. Engines take turns, so
that a busy moment of the machine meets all of them. ``large`` takes minutes to grow. Writes
benchmarks/results/forest_native.json, where other forests of earlier runs stay, and prints a table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from bench_native import sample_plane
from scipy.ndimage import gaussian_filter
from shared import processor
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass import __version__
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.forest.predict_on_device import DeviceForest

RESULTS = Path(__file__).parent / "results" / "forest_native.json"
# Training rows, and the share of them with a random label: what decides how many nodes the trees have.
FORESTS = {"small": (700, 0.02), "standard": (5000, 0.01), "large": (200_000, 0.65)}
N_CLASSES = 3
OPTIMIZED_NODES = 1_000_000  # up to here nvForest may try its layouts and chunk sizes; it takes minutes
LARGEST_DIFFERENCE = 1e-6


def training_rows(n_rows: int, share: float, *, n_planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 252) float32 and labels (n,): three ranges of the smoothed plane, some labels at random."""
    random = np.random.default_rng(3)
    bank, values, labels = FeatureBank.create("paper"), [], []
    for i in range(n_planes):
        plane = sample_plane()
        if i:  # another plane of the same kind
            plane = np.round(plane[::-1] + random.normal(size=plane.shape) * 1500).astype(np.float32)
        smooth = gaussian_filter(plane, 2)
        label = 1 + np.digitize(smooth, np.quantile(smooth, [0.4, 0.7])).ravel()
        is_random = random.random(label.size) < share
        labels.append(np.where(is_random, random.integers(1, N_CLASSES + 1, label.size), label))
        values.append(bank.compute(plane).reshape(bank.n_channels, -1).T)
    rows = random.permutation(sum(map(len, labels)))[:n_rows]
    return np.concatenate(values)[rows], np.concatenate(labels)[rows]


def engines(
    classifier: RandomForestClassifier, features: np.ndarray, *, threads: int
) -> tuple[dict[str, Callable[[], np.ndarray]], dict[str, float]]:
    """What gives (n_pixels, n_classes), and the seconds that each needed to take over the trees."""
    rows = np.ascontiguousarray(features.T)
    forest = forest_from_sklearn(classifier)
    device = choose_device("native", threads=threads)
    on_device = device.array(features)
    began = time.perf_counter()
    native = DeviceForest(forest, device)
    seconds = {"native": time.perf_counter() - began}
    found: dict[str, Callable[[], np.ndarray]] = {
        "native": lambda: device.numpy(native.probabilities(on_device)).T,
        "numpy": lambda: predict_probabilities(forest, features, n_threads=threads).T,
        "scikit-learn": lambda: classifier.predict_proba(rows),
    }
    try:
        nvforest = importlib.import_module("nvforest")
    except ImportError:
        return found, seconds
    began = time.perf_counter()
    rival = nvforest.load_from_sklearn(classifier, device="cpu")
    if forest.n_nodes < OPTIMIZED_NODES:
        rival = rival.optimize(data=rows)
    seconds["nvForest (CPU)"] = time.perf_counter() - began
    found["nvForest (CPU)"] = lambda: np.asarray(rival.predict_proba(rows))
    return found, seconds


def measure(name: str, features: np.ndarray, *, threads: int, rounds: int) -> dict[str, object]:
    """One forest."""
    n_rows, share = FORESTS[name]
    values, labels = training_rows(n_rows, share, n_planes=1 if n_rows < features.shape[1] else 2)
    classifier = RandomForestClassifier(200, criterion="entropy", max_features=2, random_state=42, n_jobs=threads)
    classifier.fit(values, labels)
    n_nodes = sum(tree.tree_.node_count for tree in classifier.estimators_)
    found, prepared = engines(classifier, features, threads=threads)
    print(f"{name}: {n_nodes} nodes, {len(classifier.estimators_)} trees, {n_rows} training rows")
    expected = found["scikit-learn"]()
    differences = {engine: float(np.abs(run() - expected).max()) for engine, run in found.items()}
    seconds: dict[str, list[float]] = {engine: [] for engine in found}
    for _ in range(rounds):
        for engine, run in found.items():
            began = time.perf_counter()
            run()
            seconds[engine].append(time.perf_counter() - began)
    table = {}
    for engine, times in seconds.items():
        table[engine] = {
            "min_s": round(min(times), 4),
            "median_s": round(statistics.median(times), 4),
            "largest_difference": differences[engine],
            "preparation_s": round(prepared[engine], 3) if engine in prepared else None,
        }
        ratio = min(times) / min(seconds["native"])
        print(
            f"  {engine:16} min {min(times):8.3f} s   median {statistics.median(times):8.3f} s   {ratio:6.1f} x native"
            f"   differs by {differences[engine]:.1e}",
            flush=True,
        )
    if differences["native"] > LARGEST_DIFFERENCE:
        raise SystemExit(f"native differs from scikit-learn by {differences['native']:.1e}")
    return {"n_nodes": n_nodes, "n_trees": 200, "training_rows": n_rows, "engines": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forests", default="small,standard,large")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    bank = FeatureBank.create("paper")
    features = np.ascontiguousarray(bank.compute(sample_plane()).reshape(bank.n_channels, -1))
    device = choose_device("native", threads=given.threads)
    stored = {
        "gpu_tomoclass": __version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
        "native": device.description,
        "cpu": processor(),
        "threads": given.threads,
        "n_pixels": features.shape[1],
        "n_features": features.shape[0],
        "forests": json.loads(given.json.read_text())["forests"] if given.json.exists() else {},
    }
    for name in given.forests.split(","):
        rounds = given.rounds if name != "large" else max(3, given.rounds // 2)
        measured = measure(name, features, threads=given.threads, rounds=rounds)
        stored["forests"][name] = {**measured, "rounds": rounds, "load_after": round(os.getloadavg()[0], 2)}
        given.json.parent.mkdir(exist_ok=True)
        given.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
