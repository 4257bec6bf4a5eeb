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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

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
from gpu_tomoclass.training.adapt_model import keeps_map, try_map
from gpu_tomoclass.training.drift import LOST_ACCURACY, Drift, Looked, asker, verdict_of
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

RESULTS = Path(__file__).parent / "results"
CHOSEN = 0, 1000, 3000  # seeds that the verdicts' limits were chosen on
CHOSEN_MAPS = *CHOSEN, 6000, 7000  # those that it was chosen on which map is kept
MISSED = {"pillar": 0.015, "phantom": 0.015, "needle": 0.01}  # of accuracy, compared with the own model
COMPOSITION = {"pillar a", "pillar b", "less silica", "more silica"}  # alike in all else
NOISELESS = {"plain", "wedge"}  # the same with every seed: counted once
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
                    flat = flat_of(volume, z, tried.scale)
                    mapped += classes_right(model, ask[k, strokes], flat, case.truth[z])
                found.append({
                    "trained_on": cases[k].name,
                    "applied_to": case.name,
                    "own": [round(accuracy, 4) for accuracy in own],
                    "accuracy": round(right[k, strokes] / total, 4),
                    "mapped": round(mapped / total, 4) if k != here else None,
                    "before": figures_of(tried.before),
                    "after": None if tried.after is None else figures_of(tried.after),
                })  # fmt: skip
    return found


def drift_of(figures: dict) -> Drift:
    """The inverse of :func:`figures_of`, without a verdict."""
    known = {name: value for name, value in figures.items() if name != "worst_family"}
    return Drift(verdict="", per_family={"worst": figures["worst_family"]}, planes=[], **known)


def judge(pairs: list[dict]) -> None:
    """Add what the rules of today say of each pair: the verdict, and whether the map is kept."""
    for pair in pairs:
        before = drift_of(pair["before"])
        after = None if pair["after"] is None else drift_of(pair["after"])
        loss = before.trained_margin - before.mean_margin
        pair["verdict"] = verdict = verdict_of(before.drift, loss, before.moved, before.surer)
        pair["without"] = verdict_of(before.drift, loss)  # a model that does not remember grey values
        pair["adapted"] = after is not None and keeps_map(replace(before, verdict=verdict), after)[0]


def lost(pair: dict, accuracy: float) -> float:
    """So much less than the volume's own model."""
    return float(np.mean(pair["own"])) - accuracy


def as_given(pair: dict) -> float:
    return pair["accuracy"]


def mapped(pair: dict) -> float:
    """Accuracy with the map, whatever the rules say."""
    return pair["accuracy"] if pair["mapped"] is None else pair["mapped"]


def final(pair: dict) -> float:
    """Accuracy of what ``adapt`` gives."""
    return mapped(pair) if pair["adapted"] else pair["accuracy"]


def composition(pair: dict) -> bool:
    """Whether the two volumes differ in how much there is of a class, and in nothing else but the noise."""
    both = {pair["trained_on"], pair["applied_to"]}
    return both <= COMPOSITION and bool(both & {"less silica", "more silica"})


def transfers(record: dict, *, chosen: bool, group: str | None = None, seeds: Sequence[int] = CHOSEN) -> list[dict]:
    """Pairs of different volumes, each once: of the seeds that rules were chosen on, or of others."""
    return [
        pair
        for pair in record["pairs"]
        if pair["trained_on"] != pair["applied_to"]
        and (pair["seed"] in seeds) == chosen
        and (pair["seed"] == CHOSEN[0] or not {pair["trained_on"], pair["applied_to"]} <= NOISELESS)
        and group in (None, pair["group"])
    ]


def bad(pair: dict) -> bool:
    return lost(pair, pair["accuracy"]) > LOST_ACCURACY


def table(record: dict) -> list[str]:
    """Lines of Markdown: good and bad pairs by verdict, with the witness of what adapting would move and without."""
    lines = ["| Pairs | Fits | Most lost there | Doubtful | Does not fit |", "|---|---|---|---|---|"]
    for name, chosen in (("to choose", True), ("not seen before", False)):
        pairs = transfers(record, chosen=chosen)
        for how, key in (("", "verdict"), (", without the witness", "without")):
            cells = []
            for verdict in ("fits", "doubtful", "does not fit"):
                of_verdict = [pair for pair in pairs if pair[key] == verdict]
                wrong = sum(map(bad, of_verdict))
                share = f" ({100 * len(of_verdict) / max(1, len(pairs)):.0f} %)"
                cells.append(f"{len(of_verdict) - wrong} + {wrong}{share}")
                if verdict == "fits":
                    most = max((lost(pair, pair["accuracy"]) for pair in of_verdict), default=0.0)
                    cells.append(f"{100 * most:.1f} points")
            lines.append(f"| {name}{how} | {' | '.join(cells)} |")
    return lines


