"""Classification by worker processes (``--dask local:N``) against threads of one process, on this CPU.

    python benchmarks/bench_cluster.py [--planes 48] [--rounds 3] [--features paper]

The same volume and model in turns: one process with 1 thread and with all cores, one worker process with 1 thread, and
as many workers with 1 thread each as there are cores. Time is that of the planes (opening the run in the workers
included, starting them not); the fastest of the rounds counts. The labels must be the same, byte for byte. Writes
benchmarks/results/cluster.json.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import distributed
import numpy as np
from bench_native import SHAPE, sample_plane
from shared import model_of_two_classes, processor

from gpu_tomoclass import __version__
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.cluster import Cluster
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.device.cores import usable_cores
from gpu_tomoclass.volumes.opening import create_volume, open_volume

RESULTS = Path(__file__).parent / "results" / "cluster.json"


def make_volume(path: Path, n_planes: int) -> None:
    """The plane of bench_native, rolled a little from plane to plane."""
    plane = sample_plane().astype(np.uint16)
    with create_volume(path, shape=(n_planes, *SHAPE), dtype=plane.dtype) as writer:
        for z in range(n_planes):
            writer.write_plane(z, np.roll(plane, 3 * z, axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--planes", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--features", default="paper")
    given = parser.parse_args()
    cores = usable_cores()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        make_volume(folder / "v.tif", given.planes)
        with open_volume(folder / "v.tif") as volume:
            model = model_of_two_classes(volume, given.features)
        ways: dict[str, dict[str, Any]] = {
            "1 process, 1 thread": {"device": choose_device("native", threads=1)},
            f"1 process, {cores} threads": {"device": choose_device("native", threads=cores)},
        }
        starting = {}
        for n in (1, cores):
            began = time.perf_counter()
            cluster = stack.enter_context(Cluster(f"local:{n}", device="native", threads=n))
            title = f"{n} worker{'s' if n > 1 else ''}, 1 thread each"
            starting[title] = round(time.perf_counter() - began, 2)
            ways[title] = {"cluster": cluster}
        seconds: dict[str, list[float]] = {title: [] for title in ways}
        digests = set()
        for i in range(given.rounds + 1):  # the first compiles
            for title, where in ways.items():
                planes = (0, 2 * cores) if i == 0 else None
                output = folder / "labels.tif"
                with open_volume(folder / "v.tif") as volume:
                    result = classify(volume, model, output=output, planes=planes, overwrite=True, **where)
                if i > 0:
                    seconds[title].append(result.profile["seconds"]["planes"])
                    digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
        description = choose_device("native").description
    runs: dict[str, dict[str, Any]] = {
        title: {"seconds": [round(s, 3) for s in values], "planes_per_second": round(given.planes / min(values), 3)}
        for title, values in seconds.items()
    }
    for title, value in starting.items():
        runs[title]["start_seconds"] = value
    (thread, threads), (worker, workers) = list(ways)[:2], list(ways)[2:]
    pairs = ((threads, thread), (workers, worker), (worker, thread), (workers, threads))
    record = {
        "what": "planes per second of classify on one machine; the fastest of the rounds",
        "gpu_tomoclass": __version__,
        "distributed": distributed.__version__,
        "machine": {"cores": cores, "load_at_the_end": os.getloadavg()[0], "processor": processor()},
        "device": description,
        "shape": [given.planes, *SHAPE],
        "features": given.features,
        "trees": model.forest.n_trees,
        "rounds": given.rounds,
        "labels_are_the_same_bytes": len(digests) == 1,
        "runs": runs,
        "ratios": {
            f"{a} / {b}": round(runs[a]["planes_per_second"] / runs[b]["planes_per_second"], 3) for a, b in pairs
        },
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
