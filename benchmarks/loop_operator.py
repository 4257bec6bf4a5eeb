"""A scripted person at a session: marks what the truth says where the session suggests; strokes, seconds, accuracy.

``python benchmarks/loop_operator.py VOLUME TRUTH [--every 15] [--strokes 40] [--json FILE]``. It begins with one stroke
per class on the middle plane and goes to the next suggestion after each correction, as a person does. Printed after
every few strokes: seconds of computing since the beginning (waiting excluded), held-out Dice, and the mean Dice of
other planes than those shown. The truth is only looked at under the brush and for the last of these figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

import gpu_tomoclass as gt
from gpu_tomoclass.labels import Confusion

LENGTH, WIDTH = 14, 5.0  # of a stroke, pixels
JUDGED = 4  # planes


class Operator:
    """Paints along the middle of what is of one class.

    Parameters
    ----------
    session : Session
    truth : Volume
        Its values, rising, are the classes 1, 2, ..
    """

    def __init__(self, session: gt.Session, truth: gt.Volume, values: np.ndarray) -> None:
        self.session, self.truth, self.values = session, truth, values
        self.n_strokes = 0
        self.seconds = 0.0
        self.held_out = float("nan")
        session.listen(self._listen)

    def _listen(self, event: gt.Event) -> None:
        if event.kind in ("trained", "overlay"):
            self.seconds += sum(event.data["seconds"].values())
        if event.kind == "score":
            self.held_out = event.data.get("mean_dice", float("nan"))

    def labels(self, z: int) -> np.ndarray:
        """The truth of a plane as class values."""
        return (1 + np.searchsorted(self.values, self.truth.plane(z))).astype(np.uint8)

    def stroke(self, z: int, value: int, near: tuple[int, int] | None = None) -> None:
        """Of a class, near a place or where it is widest; nothing where it is not."""
        plane = self.labels(z)
        inside = ndimage.distance_transform_edt(plane == value)
        if near is not None:
            y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
            far = np.hypot(y - near[0], x - near[1])
            inside = np.where((far < 2 * LENGTH) & (inside > 0), np.minimum(inside, 4) - 0.2 * far + 100, 0)
        if inside.max() <= 0:
            return
        y, x = (int(v) for v in np.unravel_index(int(inside.argmax()), plane.shape))
        right = x
        while right - x < LENGTH and right + 1 < plane.shape[1] and plane[y, right + 1] == value:
            right += 1
        width = float(np.clip(2 * ndimage.distance_transform_edt(plane == value)[y, x] - 1, 1, WIDTH))
        self.session.stroke(z, [(y + 0.5, x + 0.5), (y + 0.5, right + 0.5)], value=value, width=width)
        self.n_strokes += 1

    def judge(self, planes: list[int]) -> float:
        """Mean Dice of these planes, by the model as it is."""
        model = self.session.model()
        confusion = Confusion(range(1, len(self.values) + 1))
        for z in planes:
            confusion.update(self.labels(z), gt.preview(model, self.session.volume, plane=z).labels)
        return confusion.mean_dice


def main() -> None:
    """Mark, look, correct, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume")
    parser.add_argument("truth")
    parser.add_argument("--every", type=int, default=15)
    parser.add_argument("--strokes", type=int, default=40)
    parser.add_argument("--step", type=int, default=10, help="Strokes between two lines.")
    parser.add_argument("--features", default="paper")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    truth = gt.open_volume(options.truth)
    values = np.unique(np.concatenate([np.unique(truth.plane(z)) for z in range(0, len(truth), 8)]))
    rows = []
    names = [f"value {v}" for v in values]
    with gt.Session(options.volume, class_names=names, every=options.every, features=options.features) as session:
        person, planes = Operator(session, truth, values), session.planes
        others = np.linspace(0, len(truth) - 1, JUDGED + 2).astype(int)[1:-1]
        others = [int(z) + (z in planes) for z in others]
        session.look_at(planes[len(planes) // 2])
        for value in range(1, len(values) + 1):
            person.stroke(session.view, value)
        print(f"{'strokes':>8}{'pixels':>8}{'seconds':>9}{'held-out':>10}{'Dice, other planes':>20}")
        next_line = options.step
        while True:
            session.wait()
            if person.n_strokes >= min(next_line, options.strokes):
                pixels = sum(n for of_plane in session.strokes.counts().values() for n in of_plane.values())
                row = {"strokes": person.n_strokes, "pixels": pixels, "seconds": round(person.seconds, 2),
                       "held_out": round(person.held_out, 4), "dice": round(person.judge(others), 4)}  # fmt: skip
                rows.append(row)
                print("{strokes:8}{pixels:8}{seconds:9.1f}{held_out:10.3f}{dice:20.3f}".format(**row), flush=True)
                next_line += options.step
            if person.n_strokes >= options.strokes:
                break
            before = person.n_strokes
            for place in session.suggestions()[:1]:
                session.look_at(place.z)
                for value in range(1, len(values) + 1):
                    person.stroke(place.z, value, near=(place.y, place.x))
            unseen = [z for z in planes if z not in session.strokes.planes()]
            if unseen and person.n_strokes % 3 == 0:  # a person leafs through the other planes, too
                session.look_at(unseen[0])
            if person.n_strokes == before:
                print("no place is left to mark")
                break
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
