"""When does a model fit another reconstruction? Models are trained on each volume and applied to all of its group.

    python benchmarks/transfer.py [--group NAME TRUTH VOLUME VOLUME ..] ..

Phantoms and a silica-filled pillar are simulated in several ways; more groups (volumes of one specimen with one truth,
classes 0..k-1) are given by their files. Of each pair: the accuracy, that of a model trained on the target itself, and
what ``gpu_tomoclass.training.drift`` says without knowing the truth. Writes benchmarks/results/transfer.json, prints
a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.prepare import prepare_plane
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.forest.predict_on_device import DeviceForest
from gpu_tomoclass.studies.simulation.phantom import simulate_phantom
from gpu_tomoclass.studies.simulation.pillar import simulate_sample
from gpu_tomoclass.studies.simulation.tilt_series import tilt_angles
from gpu_tomoclass.studies.strokes import draw_strokes
from gpu_tomoclass.training.adapt_model import adapt
from gpu_tomoclass.training.drift import LOST_ACCURACY
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

RESULTS = Path(__file__).parent / "results"
WEDGE = tilt_angles(-76, 76, 2)
WIDE_WEDGE = tilt_angles(-60, 60, 3)
NOISY = {"poisson": 0.5, "max_shift": 1.0}
PHANTOMS = {
    "plain": {},
    "noisy a": {**NOISY, "seed": 100},
    "noisy b": {**NOISY, "seed": 200},
    "noise only": {"poisson": 0.5, "seed": 300},
    "misaligned only": {"max_shift": 1.0, "seed": 400},
    "very noisy": {"poisson": 2.0, "max_shift": 2.0, "seed": 500},
    "wedge": {"angles": WEDGE},
    "wedge, noisy a": {"angles": WEDGE, **NOISY, "seed": 600},
    "wedge, noisy b": {"angles": WEDGE, **NOISY, "seed": 700},
    "other contrast": {**NOISY, "levels": (0, 40, 110, 150, 255), "seed": 800},
}
PILLARS = {
    "pillar a": {"seed": 1},
    "pillar b": {"seed": 2},
    "less silica": {"seed": 3, "silica_fraction": 0.1},
    "a quarter of the dose": {"seed": 4, "counts": 10.0},
    "four times the dose": {"seed": 5, "counts": 160.0},
    "wide wedge": {"seed": 6, "angles": WIDE_WEDGE},
    "5 iterations": {"seed": 7, "iterations": 5},
    "60 iterations": {"seed": 8, "iterations": 60},
    "misaligned": {"seed": 9, "max_shift": 2.5},
    "less contrast": {"seed": 10, "levels": (1.0, 1.4)},
    "more silica": {"seed": 11, "silica_fraction": 0.4},
}


@dataclass
class Case:
    """A volume in memory, its truth (1..k), and the planes to train on and to score."""

    name: str
    array: np.ndarray
    truth: np.ndarray
    marked: list[int]
    scored: list[int]


def phantoms(*, size: int, offset: int, n_planes: int = 6) -> list[Case]:
    cases = []
    for name, options in PHANTOMS.items():
        seed = offset + options.get("seed", 0)
        made = [simulate_phantom(size=size, **{**options, "seed": seed + z}) for z in range(n_planes)]
        array, truth = (np.stack(part) for part in zip(*made, strict=True))
        cases.append(Case(name, array, truth + np.uint8(1), [0, 3], [1, 2, 4, 5]))
    return cases


def pillars(*, offset: int) -> list[Case]:
    cases = []
    for name, options in PILLARS.items():
        sample = simulate_sample(**{**options, "seed": offset + options["seed"]})
        nz = len(sample.volume)
        marked = [nz // 8, 3 * nz // 8, 5 * nz // 8, 7 * nz // 8]
        scored = [z for z in range(1, nz, 4) if z not in marked]
        cases.append(Case(name, sample.volume, sample.truth, marked, scored))
    return cases


def given(truth_path: str, paths: list[str], *, n_marked: int = 8, n_scored: int = 10) -> list[Case]:
    """Planes that show more than one class only: an empty plane says nothing."""
    with open_volume(truth_path) as file:
        truth = np.stack([file.plane(z) for z in range(file.shape[0])]).astype(np.uint8) + np.uint8(1)
    useful = [z for z, plane in enumerate(truth) if np.unique(plane).size > 1]
    marked = [useful[int((i + 0.5) * len(useful) / n_marked)] for i in range(n_marked)]
    rest = [z for z in useful if z not in marked]
    scored = [rest[int((i + 0.5) * len(rest) / n_scored)] for i in range(n_scored)]
    cases = []
    for path in paths:
        with open_volume(path) as file:
            array = np.stack([file.plane(z) for z in range(file.shape[0])])
        cases.append(Case(Path(path).stem, array, truth, marked, scored))
    return cases


def annotation_of(
    case: Case, *, per_class: int, length: int, planes: Sequence[int] | None = None, seed: int = 0
) -> Annotation:
    """Strokes on ``planes``, default all that are to be marked."""
    painted = np.zeros_like(case.truth)
    for z in case.marked if planes is None else planes:
        painted[z] = draw_strokes(case.truth[z], per_class=per_class, length=length, seed=seed + z)
    z, y, x = np.nonzero(painted)
    classes = default_classes([f"class {i}" for i in range(1, int(case.truth.max()) + 1)])
    return Annotation.from_voxels(z, y, x, painted[z, y, x], shape=case.truth.shape, classes=classes)


def scored_accuracy(model, forest, case: Case, path: Path, *, engine) -> float:
    """Of a model with its own intensity scale on the planes to score."""
    right = total = 0
    with open_volume(path) as volume:
        for z in case.scored:
            flat = engine.compute(prepare_plane(volume, z, scale=model.intensity).image[np.newaxis])
            flat = flat.reshape(model.bank.n_channels, -1)
            found = (
                engine.device.numpy(forest.probabilities(flat)) if forest else predict_probabilities(model.forest, flat)
            )
            values = np.array([c.value for c in model.classes])
            right += int((values[found.argmax(axis=0)] == case.truth[z].ravel()).sum())
            total += case.truth[z].size
    return right / total


def run_group(
    cases: list[Case], *, bank, device, folder: Path, per_class: int, length: int, hub: bool = False
) -> list[dict]:
    """Of every (trained on, applied to) pair what is known with and without the truth, and the adapted model.

    With ``hub``, only of pairs with the first volume.
    """
    paths, models = [], []
    for i, case in enumerate(cases):
        paths.append(folder / f"{i}.tif")
        with create_volume(paths[-1], shape=case.array.shape, dtype=case.array.dtype, voxel_size=None) as writer:
            for z, plane in enumerate(case.array):
                writer.write_plane(z, plane)
        with open_volume(paths[-1]) as volume:
            annotation = annotation_of(case, per_class=per_class, length=length)
            models.append(train(volume, annotation, bank=bank, device=device).model)
    forests = [DeviceForest(m.forest, device) if device.runs_kernels else None for m in models]
    engine = FeatureEngine(device, bank.blocks)
    pairs = []
    for here, (case, path) in enumerate(zip(cases, paths, strict=True)):
        right, total = np.zeros(len(models)), 0
        with open_volume(path) as volume:
            for z in case.scored:
                image = prepare_plane(volume, z, scale=models[0].intensity).image
                flat = engine.compute(image[np.newaxis]).reshape(bank.n_channels, -1)
                truth = case.truth[z].ravel()
                total += truth.size
                for k, (model, forest) in enumerate(zip(models, forests, strict=True)):
                    if hub and 0 not in (k, here) and k != here:
                        continue
                    found = (
                        device.numpy(forest.probabilities(flat))
                        if forest
                        else predict_probabilities(model.forest, flat)
                    )
                    values = np.array([c.value for c in model.classes])
                    right[k] += (values[found.argmax(axis=0)] == truth).sum()
        accuracy = right / total
        own = float(accuracy[here])
        for k, model in enumerate(models):
            if hub and 0 not in (k, here) and k != here:
                continue
            with open_volume(path) as volume:
                useful = min(case.scored), max(case.scored) + 1
                tried = adapt(model, volume, device=device, planes=useful, n_planes=len(case.scored))
            drift, adapted = tried.before, float(accuracy[k])
            if tried.adapted:
                adapted = scored_accuracy(tried.model, forests[k], case, path, engine=engine)
            pairs.append({
                "trained_on": cases[k].name,
                "applied_to": case.name,
                "accuracy": round(float(accuracy[k]), 4),
                "own_accuracy": round(own, 4),
                "lost": round(own - float(accuracy[k]), 4),
                "adapted": tried.adapted,
                "adapted_accuracy": round(adapted, 4),
                "moved": None if drift.moved is None else round(drift.moved, 4),
                "drift": round(drift.drift, 4),
                "outside": round(drift.outside, 4),
                "mean_margin": round(drift.mean_margin, 4),
                "trained_margin": round(drift.trained_margin, 4),
                "verdict": drift.verdict,
            })  # fmt: skip
            p = pairs[-1]
            print(f"{p['trained_on']:22} {p['applied_to']:22} accuracy {p['accuracy']:.3f} of {own:.3f}  "
                  f"adapted {adapted:.3f}  moved {p['moved'] or 0:.3f}  "
                  f"drift {p['drift']:.3f}  outside {p['outside']:.3f}  "
                  f"margin {p['mean_margin']:.3f} of {p['trained_margin']:.3f}  {p['verdict']}",
                  flush=True)  # fmt: skip
    return pairs


def summary(pairs: list[dict]) -> dict[str, dict[str, int]]:
    """Pairs of different volumes by verdict and by what was lost."""
    counts = {verdict: {"good": 0, "bad": 0} for verdict in ("fits", "doubtful", "does not fit")}
    for pair in pairs:
        if pair["trained_on"] != pair["applied_to"]:
            counts[pair["verdict"]]["bad" if pair["lost"] > LOST_ACCURACY else "good"] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", nargs="+", action="append", default=[], metavar=("NAME", "TRUTH"))
    parser.add_argument("--size", type=int, default=256, help="of the phantoms, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="added to every seed: other noise, other pillars")
    parser.add_argument("--features", default="paper")
    parser.add_argument("--hub", action="store_true", help="only pairs with the first volume of each group")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="of phantom, pillar and those given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--output", default=str(RESULTS / "transfer.json"))
    options = parser.parse_args()
    device = choose_device(options.device, threads=options.workers)
    bank = FeatureBank.create(options.features)
    started = time.perf_counter()
    makers = {
        "phantom": lambda: phantoms(size=options.size, offset=options.seed),
        "pillar": lambda: pillars(offset=options.seed),
    }
    for name, truth, *paths in options.group:
        makers[name] = lambda truth=truth, paths=paths: given(truth, paths)
    groups = {}
    for name, make in makers.items():
        if options.only and name not in options.only:
            continue
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            groups[name] = run_group(make(), bank=bank, device=device, folder=Path(folder), per_class=8, length=24,
                                     hub=options.hub)  # fmt: skip
    record = {
        "lost_accuracy_called_bad": LOST_ACCURACY,
        "features": options.features,
        "phantom_size": options.size,
        "seed": options.seed,
        "device": device.name,
        "summary": {name: summary(pairs) for name, pairs in groups.items()},
        "pairs": groups,
        "seconds": round(time.perf_counter() - started, 1),
        "version": __version__,
        "python": platform.python_version(),
    }
    Path(options.output).write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["summary"], indent=1))
    print(f"{record['seconds']} s; {options.output}")


if __name__ == "__main__":
    main()
