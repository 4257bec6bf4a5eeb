"""Time per plane of every family and the forest on this CPU, against the numpy path in the same run.

``python benchmarks/bench_native.py [--families a,b] [--skip-numpy] [--json FILE]``. The TWS column is what Fiji's
plugin took on another machine of two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from gpu_tomoclass.device import Device, NumpyDevice, choose_device
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.engine import FeatureEngine, accelerated_family

SHAPE = (317, 428)
# Seconds, TWS 4.0.0, 2 threads, 2-core AMD EPYC (Zen 4), one plane of 317 x 428, 16 bit; warm, median of 3.
TWS = {
    "anisotropic_diffusion": 3.42,
    "gabor": 2.69,
    "kuwahara": 2.62,
    "entropy": 1.84,
    "median": 0.78,
    "membrane_projections": 0.48,
    "bilateral": 0.28,
    "hessian": 0.21,
    "neighbors": 0.13,
    "structure": 0.13,
    "derivatives": 0.09,
    "difference_of_gaussians": 0.06,
    "sobel_filter": 0.06,
    "laplacian": 0.04,
    "variance": 0.02,
    "gaussian_blur": 0.01,
}


def sample_plane() -> np.ndarray:
    """(317, 428) float32 of uint16 values: blurred blobs, stripes of a missing wedge and noise."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = 20000 + 4000 * np.sin(y / 9) + 3000 * np.cos((x + y) / 31)
    for _ in range(60):
        cy, cx, r = random.uniform(0, SHAPE[0]), random.uniform(0, SHAPE[1]), random.uniform(4, 18)
        image += 12000 / (1 + np.exp(np.hypot(y - cy, x - cx) - r))
    return np.clip(np.round(image + random.normal(size=SHAPE) * 2500), 0, 65535).astype(np.float32)


def family_seconds(device: Device, family: str, plane: np.ndarray, *, repeats: int) -> float:
    """Fastest of some runs of all blocks of one family alone."""
    bank = FeatureBank.create([family])
    blocks = [block for block in bank.blocks if block.family == family]
    engine = FeatureEngine(device, blocks)
    seconds = []
    for _ in range(repeats + 1):  # the first compiles
        began = time.perf_counter()
        engine.compute(plane[np.newaxis])
        device.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FeatureBank.create("all").families))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-numpy", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device, numpy_device = choose_device("native", threads=given.threads), NumpyDevice()
    plane = sample_plane()
    print(f"{device.description}; plane {SHAPE[0]} x {SHAPE[1]}")
    heads = ("native ms", "ms/Mpixel", "numpy ms", "ratio", "TWS ms*", "ratio")
    print(f"{'family':24} " + " ".join(f"{head:>{7 if head == 'ratio' else 10}}" for head in heads))
    rows = {}
    for family in given.families.split(","):
        if accelerated_family(family) is None:
            print(f"{family:24} {'no kernel':>10}")
            continue
        native = 1e3 * family_seconds(device, family, plane, repeats=given.repeats)
        numpy = None if given.skip_numpy else 1e3 * family_seconds(numpy_device, family, plane, repeats=1)
        tws = 1e3 * TWS[family] if family in TWS else None
        rows[family] = {"native_ms": native, "numpy_ms": numpy, "tws_ms_elsewhere": tws}
        cells = [f"{native:10.2f}", f"{native / plane.size * 1e6:10.1f}"]
        for rival in (numpy, tws):
            cells += [f"{rival:10.1f} {rival / native:7.1f}" if rival is not None else " " * 18]
        print(f"{family:24} {' '.join(cells)}")
    print(f"sum native {sum(r['native_ms'] for r in rows.values()):.1f} ms   * another machine")
    if given.json is not None:
        given.json.write_text(json.dumps({"device": device.description, "families": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
