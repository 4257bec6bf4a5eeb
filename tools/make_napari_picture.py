"""The picture of ``docs/napari.md``: the dock in napari, driven as a person does.

``xvfb-run -a -s "-screen 0 1400x1000x24" python tools/make_napari_picture.py [--picture docs/images/napari.png]``, with
the extra ``napari`` and a Qt. It simulates a plane of a pillar, paints where the truth says and waits for the classes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib.image import imread, imsave
from napari import Viewer
from qtpy.QtWidgets import QApplication
from scipy import ndimage

import gpu_tomoclass as gt
from gpu_tomoclass.napari_plugin.dock import Dock
from gpu_tomoclass.napari_plugin.source import Source
from gpu_tomoclass.studies.simulation.pillar import simulate_sample

SHAPE = (3, 200, 220)
NAMES = "vacuum, rubber, silica"
STROKES = 2  # of each class
FEATURES = ("gaussian_blur", "hessian", "variance")


def until(met) -> None:  # type: ignore[no-untyped-def]
    """Let the viewer work until something is so."""
    while not met():
        QApplication.processEvents()
        time.sleep(0.02)


def paint(dock: Dock, truth: np.ndarray) -> None:
    """Short strokes in the widest areas of each class."""
    layers = dock.layers
    assert layers is not None
    number = layers.planes.index(layers.view)
    for value in (1, 2, 3):
        layers.choose(value)
        inside = ndimage.distance_transform_edt(truth[layers.view] == value)
        for _ in range(STROKES):
            y, x = (int(v) for v in np.unravel_index(int(inside.argmax()), inside.shape))
            with layers.strokes.block_history():
                for step in range(min(14, int(1.5 * inside[y, x]))):
                    layers.strokes.paint((number, y, x + step), value, refresh=False)
            layers.strokes.refresh()
            inside[max(0, y - 40) : y + 40, max(0, x - 40) : x + 40] = 0


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "napari.png")
    options = parser.parse_args()
    sample = simulate_sample(shape=SHAPE, diameter=190.0, seed=3)
    viewer = Viewer()
    viewer.window.resize(1280, 860)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pillar.tif")
        with gt.create_volume(path, shape=SHAPE, dtype=sample.volume.dtype, voxel_size=(0.55,) * 3) as out:
            for z, plane in enumerate(sample.volume):
                out.write_plane(z, plane)
        _, dock = viewer.window.add_plugin_dock_widget("gpu_tomoclass", "Mark, look, correct")
        dock.first.names.setText(NAMES)
        dock.begin(Source.of_file(str(path)), features=FEATURES, n_trees=30, cache=None)
        until(lambda: dock.layers is not None)
        paint(dock, sample.truth)
        until(lambda: dock.session.strokes.values() == {1, 2, 3})
        until(lambda: dock.work.state.text() == "up to date" and len(dock.layers.places.data) > 0)
        viewer.reset_view()
        end = time.monotonic() + 2
        until(lambda: time.monotonic() > end)
        viewer.screenshot(str(options.picture), canvas_only=False, flash=False)
        dock.session.close()
        picture = imread(options.picture)[..., :3]
        imsave(options.picture, (np.round(picture * 31) / 31).astype(np.float32))
        dock.end()
    viewer.close()


if __name__ == "__main__":
    main()
