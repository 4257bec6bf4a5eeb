"""What classifying costs on a GPU, part by part and as a whole: one command on a GPU node.

    python benchmarks/bench_gpu.py [--shape 400,400] [--slab 32] [--planes 850] [--json gpu.json]

Milliseconds per plane of every feature family, of the forest and of the labels by CUDA events on the stream of the
launches, for a slab that is on the GPU; of the copies from and to pinned memory; of reading and writing a TIFF. Then a
whole volume of ``--planes`` planes is classified from file to file. Everything runs once before it is timed. Results
are printed, and beside them, where the GPU is one of those, what ``benchmarks/roofline`` predicted.
``--device native`` runs the same on this CPU, by its clock.

    python benchmarks/bench_gpu.py --report DIR [--ncu] [--sanitize]

is for a GPU that is lent for ten minutes: everything in order of value, see ``gpu_report.py``; DIR gets one HTML page
and JSON. ``--quick --device native`` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_native import sample_plane
from scipy.ndimage import gaussian_filter

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.on_device import FROM_DEVICE
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import TO_DEVICE, FeatureEngine, accelerated_family
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.forest.arrays import Forest
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.forest.labels_on_device import device_labels
from gpu_tomoclass.forest.predict_on_device import DeviceForest
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.volumes.opening import create_volume, open_volume

PREDICTIONS = Path(__file__).parent / "results" / "roofline.json"
TRAINING_ROWS = 5000
N_TREES = 200
Figures = dict[str, float]


def sample_slab(shape: tuple[int, int, int]) -> np.ndarray:
    """(nz, ny, nx) float32: the sample plane, mirrored to the size and rolled from plane to plane."""
    nz, ny, nx = shape
    plane = sample_plane()
    plane = np.pad(plane, [(0, max(0, n - m)) for n, m in zip((ny, nx), plane.shape, strict=True)], mode="symmetric")
    return np.stack([np.roll(plane[:ny, :nx], (3 * z, 5 * z), axis=(0, 1)) for z in range(nz)])


def figures(device: Device, work: Callable[[], object], *, repeats: int, n_planes: int) -> Figures:
    """Milliseconds per plane: least and median of some runs after the first."""
    work()
    per_plane = [1e3 * device.seconds(work) / n_planes for _ in range(repeats)]
    return {"min_ms": min(per_plane), "median_ms": statistics.median(per_plane)}


def family_figures(device: Device, bank: FeatureBank, family: str, slab: np.ndarray, *, repeats: int) -> Figures:
    """All blocks of a family; what families share counts for each."""
    accelerated = accelerated_family(family)
    if accelerated is None:
        raise SystemExit(f"{family} has no kernels")
    requests = []
    for block in bank.blocks:
        if block.family == family:
            out = device.empty((len(block.channels), *slab.shape), np.float32)
            requests.append(BlockRequest(dict(block.parameters), out))
    workspace = Workspace(device)
    sources = iter([DeviceSource(slab, workspace) for _ in range(repeats + 1)])  # each computes what is shared anew
    return figures(device, lambda: accelerated(next(sources), requests), repeats=repeats, n_planes=len(slab))


def sample_forest(bank: FeatureBank) -> Forest:
    """200 trees, about 90,000 nodes with all families: three ranges of the smoothed sample plane."""
    plane = sample_plane()
    smooth = gaussian_filter(plane, 2)
    rows = np.random.default_rng(5).permutation(plane.size)[:TRAINING_ROWS]
    values = np.ascontiguousarray(bank.compute(plane).reshape(bank.n_channels, -1)[:, rows].T)
    labels = 1 + np.digitize(smooth, np.quantile(smooth, [0.4, 0.7]))
    return train_forest(values, labels.ravel()[rows], n_trees=N_TREES).forest


def measure_parts(
    device: Device, bank: FeatureBank, forest: Forest, slab: np.ndarray, *, repeats: int
) -> dict[str, Figures]:
    """Every part by name."""
    found = {family: family_figures(device, bank, family, slab, repeats=repeats) for family in bank.families}
    n_planes = len(slab)
    engine = FeatureEngine(device, bank.blocks)
    features = engine.compute(slab).reshape(engine.n_channels, slab.size)
    on_device = DeviceForest(forest, device)
    found["forest"] = figures(device, lambda: on_device.probabilities(features), repeats=repeats, n_planes=n_planes)
    probabilities = on_device.probabilities(features)
    values = device.array(np.arange(1, forest.n_classes + 1, dtype=np.uint8))
    labels = device.empty(slab.size, np.uint8)
    found["labels"] = figures(
        device,
        lambda: device_labels(device, probabilities, values=values, out=labels),
        repeats=repeats,
        n_planes=n_planes,
    )
    target, pinned = device.empty(slab.shape, np.float32), device.pinned(slab.shape, np.float32)
    pinned[...] = slab
    on_host = device.pinned((slab.size,), np.uint8)
    for what, work in (
        (TO_DEVICE, lambda: device.start_upload(pinned, target)),
        (FROM_DEVICE, lambda: device.start_download(labels, on_host)),
    ):
        found[what] = figures(device, work, repeats=repeats, n_planes=n_planes)
    return found


def measure_files(slab: np.ndarray, folder: Path, *, repeats: int) -> dict[str, Figures]:
    """Reading and writing planes of 16 bits."""
    path, found = folder / "planes.tif", {}
    for what, work in (("write", lambda: write_volume(slab, path)), ("read", lambda: read_volume(path))):
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            seconds.append(1e3 * (time.perf_counter() - began) / len(slab))
        found[what] = {"min_ms": min(seconds), "median_ms": statistics.median(seconds)}
    return found


def write_volume(planes: np.ndarray, path: Path) -> None:
    with create_volume(path, shape=planes.shape, dtype=np.uint16, overwrite=True) as writer:
        for z, plane in enumerate(planes):
            writer.write_plane(z, plane.astype(np.uint16))


def read_volume(path: Path) -> None:
    with open_volume(path) as volume:
        for z in range(volume.shape[0]):
            volume.plane(z)


def measure_whole(device: Device, model: Model, slab: np.ndarray, folder: Path, *, n_planes: int) -> dict[str, Any]:
    """From file to file; the first slab is classified once before."""
    path = folder / "volume.tif"
    write_volume(np.resize(slab, (n_planes, *slab.shape[1:])), path)
    with open_volume(path) as volume:
        classify(volume, model, output=folder / "first.tif", planes=(0, min(len(slab), n_planes)), device=device)
        result = classify(volume, model, output=folder / "labels.tif", device=device)
    return {"n_planes": n_planes, "seconds": result.seconds, "profile": dict(result.profile)}


def predicted_per_plane(device: Device) -> dict[str, float]:
    """Milliseconds per plane of 400 x 400 that were predicted for this GPU; none for others."""
    if device.name != "cuda" or not PREDICTIONS.exists():
        return {}
    stored = json.loads(PREDICTIONS.read_text())
    for prediction in stored["predictions"]:
        if prediction["gpu"]["name"].split(" SXM")[0] in device.description:
            return {part: 1e3 * s / stored["volume"][0] for part, s in prediction["parts_s"].items()}
    return {}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "native"), default="cuda")
    parser.add_argument("--gpu-id", type=int, default=0)
    parser.add_argument("--shape", default="400,400")
    parser.add_argument("--slab", type=int, default=32, help="planes at once; 32 of 400 x 400 need about 8 GB")
    parser.add_argument("--planes", type=int, default=850, help="of the whole volume; 0: none")
    parser.add_argument("--families", default="paper", help="or some, separated by commas")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--report", type=Path, metavar="DIR", help="run everything, in at most eight minutes")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--ncu", action="store_true", help="with --report: Nsight Compute on the largest kernels")
    parser.add_argument("--sanitize", action="store_true", help="with --report: compute-sanitizer on some tests")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.report is not None:
        from gpu_report import make_report

        options = {"quick": given.quick, "ncu": given.ncu, "sanitize": given.sanitize}
        return make_report(given.report, device=given.device, gpu_id=given.gpu_id, **options)
    if given.step is not None:
        from gpu_steps import run_step

        run_step(given.step, device=given.device, gpu_id=given.gpu_id, target=given.json, quick=given.quick)
        return {}
    if given.quick:
        globals().update(TRAINING_ROWS=100, N_TREES=5)
    device = choose_device(given.device, given.gpu_id)
    ny, nx = (int(n) for n in given.shape.split(","))
    bank = FeatureBank.create(given.families if given.families == "paper" else given.families.split(","))
    slab = sample_slab((given.slab, ny, nx))
    forest = sample_forest(bank)
    print(f"{device.description}; slabs of {given.slab} planes of {ny} x {nx}; {forest.n_nodes} nodes")
    stored: dict[str, Any] = {
        "gpu_tomoclass": __version__,
        "device": device.description,
        "host": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "slab": list(slab.shape),
        "n_nodes": forest.n_nodes,
        "repeats": given.repeats,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stored["parts"] = measure_parts(device, bank, forest, slab, repeats=given.repeats)
        stored["files"] = measure_files(slab, folder, repeats=given.repeats)
        predicted = predicted_per_plane(device) if (ny, nx) == (400, 400) else {}
        stored["predicted"] = predicted
        print(f"{'ms per plane':24} {'min':>9} {'median':>9}{'predicted':>11}" if predicted else "ms per plane")
        for part, found in {**stored["parts"], **stored["files"]}.items():
            guess = f"{predicted[part]:11.3f}" if part in predicted else ""
            print(f"{part:24} {found['min_ms']:9.3f} {found['median_ms']:9.3f}{guess}")
        print(f"{'sum of the parts':24} {sum(found['min_ms'] for found in stored['parts'].values()):9.3f}")
        if given.planes:
            classes = default_classes([f"class {i + 1}" for i in range(forest.n_classes)])
            model = Model(forest, bank, classes, IntensityScale())
            stored["whole"] = measure_whole(device, model, slab, folder, n_planes=given.planes)
            print(f"whole volume of {given.planes} planes, file to file: {stored['whole']['seconds']:.2f} s")
    if given.json is not None:
        given.json.write_text(json.dumps(stored, indent=1) + "\n")
    return stored


if __name__ == "__main__":
    main()
