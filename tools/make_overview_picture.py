"""The picture of the README, from the files of the demo: python tools/make_overview_picture.py demo"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gpu_tomoclass.baseline import otsu_thresholds, threshold_labels
from gpu_tomoclass.labels.pictures import class_image, grey_image
from gpu_tomoclass.volumes.opening import open_volume

PLANE = 7

folder = Path(sys.argv[1])
with open_volume(folder / "sample.tif") as sample, open_volume(folder / "truth.tif") as truth:
    volume = np.stack([plane for _, plane in sample.planes()])
    classes = truth.classes
    thresholds = otsu_thresholds(volume, levels=len(classes))
    with open_volume(folder / "labels.tif") as labels:
        panels = (
            ("tomogram (simulated)", grey_image(volume[PLANE])),
            ("thresholds (multi-Otsu)", class_image(threshold_labels(volume[PLANE], thresholds), classes)),
            ("gpu_tomoclass", class_image(labels.plane(PLANE), classes)),
            ("truth", class_image(truth.plane(PLANE), classes)),
        )
figure = Figure(figsize=(11, 3.9), layout="constrained")
for axis, (title, image) in zip(figure.subplots(1, 4), panels, strict=True):
    axis.imshow(image, interpolation="nearest")
    axis.set_title(title)
    axis.set_axis_off()
figure.get_layout_engine().set(h_pad=0.12)
patches = [Patch(color="#{:02x}{:02x}{:02x}".format(*c.colour), label=c.name) for c in classes]
figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
figure.savefig(Path(__file__).parents[1] / "docs" / "images" / "overview.png", dpi=90, metadata={"Software": None})
