"""A scripted person at a session: marks what the truth says where the session suggests; strokes, seconds, accuracy.

``python benchmarks/loop_operator.py VOLUME TRUTH [--every 7] [--strokes 80] [--seed 0] [--json FILE]``. It begins with
one stroke per class on the middle plane, then goes to one of the three best suggestions, strokes what is wrong there
and the largest wrong area of the plane, as a person does, and so on. Printed after 10, 20, 40, .. strokes: CPU seconds
of the session since the beginning (all threads; judging excluded), held-out Dice, and accuracy, mean IoU and mean Dice
of other planes than those shown. The truth is only looked at when there is something to stroke and for these figures.
FILE keeps the rows by name and seed; ``python benchmarks/loop_operator.py --table FILE`` prints the docs' table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

import gpu_tomoclass as gt
from gpu_tomoclass.labels import Confusion

LENGTH, WIDTH = 14, 5.0  # of a stroke, pixels
NEAR = 24  # pixels around a suggestion
AMONG = 3  # of the best suggestions, one is taken by chance
WIDE = 0.7  # of the widest place, where a first stroke may begin
IDLE = 12  # visits in a row at which nothing was wrong
FIRST_LINE = 10  # strokes; the next lines come after twice as many each


class Operator:
    """Paints along the middle of what is of one class.

    Parameters
    ----------
    session : Session
    truth : Volume
        Its values, rising, are the classes 1, 2, ..
    values : numpy.ndarray
    rng : numpy.random.Generator
    """

    def __init__(self, session: gt.Session, truth: gt.Volume, values: np.ndarray, rng: np.random.Generator) -> None:
        self.session, self.truth, self.values, self.rng = session, truth, values, rng
        self.n_strokes = 0
        self.held_out = float("nan")
        session.listen(self._listen)

    def _listen(self, event: gt.Event) -> None:
        if event.kind == "score":
            self.held_out = event.data.get("mean_dice", float("nan"))

    def labels(self, z: int) -> np.ndarray:
        """The truth of a plane as class values."""
        return (1 + np.searchsorted(self.values, self.truth.plane(z))).astype(np.uint8)

    def first(self, z: int, value: int) -> None:
        """Stroke somewhere where a class is wide."""
        self._stroke(z, value, ndimage.distance_transform_edt(self.labels(z) == value))

    def correct(self, z: int, near: tuple[int, int]) -> None:
        """Strokes on what is wrong: near a place, where a person was sent, then the widest of the plane."""
        plane, overlay = self.labels(z), self.session.overlay(z)
        assert overlay is not None
        y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
        close = np.hypot(y - near[0], x - near[1]) < NEAR
        for value in range(1, len(self.values) + 1):
            wrong = ndimage.distance_transform_edt((plane == value) & (overlay.labels != value))
            self._stroke(z, value, wrong * close)
            self._stroke(z, value, wrong)

    def _stroke(self, z: int, value: int, inside: np.ndarray) -> None:
        """Along a row, from one of the widest places of an area; nothing where it has no pixel."""
        if inside.max() <= 0:
            return
        plane = self.labels(z)
        good = np.flatnonzero(inside >= WIDE * inside.max())
        y, x = (int(v) for v in np.unravel_index(int(self.rng.choice(good)), plane.shape))
        right = x
        while right - x < LENGTH and right + 1 < plane.shape[1] and plane[y, right + 1] == value:
            right += 1
        depth = ndimage.distance_transform_edt(plane == value)
        width = float(np.clip(2 * depth[y, x : right + 1].min() - 1, 1, WIDTH))
        self.session.stroke(z, [(y + 0.5, x + 0.5), (y + 0.5, right + 0.5)], value=value, width=width)
        self.n_strokes += 1

    def judge(self, planes: list[int], cache: gt.FeatureCache) -> dict[str, float]:
        """Scores on these planes, by the model as it is."""
        model = self.session.model()
        confusion = Confusion(range(1, len(self.values) + 1))
        for z in planes:
            confusion.update(self.labels(z), gt.preview(model, self.session.volume, plane=z, cache=cache).labels)
        return {"accuracy": float(confusion.accuracy), "iou": float(confusion.mean_iou),
                "dice": float(confusion.mean_dice)}  # fmt: skip


def work(options: argparse.Namespace, folder: str) -> list[dict[str, Any]]:
    """Mark, look, correct; the rows of the table."""
    truth = gt.open_volume(options.truth)
    stop = options.stop or len(truth)
    values = np.unique(np.concatenate([np.unique(truth.plane(z)) for z in range(0, stop, 8)]))
    names, rows = [f"value {v}" for v in values], []
    cache = gt.FeatureCache(folder)
    with gt.Session(options.volume, class_names=names, every=options.every, features=options.features,
                    seed=options.seed) as session:  # fmt: skip
        person = Operator(session, truth, values, np.random.default_rng(options.seed))
        planes = [z for z in session.planes if z < stop]
        others = [z for z in range(stop) if z not in planes]
        others = [others[i] for i in np.linspace(0, len(others) - 1, options.judged).astype(int)]
        began, judging, next_line, idle = time.process_time(), 0.0, FIRST_LINE, 0
        session.look_at(planes[len(planes) // 2])
        for value in range(1, len(values) + 1):
            person.first(session.view, value)
        print(f"{'strokes':>8}{'pixels':>8}{'CPU s':>9}{'held-out':>10}{'accuracy':>10}{'IoU':>8}{'Dice':>8}")
        while True:
            session.wait()
            last = person.n_strokes >= options.strokes or idle > IDLE
            if last or person.n_strokes >= next_line:
                judged_at = time.process_time()
                pixels = sum(n for of_plane in session.strokes.counts().values() for n in of_plane.values())
                row = {"strokes": person.n_strokes, "pixels": pixels, "planes": len(session.strokes.planes()),
                       "cpu_seconds": round(judged_at - began - judging, 1),
                       "held_out": round(person.held_out, 4)}  # fmt: skip
                row |= {name: round(score, 4) for name, score in person.judge(others, cache).items()}
                rows.append(row)
                print("{strokes:8}{pixels:8}{cpu_seconds:9.1f}{held_out:10.3f}{accuracy:10.4f}{iou:8.3f}{dice:8.3f}"
                      .format(**row), flush=True)  # fmt: skip
                judging += time.process_time() - judged_at
                next_line *= 2
            if last:
                return rows
            before = person.n_strokes
            best = [place for place in session.suggestions() if place.z < stop][:AMONG]
            if best:
                place = best[int(person.rng.integers(len(best)))]
                session.look_at(place.z)
                person.correct(place.z, (place.y, place.x))
            unseen = [z for z in planes if z not in session.strokes.planes()]
            if unseen and person.n_strokes % 3 == 0:  # a person leafs through the other planes, too
                session.look_at(int(person.rng.choice(unseen)))
            if person.n_strokes == before:  # all is right where the session sent the person, who looks elsewhere
                z = int(person.rng.choice(planes))
                session.look_at(z)
                session.wait()
                person.correct(z, (truth.shape[1] // 2, truth.shape[2] // 2))
            idle = 0 if person.n_strokes > before else idle + 1


def table(path: Path) -> list[str]:
    """Markdown: the mean over seeds, and the lowest and highest accuracy."""
    lines = ["| volume | strokes | pixels | CPU seconds | held-out Dice | accuracy | mean IoU |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, seeds in json.loads(path.read_text(encoding="utf-8")).items():
        for rows in zip(*seeds.values(), strict=False):
            # The held-out score needs two marked planes.
            known = {key: [row[key] for row in rows if row[key] == row[key]] for key in rows[0]}
            mean = {key: statistics.mean(values) if values else float("nan") for key, values in known.items()}
            low, high = (100 * f(row["accuracy"] for row in rows) for f in (min, max))
            lines.append(f"| {name} | {mean['strokes']:.0f} | {mean['pixels']:.0f} | {mean['cpu_seconds']:.0f} | "
                         f"{mean['held_out']:.3f} | {100 * mean['accuracy']:.2f} ({low:.2f} to {high:.2f}) | "
                         f"{mean['iou']:.3f} |")  # fmt: skip
    return lines


def main() -> None:
    """Run one seed, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", nargs="?")
    parser.add_argument("truth", nargs="?")
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--stop", type=int, help="Planes from here on are neither painted nor judged.")
    parser.add_argument("--strokes", type=int, default=80)
    parser.add_argument("--judged", type=int, default=16, help="Planes.")
    parser.add_argument("--seed", type=int, default=0, help="Of the forest and of the person.")
    parser.add_argument("--features", default="paper")
    parser.add_argument("--name", help="In FILE; default the volume's.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="Print the table of this file.")
    options = parser.parse_args()
    if options.table is not None:
        print("\n".join(table(options.table)))
        return
    if options.truth is None:
        parser.error("give a volume and its truth")
    with tempfile.TemporaryDirectory() as folder:
        rows = work(options, folder)
    if options.json is not None:
        known = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
        known.setdefault(options.name or Path(options.volume).stem, {})[f"seed {options.seed}"] = rows
        options.json.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
