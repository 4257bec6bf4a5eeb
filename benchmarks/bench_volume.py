"""CPU seconds of the families across planes on this CPU, against scikit-image or SciPy in the same run.

    python benchmarks/bench_volume.py [--repeats 3] [--json FILE]

First all twelve at sigma 1 to 8 on 64 planes of 128 x 128 (TWS 3D: 231 CPU seconds, on two Xeon cores). Then filter
by filter on 32 planes of 64 x 64, where a rival has the filter: the least of some runs of each, in turn, one thread.
Inside the volume the values are compared before anything is timed; but eigenvalues of the rivals are built another way,
and only their purpose is the same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage
from shared import processor
from skimage.feature import hessian_matrix, hessian_matrix_eigvals, structure_tensor, structure_tensor_eigenvalues
from skimage.filters import gaussian, rank
from skimage.morphology import ball

from gpu_tomoclass import FeatureBank, choose_device
from gpu_tomoclass.device import Device
from gpu_tomoclass.features import FeatureEngine

TWS_SECONDS = 231.0
INSIDE = np.s_[8:-8, 12:-12, 12:-12]
SIGMA, RADIUS = 2.0, 4.0

Filter = Callable[[np.ndarray], np.ndarray]
RIVALS: dict[str, tuple[str, float, Filter, bool]] = {  # family: (rival, sigma, filter, same values)
    "gaussian_blur_3d": (
        "skimage.filters.gaussian",
        SIGMA,
        lambda v: gaussian(v, SIGMA, mode="mirror", truncate=3, preserve_range=True),
        True,
    ),
    "edges_3d": (
        "scipy gaussian_gradient_magnitude",
        SIGMA,
        lambda v: ndimage.gaussian_gradient_magnitude(v, SIGMA),
        True,
    ),
    "laplacian_3d": ("scipy gaussian_laplace", SIGMA, lambda v: ndimage.gaussian_laplace(v, SIGMA), True),
    "hessian_3d": (
        "skimage hessian_matrix, eigvals",
        SIGMA,
        lambda v: hessian_matrix_eigvals(hessian_matrix(v, SIGMA, use_gaussian_derivatives=True)),
        False,
    ),
    "structure_3d": (
        "skimage structure_tensor (two scales), eigenvalues",
        SIGMA,
        lambda v: np.stack([structure_tensor_eigenvalues(structure_tensor(v, scale)) for scale in (1, 3)]),
        False,
    ),
    "minimum_3d": (
        "scipy minimum_filter, ball",
        RADIUS,
        lambda v: ndimage.minimum_filter(v, footprint=ball(RADIUS)),
        True,
    ),
    "maximum_3d": (
        "scipy maximum_filter, ball",
        RADIUS,
        lambda v: ndimage.maximum_filter(v, footprint=ball(RADIUS)),
        True,
    ),
    "mean_3d": (
        "skimage.filters.rank.mean, ball",
        RADIUS,
        lambda v: rank.mean(v.astype(np.uint16), ball(RADIUS)),
        True,
    ),
    "median_3d": (
        "scipy median_filter, ball",
        SIGMA,
        lambda v: ndimage.median_filter(v, footprint=ball(SIGMA)),
        True,
    ),
}


def sample(shape: tuple[int, int, int]) -> np.ndarray:
    """Blurred spots and noise, 12 bit: rank filters of scikit-image take a table of grey levels."""
    random = np.random.default_rng(3)
    spots = ndimage.gaussian_filter(random.normal(size=shape), 4)
    image = 2000 + 600 * spots / spots.std() + 200 * random.normal(size=shape)
    return np.clip(np.round(image), 0, 4095).astype(np.float32)


def cpu_seconds(*runs: Callable[[], object], repeats: int) -> list[float]:
    """Of each the least, taken in turn."""
    least = [float("inf")] * len(runs)
    for _ in range(repeats):
        for i, run in enumerate(runs):
            began = time.process_time()
            run()
            least[i] = min(least[i], time.process_time() - began)
    return least


def against(family: str, device: Device, volume: np.ndarray, *, repeats: int) -> dict[str, object]:
    """Seconds of a family at one sigma and of its rival."""
    rival, sigma, other, is_same = RIVALS[family]
    bank = FeatureBank.create([family], sigmas={family: [sigma]})
    engine = FeatureEngine(device, bank.blocks[1:])
    found = engine.compute(volume)[0]
    if is_same:
        expected = other(volume)
        apart = np.abs(found - expected)[INSIDE].max() / expected[INSIDE].std()
        if apart > 0.06:  # the mean of scikit-image is a whole number; Gaussians end elsewhere
            raise SystemExit(f"{family} and {rival} differ by {apart:.3f} standard deviations: not the same filter")
    ours, theirs = cpu_seconds(lambda: engine.compute(volume), lambda: other(volume), repeats=repeats)
    return {
        "rival": rival,
        "seconds": round(ours, 4),
        "rival_seconds": round(theirs, 4),
        "ratio": round(theirs / ours, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = choose_device("native", threads=1)
    bank = FeatureBank.create("weka-3d")
    engine, volume = FeatureEngine(device, bank.blocks), sample((64, 128, 128))
    engine.compute(volume)  # compiles
    (seconds,) = cpu_seconds(lambda: engine.compute(volume), repeats=given.repeats)
    print(f"{processor()}; all twelve, sigma 1 to 8, 64 x 128 x 128: {seconds:.2f} CPU seconds; TWS {TWS_SECONDS:.0f}")
    results = {"processor": processor(), "all_seconds": round(seconds, 3), "tws_seconds": TWS_SECONDS, "families": {}}
    volume = sample((32, 64, 64))
    for family in RIVALS:
        results["families"][family] = row = against(family, device, volume, repeats=given.repeats)
        print(
            f"{family:18} {row['seconds']:8.4f} s   {row['rival_seconds']:8.4f} s"
            f"  {row['ratio']:7.1f} x  {row['rival']}"
        )
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
