"""The pieces of ``bench_gpu.py --report`` that are not there anyway: forests, launches, whole runs, rivals."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import bench_gpu
import numpy as np
from scipy.ndimage import gaussian_filter

from gpu_tomoclass import doctor
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification import classify
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.device.cuda import CudaDevice
from gpu_tomoclass.device.memory import peak_bytes
from gpu_tomoclass.features import FeatureBank, FeatureEngine, IntensityScale
from gpu_tomoclass.forest import DeviceForest, Forest
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.model import Model
from gpu_tomoclass.volumes import open_volume

ROWS = (5_000, 10_000, 100_000)
N_TREES = 200
WHOLE = (850, 400, 400)
# What is written, and with which options of classify.
RUNS = (
    ("labels.tif", {}),
    ("labels.ome.zarr", {}),
    ("uint8.ome.zarr", {"probabilities": "uint8"}),
    ("float32.ome.zarr", {"probabilities": "float32"}),
)
QUICK_SHAPE = (3, 24, 40)
Note = Callable[[dict[str, Any]], None]


def forests(device: Device, note: Note, *, quick: bool) -> None:
    """Milliseconds per plane of forests grown from more and more rows of the sample slab."""
    bank = FeatureBank.create(["gaussian_blur"] if quick else "paper")
    slab = bench_gpu.sample_slab(QUICK_SHAPE if quick else (4, 400, 400))
    features = FeatureEngine(device, bank.blocks).compute(slab).reshape(bank.n_channels, slab.size)
    on_host = device.numpy(features)
    smooth = gaussian_filter(slab, (0, 2, 2)).ravel()
    labels = 1 + np.digitize(smooth, np.quantile(smooth, [0.4, 0.7]))
    order = np.random.default_rng(5).permutation(slab.size)
    for n_rows in (100, 200) if quick else ROWS:
        rows = order[:n_rows]
        values = np.ascontiguousarray(on_host[:, rows].T)
        forest = train_forest(values, labels[rows], n_trees=5 if quick else N_TREES).forest
        on_device = DeviceForest(forest, device)
        found = bench_gpu.figures(
            device, lambda on=on_device: on.probabilities(features), repeats=2 if quick else 7, n_planes=len(slab)
        )
        note({"rows": n_rows, "nodes": forest.n_nodes, "walk": on_device.walk, **found})


def whole(device: Device, note: Note, *, quick: bool) -> None:
    """Whole volumes from file to file, the first once before; seconds by stage, and the most memory that was held."""
    shape = QUICK_SHAPE if quick else WHOLE
    model = _sample_model(quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slab = bench_gpu.sample_slab((min(32, shape[0]), *shape[1:]))
        bench_gpu.write_volume(np.resize(slab, shape), folder / "volume.tif")
        free = device.free_memory()
        with open_volume(folder / "volume.tif") as volume:
            classify(volume, model, output=folder / "first.tif", planes=(0, min(64, shape[0])), device=device)
            for output, options in RUNS:
                result = classify(volume, model, output=folder / output, device=device, **options)
                left = device.free_memory()
                note({
                    "output": output,
                    "seconds": result.seconds,
                    "profile": dict(result.profile),
                    "device_bytes": None if free is None or left is None else free - left,
                    "host_peak_bytes": peak_bytes(),
                    "notes": list(result.notes),
                })  # fmt: skip


def launches(device: Device, note: Note, *, quick: bool) -> None:
    """Wall milliseconds from one plane to its labels, by how its launches are asked for; on a CPU all are alike."""
    plane, repeats = bench_gpu.sample_slab((1, *(QUICK_SHAPE if quick else WHOLE)[1:])), 2 if quick else 20
    model = _sample_model(quick=quick)
    ways: dict[str, AbstractContextManager[object]] = {"in graphs": nullcontext()}
    if isinstance(device, CudaDevice):
        ways["one by one"] = mock.patch.object(device.graphs, "problem", RuntimeError("not wanted"))
    ways["checked anew"] = mock.patch.dict("os.environ", {"CUDA_LAUNCH_BLOCKING": "1"})  # too late for the driver
    for name, way in ways.items():
        with way:
            classifier = Classifier(model, device)
            for _ in range(3):  # compiled, kept, captured
                classifier.classify(plane)
            began = [time.perf_counter()]
            for _ in range(repeats):
                classifier.classify(plane)
                began.append(time.perf_counter())
        each = 1e3 * np.diff(began)
        note({"launches": name, "min_ms": each.min(), "median_ms": float(np.median(each)), "notes": device.found_out})


def _sample_model(*, quick: bool) -> Model:
    bank = FeatureBank.create(["gaussian_blur"] if quick else "paper")
    forest = bench_gpu.sample_forest(bank)
    classes = default_classes([f"class {i + 1}" for i in range(forest.n_classes)])
    return Model(forest, bank, classes, IntensityScale())


def rivals(device: Device, note: Note, *, quick: bool) -> None:
    """Others' work of the same kind on the same GPU; what is not installed is said."""
    slab = bench_gpu.sample_slab(QUICK_SHAPE if quick else (4, 400, 400))
    forest = bench_gpu.sample_forest(FeatureBank.create("gaussian_blur"))
    for name, make in RIVALS.items():
        try:
            work = make(device, slab, forest)
            work()
            seconds = [device.seconds(work) for _ in range(2 if quick else 5)]
        # Whatever a rival raises, the next one has its turn.
        except Exception as error:
            note({"rival": name, "problem": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})
            continue
        per_plane = [1e3 * s / len(slab) for s in seconds]
        note({"rival": name, "min_ms": min(per_plane), "median_ms": statistics.median(per_plane)})


