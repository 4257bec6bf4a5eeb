"""The dock: choose a volume, mark, look, correct, save, classify all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QLabel,
    QScrollArea,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from gpu_tomoclass import FeatureCache, Session, Volume, open_volume
from gpu_tomoclass.errors import TomoclassError
from gpu_tomoclass.features import default_cache_folder
from gpu_tomoclass.interactive import Event, Targets
from gpu_tomoclass.labels import volume_contrast
from gpu_tomoclass.napari_plugin.hand import Hand
from gpu_tomoclass.napari_plugin.layers import StackLayers, add_result
from gpu_tomoclass.napari_plugin.pages import BeginPage, WorkPage
from gpu_tomoclass.napari_plugin.source import Source

if TYPE_CHECKING:
    import napari

WORK = {
    "features": "computing features, plane {z}", "forest": "learning", "plane": "classifying plane {z}",
    "check": "checking the model", "score": "testing on held-out strokes", "suggestions": "looking for places to mark",
    "cache": "keeping features of plane {z}", "": "up to date",
}  # fmt: skip
FIT = {
    "fits": "the model fits this volume", "doubtful": "the model may not fit this volume",
    "does not fit": "the model does not fit this volume",
}  # fmt: skip
MODELS = (".tcm", ".model")
WIDE = 300  # pixels


class Dock(QWidget):
    """The loop of a person in a viewer; the session's thread computes, another opens and saves, and nothing waits.

    Parameters
    ----------
    napari_viewer : napari.Viewer

    Attributes
    ----------
    session : Session or None
    layers : StackLayers or None
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self.layers: StackLayers | None = None
        self._source: Source | None = None
        self._painting = False  # the strokes that the session tells of are those of this viewer
        self.hand = Hand()
        self.hand.told.connect(self._on_told)
        self.hand.failed.connect(self.say)
        self.first, self.work = BeginPage(), WorkPage()
        self._connect()
        self.pages = QStackedWidget()
        for page in (self.first, self.work):
            scroll = QScrollArea()
            scroll.setWidget(page)
            scroll.setWidgetResizable(True)
            scroll.setFrameShape(QScrollArea.Shape.NoFrame)
            scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
            self.pages.addWidget(scroll)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout = QVBoxLayout(self)
        layout.addWidget(self.pages, 1)
        layout.addWidget(self.message)
        self.setMinimumWidth(WIDE)
        self._list_images()
        self.viewer.layers.events.inserted.connect(self._list_images)
        self.viewer.layers.events.removed.connect(self._on_removed)
        QApplication.instance().aboutToQuit.connect(self.end)

    # --- the two pages --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        begin, work = self.first, self.work
        begin.file.clicked.connect(self._ask_volume)
        begin.start.clicked.connect(self._begin_with_layer)
        work.classes.chosen.connect(lambda value: self._on_layers(lambda layers: layers.choose(value)))
        work.classes.changed.connect(lambda new: self._do(lambda s: s.set_classes(new), instead=self._show_lists))
        work.strokes.jump.connect(lambda s: self._on_layers(lambda layers: layers.look_at(s.z, at=(s.y, s.x))))
        work.strokes.delete.connect(lambda number: self._do(lambda s: s.delete_stroke(number)))
        work.live.toggled.connect(lambda on: self._do(lambda s: setattr(s, "live", on)))
        work.once.clicked.connect(lambda: self._do(lambda s: s.learn_once()))
        work.next.clicked.connect(self.next_place)
        work.undo.clicked.connect(lambda: self._do(lambda s: s.undo()))
        work.redo.clicked.connect(lambda: self._do(lambda s: s.redo()))
        work.adapt.clicked.connect(lambda: self._do(lambda s: s.adapt()))
        work.open.clicked.connect(partial(self._ask, "Open a model or strokes", None, self.open_file))
        work.save_as.clicked.connect(partial(self._ask, "Save the model", "_model.tcm", self.save_model))
        work.strokes_as.clicked.connect(partial(self._ask, "Save the strokes", "_marks.tif", self.save_strokes))
        work.command.clicked.connect(self.copy_command)
        work.all.clicked.connect(partial(self._ask, "Save the labels", "_labels.ome.zarr", self.classify_all))
        work.cancel.clicked.connect(self._cancel)
        work.end.clicked.connect(self.end)

    def _list_images(self) -> None:
        if self.session is None:
            chosen = self.first.images.currentText()
            self.first.images.clear()
            self.first.images.addItems([layer.name for layer in self.viewer.layers if isinstance(layer, Image)])
            self.first.images.setCurrentText(chosen)
            self.first.start.setEnabled(self.first.images.count() > 0)

    # --- begin and end --------------------------------------------------------------------------------------------

    def _ask_volume(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a volume")
        if path:
            self.begin(Source.of_file(path))

    def _begin_with_layer(self) -> None:
        layer = self.viewer.layers[self.first.images.currentText()]
        try:
            source = Source.of_layer(layer)
        except TomoclassError as error:
            self.say(str(error))
            return
        self.begin(source)
        layer.visible = False

    def begin(self, source: Source, **options: Any) -> None:
        """Open a session in the background, with the choices of the first page.

        Parameters
        ----------
        source : Source
        **options
            More keywords of :class:`gpu_tomoclass.Session`.
        """
        names = [name.strip() for name in self.first.names.text().split(",") if name.strip()]
        strokes = None if source.path is None else Targets.beside(source.path, "_strokes.ome.zarr")
        given = {
            "every": self.first.every.value() if self.first.every.value() > 1 else None,
            "features": self.first.features.currentText(),
            "class_names": None if strokes is not None and os.path.exists(strokes) else names, "strokes": strokes,
        }  # fmt: skip
        self._source = source
        self.first.setEnabled(False)
        self.say(f"opening {source.name} ..")

        def work() -> tuple[Session, tuple[float, float]]:
            volume = source.open()
            session = Session(volume, **{"cache": FeatureCache(default_cache_folder()), **given, **options})
            return session, volume_contrast(volume)

        self.hand.do(work, self._on_begun, lambda: self.first.setEnabled(True))

    def _on_begun(self, found: tuple[Session, tuple[float, float]]) -> None:
        self.session, contrast = found
        assert self._source is not None
        self.first.setEnabled(True)
        self.layers = StackLayers(
            self.viewer, self.session, name=self._source.name, contrast=contrast, on_stroke=self._on_stroke,
            on_view=self._on_view,
            later=partial(QTimer.singleShot, 0),
        )  # fmt: skip
        self._bind_keys(self.layers)
        self.session.listen(partial(self._listen, self.session))
        self.work.reset()
        self._said: dict[str, str] = {}
        self.work.live.blockSignals(True)
        self.work.live.setChecked(self.session.live)
        self.work.live.blockSignals(False)
        self._show_lists()
        self.pages.setCurrentIndex(1)
        kept = (
            "strokes are only in memory: save them" if self._source.path is None else "strokes are saved as you paint"
        )
        self.say("\n".join([*self.session.notes, kept]))
        for z in self.session.planes:
            self.layers.refresh_overlay(z)
        self.hand.do(partial(self.session.look_at, self.layers.view))

    def _bind_keys(self, layers: StackLayers) -> None:
        keys: dict[str, Callable[[Any], None]] = {
            "Control-Z": lambda _: self.work.undo.click(), "Control-Shift-Z": lambda _: self.work.redo.click(),
            "n": lambda _: self.next_place(), "t": lambda _: self.work.once.click(),
            "i": lambda _: _toggle(layers.image), "m": lambda _: _toggle(layers.strokes),
            "l": lambda _: _toggle(layers.classes), "u": lambda _: _toggle(layers.uncertainty),
            "o": lambda _: setattr(layers.classes, "contour", 0 if layers.classes.contour else 1),
        }  # fmt: skip
        for value in range(1, 10):
            keys[str(value)] = lambda _, value=value: self._choose(value)  # type: ignore[misc]
        for key, action in keys.items():
            layers.strokes.bind_key(key, action, overwrite=True)
        layers.strokes.events.selected_label.connect(lambda: self.work.classes.choose(layers.strokes.selected_label))

    def _choose(self, value: int) -> None:
        if (
            self.session is not None
            and self.layers is not None
            and value in {c.value for c in self.session.strokes.classes}
        ):
            self.layers.choose(value)

    def _on_removed(self, event: Any) -> None:
        self._list_images()
        if self.layers is not None and event.value == self.layers.strokes:
            self.end()

    def end(self) -> None:
        """Let the session go; its layers leave the viewer, finished labels stay."""
        session, layers = self.session, self.layers
        self.session = self.layers = None
        if session is not None and layers is not None:
            session.stop_classifying()
            self.hand.do(session.close)
            with suppress(RuntimeError):  # of layers whose window is gone
                layers.remove()
                self.pages.setCurrentIndex(0)
                self._list_images()

    # --- painting and looking -------------------------------------------------------------------------------------

    def _do(
        self, work: Callable[[Session], Any], then: Callable[[Any], None] | None = None,
        instead: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        if self.session is not None:
            self.hand.do(partial(work, self.session), then, instead)

    def _on_layers(self, act: Callable[[StackLayers], None]) -> None:
        if self.layers is not None:
            act(self.layers)

    def _cancel(self) -> None:
        if self.session is not None:
            self.session.stop_classifying()

    def _on_stroke(self, z: int, pixels: np.ndarray, value: int) -> None:
        def work(session: Session) -> None:
            self._painting = True
            try:
                session.paint(z, pixels, value)
            finally:
                self._painting = False

        self._do(work, None, lambda: self._on_layers(lambda layers: layers.take_back(z)))

    def _on_view(self, z: int) -> None:
        if self.session is not None and z != self.session.view:
            self._do(lambda session: session.look_at(z))

    def next_place(self) -> None:
        """Show the next place to mark."""
        if self.layers is not None and not self.layers.next_place():
            self.say("no place is known yet: the forest looks for them when it has learnt")

    # --- files ----------------------------------------------------------------------------------------------------

    def _ask(self, title: str, ending: str | None, then: Callable[[str], None]) -> None:
        beside = "" if self._source is None or self._source.path is None else self._source.path
        if ending is None:
            path, _ = QFileDialog.getOpenFileName(self, title, beside)
        else:
            path, _ = QFileDialog.getSaveFileName(self, title, Targets.beside(beside, ending) if beside else ending[1:])
        if path:
            then(path)

    def open_file(self, path: str) -> None:
        """Go on with a model of ours or of Fiji, or add the strokes of a file."""

        def work(session: Session) -> str:
            if path.lower().endswith(MODELS):
                session.open_model(path)
            else:
                session.add_strokes(path)
            return path

        self._do(work, lambda path: self.say(f"{path} was opened"))

    def save_model(self, path: str) -> None:
        """Write the model of the strokes as they are; who was asked for a name has agreed to replace."""
        self._do(lambda session: session.save_model(path, overwrite=True))

    def save_strokes(self, path: str) -> None:
        """Write the strokes as a label image."""
        self._do(lambda session: session.save_strokes(path, overwrite=True))

    def copy_command(self) -> None:
        """Put the command lines of what was done on the clipboard."""
        if self.session is not None:
            beside = "volume" if self._source is None or self._source.path is None else self._source.path
            recipe = self.session.recipe(
                model=Targets.beside(beside, "_model.tcm"), labels=Targets.beside(beside, "_labels.ome.zarr")
            )
            QApplication.clipboard().setText(recipe.command())
            self.say(recipe.command())

    def classify_all(self, path: str) -> None:
        """Classify the whole volume to a file, which then is shown."""
        self._do(lambda session: session.classify(path, overwrite=True))

    # --- what the session tells -----------------------------------------------------------------------------------

    def _listen(self, session: Session, event: Event) -> None:
        """In the session's threads."""
        self.hand.tell((session, event, event.kind == "strokes" and self._painting))

    def _on_told(self, told: tuple[Session, Event, bool]) -> None:
        (session, event, mine), layers = told, self.layers
        if layers is None or session is not self.session:  # of one that has ended
            return
        data = event.data
        if event.kind == "strokes":
            for z in [] if mine else data["planes"]:
                layers.refresh_strokes(z)
            self._show_lists()
        elif event.kind == "classes":
            layers.refresh_classes()
            self._show_lists()
        elif event.kind == "work":
            self.work.state.setText(WORK.get(data["what"], data["what"]).format(**data))
        elif event.kind == "trained":
            self.work.fit.hide()  # of the model that was opened, which is not shown any more
            self.work.adapt.hide()
            self._show_scores(oob=f"out-of-bag error {100 * data['oob_error']:.2f} %")
        elif event.kind == "score":
            text = data.get("reason") or "held-out Dice " + ", ".join(
                [f"{data['mean_dice']:.3f}", *(f"{self._name(v)} {d:.2f}" for v, d in data["dice"].items())]
            )
            self._show_scores(held=text)
        elif event.kind == "overlay":
            layers.refresh_overlay(data["z"])
        elif event.kind == "suggestions":
            layers.refresh_places()
            self.work.next.setText(f"Next place to mark ({len(layers.places.data)})")
        elif event.kind == "fit":
            self.work.fit.setText(data.get("reason") or FIT[data["verdict"]])
            self.work.fit.show()
            self.work.adapt.setVisible(data["verdict"] != "fits" and not data.get("reason"))
        elif event.kind == "classify":
            self._on_classify(data)
        elif event.kind == "saved":
            self.say(f"{data['what']} saved: {data['path']}")
        elif event.kind == "trouble":
            self.say(data["message"])

    def _on_classify(self, data: dict[str, Any]) -> None:
        running = "path" not in data and "error" not in data
        self.work.progress.setMaximum(data["total"])
        self.work.progress.setValue(data["done"])
        self.work.progress.setVisible(running)
        self.work.cancel.setVisible(running)
        self.work.all.setEnabled(not running)
        if "error" in data:
            self.say(data["error"])
        if "path" in data:
            self.say(f"{data['total']} planes are classified: {data['path']}")
            self.hand.do(lambda: open_volume(data["path"]), self._show_result)

    def _show_result(self, volume: Volume) -> None:
        if self.session is not None:
            add_result(self.viewer, volume, self.session.strokes.classes, name="all planes")
            if self.layers is not None:
                self.viewer.layers.selection.active = self.layers.strokes

    def _name(self, value: int) -> str:
        assert self.session is not None
        return next((c.name for c in self.session.strokes.classes if c.value == value), str(value))

    def _show_scores(self, **new: str) -> None:
        self._said |= new
        self.work.scores.setText("\n".join(self._said[k] for k in ("held", "oob") if k in self._said))

    def _show_lists(self) -> None:
        if self.session is None:
            return
        strokes = self.session.strokes
        self.work.classes.show_classes(strokes.classes, strokes.class_counts())
        self.work.strokes.show_strokes(self.session.listed_strokes(), strokes.classes)
        self.work.undo.setEnabled(strokes.can_undo)
        self.work.redo.setEnabled(strokes.can_redo)

    def say(self, text: str) -> None:
        """Show a message below."""
        self.message.setText(text)


def _toggle(layer: Any) -> None:
    layer.visible = not layer.visible
