"""A session as layers of a viewer: planes, strokes, classes, uncertainty and places to mark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from gpu_tomoclass import LabelClass, Session, Volume
from gpu_tomoclass.napari_plugin.arrays import PlaneArray

CLASSES_OPACITY = 0.35
PLACE_PIXELS = 28  # of the ring around a place to mark
FIRST_BRUSH = 5
IS_NEW = "canvas" in ViewerModel.model_fields  # napari 0.9, where camera and scale bar have other names

OnStroke = Callable[[int, npt.NDArray[np.int64], int], None]  # plane, flat positions, value


class StackLayers:
    """Layers of a session's planes. All methods belong to the viewer's thread; none of them takes long.

    What is painted is compared with what was exchanged last, so that every tool of the viewer works: brush, eraser,
    polygon and bucket.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
    session : Session
    name : str
        Of the volume.
    contrast : (float, float)
        Grey values shown black and white.
    on_stroke : callable
        Told what was painted: plane, flat positions, value (0: erased).
    on_view : callable
        Told which plane is in view.
    later : callable
        Calls a function when the viewer has done what it is doing: the bucket tells of its stroke before it fills.

    Attributes
    ----------
    image, uncertainty, classes, places, strokes : napari.layers.Layer
        From below to above.
    """

    def __init__(
        self,
        viewer: Any,
        session: Session,
        *,
        name: str,
        contrast: tuple[float, float],
        on_stroke: OnStroke,
        on_view: Callable[[int], None],
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._later = later
        self.viewer, self._session, self._on_stroke, self._on_view = viewer, session, on_stroke, on_view
        self.planes = session.planes
        self._number = {z: i for i, z in enumerate(self.planes)}
        self._exchanged: dict[int, npt.NDArray[np.uint8]] = {}
        self._place = 0
        volume = session.volume
        place = placement(volume, self.planes)
        shape = (len(self.planes), *volume.shape[1:])
        planes = PlaneArray(session.plane, self.planes, volume.shape[1:], volume.dtype)
        self.image = viewer.add_image(planes, name=name, contrast_limits=contrast, multiscale=False, **place)
        self.uncertainty = viewer.add_image(
            np.zeros(shape, np.uint8), name="uncertainty", colormap="magma", blending="additive",
            contrast_limits=(0, 255), visible=False, **place,
        )  # fmt: skip
        self.classes = viewer.add_labels(np.zeros(shape, np.uint8), name="classes", opacity=CLASSES_OPACITY, **place)
        self.classes.editable = False
        self.places = viewer.add_points(
            np.empty((0, 3)), ndim=3, name="places to mark", size=PLACE_PIXELS, symbol="disc", face_color="transparent",
            border_color="white", border_width=0.06, **place,
        )  # fmt: skip
        self.strokes = viewer.add_labels(np.zeros(shape, np.uint8), name="strokes", opacity=0.9, **place)
        self.strokes.brush_size = FIRST_BRUSH
        self.refresh_classes()
        for z in session.strokes.planes():
            self.refresh_strokes(z)
        self.strokes.events.paint.connect(self._on_paint)
        viewer.dims.events.point.connect(self._moved)
        viewer.layers.selection.active = self.strokes
        self.choose(session.strokes.classes[0].value)
        bar = viewer.canvas.overlays.scale_bar if IS_NEW else viewer.scale_bar
        bar.visible = True
        self.look_at(session.view)

    @property
    def all(self) -> tuple[Any, ...]:
        """All layers."""
        return self.image, self.uncertainty, self.classes, self.places, self.strokes

    def remove(self) -> None:
        """Take the layers out of the viewer."""
        self.viewer.dims.events.point.disconnect(self._moved)
        for layer in self.all:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    # --- where the person is --------------------------------------------------------------------------------------

    @property
    def view(self) -> int:
        """The plane in view."""
        return self.planes[self._index()]

    def look_at(self, z: int, *, at: tuple[float, float] | None = None) -> None:
        """Show plane ``z``, and pixel ``at`` (y, x) in the middle."""
        scale, shift = self.strokes.scale, self.strokes.translate
        self.viewer.dims.set_point(0, shift[0] + scale[0] * self._number[z])
        if at is not None:
            camera = self.viewer.scene.camera if IS_NEW else self.viewer.camera
            camera.center = (0, shift[1] + scale[1] * at[0], shift[2] + scale[2] * at[1])

    def next_place(self) -> bool:
        """Show the next of the places to mark; False if there is none."""
        found = [s for s in self._session.suggestions() if s.z in self._number]
        if not found:
            return False
        place = found[self._place % len(found)]
        self._place += 1
        self.look_at(place.z, at=(place.y, place.x))
        return True

    def _index(self) -> int:
        point = self.viewer.dims.point[0]
        number = round(float((point - self.strokes.translate[0]) / self.strokes.scale[0]))
        return min(max(number, 0), len(self.planes) - 1)

    def _moved(self) -> None:
        self._on_view(self.view)

    # --- painting -------------------------------------------------------------------------------------------------

    def choose(self, value: int) -> None:
        """Paint this class."""
        self.strokes.selected_label = value
        self.strokes.mode = "paint"

    def _on_paint(self) -> None:
        one = self.strokes.n_edit_dimensions == 2 and tuple(self.viewer.dims.displayed) == (1, 2)
        self._later(partial(self._send_painted, [self._index()] if one else range(len(self.planes))))

    def _send_painted(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            data, known = self.strokes.data[number], self._known(number)
            pixels = np.flatnonzero(data != known)
            if not pixels.size:
                continue
            self._exchanged[number] = data.copy()
            values = data.ravel()[pixels]
            for value in np.unique(values).tolist():
                self._on_stroke(self.planes[number], pixels[values == value], value)

    def _known(self, number: int) -> npt.NDArray[np.uint8]:
        if number not in self._exchanged:
            self._exchanged[number] = np.zeros(self.strokes.data.shape[1:], np.uint8)
        return self._exchanged[number]

    # --- what the session says ------------------------------------------------------------------------------------

    def refresh_strokes(self, z: int) -> None:
        """Show the session's strokes of a plane; pixels of a stroke that is being painted stay."""
        if z not in self._number:
            return
        number = self._number[z]
        data, known, new = self.strokes.data[number], self._known(number), self._session.strokes.labels(z)
        data[...] = np.where(data != known, data, new)
        self._exchanged[number] = new
        self._refresh(self.strokes, number)

    def take_back(self, z: int) -> None:
        """Show the session's strokes of a plane, whatever was painted."""
        number = self._number[z]
        self.strokes.data[number] = self._exchanged[number] = self._session.strokes.labels(z)
        self._refresh(self.strokes, number)

    def refresh_overlay(self, z: int) -> None:
        """Show the newest classes and uncertainty of a plane."""
        overlay = self._session.overlay(z)
        if overlay is None or z not in self._number:
            return
        number = self._number[z]
        self.classes.data[number], self.uncertainty.data[number] = overlay.labels, overlay.uncertainty
        self._refresh(self.classes, number)
        self._refresh(self.uncertainty, number)

    def refresh_places(self) -> None:
        """Show where a stroke would help most."""
        found = [(self._number[s.z], s.y, s.x) for s in self._session.suggestions() if s.z in self._number]
        self._place = 0
        self.places.data = np.array(found, float).reshape(-1, 3)

    def refresh_classes(self) -> None:
        """Show the colours of the classes."""
        colours = colormap(self._session.strokes.classes)
        self.strokes.colormap, self.classes.colormap = colours, colours

    def _refresh(self, layer: Any, number: int) -> None:
        if number == self._index() or tuple(self.viewer.dims.displayed) != (1, 2):
            layer.refresh(extent=False)


