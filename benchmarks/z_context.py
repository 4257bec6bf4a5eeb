"""Which channels of context across planes pay: accuracy gained over ``paper``, and milliseconds per plane.

    python benchmarks/z_context.py [--seeds 1 2 3 11 12 13] [--needle TRUTH VOLUME VOLUME ..]
    python benchmarks/z_context.py --seeds --times  # nothing but the times

Same strokes with and without the channels. Pillars of each seed are simulated: as they are, at a quarter of the dose,
and with one stroke per class; strokes on volumes given by their files (classes 0..k-1) are drawn anew with each seed.
Scored planes are at least 4 away from any that is marked. A first choice
was made by the seeds CHOSEN_BY; the others were not looked at before that. Results are added to
benchmarks/results/z_context.json, seed by seed; ``--table`` prints them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import gpu_tomoclass as gt
from gpu_tomoclass.features import FeatureBank, FeatureEngine, IntensityScale, prepare_slab
from gpu_tomoclass.forest import DeviceForest, grow_forest
from gpu_tomoclass.studies.simulation.pillar import simulate_sample
from gpu_tomoclass.studies.strokes import draw_strokes

RESULTS = Path(__file__).parent / "results" / "z_context.json"
SIGMAS = (1.0, 2.0, 4.0)
BLURS, MEDIANS = ("1.0", "2.0", "4.0", "8.0"), ("1.0", "2.0", "4.0")
CHOSEN_BY = (1, 11, 13)
AWAY = 4  # planes
N_TREES = 100


def _set(sigmas: str, blurs: tuple[str, ...] = (), medians: tuple[str, ...] = ()) -> list[str]:
    return [
        f"Z_context_{s}_{name}_{size}"
        for s in sigmas.split()
        for name, sizes in (("Gaussian_blur", blurs), ("Median", medians))
        for size in sizes
    ]


CANDIDATES = {
    "blurs, s 1 2": _set("1.0 2.0", BLURS),
    "blurs, medians, s 1 2": _set("1.0 2.0", BLURS, MEDIANS),
    "blurs, medians, s 1": _set("1.0", BLURS, MEDIANS),
    "medians, s 1": _set("1.0", (), MEDIANS),
    "blurs, s 1 2 4": _set("1.0 2.0 4.0", BLURS),
}


@dataclass
class Case:
    name: str
    volume: np.ndarray
    truth: np.ndarray  # 1..k
    marked: list[int]
    per_class: int


def cases(seed: int, needle: list[str] | None, only: str | None) -> Iterator[Case]:
    for name, options, n_marked, per_class in (
        ("pillar", {}, 3, 8),
        ("pillar, quarter of the dose", {"counts": 10.0}, 3, 8),
        ("pillar, one stroke per class", {}, 1, 1),
    ):
        if only not in (None, name):
            continue
        sample = simulate_sample(seed=seed, shape=(32, 160, 136), **options)
        marked = [int((i + 0.5) * len(sample.volume) / n_marked) for i in range(n_marked)]
        yield Case(name, sample.volume, sample.truth, marked, per_class)
    for path in (needle or [])[1:]:
        if only not in (None, Path(path).stem):
            continue
        truth, volume = (np.asarray(gt.open_volume(p)) for p in (needle[0], path))
        useful = [z for z, plane in enumerate(truth) if np.unique(plane).size > 1]  # an empty plane says nothing
        marked = sorted(np.random.default_rng([seed, 3]).choice(useful, 6, replace=False).tolist())
        yield Case(Path(path).stem, volume, truth.astype(np.uint8) + np.uint8(1), marked, 3)


def gains(case: Case, *, seed: int, bank: FeatureBank, device: gt.Device) -> dict[str, float]:
    """Accuracy (percent) of ``paper``, and what each set of channels adds to it."""
    useful = [z for z, plane in enumerate(case.truth) if np.unique(plane).size > 1]
    scored = [z for z in useful if min(abs(z - m) for m in case.marked) >= AWAY]
    scored = scored[:: -(-len(scored) // 8)]
    volume = gt.open_volume(case.volume)
    scale, engine = IntensityScale.for_volume(volume), FeatureEngine(device, bank.blocks)

    def channels(z: int) -> np.ndarray:
        slab = prepare_slab(volume, z, z + 1, halo=bank.z_reach(), scale=scale)
        return device.numpy(engine.compute(slab.images, place=slab.place)).reshape(bank.n_channels, -1).copy()

    rows, labels = [], []
    for z in case.marked:
        strokes = draw_strokes(case.truth[z], per_class=case.per_class, seed=1000 * seed + z).ravel()
        rows.append(channels(z)[:, strokes > 0].T)
        labels.append(strokes[strokes > 0])
    values, classes = np.concatenate(rows), np.concatenate(labels)
    names = np.array(bank.channels)
    ours = np.char.startswith(names, "3D_Z_context")
    sets = {"paper": ~ours} | {
        name: ~ours | np.isin(names, [f"3D_{channel}" for channel in chosen]) for name, chosen in CANDIDATES.items()
    }
    forests = {
        name: grow_forest(np.ascontiguousarray(values[:, used]), classes, n_trees=N_TREES, seed=seed, n_jobs=1)
        for name, used in sets.items()
    }
    walked = {name: DeviceForest(grown.forest, device) for name, grown in forests.items()}
    right = dict.fromkeys(sets, 0)
    present = np.unique(classes)
    for z in scored:
        found = channels(z)
        for name, used in sets.items():
            p = device.numpy(walked[name].probabilities(np.ascontiguousarray(found[used])))
            right[name] += int((present[p.argmax(axis=0)] == case.truth[z].ravel()).sum())
    share = {name: 100 * n / (len(scored) * case.truth[0].size) for name, n in right.items()}
    return {name: round(a if name == "paper" else a - share["paper"], 3) for name, a in share.items()}


def milliseconds(device: gt.Device, *, size: int = 400, planes: int = 16) -> dict[str, float]:
    """CPU time per plane of the families on one thread, the least of five, which take turns."""
    images = np.random.default_rng(0).integers(0, 60000, (planes, size, size)).astype(np.float32)
    one_thread, _ = device.side_by_side()
    counts = {"z_blur": planes, "z_context": planes, "paper": 1}
    engines = {name: FeatureEngine(one_thread, FeatureBank.create(name).blocks) for name in counts}
    times: dict[str, list[float]] = {name: [] for name in counts}
    for _ in range(6):  # the first one compiles
        for name, count in counts.items():
            began = time.process_time()
            engines[name].compute(images[:count])
            times[name].append(time.process_time() - began)
    return {name: round(1000 * min(found[1:]) / counts[name], 2) for name, found in times.items()}


def table(results: dict) -> None:
    for group, is_meant in (("chosen by", True), ("not used to choose", False)):
        print(f"\n| {group} | " + " | ".join(CANDIDATES) + " |")
        for name, by_seed in results["gains"].items():
            found = [gain for seed, gain in by_seed.items() if (int(seed) in CHOSEN_BY) == is_meant]
            if found:
                cells = [[f[c] for f in found] for c in CANDIDATES]
                text = " | ".join(f"{np.mean(v):+.2f} ({min(v):+.2f} to {max(v):+.2f})" for v in cells)
                print(f"| {name} ({len(found)}) | {text} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 11, 12, 13])
    parser.add_argument("--needle", nargs="+", metavar="FILE")
    parser.add_argument("--only", help="the case whose name is this")
    parser.add_argument("--times", action="store_true", help="measure milliseconds of CPU, too")
    parser.add_argument("--table", action="store_true", help="only print what was found before")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"gains": {}}
    if not arguments.table:
        device = gt.choose_device("native")
        bank = FeatureBank.create(["paper", "z_context"], sigmas={"z_context": SIGMAS})
        for seed in arguments.seeds:
            for case in cases(seed, arguments.needle, arguments.only):
                found = gains(case, seed=seed, bank=bank, device=device)
                results["gains"].setdefault(case.name, {})[str(seed)] = found
                print(case.name, seed, found, flush=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        if arguments.times:
            results["ms of CPU per plane of 400 x 400"] = milliseconds(device)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    table(results)


if __name__ == "__main__":
    main()
