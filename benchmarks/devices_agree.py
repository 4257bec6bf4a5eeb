"""Whether a volume gets the same classes on two devices: train once, classify on both, count the pixels that differ.

``python benchmarks/devices_agree.py VOLUME TRUTH --name NAME [--devices native,numpy] [--planes a:b]``. Classes may
differ where the two best probabilities are within 1e-5 of each other; the goal is fewer than 1 pixel in 100,000 in all.
Writes ``results/devices_NAME.json``. TRUTH (classes 0..k-1) is where the strokes come from; without a volume, the
sample of the demo is simulated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.prepare import prepare_plane
from gpu_tomoclass.studies.simulation.pillar import simulate_sample
from gpu_tomoclass.studies.strokes import draw_strokes
from gpu_tomoclass.training.in_order import map_in_order
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

RESULTS = Path(__file__).parent / "results"
TIE = 1e-5


def sample_files(folder: Path) -> tuple[Path, Path]:
    """The demo's volume and truth as files."""
    sample = simulate_sample(shape=(24, 168, 136), seed=0)
    paths = folder / "sample.tif", folder / "truth.tif"
    for path, array in zip(paths, (sample.volume, sample.truth.astype(np.uint8) - 1), strict=True):
        with create_volume(path, shape=array.shape, dtype=array.dtype) as writer:
            for z, plane in enumerate(array):
                writer.write_plane(z, plane)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", nargs="?")
    parser.add_argument("truth", nargs="?", help="label volume, classes 0..k-1")
    parser.add_argument("--name", required=True)
    parser.add_argument("--devices", default="native,numpy")
    parser.add_argument("--planes", help="a:b, the planes to classify; default all")
    parser.add_argument("--every", type=int, default=15, help="strokes on every n-th plane")
    parser.add_argument("--features", default="all")
    given = parser.parse_args()
    if given.volume is None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            volume_path, truth_path = sample_files(Path(folder))
            compare(volume_path, truth_path, given)
    else:
        compare(given.volume, given.truth, given)


def compare(volume_path: str | Path, truth_path: str | Path, given: argparse.Namespace) -> None:
    devices = [choose_device(name) for name in given.devices.split(",")]
    with open_volume(volume_path) as volume, open_volume(truth_path) as truth:
        marked = range(given.every // 2, volume.shape[0], given.every)
        parts = []
        for z in marked:
            painted = draw_strokes(truth.plane(z) + 1, per_class=3, length=20, seed=z)
            y, x = np.nonzero(painted)
            parts.append((np.full(y.size, z), y, x, painted[y, x]))
        z, y, x, label = (np.concatenate(column) for column in zip(*parts, strict=True))
        classes = default_classes([f"class {i}" for i in range(int(label.max()))])
        annotation = Annotation.from_voxels(z, y, x, label, shape=volume.shape, classes=classes)
        bank = FeatureBank.create(given.features)
        model = train(volume, annotation, bank=bank, device=devices[0]).model
        first, last = map(int, given.planes.split(":")) if given.planes else (0, volume.shape[0])
        found, seconds = {}, {}
        for device in devices:
            began = time.perf_counter()
            found[device.name] = classify(volume, model, device, scale=model.intensity, planes=range(first, last))
            seconds[device.name] = round(time.perf_counter() - began, 1)
    (labels, probabilities), (other_labels, other_probabilities) = (found[d.name] for d in devices)
    differ = labels != other_labels
    best = np.sort(probabilities, axis=1)
    clear = best[:, -1] - best[:, -2] >= TIE
    record = {
        "volume": Path(volume_path).name,
        "planes": [first, last],
        "devices": {d.name: d.description for d in devices},
        "seconds": seconds,
        "pixels": int(differ.size),
        "classes differ": int(differ.sum()),
        "classes differ beyond ties": int((differ & clear).sum()),
        "per 100,000": round(1e5 * float(differ.mean()), 4),
        "largest difference of a probability": float(np.abs(probabilities - other_probabilities).max()),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"devices_{given.name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


def classify(volume, model, device, *, scale: IntensityScale, planes: range) -> tuple[np.ndarray, np.ndarray]:
    """Labels (nz, ny, nx) and probabilities (nz, n_classes, ny, nx)."""
    plane_device, n_workers = device.side_by_side()
    classifier = Classifier(model, plane_device)
    prepared = (prepare_plane(volume, z, scale=scale).image for z in planes)
    results = list(
        map_in_order(
            lambda image: classifier.classify(image[np.newaxis], want_probabilities=True), prepared, workers=n_workers
        )
    )
    return np.stack([labels[0] for labels, _ in results]), np.stack([p[:, 0] for _, p in results])


if __name__ == "__main__":
    main()