def placement(volume: Volume, planes: Sequence[int]) -> dict[str, Any]:
    """Keywords of a layer: scale, place and units of planes that are evenly apart."""
    size = volume.voxel_size or (1.0, 1.0, 1.0)
    step = planes[1] - planes[0] if len(planes) > 1 else 1
    return {
        "scale": (step * size[0], size[1], size[2]),
        "translate": (planes[0] * size[0], 0.0, 0.0),
        "units": ("nm" if volume.voxel_size else "pixel",) * 3,
        "axis_labels": ("z", "y", "x"),
    }


def colormap(classes: Sequence[LabelClass]) -> DirectLabelColormap:
    """Colours of classes for a layer of labels; all else is transparent."""
    colours: dict[int | None, tuple[float, ...]] = {None: (0.0, 0.0, 0.0, 0.0), 0: (0.0, 0.0, 0.0, 0.0)}
    colours |= {c.value: (*(v / 255 for v in c.colour), 1.0) for c in classes}
    return DirectLabelColormap(color_dict=colours)


def add_result(viewer: Any, volume: Volume, classes: Sequence[LabelClass], *, name: str) -> Labels:
    """Show finished labels, plane by plane from disk."""
    planes = range(volume.shape[0])
    labels = PlaneArray(volume.plane, planes, volume.shape[1:], np.uint8)
    layer = viewer.add_labels(labels, name=name, opacity=CLASSES_OPACITY, multiscale=False, **placement(volume, planes))
    layer.colormap, layer.editable = colormap(classes), False
    return layer
