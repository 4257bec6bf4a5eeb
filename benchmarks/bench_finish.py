"""Share of a run that is left after its last plane, where computing costs nothing.

    python benchmarks/bench_finish.py [--planes 850] [--size 400] [--rounds 2] [--into FOLDER]

``classify`` runs as always (native device, reader, staging, outputs), but the workers return planes that were computed
beforehand: a volume passes as on a GPU far faster than any that exists, and what is left after the last plane cannot
hide. Counted is what follows once every plane is recorded as finished (``finish`` in the profile of a run: levels,
syncing, names, tidying up). Goal: at most 3 % of the run, for labels and with uint8 probabilities, whatever the format.
``read`` and ``write`` are the busy seconds of those threads, by which ``plan --gpu`` knows what the host does beside a
GPU. Writes benchmarks/results/finish.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from shared import model_of_two_classes, processor

from gpu_tomoclass import __version__
from gpu_tomoclass.classification import classify
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.classification.workers import ThreadWorkers
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.device.cores import usable_cores
from gpu_tomoclass.model import Model
from gpu_tomoclass.volumes import create_volume, open_volume

RESULTS = Path(__file__).parent / "results" / "finish.json"
OUTPUTS = ("labels.tif", "labels.mrc", "labels.ome.zarr")
PATTERNS = 8  # different planes, shifted from one to the next
GOAL = 0.03


def sample(path: Path, *, planes: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Write a noisy volume of blobs; some of its planes as probabilities (2, n, ny, nx) uint8, and as labels."""
    rng = np.random.default_rng(5)
    blobs = ndimage.gaussian_filter(rng.standard_normal((PATTERNS, size, size)), (0, 9, 9))
    blobs /= blobs.std()
    noisy = (1000 + 200 * (blobs + rng.standard_normal(blobs.shape))).clip(0).astype(np.uint16)
    with create_volume(path, shape=(planes, size, size), dtype=np.uint16, voxel_size=(1.0, 1.0, 1.0)) as writer:
        for z in range(planes):
            writer.write_plane(z, np.roll(noisy[z % PATTERNS], z, axis=1))
    unsure = np.rint(200 / (1 + np.exp(-4 * blobs)) + rng.normal(0, 3, blobs.shape)).clip(0, 200) / 200  # 200 trees
    second = np.rint(255 * unsure).astype(np.uint8)
    return np.stack([255 - second, second]), (1 + (unsure > 0.5)).astype(np.uint8)


class Free:
    """Workers whose computing costs nothing, while in a ``with`` block."""

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        self._values = {"probabilities": probabilities, "labels": labels}
        self._compute = ThreadWorkers._compute

    def __enter__(self) -> Free:
        def compute(workers: ThreadWorkers, item: tuple[int, Any]) -> list[Slab]:
            start, prepared = item
            wanted = prepared.place.wanted
            z = [(start + i) % PATTERNS for i in range(wanted.stop - wanted.start)]
            values = {"labels": self._values["labels"][z]}
            if workers.work.options.probabilities:
                values["probabilities"] = self._values["probabilities"][:, z]
            return [Slab(start, values)]

        ThreadWorkers._compute = compute  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        ThreadWorkers._compute = self._compute  # type: ignore[method-assign]


def timed(path: Path, model: Model, output: Path, *, probabilities: str | None) -> dict[str, float]:
    used = time.process_time()
    how: dict[str, Any] = {"device": choose_device("native"), "probabilities": probabilities}
    output.parent.mkdir()  # of its own: replacing an older output would take time, too
    with open_volume(path) as volume:
        seconds = classify(volume, model, output=output, **how).profile["seconds"]
    shutil.rmtree(output.parent)
    wall, left = seconds["wall"], seconds["finish"]
    used = time.process_time() - used
    return {
        "seconds": wall, "left": left, "share": left / wall, "processor_seconds": used,
        "read": seconds["read"], "write": seconds["write"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=850)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--into", type=Path, help="folder on the disk to measure; default that of temporary files")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=given.into))
    rows: dict[str, Any] = {}
    try:
        path = folder / "volume.tif"
        with Free(*sample(path, planes=given.planes, size=given.size)):
            with open_volume(path) as volume:
                model = model_of_two_classes(volume, "neighbors", n_trees=10)
            for name in OUTPUTS:
                for probabilities in (None, "uint8"):
                    tries = [
                        timed(path, model, folder / "outputs" / name, probabilities=probabilities)
                        for _ in range(given.rounds)
                    ]
                    best = min(tries, key=lambda t: t["share"])
                    row = f"{name}{' and uint8 probabilities' if probabilities else ''}"
                    rows[row] = {key: round(value, 4) for key, value in best.items()}
                    print(f"{row}: {best['seconds']:.2f} s, {best['left']:.3f} s after the last plane: "
                          f"{best['share']:.1%} ({best['processor_seconds']:.2f} processor s)", flush=True)  # fmt: skip
    finally:
        shutil.rmtree(folder)
    record = {
        "what": "seconds of classify where computing is free, and how many after its last plane",
        "gpu_tomoclass": __version__,
        "machine": {"cores": usable_cores(), "processor": processor()},
        "volume": [given.planes, given.size, given.size],
        "goal": GOAL,
        "runs": rows,
        "load_at_the_end": os.getloadavg()[0],
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
