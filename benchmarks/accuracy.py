"""Accuracy on a volume whose truth is known: scripted strokes, correction rounds, score on the planes not marked.

    python benchmarks/accuracy.py VOLUME TRUTH --name needle_wbp --train-planes 14 --planes 0:204

An operator is imitated: a few strokes per class on some planes, then rounds of looking at those planes and painting on
the largest errors. The truth is used for nothing else. Writes benchmarks/results/accuracy_NAME.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.annotations import Annotation
from gpu_tomoclass.cache import FeatureCache
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.evaluate import Confusion
from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.intensity import prepare_plane
from gpu_tomoclass.planes import map_in_order
from gpu_tomoclass.stream import Classifier
from gpu_tomoclass.strokes import correction_strokes, draw_strokes
from gpu_tomoclass.training import train
from gpu_tomoclass.volume import open_volume

RESULTS = Path(__file__).parent / "results"


def annotation_of(strokes: dict[int, np.ndarray], *, shape, classes) -> Annotation:
    z, y, x, label = [], [], [], []
    for plane, painted in strokes.items():
        rows, columns = np.nonzero(painted)
        z.append(np.full(rows.size, plane))
        y.append(rows)
        x.append(columns)
        label.append(painted[rows, columns])
    z, y, x, label = (np.concatenate(part) for part in (z, y, x, label))
    return Annotation.from_voxels(z, y, x, label, shape=shape, classes=classes)


def score(model, device, volume, truth, planes, *, cache=None):
    """Confusion over the given planes and the predicted planes."""
    confusion = Confusion(model.classes)
    plane_device, n_workers = device.side_by_side()
    classifier = Classifier(model, plane_device)
    prepared = ((z, prepare_plane(volume, z, scale=model.intensity).image) for z in planes)

    def predict(item):
        z, image = item
        labels, _ = classifier.classify(image[np.newaxis], cache=cache)
        return z, labels[0]

    predicted = {}
    for z, labels in map_in_order(predict, prepared, workers=n_workers):
        confusion.update(truth.plane(z) + 1, labels)
        predicted[z] = labels
    return confusion, predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume")
    parser.add_argument("truth", help="label volume, classes 0..k-1")
    parser.add_argument("--name", required=True)
    parser.add_argument("--classes", help="names, comma-separated")
    parser.add_argument("--train-planes", type=int, default=14)
    parser.add_argument("--planes", default=None, help="a:b, the planes that take part; default all")
    parser.add_argument("--test-planes", type=int, default=None, help="score on so many held-out planes; default all")
    parser.add_argument("--strokes", type=int, default=2, help="per class and plane at the start")
    parser.add_argument("--length", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--per-round", type=int, default=3, help="correction strokes per plane and round")
    parser.add_argument("--features", default="paper")
    parser.add_argument("--fresh", type=int, default=0, help="also so many new strokes per class, plane and round")
    parser.add_argument("--score-first", action="store_true", help="also score the first strokes on held-out planes")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", help="folder for computed features; default a temporary one")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device, threads=options.workers)

    with (
        tempfile.TemporaryDirectory() as scratch,
        open_volume(options.volume) as volume,
        open_volume(options.truth) as truth,
    ):
        first, last = 0, volume.shape[0]
        if options.planes:
            first, last = map(int, options.planes.split(":"))
        step = (last - first) / options.train_planes
        marked = [int(first + step * (i + 0.5)) for i in range(options.train_planes)]
        held_out = [z for z in range(first, last) if z not in marked]
        if options.test_planes:
            held_out = [held_out[i] for i in np.linspace(0, len(held_out) - 1, options.test_planes).astype(int)]
        n_classes = 1 + max(int(truth.plane(z).max()) for z in marked)
        names = options.classes.split(",") if options.classes else [f"class {i}" for i in range(n_classes)]
        classes = default_classes(names)
        bank = FeatureBank.create(options.features)
        cache = FeatureCache(options.cache or scratch)
        started = time.perf_counter()
        strokes = {
            z: draw_strokes(truth.plane(z) + 1, per_class=options.strokes, length=options.length, seed=options.seed + z)
            for z in marked
        }
        rounds = []
        for i in range(options.rounds + 1):
            annotation = annotation_of(strokes, shape=volume.shape, classes=classes)
            result = train(volume, annotation, bank=bank, cache=cache, device=device, workers=options.workers, seed=42)
            confusion, predicted = score(result.model, device, volume, truth, marked, cache=cache)
            rounds.append({"pixels": int(annotation.label.size), "accuracy_marked_planes": confusion.accuracy,
                           "oob_error": result.oob_error})  # fmt: skip
            print(f"round {i}: {annotation.label.size} px, marked planes {100 * confusion.accuracy:.2f} %, "
                  f"out-of-bag {100 * result.oob_error:.2f} %", flush=True)  # fmt: skip
            if i == options.rounds or (i == 0 and options.score_first):
                held, _ = score(result.model, device, volume, truth, held_out)
                rounds[-1]["held_out"] = held.to_dict()
                print(f"  held out ({len(held_out)} planes): {100 * held.accuracy:.2f} %, mean IoU {held.mean_iou:.3f}",
                      [round(float(v), 3) for v in held.iou], flush=True)  # fmt: skip
            if i < options.rounds:
                for z in marked:
                    strokes[z] = correction_strokes(
                        truth.plane(z) + 1, predicted[z], strokes[z], n=options.per_round, length=options.length,
                        seed=1000 * (i + 1) + z,
                    )  # fmt: skip
                    if options.fresh:
                        more = draw_strokes(
                            truth.plane(z) + 1, per_class=options.fresh, length=options.length, seed=77 * (i + 1) + z
                        )
                        strokes[z] = np.where(strokes[z] > 0, strokes[z], more)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"accuracy_{options.name}.json"
    record = {
        "options": {k: v for k, v in vars(options).items() if k not in ("volume", "truth", "cache")},
        "volume": Path(options.volume).name,
        "marked_planes": marked,
        "n_held_out": len(held_out),
        "rounds": rounds,
        "seconds": round(time.perf_counter() - started, 1),
        "version": __version__,
        "python": platform.python_version(),
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['seconds']} s; {path}")


if __name__ == "__main__":
    main()
