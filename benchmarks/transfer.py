"""When does a model fit another reconstruction? Models are trained on each volume and applied to all of its group.

    python benchmarks/transfer.py --seeds 0 1000 3000 [--group NAME TRUTH VOLUME NAME=VOLUME ..] ..
    python benchmarks/transfer.py --seeds 6000 7000 8000 9000 .. --extra 30

Phantoms and a silica-filled pillar are simulated in several ways; more groups (volumes of one specimen with one truth,
classes 0..k-1) are given by their files. Of each pair: the accuracy, that of a model trained on the target itself, and
what ``gpu_tomoclass.training.drift`` says without knowing the truth. Adds to benchmarks/results/transfer.json, prints
tables. What was measured does not depend on the rules: ``--judge`` asks those of today again.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transfer_tables import CHOSEN, CHOSEN_MAPS, COMPOSITION, adapted_table, cases_table, judge, table

from gpu_tomoclass import __version__
from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine
from gpu_tomoclass.features.prepare import prepare_plane
from gpu_tomoclass.studies.simulation.phantom import simulate_phantom
from gpu_tomoclass.studies.simulation.pillar import simulate_sample
from gpu_tomoclass.studies.simulation.tilt_series import tilt_angles
from gpu_tomoclass.studies.strokes import draw_strokes
from gpu_tomoclass.training.adapt_model import try_map
from gpu_tomoclass.training.drift import LOST_ACCURACY, Drift, Looked, asker
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

RESULTS = Path(__file__).parent / "results"
KNOWN = "drift", "outside", "mean_margin", "trained_margin", "moved", "surer"  # of a Drift
STROKE_SETS = 2  # a model depends on where its strokes lie: the own accuracy is the mean over them
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
    for named in paths:
        name, _, path = named.rpartition("=")
        with open_volume(path) as file:
            array = np.stack([file.plane(z) for z in range(file.shape[0])])
        cases.append(Case(name or Path(path).stem, array, truth, marked, scored))
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


def classes_right(model, ask, flat, truth: np.ndarray) -> int:
    """So many of the pixels, of which ``flat`` are the features, get their true class."""
    values = np.array([c.value for c in model.classes])
    return int((values[ask(flat).argmax(axis=0)] == truth.ravel()).sum())


def pairs_of(names: list[str], *, hub: bool, extra: int, seed: int) -> list[tuple[int, int, int]]:
    """(trained on, applied to, set of strokes): each volume on itself, and then all pairs or those with the first
    volume and those that differ in composition alone; beside the latter ``extra`` others at random, with the second
    set of strokes."""
    n = len(names)
    others = [(k, i) for k in range(n) for i in range(n) if k != i]
    chosen = [(k, i) for k, i in others if not hub or 0 in (k, i) or {names[k], names[i]} <= COMPOSITION]
    rest = [pair for pair in others if pair not in chosen]
    drawn = np.random.default_rng(seed).permutation(len(rest))[:extra]
    return [*((i, i, 0) for i in range(n)), *((*p, 0) for p in chosen), *((*rest[d], 1) for d in drawn)]


def figures_of(drift: Drift) -> dict:
    """What is known without the truth, of which the verdict is made."""
    numbers = {name: getattr(drift, name) for name in KNOWN}
    numbers["worst_family"] = max(drift.per_family.values(), default=0.0)
    return {name: None if v is None else round(v, 4) for name, v in numbers.items()}


def run_group(
    cases: list[Case],
    *,
    bank,
    device,
    folder: Path,
    per_class: int,
    length: int,
    hub: bool = False,
    extra: int = 0,
    seed: int = 0,
) -> list[dict]:
    """Of (trained on, applied to) pairs what is known with and without the truth, as given and with the map.

    Accuracies are shares of the scored pixels; the volume's own is the mean of models of two sets of strokes.
    """
    engine = FeatureEngine(device, bank.blocks)
    pairs = pairs_of([case.name for case in cases], hub=hub, extra=extra, seed=seed)
    paths, models = [], {}
    for i, case in enumerate(cases):
        paths.append(folder / f"{i}.tif")
        with create_volume(paths[-1], shape=case.array.shape, dtype=case.array.dtype, voxel_size=None) as writer:
            for z, plane in enumerate(case.array):
                writer.write_plane(z, plane)
        for strokes in range(STROKE_SETS):
            annotation = annotation_of(case, per_class=per_class, length=length, seed=1000 * strokes)
            with open_volume(paths[-1]) as volume:
                models[i, strokes] = train(volume, annotation, bank=bank, device=device).model
    ask = {key: asker(model.forest, device) for key, model in models.items()}

    def flat_of(volume, z, scale):
        flat = engine.compute(prepare_plane(volume, z, scale=scale).image[np.newaxis])
        return device.numpy(flat).reshape(bank.n_channels, -1).T

    found = []
    for here, (case, path) in enumerate(zip(cases, paths, strict=True)):
        wanted = {(k, strokes) for k, i, strokes in pairs if i == here} | {(here, s) for s in range(STROKE_SETS)}
        right, total = dict.fromkeys(wanted, 0), 0
        with open_volume(path) as volume:
            for z in case.scored:
                flat = flat_of(volume, z, models[here, 0].intensity)
                total += case.truth[z].size
                for key in wanted:
                    right[key] += classes_right(models[key], ask[key], flat, case.truth[z])
            own = [right[here, strokes] / total for strokes in range(STROKE_SETS)]
            for k, _, strokes in [pair for pair in pairs if pair[1] == here]:
                model = models[k, strokes]
                useful = min(case.scored), max(case.scored) + 1
                tried = try_map(model, Looked.at(volume, planes=useful), device=device)
                mapped = 0
                for z in case.scored if k != here else ():
                    flat = flat_of(volume, z, tried.part)
                    mapped += classes_right(model, ask[k, strokes], flat, case.truth[z])
                found.append({
                    "trained_on": cases[k].name,
                    "applied_to": case.name,
                    "own": [round(accuracy, 4) for accuracy in own],
                    "accuracy": round(right[k, strokes] / total, 4),
                    "mapped": round(mapped / total, 4) if k != here else None,
                    "before": figures_of(tried.before),
                    "share": round(tried.share, 4),
                    "after": None if tried.after is None else figures_of(tried.after),
                })  # fmt: skip
    return found


def write(path: Path, record: dict) -> None:
    """JSON with a pair per line."""
    pairs = ",\n".join("  " + json.dumps(pair) for pair in record["pairs"])
    head = json.dumps({**record, "pairs": []}, indent=1).replace('"pairs": []', f'"pairs": [\n{pairs}\n ]')
    path.write_text(head + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", nargs="+", action="append", default=[], metavar=("NAME", "TRUTH"))
    parser.add_argument("--size", type=int, default=128, help="of the phantoms, in pixels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="added to every seed: other noise, pillars")
    parser.add_argument("--features", default="weka-default")
    parser.add_argument("--all-pairs", action="store_true", help="not only those with the first volume, and --extra")
    parser.add_argument("--extra", type=int, default=11, help="other pairs of each group, at random")
    parser.add_argument("--only", nargs="+", metavar="GROUP", help="of phantom, pillar and those given")
    parser.add_argument("--judge", action="store_true", help="only ask the rules again, about what was measured")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--output", default=str(RESULTS / "transfer.json"))
    options = parser.parse_args()
    path = Path(options.output)
    pairs = json.loads(path.read_text())["pairs"] if path.exists() else []
    for seed in [] if options.judge else options.seeds:
        pairs = measured(seed, pairs, options)
    judge(pairs)
    record = {
        "features": options.features,
        "phantom_size": options.size,
        "lost_accuracy_called_bad": LOST_ACCURACY,
        "limits_chosen_on_seeds": list(CHOSEN),
        "maps_chosen_on_seeds": list(CHOSEN_MAPS),
        "version": __version__,
        "python": platform.python_version(),
        "pairs": pairs,
    }
    write(path, record)
    print("\n".join([*table(record), "", *adapted_table(record), "", *cases_table(record)]))


def measured(seed: int, pairs: list[dict], options: argparse.Namespace) -> list[dict]:
    """``pairs`` with those of this seed, instead of earlier ones."""
    device = choose_device(options.device, threads=options.workers)
    bank = FeatureBank.create(options.features)
    makers = {
        "phantom": lambda: phantoms(size=options.size, offset=seed),
        "pillar": lambda: pillars(offset=seed),
    }
    for name, truth, *paths in options.group:
        makers[name] = lambda truth=truth, paths=paths: given(truth, paths)
    for name, make in makers.items():
        if options.only and name not in options.only:
            continue
        whole = options.all_pairs or name not in ("phantom", "pillar")
        with tempfile.TemporaryDirectory() as folder:
            found = run_group(make(), bank=bank, device=device, folder=Path(folder), per_class=8, length=24,
                              hub=not whole, extra=0 if whole else options.extra, seed=seed)  # fmt: skip
        pairs = [pair for pair in pairs if (pair["seed"], pair["group"]) != (seed, name)]
        pairs += [{"seed": seed, "group": name, **pair} for pair in found]
        print(f"seed {seed}, {name}: {len(found)} pairs", flush=True)
    return pairs


if __name__ == "__main__":
    main()