def _basic_features(device: Device, slab: np.ndarray, forest: Forest) -> Callable[[], object]:
    compute = import_module("cucim.skimage.feature").multiscale_basic_features
    planes = device.array(slab)
    return lambda: [compute(plane, sigma_min=1, sigma_max=16) for plane in planes]


def _cucim_median(device: Device, slab: np.ndarray, forest: Forest) -> Callable[[], object]:
    cupy, median = import_module("cupy"), import_module("cucim.skimage.filters").median
    planes, disk = device.array(slab.astype(np.uint8)), import_module("skimage.morphology").disk(8)
    return lambda: [median(plane, cupy.asarray(disk)) for plane in planes]


def _cupy_gaussian(device: Device, slab: np.ndarray, forest: Forest) -> Callable[[], object]:
    gaussian, planes = import_module("cupyx.scipy.ndimage").gaussian_filter, device.array(slab)
    return lambda: [gaussian(plane, sigma) for plane in planes for sigma in (1, 2, 4, 8, 16)]


def _cupy_median(device: Device, slab: np.ndarray, forest: Forest) -> Callable[[], object]:
    cupy, median = import_module("cupy"), import_module("cupyx.scipy.ndimage").median_filter
    planes, disk = device.array(slab), import_module("skimage.morphology").disk(4)
    return lambda: [median(plane, footprint=cupy.asarray(disk)) for plane in planes]


def _nvforest(device: Device, slab: np.ndarray, forest: Forest) -> Callable[[], object]:
    from gpu_tomoclass.forest.predict_nvforest import NvForestPredictor

    predictor = NvForestPredictor(forest, device="gpu" if device.name == "cuda" else "cpu")
    features = np.random.default_rng(1).normal(size=(forest.n_features, slab.size)).astype(np.float32)
    return lambda: predictor.probabilities(features)


def _ours(device: Device, slab: np.ndarray, forest: Forest) -> Callable[[], object]:
    engine = FeatureEngine(device, FeatureBank.create(["gaussian_blur"]).blocks)
    return lambda: engine.compute(slab)


def small_doctor(device: Device, note: Note, *, quick: bool) -> None:
    """One family and the forest, in the form of ``doctor --json``: what stands in for doctor when all is quick."""
    subjects = doctor.Subjects()
    subjects.trials = {name: subjects.trials[name] for name in ("neighbors", "forest")}
    subjects.compute_reference(lambda: None)
    checks = [dataclasses.asdict(check) for check in doctor.check_device(device, subjects)]
    note({"devices": [{"name": device.name, "checks": checks}]})


RIVALS = {
    "ours: gaussian_blur": _ours,
    "CuPy: gaussian_filter, sigma 1 to 16": _cupy_gaussian,
    "CuPy: median_filter, radius 4": _cupy_median,
    "cuCIM: median, uint8, radius 8": _cucim_median,
    "cuCIM: multiscale_basic_features": _basic_features,
    "nvForest: the forest of gaussian_blur, from host rows": _nvforest,
}
STEPS = {"forests": forests, "launches": launches, "whole": whole, "rivals": rivals, "doctor": small_doctor}


def run_step(name: str, *, device: str, gpu_id: int, target: Path, quick: bool) -> None:
    """Run a step; ``target`` (JSON, a list) holds what has been found so far, whatever happens next."""
    if quick:
        bench_gpu.TRAINING_ROWS, bench_gpu.N_TREES = 100, 5
    found: list[dict[str, Any]] = []

    def note(row: dict[str, Any]) -> None:
        found.append(row)
        target.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(row), flush=True)

    STEPS[name](choose_device(device, gpu_id), note, quick=quick)
