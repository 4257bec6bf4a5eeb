"""Whether reading, computing and writing overlap, and whether memory depends on the depth of the volume.

    python benchmarks/bench_stream.py VOLUME [--planes 96] [--rounds 3]

Overlap: each stage alone (its input ready in memory, its output dropped), then all of them together as ``classify``
runs them; goal: together within 15 % of the slowest alone. With one thread of computing and with all cores, for banks
from nearly nothing to compute to all that the paper uses.

Memory: ``gpu-tomoclass classify`` as a process of its own on the volume and on one four times as deep (the same planes
again), its largest resident size as the system says; goal: the same within 10 %, and below 1 GB. With the
larger banks the runs are ended by Ctrl-C after some planes. Writes benchmarks/results/stream.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from main_run import STOPPED, has_lines, run
from shared import model_of_two_classes, processor

from gpu_tomoclass import __version__
from gpu_tomoclass.classification.backoff import SlabClassifier
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.on_device import used_blocks
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.products import Product
from gpu_tomoclass.classification.slab import Slab
from gpu_tomoclass.classification.slabs import SlabSize
from gpu_tomoclass.classification.staging import Staging
from gpu_tomoclass.classification.workers import Work
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.device.cores import usable_cores
from gpu_tomoclass.model.model import Model, save_model
from gpu_tomoclass.volumes.opening import create_volume, open_volume
from gpu_tomoclass.volumes.volume import Volume

RESULTS = Path(__file__).parent / "results" / "stream.json"
BANKS = {"neighbors": 10, "weka-default": 200, "paper": 200}  # and their trees
DEEPER = 4
PLANES_WHEN_STOPPED = 120


def stages(volume: Volume, model: Model, *, threads: int, n_planes: int, folder: Path) -> dict[str, float]:
    """Seconds of each stage alone and of all together."""
    device = choose_device("native", threads=threads)
    work = Work(volume, model, RunOptions(), scale=model.intensity)
    seconds = {}

    began = time.perf_counter()
    for z in range(n_planes):
        work.prepared(z, z + 1)
    seconds["read"] = time.perf_counter() - began

    planes = [work.prepared(z, z + 1) for z in range(n_planes)]
    plane_device, n_threads = device.side_by_side()
    size = SlabSize(plane_device, used_blocks(model), n_threads=n_threads)
    slabs = SlabClassifier(model, plane_device, products=work.options.products, size=size)
    with ThreadPoolExecutor(n_threads) as pool:
        timings: list[dict[str, float]] = [{} for _ in planes]
        list(pool.map(slabs.classify, range(2 * n_threads), planes, timings))  # compiles, allocates
        began = time.perf_counter()
        made: list[list[Slab]] = list(pool.map(slabs.classify, range(n_planes), planes, timings))
        seconds["compute"] = time.perf_counter() - began
    del planes

    output = folder / "labels.ome.zarr"
    product = Product("labels", str(output), np.dtype(np.uint8), classes=model.classes)
    with Staging(output, [product], shape=(n_planes, *volume.shape[1:]), run={}, overwrite=True) as staging:
        began = time.perf_counter()
        for slab in (slab for several in made for slab in several):
            staging.write(slab)
        seconds["write"] = time.perf_counter() - began
        staging.finish()
    del made

    result = classify(volume, model, output=output, planes=(0, n_planes), device=device, overwrite=True)
    seconds["together"] = result.profile["seconds"]["planes"]
    return seconds


def overlap(volume: Volume, models: dict[str, Model], *, n_planes: int, rounds: int, folder: Path) -> dict[str, Any]:
    rows = {}
    for bank, model in models.items():
        for threads in sorted({1, usable_cores()}):
            n = min(volume.shape[0], n_planes * (8 if bank == "neighbors" else 1))  # else starting is all there is
            tries = [stages(volume, model, threads=threads, n_planes=n, folder=folder) for _ in range(rounds)]
            row: dict[str, Any] = {"planes": n} | {name: round(min(t[name] for t in tries), 3) for name in tries[0]}
            slowest = max(("read", "compute", "write"), key=row.__getitem__)
            row |= {"slowest": slowest, "together / slowest": round(row["together"] / row[slowest], 3)}
            rows[f"{bank}, {threads} thread{'s' if threads > 1 else ''}"] = row
            print(f"{bank}, {threads}: {row}", flush=True)
    return rows


def memory(path: Path, models: dict[str, Model], *, folder: Path) -> dict[str, Any]:
    deep = folder / "deep.tif"
    with open_volume(path) as volume:
        nz = volume.shape[0]
        with create_volume(deep, shape=(DEEPER * nz, *volume.shape[1:]), dtype=volume.dtype) as writer:
            for z in range(DEEPER * nz):
                writer.write_plane(z, volume.plane(z % nz))
    rows = {}
    for bank, model in models.items():
        save_model(model, folder / "m.tcm", overwrite=True)
        peaks = {}
        for name, source in (("volume", path), (f"{DEEPER} times as deep", deep)):
            output = folder / f"{bank}_{name.replace(' ', '_')}.ome.zarr"
            arguments = ("classify", source, folder / "m.tcm", "-o", output, "--device", "native", "--overwrite", "-q")
            if bank == "neighbors":
                cost = run(*arguments)
            else:
                journal = folder / (output.name + ".partial") / "done.jsonl"
                cost = run(*arguments, expect=STOPPED, interrupt_when=has_lines(journal, PLANES_WHEN_STOPPED))
            peaks[name] = cost["peak_MB"]
        values = list(peaks.values())
        rows[bank] = {"peak_MB": peaks, "deep / volume": round(values[1] / values[0], 3)}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path, help="for example the simulated pillar of 861 x 428 x 317")
    parser.add_argument("--planes", type=int, default=96, help="for the overlap")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.volume.parent) as name, open_volume(given.volume) as volume:
        folder = Path(name)
        models = {bank: model_of_two_classes(volume, bank, n_trees=n_trees) for bank, n_trees in BANKS.items()}
        record = {
            "what": "stages of classify alone and together (seconds, fastest of the rounds); peak memory by depth",
            "gpu_tomoclass": __version__,
            "machine": {"cores": usable_cores(), "processor": processor()},
            "volume": {"shape": volume.shape, "dtype": volume.dtype.name},
            "planes": given.planes,
            "rounds": given.rounds,
            "overlap": overlap(volume, models, n_planes=given.planes, rounds=given.rounds, folder=folder),
            "memory": memory(given.volume, models, folder=folder),
            "load_at_the_end": os.getloadavg()[0],
        }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
