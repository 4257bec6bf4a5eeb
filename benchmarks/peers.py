"""This software beside its peers: the same strokes, the same planes, the same two cores.

    python benchmarks/peers.py [--python OTHER/bin/python ..] [--needle VOLUME TRUTH] [--seeds 0 1 2] [--only NAME ..]

Each peer learns from strokes on three planes and classifies three others, in a process of its own with two
threads; one that is not installed is reported with the line that installs it. ``--python`` names interpreters that
have peers which are not to be installed beside this package, or not beside each other: APOC needs NumPy 1, Convpaint
NumPy 2. Written for each peer and case: accuracy and mean IoU on the planes that nobody marked, CPU and wall seconds
for features and forest of one plane (the least of its planes, after a first one that is not counted), peak memory of
the process. Needles are given by their files (truth 0..k-1). TWS needs Fiji: its figures were taken on another
machine. Writes benchmarks/results/peers.json and prints a table; rows of seeds and peers not asked for stay.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "peers.json"
SIGMAS = (1, 2, 4, 8, 16)
THREADS = 2
MARKED, SCORED = 3, 3  # planes
TWS = {"wall_seconds": 14.6, "peak_memory_mb": 1390, "what": "317 x 428, 252 channels, 200 trees, another machine"}

Predictor = Callable[[np.ndarray], np.ndarray]  # (ny, nx) plane -> (ny, nx) labels


# --- peers: (volume of the marked planes, strokes 0..k) -> a function that classifies a plane ------------------------


def _ours(features: str) -> Callable[[np.ndarray, np.ndarray], Predictor]:
    def learn(planes: np.ndarray, strokes: np.ndarray) -> Predictor:
        import gpu_tomoclass as gt

        device = gt.choose_device("native", threads=THREADS)
        model = gt.train(planes, strokes, features=features, n_trees=200, device=device, workers=THREADS)
        return lambda plane: model.predict(plane[None], device=device).labels[0]

    return learn


def _rows(channels_of: Callable[[np.ndarray], np.ndarray], planes: np.ndarray, strokes: np.ndarray) -> tuple:
    """Channels (n, n_channels) and classes of the marked pixels; ``channels_of`` gives (ny, nx, n_channels)."""
    found = [(channels_of(plane)[marks > 0], marks[marks > 0]) for plane, marks in zip(planes, strokes, strict=True)]
    return np.concatenate([x for x, _ in found]), np.concatenate([y for _, y in found])


def _forest(channels_of: Callable[[np.ndarray], np.ndarray], planes: np.ndarray, strokes: np.ndarray) -> Predictor:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(200, n_jobs=THREADS, random_state=0)
    forest.fit(*_rows(channels_of, planes, strokes))

    def predict(plane: np.ndarray) -> np.ndarray:
        channels = channels_of(plane)
        return forest.predict(channels.reshape(-1, channels.shape[-1])).reshape(plane.shape)

    return predict


def scikit_image(planes: np.ndarray, strokes: np.ndarray) -> Predictor:
    from skimage.feature import multiscale_basic_features

    def channels_of(plane: np.ndarray) -> np.ndarray:
        return multiscale_basic_features(
            plane, intensity=True, edges=True, texture=True, sigma_min=1, sigma_max=16, workers=THREADS
        )

    return _forest(channels_of, planes, strokes)


def scikit_learn(planes: np.ndarray, strokes: np.ndarray) -> Predictor:
    """The paper's channels, computed by this software, and scikit-learn's forest."""
    import gpu_tomoclass as gt

    device = gt.choose_device("native", threads=THREADS)

    def channels_of(plane: np.ndarray) -> np.ndarray:
        return np.moveaxis(
            np.asarray(gt.compute_features(plane[None], "paper", device=device).channels), 0, -1
        ).squeeze()

    return _forest(channels_of, planes, strokes)


def apoc(planes: np.ndarray, strokes: np.ndarray) -> Predictor:
    import apoc as library

    names = ("gaussian_blur", "difference_of_gaussian", "laplace_box_of_gaussian_blur", "sobel_of_gaussian_blur")
    features = "original " + " ".join(f"{name}={sigma}" for sigma in SIGMAS for name in names)
    with tempfile.TemporaryDirectory() as folder:
        found = library.PixelClassifier(f"{folder}/c.cl", max_depth=10, num_ensembles=200)
        # One picture of all marked planes, with a gap, as it trains on one.
        gap = np.zeros((40, planes.shape[2]))
        picture = np.concatenate([part for plane in planes for part in (plane.astype(np.float32), gap)])
        marks = np.concatenate([part for plane in strokes for part in (plane, gap)]).astype(int)
        found.train(features, marks, picture)
        text = Path(f"{folder}/c.cl").read_text()
    place = Path(tempfile.mkdtemp()) / "c.cl"
    place.write_text(text)
    ready = library.PixelClassifier(str(place))
    return lambda plane: np.asarray(ready.predict(image=plane.astype(np.float32)))


def convpaint(planes: np.ndarray, strokes: np.ndarray) -> Predictor:
    """Its Gaussian features (no network: nothing is downloaded) and its classifier, as its alias sets them."""
    from napari_convpaint import ConvpaintModel

    model = ConvpaintModel(alias="gaussian")
    model.train(list(planes.astype(np.float32)), list(strokes.astype(np.uint8)))
    return lambda plane: np.asarray(model.segment(plane.astype(np.float32)))


PEERS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], Predictor], str, str]] = {  # name: (how, module, pip line)
    "this software, paper's 252 channels": (_ours("paper"), "gpu_tomoclass", "pip install gpu_tomoclass"),
    "this software, TWS's default channels": (_ours("weka-default"), "gpu_tomoclass", "pip install gpu_tomoclass"),
    "252 channels, scikit-learn's forest": (scikit_learn, "gpu_tomoclass", "pip install gpu_tomoclass"),
    "scikit-image and scikit-learn": (scikit_image, "skimage", "pip install scikit-image scikit-learn"),
    "APOC (pyclesperanto on PoCL)": (
        apoc, "apoc", "pip install apoc pyclesperanto-prototype pocl-binary-distribution setuptools"
    ),
    "Convpaint, Gaussian features": (convpaint, "napari_convpaint", "pip install napari-convpaint PyQt6"),
}  # fmt: skip


# --- one peer, in a process of its own -------------------------------------------------------------------------------


def peak_memory_mb() -> float | None:
    """Of this process; on Linux. (getrusage would give that of the process which started it, where that is more.)"""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run_peer(name: str, case: Path) -> dict:
    learn, module, line = PEERS[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        return {"not installed": f"{type(error).__name__}: {error}"[:200], "install": line}
    data = np.load(case)
    began = time.process_time()
    try:
        predict = learn(data["marked"], data["strokes"])
        training = time.process_time() - began
        labels, cpu, wall = [], [], []
        for plane in (data["scored"][0], *data["scored"]):  # the first warms up
            before = time.process_time(), time.perf_counter()
            labels.append(predict(plane))
            cpu.append(time.process_time() - before[0])
            wall.append(time.perf_counter() - before[1])
    except Exception as error:  # a peer may fail in any way, and the others are still worth a row
        return {"failed": f"{type(error).__name__}: {error}"[:300], "install": line}
    found, truth = np.stack(labels[1:]), data["truth"]
    ious = [((found == v) & (truth == v)).sum() / ((found == v) | (truth == v)).sum() for v in np.unique(truth)]
    return {
        "version": importlib.metadata.version(module.replace("skimage", "scikit-image").replace("_", "-")),
        "accuracy": float((found == truth).mean()),
        "mean_iou": float(np.mean(ious)),
        "training_cpu_seconds": training,
        "cpu_seconds": min(cpu[1:]),
        "wall_seconds": min(wall[1:]),
        "peak_memory_mb": peak_memory_mb(),
    }


# --- all of them -----------------------------------------------------------------------------------------------------


def cases(seeds: list[int], needle: list[str] | None) -> list[tuple[str, int, dict[str, np.ndarray]]]:
    """Name, seed, and the arrays that a peer is given: marked planes with strokes, scored planes with their truth."""
    import gpu_tomoclass as gt
    from gpu_tomoclass.studies.simulation.pillar import simulate_sample
    from gpu_tomoclass.studies.strokes import draw_strokes

    found = []
    for seed in seeds:
        sample = simulate_sample(shape=(12, 320, 272), diameter=300.0, seed=seed + 1)
        volumes = [("pillar", sample.volume, sample.truth)]
        if needle:
            volume, truth = (np.asarray(gt.open_volume(path)) for path in needle)
            useful = [z for z, plane in enumerate(truth) if np.unique(plane).size == truth.max() + 1]
            volumes.append(("needle", volume[useful], truth[useful].astype(np.uint8) + np.uint8(1)))
        for name, volume, truth in volumes:
            places = np.linspace(0, len(volume) - 1, MARKED + SCORED).round().astype(int)
            marked, scored = places[::2], places[1::2]
            strokes = [draw_strokes(truth[z], per_class=8, seed=100 * seed + int(z)) for z in marked]
            arrays = {"marked": volume[marked], "strokes": np.stack(strokes)}
            found.append((name, seed, {**arrays, "scored": volume[scored], "truth": truth[scored]}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, nargs="+", default=[], help="interpreters of peers that this one lacks")
    parser.add_argument("--needle", nargs=2, metavar=("VOLUME", "TRUTH"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=PEERS, metavar="NAME", help="; ".join(PEERS))
    parser.add_argument("--peer", nargs=2, metavar=("NAME", "CASE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        print(json.dumps(run_peer(arguments.peer[0], Path(arguments.peer[1]))))
        return
    from shared import processor

    before = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    asked = arguments.only or list(PEERS)
    rows = [row for row in before if row["seed"] not in arguments.seeds or row["peer"] not in asked]
    machine = {"processor": processor(), "threads": THREADS, "python": platform.python_version()}
    content = {"machine": machine, "method": __doc__, "tws": TWS, "rows": rows}
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "POCL_MAX_PTHREAD_COUNT": str(THREADS)}
    environment["QT_QPA_PLATFORM"] = "offscreen"  # Convpaint imports its window
    with tempfile.TemporaryDirectory() as folder:
        for case, seed, arrays in cases(arguments.seeds, arguments.needle):
            file = Path(folder) / f"{case}{seed}.npz"
            np.savez(file, **arrays)
            for name in asked:
                row = {"not installed": "", "install": PEERS[name][2]}
                for python in [sys.executable, *map(str, arguments.python)]:
                    if "not installed" in row:
                        command = [python, __file__, "--peer", name, str(file)]
                        done = subprocess.run(command, capture_output=True, text=True, env=environment)
                        said = done.stdout.strip().splitlines()
                        row = json.loads(said[-1]) if done.returncode == 0 and said else {"failed": done.stderr[-300:]}
                rows.append(
                    {"peer": name, "case": case, "seed": seed, "shape": list(arrays["scored"].shape[1:]), **row}
                )
                print(json.dumps(rows[-1]), flush=True)
                RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    for line in table(content):
        print(line)


def table(content: dict) -> list[str]:
    """Lines of Markdown: means over the seeds, with the scatter of the accuracy; the least time, the most memory."""
    names = list(dict.fromkeys(row["case"] for row in content["rows"]))
    heads = [f"{case}: {what}" for case in names for what in ("accuracy", "IoU", "CPU s per plane", "MB")]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for peer in dict.fromkeys(row["peer"] for row in content["rows"]):
        cells = []
        for case in names:
            own = [row for row in content["rows"] if (row["peer"], row["case"]) == (peer, case)]
            good = [row for row in own if "accuracy" in row]
            if good:
                accuracy, iou = ([row[key] for row in good] for key in ("accuracy", "mean_iou"))
                scatter = f" ± {100 * np.std(accuracy):.2f}" if len(good) > 1 else ""
                cells.append(f"{100 * np.mean(accuracy):.2f}{scatter} %")
                cells += [f"{np.mean(iou):.3f}", f"{min(row['cpu_seconds'] for row in good):.2f}"]
                cells.append(f"{max(row['peak_memory_mb'] or 0 for row in good):.0f}")
            elif not own:
                cells += ["not run", "", "", ""]
            else:
                cells += ["failed" if "failed" in own[0] else f"not installed: `{own[0]['install']}`", "", "", ""]
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    tws = content["tws"]
    lines.append(f"| TWS in Fiji ({tws['what']}) | | | {tws['wall_seconds']} s wall | {tws['peak_memory_mb']} |")
    return lines


if __name__ == "__main__":
    main()
