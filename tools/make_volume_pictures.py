"""Make the pictures of families across planes in docs/features: three sections of a simulated pillar, and of a channel.

    python tools/make_volume_pictures.py [family ...]

The pillar of 64 x 96 x 96 voxels (rubber with silica spheres; noise, missing wedge, SIRT) is that of `gpu-tomoclass
simulate pillar`; the tilt axis lies along z. Each row is stretched by itself, from its 0.5th to its 99.5th percentile.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from gpu_tomoclass import FeatureBank, compute_features
from gpu_tomoclass.studies.simulation.pillar import simulate_sample

FOLDER = Path(__file__).parents[1] / "docs" / "features"
SHAPE = (64, 96, 96)
ZOOM, GAP, CAPTION = 2.2, 10, 22  # screen pixels per voxel, between panels, above panels

SHOWN_CHANNELS = {
    "gaussian_blur_3d": "Gaussian_blur_2.0",
    "difference_of_gaussian_3d": "Difference_of_Gaussian_1.0_4.0",
    "hessian_3d": "Hessian_largest_4.0_true",
    "derivatives_3d": "Derivatives_1_1_1_4.0",
    "laplacian_3d": "Laplacian_4.0",
    "edges_3d": "Edges_2.0",
    "structure_3d": "Structure_largest_2.0_3.0",
    "minimum_3d": "Minimum_2.0",
    "maximum_3d": "Maximum_2.0",
    "mean_3d": "Mean_2.0",
    "median_3d": "Median_2.0",
    "variance_3d": "Variance_4.0",
    "z_median": "Z_2.0_Median_2.0",
}


def sections(volume: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The three sections through the middle."""
    nz, ny, nx = volume.shape
    return [("y, x", volume[nz // 2]), ("z, x", volume[:, ny // 2]), ("z, y", volume[:, :, nx // 2])]


def draw(rows: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Write each volume as a row of three sections."""
    _, ny, nx = SHAPE
    width = ZOOM * (nx + nx + ny) + 2 * GAP
    heights = [ZOOM * ny + CAPTION] * len(rows)
    figure = plt.figure(figsize=(width / 100, sum(heights) / 100), dpi=100, facecolor="white")
    top = sum(heights)
    for name, volume in rows:
        low, high = np.percentile(volume, (0.5, 99.5))
        left = 0.0
        for axis, image in sections(volume):
            w, h = ZOOM * image.shape[1], ZOOM * image.shape[0]
            place = (left / width, (top - CAPTION - h) / sum(heights), w / width, h / sum(heights))
            axes = figure.add_axes(place)
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            figure.text((left + w / 2) / width, (top - CAPTION / 2) / sum(heights), f"{name}: {axis}", ha="center",
                        va="center", fontsize=7)  # fmt: skip
            left += w + GAP
        top -= heights[0]
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(families: list[str]) -> None:
    volume = simulate_sample(shape=SHAPE, voxel=1.8, counts=60.0).volume
    for family in families or SHOWN_CHANNELS:
        name = SHOWN_CHANNELS[family]
        bank = FeatureBank.create([family], sigma_max=4.0)
        channels = compute_features(volume, bank)
        chosen = channels.channels[list(channels.names).index(name)]
        draw([("input", volume), (name, chosen)], FOLDER / f"{family}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
