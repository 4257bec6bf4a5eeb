"""Adapting without harm: how much of a map of grey values is used where labels would agree less with their neighbours.

    python benchmarks/part_way.py --seeds 3 4 5 --only corrected
    python benchmarks/part_way.py --seeds 21000 22000 --only few
    python benchmarks/part_way.py --seeds 0 --only needle --needle TRUTH NAME=VOLUME NAME=VOLUME ..

Models of few strokes (those of transfer.py, on its first pillar or phantom) and models that a scripted operator
corrected in six rounds (those of added_steps.py), with the paper's features, on volumes of the same kind. Of each pair:
accuracy and mean IoU as given, with half of the map, with the whole, and what ``adapt`` gives. Adds to
benchmarks/results/part_way.json, prints tables.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from part_way_tables import CHANGES, CHOSEN, table
from transfer import PILLARS, Case, annotation_of, given, phantoms, pillars

from gpu_tomoclass import FeatureCache, __version__, default_classes
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.features import FeatureBank, FeatureEngine, IntensityScale, prepare_plane
from gpu_tomoclass.model import Model
from gpu_tomoclass.studies.reproduction.operator import teach
from gpu_tomoclass.studies.reproduction.results import HABITS
from gpu_tomoclass.studies.simulation.files import write_pillar
from gpu_tomoclass.training.adapt_model import keeps_map, try_map
from gpu_tomoclass.training.drift import Looked, asker
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes import Volume, create_volume, open_volume

RESULTS = Path(__file__).parent / "results" / "part_way.json"
FEATURES = "paper"
SHAPE, OTHER = (60, 214, 160), (24, 214, 160)  # of the pillar that is corrected, and of those it is applied to
VOXEL = 150 / (0.86 * SHAPE[2])
PAINTED = 8  # planes of its lower two thirds
Truth = Callable[[int], np.ndarray]
Task = tuple[Model, str, Volume, Truth, list[int]]  # model, name of the change, volume, its truth, planes to score


def corrected(seed: int, folder: Path, device) -> Iterator[Task]:
    """A corrected model; volumes with their truth and the planes to score."""
    names = write_pillar(folder / "a.tif", shape=SHAPE, voxel=VOXEL, seed=seed)
    with open_volume(names[0]) as volume, open_volume(names[1]) as truth:
        edges = np.linspace(0, round(2 / 3 * SHAPE[0]), PAINTED + 1)
        painted = [int(z) for z in (edges[:-1] + edges[1:]) / 2]
        model = teach(
            volume, truth.plane, planes=painted, classes=default_classes(["vacuum", "rubber", "silica"]),
            habits=HABITS["pillar"], bank=FeatureBank.create(FEATURES), cache=FeatureCache(folder / "cache"),
            device=device, seed=seed,
        ).last  # fmt: skip
    for change in CHANGES:
        recipe = {key: value for key, value in PILLARS[change].items() if key != "seed"}
        names = write_pillar(folder / f"{change}.tif", shape=OTHER, voxel=VOXEL, seed=seed + 1, **recipe)
        with open_volume(names[0]) as volume, open_volume(names[1]) as truth:
            yield model, change, volume, truth.plane, list(range(1, OTHER[0], 2))


def few(cases: list[Case], folder: Path, device) -> Iterator[Task]:
    """A model of few strokes on the first case; the others."""
    for i, case in enumerate(cases):
        with create_volume(folder / f"{i}.tif", shape=case.array.shape, dtype=case.array.dtype, voxel_size=None) as out:
            for z, plane in enumerate(case.array):
                out.write_plane(z, plane)
    strokes = annotation_of(cases[0], per_class=8, length=24)
    with open_volume(folder / "0.tif") as volume:
        model = train(volume, strokes, bank=FeatureBank.create(FEATURES), device=device).model
    for i, case in enumerate(cases[1:], start=1):
        with open_volume(folder / f"{i}.tif") as volume:
            yield model, f"{cases[0].name} to {case.name}", volume, case.truth.__getitem__, case.scored


def needle(truth: str, volumes: list[str], folder: Path, device) -> Iterator[Task]:
    """Of each reconstruction a model, and the others; planes with the specimen only."""
    cases = given(truth, volumes)
    places = [*cases[0].marked, *cases[0].scored]
    useful = slice(min(places), max(places) + 1)
    for case in cases:
        case.array, case.truth = case.array[useful], case.truth[useful]
        case.marked, case.scored = ([z - useful.start for z in planes] for planes in (case.marked, case.scored))
    for i in range(len(cases)):
        (folder / str(i)).mkdir()
        yield from few([cases[i], *cases[:i], *cases[i + 1 :]], folder / str(i), device)


def measure(model: Model, volume: Volume, truth: Truth, scored: list[int], device) -> dict:
    """Scores of one model on one volume, and what is known without the truth."""
    engine, ask = FeatureEngine(device, model.bank.blocks), asker(model.forest, device)
    values = np.array([c.value for c in model.classes])
    tried = try_map(model, Looked.at(volume), device=device)
    assert tried.after is not None
    keep = keeps_map(tried.before, tried.after)[0]

    def scores(scale: IntensityScale) -> dict:
        n = len(values)
        confusion = np.zeros((n, n))
        for z in scored:
            image = prepare_plane(volume, z, scale=scale).image
            flat = device.numpy(engine.compute(image[np.newaxis])).reshape(model.bank.n_channels, -1).T
            true = np.searchsorted(values, truth(z).ravel())
            confusion += np.bincount(true * n + ask(flat).argmax(axis=0), minlength=n * n).reshape(n, n)
        right = confusion.diagonal()
        union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
        return {"accuracy": round(right.sum() / confusion.sum(), 4), "iou": round(float((right / union).mean()), 4)}

    half = tried.scale.mapped([(x, (x + y) / 2) for x, y in tried.scale.points])  # whole numbers are used as they are
    scales = {"given": model.intensity, "half": half, "whole": tried.scale}
    found = {way: scores(scale) for way, scale in scales.items()}
    found["part"] = found["whole"] if tried.share == 1 else scores(tried.part)
    known = {"drift": tried.before.drift, "given_alike": tried.alike[0], "whole_alike": tried.alike[1],
             "share": tried.share}  # fmt: skip
    return {**found, "kept": keep, **{name: round(value, 4) for name, value in known.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[])
    parser.add_argument("--only", nargs="+", choices=CHOSEN, default=list(CHOSEN))
    parser.add_argument("--needle", nargs="+", default=[], metavar=("TRUTH", "VOLUME"), help="classes 0..k-1")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    device = choose_device(options.device, threads=options.workers)
    pairs = json.loads(RESULTS.read_text())["pairs"] if RESULTS.exists() else []
    makers = {
        "corrected": lambda seed, folder: corrected(seed, folder, device),
        "few": lambda seed, folder: few(pillars(offset=seed), folder, device),
        "needle": lambda _, folder: needle(options.needle[0], options.needle[1:], folder, device),
        "phantom": lambda seed, folder: few(phantoms(size=128, offset=seed), folder, device),
    }
    for seed in options.seeds:
        for kind in options.only:
            with tempfile.TemporaryDirectory() as folder:
                for model, change, volume, truth, scored in makers[kind](seed, Path(folder)):
                    what = {"kind": kind, "seed": seed, "change": change}
                    pairs = [p for p in pairs if any(p[key] != value for key, value in what.items())]
                    pairs.append({**what, **measure(model, volume, truth, scored, device)})
                    lines = ",\n".join("  " + json.dumps(pair) for pair in pairs)
                    head = json.dumps({"features": FEATURES, "version": __version__, "pairs": []}, indent=1)
                    RESULTS.write_text(head.replace('"pairs": []', f'"pairs": [\n{lines}\n ]') + "\n")
                    print(json.dumps(pairs[-1]), flush=True)
    print("\n".join(table({"pairs": pairs})))


if __name__ == "__main__":
    main()
