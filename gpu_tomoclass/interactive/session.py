"""A person, a volume, strokes and a forest: the loop of marking, looking and correcting, without a window."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Self

import numpy as np

from gpu_tomoclass.annotations import Annotation, SubStack, load_annotation
from gpu_tomoclass.classes import LabelClass, default_classes
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, TomoclassError, UsageError
from gpu_tomoclass.features import FeatureBank, FeatureCache, IntensityScale, aspect_of, check_lengths, make_bank
from gpu_tomoclass.interactive.commands import Recipe
from gpu_tomoclass.interactive.events import Event, Events
from gpu_tomoclass.interactive.learner import Learner
from gpu_tomoclass.interactive.overlays import Overlay
from gpu_tomoclass.interactive.store import StrokeStore, write_strokes
from gpu_tomoclass.interactive.strokes import Stroke, Strokes, brush_pixels
from gpu_tomoclass.interactive.suggestions import Suggestion
from gpu_tomoclass.interactive.volume_work import VolumeWork
from gpu_tomoclass.model import Model, fits_volume, model_of_file, save_model
from gpu_tomoclass.training import train
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume, VolumeLike, open_volume, refuse_binned

StrPath = str | PathLike[str]
DEFAULTS: dict[str, Any] = {
    "engine": "auto", "n_trees": 200, "max_features": 2, "max_depth": None, "min_samples_leaf": 1, "balance": False,
    "seed": 42,
}  # fmt: skip


RECIPE_DEFAULTS = {"features": "paper", "intensity": "auto", "nan": "error", **DEFAULTS}


class Session:
    """Mark, look, correct: strokes on planes of a volume, and a forest that learns from them in the background.

    What is painted is written to ``strokes`` at once and found again there, however the process ended. All that takes
    time happens in a thread; :meth:`listen` tells what it has found.

    Parameters
    ----------
    volume : Volume, path or array
        What :func:`open_volume` takes; planes are read when they are looked at.
    strokes : path, optional
        A folder ``.ome.zarr``, made if it is not there; without one strokes are only in memory.
    model : Model or path, optional
        To begin with, ours or one that Fiji saved: its classes, its features, and what it makes of the planes.
    class_names : sequence of str, optional
        Of the classes 1, 2, ..; default those of strokes or model, else two.
    features : str, sequence of str or FeatureBank, optional
        See :func:`train`; default those of the model, else ``"paper"``.
    every, start : int, optional
        Show every n-th plane only, see :func:`load_annotation`.
    intensity : {"auto", "none"}
    nan : {"error", "fill", "mask"}
    cache : FeatureCache or path, optional
        Keeps the features of marked planes, for the next session and for :func:`train`.
    device : str or Device
    memory : int, optional
        Bytes of features to hold; default a share of what is free.
    **forest_options
        engine, n_trees, max_features, max_depth, min_samples_leaf, balance, seed: see :func:`train`.

    Attributes
    ----------
    volume : Volume
    strokes : Strokes
    planes : list of int
        Those that are shown.
    notes : list of str

    Raises
    ------
    UsageError, DataError, ModelError, ResourceError
        If something given cannot be used; see :func:`open_volume`, :func:`load_model`, :func:`import_fiji_model` and
        :class:`~gpu_tomoclass.interactive.store.StrokeStore`.
    """

    def __init__(
        self,
        volume: VolumeLike,
        *,
        strokes: StrPath | None = None,
        model: Model | StrPath | None = None,
        class_names: Sequence[str] | None = None,
        features: str | Sequence[str] | FeatureBank | None = None,
        every: int | None = None,
        start: int | None = None,
        intensity: str = "auto",
        nan: str = "error",
        cache: FeatureCache | StrPath | None = None,
        device: Device | str = "auto",
        memory: int | None = None,
        **forest_options: Any,
    ) -> None:
        unknown = set(forest_options) - set(DEFAULTS)
        if unknown:
            raise UsageError(f"there is no option {', '.join(sorted(unknown))}")
        self.volume = open_volume(volume)
        refuse_binned(self.volume)
        self._events = Events()
        self._given = {"features": features, "intensity": intensity, "nan": nan, **forest_options}
        self._intensity, self._nan, self._memory = intensity, nan, memory
        self._forest_options = {**DEFAULTS, **forest_options}
        self._cache = FeatureCache(cache) if isinstance(cache, (str, PathLike)) else cache
        self.device = choose_device(device)
        self.notes = [*self.volume.notes]
        substack = SubStack.of(self.volume.shape[0], every=every, start=start)
        self.planes = list(range(self.volume.shape[0])) if substack is None else substack.planes.tolist()
        self._model = model_of_file(model) if isinstance(model, (str, PathLike)) else model
        if self._model is not None:
            self.notes += fits_volume(self._model, self.volume, force=True)
        self._opened = self._model
        own = None if self._model is None else self._model.bank
        self._bank = own if own is not None and features is None else make_bank(features or "paper")
        check_lengths(self._bank.blocks, aspect_of(self.volume.voxel_size))
        classes = self._first_classes(class_names)
        self._store: StrokeStore | None = None
        if strokes is not None:
            self._store = StrokeStore(strokes, self.volume, classes, on_error=self._say_trouble)
        if self._store is not None and class_names is None:
            classes = self._store.classes
        self.strokes = Strokes(self.volume.shape, classes)
        found = None if self._store is None else self._store.found
        if found is not None and found.z.size:
            self.strokes.put(found)
            self.strokes.forget_edits()
            self.notes.append(f"{found.z.size} marked pixels of an earlier session were found in {self._store_path}")
        self._measured: IntensityScale | None = None
        self._restarting = threading.RLock()
        self._scale = self._new_scale()
        self._learner = self._new_learner()
        self._viewed, self._reading = self.reopened(), threading.Lock()
        self._work = VolumeWork(self._events, device=self.device, nan=self._nan)
        self._finishing = threading.Lock()
        if self._model is not None and self._scale == self._model.intensity:
            self._learner.use(self._model)
        if found is not None and found.z.size:
            self._learner.relearn()
        self._learner.start()

    # --- events ---------------------------------------------------------------------------------------------------

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``listener`` with every :class:`~gpu_tomoclass.interactive.events.Event`; gives what ends it.

        Listeners are called from the thread in which something happens, and must return at once.
        """
        return self._events.listen(listener)

    def wait(self, timeout: float = 600.0) -> bool:
        """Wait until the background rests; False if it did not in time."""
        return self._learner.resting(timeout=timeout)

    # --- looking --------------------------------------------------------------------------------------------------

    def look_at(self, z: int) -> None:
        """This plane is in view: it is computed before all others.

        Raises
        ------
        UsageError
            If there is no such plane.
        """
        if not 0 <= z < self.volume.shape[0]:
            raise UsageError(f"there is no plane {z}, only 0 to {self.volume.shape[0] - 1}", where=self.volume.path)
        self._learner.look_at(z)

    @property
    def view(self) -> int:
        """The plane in view."""
        return self._learner.view

    def plane(self, z: int) -> np.ndarray:
        """Plane ``z`` as stored, (ny, nx); read beside what the background reads."""
        with self._reading:
            return self._viewed.plane(z)

    def reopened(self) -> Volume:
        """The volume once more, for another thread to read."""
        if self.volume.reading is None:
            return self.volume
        return open_volume(self.volume.path, **self.volume.reading)

    def overlay(self, z: int) -> Overlay | None:
        """Classes and uncertainty of plane ``z``, of the newest forest that has seen it; None if none has."""
        return self._learner.overlay(z)

    @property
    def version(self) -> int:
        """Counts the forests; 0 before the first."""
        return self._learner.version

    def suggestions(self) -> list[Suggestion]:
        """Places where a stroke would help most, the best first."""
        return list(self._learner.suggestions)

    # --- painting -------------------------------------------------------------------------------------------------

    def stroke(
        self, z: int, points: Sequence[Sequence[float]], *, value: int, width: float = 5.0, depth: int = 0
    ) -> list[int]:
        """Paint with a round brush, or erase with ``value`` 0; gives the planes that changed.

        Parameters
        ----------
        z : int
            Plane.
        points : sequence of (y, x)
            See :func:`~gpu_tomoclass.interactive.strokes.brush_pixels`.
        value : int
            Class, 0 to erase.
        width : float
            Of the brush, in pixels.
        depth : int
            So many planes above and below get the same.
        """
        pixels = brush_pixels(points, width=width, shape=self.volume.shape[1:])
        return self.paint(z, pixels, value, depth=depth)

    def paint(self, z: int, pixels: Any, value: int, *, depth: int = 0) -> list[int]:
        """Give pixels of plane ``z``, as flat positions or as a mask (ny, nx), a class, or 0 to erase."""
        pixels = np.asarray(pixels)
        if pixels.dtype == np.bool_:
            if pixels.shape != self.volume.shape[1:]:
                raise UsageError(f"the mask is {pixels.shape}, a plane {self.volume.shape[1:]}")
            pixels = np.flatnonzero(pixels)
        if depth < 0:
            raise UsageError(f"a depth of {depth} planes makes no sense", do="give 0 or more")
        planes = range(max(0, z - depth), min(self.volume.shape[0], z + depth + 1))
        return self._changed(self.strokes.paint(z, pixels, value, planes=planes))

    def delete_stroke(self, number: int) -> list[int]:
        """Erase what is left of a stroke of :meth:`listed_strokes`."""
        return self._changed(self.strokes.delete(number))

    def undo(self) -> list[int]:
        """Take back the last change; the planes that changed."""
        return self._changed(self.strokes.undo())

    def redo(self) -> list[int]:
        """Do again what was taken back."""
        return self._changed(self.strokes.redo())

    def listed_strokes(self) -> list[Stroke]:
        """All strokes with class, plane and pixels."""
        return self.strokes.listed()

    def set_classes(self, classes: Sequence[LabelClass]) -> None:
        """Other names and colours, or more classes; see :meth:`Strokes.set_classes`."""
        self.strokes.set_classes(classes)
        if self._store is not None:
            self._store.save(self.strokes, [])
        self._events.tell("classes")
        self._learner.changed()

    def add_strokes(self, marks: StrPath | Annotation, *, every: int | None = None, start: int | None = None) -> None:
        """Add the strokes of a file, as :func:`load_annotation` reads them, to those that are there."""
        if isinstance(marks, Annotation):
            annotation = marks
        else:
            names = {c.value: c.name for c in self.strokes.classes}
            chosen = any(name != f"class {value}" for value, name in names.items())
            is_rois = fspath(marks).lower().endswith((".zip", ".roi"))  # whose names must be those of classes
            annotation = load_annotation(
                marks, volume_shape=self.volume.shape, every=every, start=start, partial=True,
                class_names=names if chosen and is_rois else None,
            )  # fmt: skip
        planes = self.strokes.put(annotation)
        self._events.tell("classes")
        self._changed(planes)

    # --- learning -------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Tell whether each stroke is learnt from at once."""
        return self._learner.live

    @live.setter
    def live(self, live: bool) -> None:
        self._learner.set_live(live)

    def learn_once(self) -> None:
        """Learn from the strokes as they are now."""
        self._learner.learn_once()

    def open_model(self, model: Model | StrPath) -> None:
        """Go on with a model: its features, and what it makes of the planes until there are new strokes."""
        opened = model_of_file(model) if isinstance(model, (str, PathLike)) else model
        notes = fits_volume(opened, self.volume, force=True)
        mine = {c.value: c for c in self.strokes.classes} | {c.value: c for c in opened.classes}
        self.strokes.set_classes([mine[value] for value in sorted(mine)])
        with self._restarting:
            self._model = self._opened = opened
            self._bank, self._given["features"] = opened.bank, None
            self._restart(opened.intensity)
            self._learner.use(opened)
            self._learner.start()
        self._events.tell("classes")
        for note in notes:
            self._events.tell("trouble", message=note)

    def adapt(self) -> None:
        """Make the model that was opened fit this volume, in the background; see :func:`gpu_tomoclass.adapt`.

        An event ``fit`` tells what became of it.

        Raises
        ------
        UsageError
            If no model was opened, or something else is running.
        """
        if self._opened is None:
            raise UsageError("no model was opened that could be adapted")
        self._work.adapt(self.reopened, self._opened, use=self.open_model)

    def model(self, *, progress: Progress | None = None) -> Model:
        """The model of the strokes as they are, the same that the command of :meth:`recipe` trains.

        Takes the time of a training: planes whose features are cached cost a disk read. Without strokes of two classes
        it is the model that was opened.

        Raises
        ------
        DataError
            If there are no strokes of two classes, and no model.
        """
        if len(self.strokes.values()) < 2:
            if self._opened is None:
                raise DataError("there is no model yet", do="mark at least two classes")
            return self._opened
        with self._finishing:
            path = self._store_path or "strokes"
            result = train(
                self.volume, self.strokes.annotation(path=path), bank=self._bank, intensity=self._intensity,
                nan=self._nan, cache=self._cache, device=self.device, progress=progress, **self._forest_options,
            )  # fmt: skip
        return result.model

    def save_model(self, path: StrPath, *, overwrite: bool = False) -> str:
        """Write :meth:`model`; gives the path."""
        save_model(self.model(), path, overwrite=overwrite)
        self._events.tell("saved", what="model", path=fspath(path))
        return fspath(path)

    def save_strokes(self, path: StrPath, *, overwrite: bool = False) -> str:
        """Write the strokes as a label image of the whole volume, in any format that :func:`create_volume` writes."""
        write_strokes(self.strokes, path, volume=self.volume, overwrite=overwrite)
        self._events.tell("saved", what="strokes", path=fspath(path))
        return fspath(path)

    def recipe(self, *, model: str = "model.tcm", labels: str = "labels.ome.zarr") -> Recipe:
        """The commands that give the same model and labels, for files of these names."""
        settings = {k: v for k, v in self._given.items() if v is not None and v != RECIPE_DEFAULTS[k]}
        bank = settings.get("features")
        if isinstance(bank, FeatureBank) or (bank is None and self._bank != make_bank("paper")):
            settings["features"] = self._bank
        reading = {k: v for k, v in (self.volume.reading or {}).items() if v not in (None, False) and k != "sparse"}
        return Recipe(self.volume.path, self._store_path or "strokes.tif", model, labels, settings, reading,
                      trained=len(self.strokes.values()) > 1)  # fmt: skip

    # --- the whole volume -----------------------------------------------------------------------------------------

    def classify(self, output: StrPath, **options: Any) -> None:
        """Classify all planes in the background, with the model of the strokes as they are; see :func:`classify`.

        Events of the kind ``classify`` tell how far it is, and its end.

        Raises
        ------
        UsageError
            If one is running.
        """
        self._work.classify(self.reopened, self.model, output, options, n_planes=self.volume.shape[0])

    @property
    def is_classifying(self) -> bool:
        """Tell whether the volume is being classified, or a model adapted to it."""
        return self._work.runs

    def stop_classifying(self) -> None:
        """Stop after the planes in work; the same call goes on with the others."""
        self._work.stop()

    def wait_for_labels(self) -> None:
        """Wait for the end of :meth:`classify`."""
        self._work.wait()

    # --- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the background, write what is left of the strokes, and let them go."""
        self.stop_classifying()
        self.wait_for_labels()
        self._learner.close()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # --- parts ----------------------------------------------------------------------------------------------------

    @property
    def _store_path(self) -> str | None:
        return None if self._store is None else self._store.path

    def _first_classes(self, names: Sequence[str] | None) -> tuple[LabelClass, ...]:
        if names is not None:
            return default_classes(names)
        return self._model.classes if self._model is not None else default_classes(["class 1", "class 2"])

    def _new_scale(self) -> IntensityScale:
        """That of a model, until strokes of two classes teach another."""
        if self._model is not None and len(self.strokes.values()) < 2:
            return self._model.intensity
        return self._own_scale()

    def _own_scale(self) -> IntensityScale:
        if self._measured is None:
            self._measured = IntensityScale.for_volume(self.volume, mode=self._intensity)
        return self._measured

    def _new_learner(self) -> Learner:
        return Learner(
            self.volume, self.strokes, shown=self.planes, bank=self._bank, scale=self._scale, nan=self._nan,
            device=self.device, cache=self._cache, budget=self._memory, forest_options=self._forest_options,
            events=self._events,
        )  # fmt: skip

    def _restart(self, scale: IntensityScale) -> None:
        """Another learner, which is not started yet, for features of another bank or scale."""
        old = self._learner
        old.close()
        self._scale = scale
        self._learner = self._new_learner()
        self._learner.take_over(old)

    def _use_own_scale(self) -> None:
        """A model that was opened has the scale of its volume; one that is learnt from strokes here has this one's."""
        with self._restarting:
            own = self._own_scale()
            if self._scale != own:
                self._restart(own)
                self._learner.relearn()
                self._learner.start()

    def _changed(self, planes: list[int]) -> list[int]:
        if planes:
            if self._model is not None and len(self.strokes.values()) > 1:
                self._use_own_scale()
            if self._store is not None:
                self._store.save(self.strokes, planes)
            self._events.tell("strokes", planes=planes)
            self._learner.changed()
        return planes

    def _say_trouble(self, error: TomoclassError) -> None:
        self._events.tell("trouble", message=f"strokes are not saved: {error}")
