"""A whole plane, features and forest, on this CPU: the native device against our numpy path, libraries and TWS.

``python benchmarks/bench_plane.py [--rounds 5] [--skip-numpy] [--busy] [--json FILE]``. One 317 x 428 16-bit plane, 252
channels (the paper's 16 families), a forest of 200 trees grown on 5,000 of its pixels, two threads. Rivals run in turn
with ours in every round; minima and medians are printed. The TWS column is what Fiji's plugin took on another machine
of two cores, warm. ``--busy`` also measures each family and the forest beside two other busy processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from bench_native import TWS, sample_plane
from scipy import ndimage, signal

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.pipeline import Pipeline
from gpu_tomoclass.device import Device, NumpyDevice, choose_device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.reference.disk import disk_half_widths
from gpu_tomoclass.forest.grow import grow_forest
from gpu_tomoclass.model.model import Model

RESULTS = Path(__file__).parent / "results"
TWS_PLANE, TWS_FOREST = 14.6, 2.5
N_ROWS, N_PLANES = 5000, 8
RADII = (1, 2, 4, 8, 16)


def trained(plane: np.ndarray, device: Device) -> Model:
    """A model of three classes by grey value and texture, with noise in the labels so that trees grow deep."""
    bank = FeatureBank.create("paper")
    features = device.numpy(FeatureEngine(device, bank.blocks).compute(plane[np.newaxis])).reshape(bank.n_channels, -1)
    random = np.random.default_rng(3)
    rows = random.choice(plane.size, size=N_ROWS, replace=False)
    smooth = ndimage.gaussian_filter(plane, 3).ravel()[rows] + random.normal(size=N_ROWS) * 400
    labels = 1 + np.digitize(smooth, np.quantile(smooth, (0.4, 0.75)))
    grown = grow_forest(np.ascontiguousarray(features[:, rows].T), labels, engine="sklearn", n_jobs=2)
    return Model(grown.forest, bank, default_classes(["a", "b", "c"]), IntensityScale())


def alone(classifier: Classifier, plane: np.ndarray) -> Callable[[], dict[str, float]]:
    """One plane with all threads in it; its seconds per family and for the forest."""

    def run() -> dict[str, float]:
        timings: dict[str, float] = {}
        classifier.classify(plane[np.newaxis], timings=timings)
        return timings

    return run


def side_by_side(model: Model, device: Device, plane: np.ndarray) -> Callable[[], dict[str, float]]:
    """Several planes, each on a thread of its own, as ``classify`` does it."""
    plane_device, n_threads = device.side_by_side()
    classifier = Classifier(model, plane_device)

    def run() -> dict[str, float]:
        Pipeline(
            lambda: iter([plane[np.newaxis]] * N_PLANES), classifier.classify, lambda result: None, workers=n_threads
        ).run()
        return {}

    return run


def disk(radius: float) -> np.ndarray:
    """The disk of ImageJ as a footprint."""
    widths = disk_half_widths(radius)
    x = np.arange(-(len(widths) // 2), len(widths) // 2 + 1)
    return np.abs(x) <= np.asarray(widths)[:, np.newaxis]


def library_rivals(plane: np.ndarray) -> dict[str, Callable[[], object]]:
    """What SciPy and scikit-image have of the families: as many channels of the same size, by their own definitions."""
    from skimage.feature import multiscale_basic_features
    from skimage.filters import rank

    eight_bit = (255 * (plane - plane.min()) / np.ptp(plane)).astype(np.uint8)
    kernels = [np.random.default_rng(i).normal(size=(n, n)) for i, n in enumerate([7, 13, 25] * 2 + [13, 25] * 8)]
    return {
        "gaussian_blur": lambda: [ndimage.gaussian_filter(plane, 0.4 * s) for s in RADII],
        "median": lambda: [ndimage.median_filter(plane, footprint=disk(r)) for r in RADII],
        "minimum": lambda: [ndimage.minimum_filter(plane, footprint=disk(r)) for r in RADII],
        "entropy": lambda: [rank.entropy(eight_bit, disk(r)) for r in RADII],  # one of our four channels per radius
        "gabor": lambda: [signal.fftconvolve(plane, k, mode="same") for k in kernels for _ in range(10)],
        "derivatives": lambda: [ndimage.gaussian_filter(plane, s, order=(d, d)) for s in RADII for d in (2, 3)],
        "five default families (24 channels)": lambda: multiscale_basic_features(plane, sigma_min=0.5, sigma_max=16),
    }


def measure(runs: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each, in turn, after a first round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {
        name: {"min": round(1e3 * min(s[1:]), 2), "median": round(1e3 * statistics.median(s[1:]), 2)}
        for name, s in seconds.items()
    }


def beside_busy_processes(run: Callable[[], dict[str, float]], *, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of the milliseconds of each family, quiet and while two other processes compute, and their ratio."""
    quiet = [run() for _ in range(rounds + 1)][1:]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        time.sleep(0.5)
        busy = [run() for _ in range(rounds)]
    finally:
        for other in others:
            other.kill()
            other.wait()
    found = {}
    for name in quiet[0]:
        before, beside = (1e3 * statistics.median(seconds[name] for seconds in runs) for runs in (quiet, busy))
        found[name] = {"quiet": round(before, 2), "busy": round(beside, 2), "ratio": round(beside / before, 2)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-numpy", action="store_true")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--json", type=Path, default=RESULTS / "plane.json")
    given = parser.parse_args()
    plane = sample_plane()
    native = choose_device("native", threads=given.threads)
    model = trained(plane, native)
    one = Classifier(model, native)
    families: dict[str, list[float]] = {}
    features_only = FeatureEngine(native, FeatureBank.create("weka-default").blocks)

    def timed() -> None:
        for name, value in alone(one, plane)().items():
            families.setdefault(name, []).append(value)

    rivals = {f"library: {name}": run for name, run in library_rivals(plane).items()}
    planes = measure(
        {
            "native, one plane with all threads": timed,
            f"native, {N_PLANES} planes side by side": side_by_side(model, native, plane),
            "native, the five default families (69 channels)": lambda: features_only.compute(plane[np.newaxis]),
            **rivals,
        },
        rounds=given.rounds,
    )
    if not given.skip_numpy:
        with_numpy = side_by_side(model, NumpyDevice(threads=given.threads), plane)
        planes |= measure({f"numpy, {N_PLANES} planes side by side": with_numpy}, rounds=1)
    per_plane = planes[f"native, {N_PLANES} planes side by side"]["min"] / N_PLANES
    record = {
        "device": native.description,
        "plane": list(plane.shape),
        "channels": model.bank.n_channels,
        "forest": {"trees": model.forest.n_trees, "nodes": model.forest.n_nodes},
        "ms": planes,
        "native ms per plane side by side": round(per_plane, 1),
        "ratio to TWS (another machine, 14.6 s)": round(1e3 * TWS_PLANE / per_plane, 1),
        "native ms per family, one plane": {
            name: {"min": round(1e3 * min(s[1:]), 2), "tws_ms_elsewhere": _tws(name)} for name, s in families.items()
        },
    }
    if given.busy:
        record["beside two busy processes, ms"] = beside_busy_processes(alone(one, plane), rounds=2 * given.rounds)
    if not given.skip_numpy:
        numpy_plane = planes[f"numpy, {N_PLANES} planes side by side"]["min"] / N_PLANES
        record["ratio to numpy"] = round(numpy_plane / per_plane, 1)
    given.json.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def _tws(name: str) -> float | None:
    seconds = TWS_FOREST if name == "forest" else TWS.get(name)
    return None if seconds is None else 1e3 * seconds


if __name__ == "__main__":
    main()