def adapted_table(record: dict) -> list[str]:
    """Lines of Markdown: how many pairs miss the own model, and by how much."""
    lines = [
        "| Pairs | Missed by more than | As given | Adapted | Map always kept | Mean miss: as given | Adapted"
        " | Lost over half a point by adapting, at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for group, far in MISSED.items():
        for name, chosen in (("to choose", True), ("not seen before", False)):
            pairs = transfers(record, chosen=chosen, group=group, seeds=CHOSEN_MAPS)
            if not pairs:
                continue
            kinds = [[lost(pair, value(pair)) for pair in pairs] for value in (as_given, final, mapped)]
            harm = [pair["accuracy"] - final(pair) for pair in pairs]
            cells = [f"{sum(miss > far for miss in kind)} of {len(kind)}" for kind in kinds]
            means = [f"{100 * np.mean(kind):.1f}" for kind in kinds[:2]]
            worst = f"{sum(h > 0.005 for h in harm)}, {100 * max(0.0, *harm):.1f} points"
            lines.append(f"| {group}, {name} | {100 * far:g} | {' | '.join([*cells, *means, worst])} |")
    return lines


def cases_table(record: dict) -> list[str]:
    """Lines of Markdown: mean accuracy over all seeds from the first pillar or phantom to each other, and back."""
    lines = ["| Trained on | Applied to | Pairs | Own | As given | Adapted |", "|---|---|---|---|---|---|"]
    of_case: dict[tuple[str, str], list[dict]] = {}
    for pair in [*transfers(record, chosen=True), *transfers(record, chosen=False)]:
        if {"pillar a", "plain"} & {pair["trained_on"], pair["applied_to"]} or pair["group"] == "needle":
            of_case.setdefault((pair["trained_on"], pair["applied_to"]), []).append(pair)
    for (old, new), pairs in of_case.items():
        means = [np.mean(pair["own"]) for pair in pairs], list(map(as_given, pairs)), list(map(final, pairs))
        lines.append(f"| {old} | {new} | {len(pairs)} | {' | '.join(f'{100 * np.mean(m):.1f}' for m in means)} |")
    return lines


def figures(record: dict) -> dict[str, str]:
    """What pages say in a sentence, of pairs not seen before."""
    pairs = transfers(record, chosen=False)
    called = [pair for pair in pairs if pair["verdict"] == "does not fit" and not bad(pair)]
    others = [pair for pair in transfers(record, chosen=False, seeds=CHOSEN_MAPS) if composition(pair)]
    changed = [pair["accuracy"] - final(pair) for pair in others]
    kept = [pair["accuracy"] - mapped(pair) for pair in others]
    own = {(p["seed"], p["applied_to"]): p["own"] for p in record["pairs"] if p["group"] == "pillar"}
    apart = [abs(of_volume[0] - of_volume[-1]) for of_volume in own.values()]
    selves = [p["verdict"] for p in record["pairs"] if p["trained_on"] == p["applied_to"]]
    return {
        "false-alarms": f"{len(called)}",
        "false-alarms-lost": f"{100 * np.mean([lost(p, p['accuracy']) for p in called] or [0]):.1f} points",
        "false-alarms-gain": f"{100 * np.mean([mapped(p) - p['accuracy'] for p in called] or [0]):.1f} points",
        "composition": f"{len(changed)}",
        "composition-harm": f"{100 * max(changed, default=0.0):.1f} points",
        "composition-harmed": f"{sum(h > 0.005 for h in changed)}",
        "composition-always": f"{100 * max(kept, default=0.0):.1f} points",
        "strokes-apart": f"{100 * np.mean(apart):.1f} points",
        "strokes-far": f"{sum(a > MISSED['pillar'] for a in apart)} of {len(apart)}",
        "selves": f"{selves.count('fits')} of {len(selves)}",
    }


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
