"""Make the pictures of docs/features: a simulated tomogram plane and three channels of each family beside it.

    python tools/make_feature_pictures.py [family ...]

The plane is a phantom of 160 x 160 pixels - bright particles, dark pores, a vesicle with a thin membrane, lamellae -
that is projected at tilts of -60 to 60 degrees in steps of 3, with noise, and reconstructed; at 0 degrees the beam is
vertical.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from skimage.io import imsave
from skimage.transform import iradon, radon

from gpu_tomoclass.features.bank import FeatureBank

FOLDER = Path(__file__).parents[1] / "docs" / "features"
SIDE, SHOWN = 160, 128  # pixels of the phantom and of its middle part in the pictures
OVERSAMPLING = 4
ZOOM, GAP, CAPTION = 2, 10, 24  # screen pixels per pixel, between panels, above panels

# y and x of the centre from the middle of the phantom, and radius, in pixels.
PARTICLES = ((-38, 22, 10), (-20, 38, 5), (-46, 0, 4), (-12, 16, 7), (-2, 50, 6), (-24, -28, 5), (22, 44, 8))
PORES = ((2, 32, 5), (44, 24, 7), (52, -6, 4), (8, 4, 3))

SHOWN_CHANNELS = {
    "gaussian_blur": ["Gaussian_blur_2.0", "Gaussian_blur_8.0", "Gaussian_blur_16.0"],
    "sobel_filter": ["Sobel_filter_1.0", "Sobel_filter_4.0", "Sobel_filter_8.0"],
    "hessian": ["Hessian_Eigenvalue_1_8.0", "Hessian_Eigenvalue_2_8.0", "Hessian_Orientation_8.0"],
    "difference_of_gaussians": [
        "Difference_of_gaussians_4.0_1.0",
        "Difference_of_gaussians_8.0_2.0",
        "Difference_of_gaussians_16.0_8.0",
    ],
    "membrane_projections": [f"Membrane_projections_{kind}_19_1" for kind in (1, 2, 4)],
    "variance": ["Variance_1.0", "Variance_4.0", "Variance_16.0"],
    "mean": ["Mean_1.0", "Mean_4.0", "Mean_16.0"],
    "minimum": ["Minimum_1.0", "Minimum_4.0", "Minimum_16.0"],
    "maximum": ["Maximum_1.0", "Maximum_4.0", "Maximum_16.0"],
    "median": ["Median_1.0", "Median_4.0", "Median_8.0"],
    "anisotropic_diffusion": [
        "Anisotropic_diffusion_20_1_0.1_0.9_1.0",
        "Anisotropic_diffusion_20_4_0.35_0.9_1.0",
        "Anisotropic_diffusion_20_16_0.1_0.9_1.0",
    ],
    "bilateral": ["Bilateral_5.0_50.0", "Bilateral_5.0_100.0", "Bilateral_10.0_100.0"],
    "lipschitz": ["Lipschitz_true_true_5.0", "Lipschitz_true_true_15.0", "Lipschitz_true_true_25.0"],
    "kuwahara": ["Kuwahara_19_ 10_0", "Kuwahara_19_ 10_1", "Kuwahara_19_ 10_2"],
    "gabor": ["Gabor_1_2.0_1.0_0_2.0", "Gabor_2_2.0_1.0_0_2.0", "Gabor_1_4.0_1.0_2_2.0"],
    "derivatives": ["Derivatives_2_2_1.0", "Derivatives_2_2_4.0", "Derivatives_5_5_4.0"],
    "laplacian": ["Laplacian_1.0", "Laplacian_2.0", "Laplacian_4.0"],
    "structure": ["Structure_largest_1.0_1.0", "Structure_smallest_1.0_1.0", "Structure_largest_4.0_3.0"],
    "entropy": ["Entropy_4_32", "Entropy_4_128", "Entropy_4_256"],
    "neighbors": ["Neighbors_4_0", "Neighbors_16_0", "Neighbors_16_4"],
}


def phantom() -> np.ndarray:
    """Densities 0..1 of the cross-section of a pillar: (SIDE, SIDE) float64."""
    side = SIDE * OVERSAMPLING
    y, x = (np.indices((side, side)) + 0.5) / OVERSAMPLING - SIDE / 2

    def disk(cy: float, cx: float, radius: float) -> np.ndarray:
        inside: np.ndarray = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        return inside

    density = np.where(disk(0, 0, 66), 0.40, 0.0)
    vesicle, lumen = disk(-26, -22, 22), disk(-26, -22, 19.5)
    density[vesicle], density[lumen] = 0.85, 0.30
    for cy, cx, radius in PARTICLES:
        density[disk(cy, cx, radius)] = 0.95
    for cy, cx, radius in PORES:
        density[disk(cy, cx, radius)] = 0.05
    lamellae = (abs(y - 28) < 18) & (abs(x + 26) < 20)
    density[lamellae & (np.sin(2 * np.pi * x / 6.5) > 0)] = 0.75
    return density.reshape(SIDE, OVERSAMPLING, SIDE, OVERSAMPLING).mean(axis=(1, 3))


def reconstruction() -> np.ndarray:
    """What electron tomography makes of the phantom: (SHOWN, SHOWN) uint16."""
    tilts = np.arange(-60.0, 61.0, 3.0)
    sinogram = radon(phantom(), tilts)
    sinogram += np.random.default_rng(0).normal(0.0, 0.02 * sinogram.max(), sinogram.shape)
    volume = iradon(sinogram, tilts, output_size=SIDE, filter_name="hann")
    edge = (SIDE - SHOWN) // 2
    plane = volume[edge : edge + SHOWN, edge : edge + SHOWN]
    low, high = np.percentile(plane, (0.1, 99.9))
    grey: np.ndarray = np.clip((plane - low) / (high - low), 0, 1) * 60000 + 2000
    return grey.astype(np.uint16)


def draw(panels: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Write the images side by side, black at the 0.5th and white at the 99.5th percentile of each, names above."""
    panel = SHOWN * ZOOM
    width, height = len(panels) * (panel + GAP) - GAP, panel + CAPTION
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    for index, (name, image) in enumerate(panels):
        left = index * (panel + GAP)
        axes = figure.add_axes((left / width, 0, panel / width, panel / height))
        low, high = np.percentile(image, (0.5, 99.5))
        axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        figure.text((left + panel / 2) / width, 1 - CAPTION / 2 / height, name, ha="center", va="center", fontsize=8)
    figure.canvas.draw()
    grey = np.asarray(figure.canvas.buffer_rgba())[..., 0]  # type: ignore[attr-defined]
    plt.close(figure)
    imsave(path, grey, check_contrast=False)


def main(families: list[str]) -> None:
    plane = reconstruction()
    for family in families or SHOWN_CHANNELS:
        bank = FeatureBank.create(features=[family])
        channels = dict(zip(bank.channels, bank.compute(plane), strict=True))
        panels = [("input", plane), *((name, channels[name]) for name in SHOWN_CHANNELS[family])]
        draw(panels, FOLDER / f"{family}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
