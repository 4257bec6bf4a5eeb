"""Requests of the page of ``gpu-tomoclass paint``, and their answers: a session in JSON and compressed planes.

No path comes from the page: what is written has the names of the command line, what is opened is uploaded.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, TomoclassError, UsageError
from gpu_tomoclass.interactive.events import Event
from gpu_tomoclass.interactive.messages import binary, runs
from gpu_tomoclass.interactive.overview import Overview, grey_bytes
from gpu_tomoclass.interactive.session import Session
from gpu_tomoclass.interactive.store import write_strokes
from gpu_tomoclass.labels import volume_contrast

MODELS = (".tcm", ".model")
STROKES = (".zip", ".roi", ".tif", ".tiff", ".mrc", ".npy", ".h5", ".hdf5")
LISTED_STROKES = 1000
WIDER = 0.5  # of the contrast of the volume, shown on each side, so that contrast can be changed in the page
KEPT = ("trained", "score", "fit", "classify", "work")  # events whose last one says how things are

Send = Callable[[dict[str, Any] | bytes], None]


@dataclass(frozen=True)
class Targets:
    """Files that may be written, all of them named on the command line.

    Attributes
    ----------
    model, labels : str
    overwrite : bool
        Whether files that were there before may be replaced; those of this run always are.
    """

    model: str
    labels: str
    overwrite: bool = False

    @staticmethod
    def beside(volume: str, ending: str) -> str:
        """Name of a file beside a volume: ``volume.ome.tif`` -> ``volume_strokes.ome.zarr``."""
        for suffix in (".ome.zarr", ".ome.tiff", ".ome.tif", ".zarr"):
            if volume.lower().endswith(suffix):
                return volume[: -len(suffix)] + ending
        return os.path.splitext(volume)[0] + ending


class Painter:
    """A session for pages, of which several may be open; safe to call from several threads.

    Parameters
    ----------
    session : Session
    targets : Targets
    name : str
        Of the volume, for the title.
    """

    def __init__(self, session: Session, targets: Targets, *, name: str) -> None:
        self.session, self.targets, self.name = session, targets, name
        self._pages: dict[int, tuple[Send, int]] = {}  # number -> how to send, plane in view
        self._last: dict[str, dict[str, Any]] = {"work": {"what": "", "z": session.view}}
        self._next_page = 0
        self._lock = threading.RLock()
        self._overview: Overview | None = None
        self._written: set[str] = set()
        low, high = volume_contrast(session.volume)
        margin = WIDER * (high - low)
        self._limits = (low - margin, high + margin)
        self._shown = (low, high)
        self._leave = session.listen(self._on_event)

    def close(self) -> None:
        """Listen no longer."""
        self._leave()
        if self._overview is not None:
            self._overview.close()

    # --- pages ----------------------------------------------------------------------------------------------------

    def enter(self, send: Send) -> int:
        """A page has opened: it is told how things are; gives its number."""
        with self._lock:
            number = self._next_page
            self._next_page += 1
            self._pages[number] = (send, self.session.view)
        send({"kind": "volume", **self.volume()})
        send({"kind": "state", **self.state()})
        for kind, data in list(self._last.items()):
            send({"kind": kind, **data})
        for note in self.session.notes:
            send({"kind": "note", "message": note})
        return number

    def leave(self, page: int) -> None:
        """A page was closed."""
        with self._lock:
            self._pages.pop(page, None)

    def volume(self) -> dict[str, Any]:
        """Facts of the volume, which never change."""
        volume = self.session.volume
        return {
            "name": self.name, "shape": volume.shape, "dtype": volume.dtype.name, "voxel": volume.voxel_size,
            "planes": self.session.planes, "view": self.session.view, "limits": self._limits, "contrast": self._shown,
            "targets": {"model": self.targets.model, "labels": self.targets.labels},
        }  # fmt: skip

    def state(self) -> dict[str, Any]:
        """State that strokes and learning change."""
        session = self.session
        listed = session.listed_strokes()
        return {
            "classes": [c.to_dict() for c in session.strokes.classes], "counts": session.strokes.class_counts(),
            "live": session.live,
            "strokes": [dataclasses.asdict(stroke) for stroke in listed[-LISTED_STROKES:]], "n_strokes": len(listed),
            "marked": session.strokes.planes(), "can_undo": session.strokes.can_undo,
            "can_redo": session.strokes.can_redo, "version": session.version,
            "suggestions": [dataclasses.asdict(s) for s in session.suggestions()],
        }  # fmt: skip

    # --- what a page asks -----------------------------------------------------------------------------------------

    def ask(self, page: int, request: Mapping[str, Any]) -> None:
        """Do what a page asks for; what it gets, and all others that it concerns, is sent.

        Raises
        ------
        TomoclassError
            If it cannot be done.
        """
        what = request.get("do")
        action = ACTIONS.get(what) if isinstance(what, str) else None
        if action is None:
            raise UsageError(f"there is no request {what!r}")
        try:
            action(self, page, request)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, TomoclassError):
                raise
            raise UsageError(f"the request {what} is not understood ({error!r})") from error

    def _look(self, page: int, request: Mapping[str, Any]) -> None:
        z = int(request["z"])
        self.session.look_at(z)
        with self._lock:
            send, _ = self._pages[page]
            self._pages[page] = (send, z)
        if request.get("plane", True):
            send(self._plane(z))
        send(self._strokes(z))
        self._send_overlay(send, z)

    def _peek(self, page: int, request: Mapping[str, Any]) -> None:
        """A plane that may be looked at next."""
        send, _ = self._pages[page]
        send(self._plane(int(request["z"])))

    def _stroke(self, page: int, request: Mapping[str, Any]) -> None:
        points = [(float(y), float(x)) for y, x in request["points"]]
        z, value, width = int(request["z"]), int(request["value"]), float(request["width"])
        if not self.session.stroke(z, points, value=value, width=width, depth=int(request.get("depth", 0))):
            send, _ = self._pages[page]
            send(self._strokes(z))  # nothing has changed: the page takes back what it drew

    def _classes(self, page: int, request: Mapping[str, Any]) -> None:
        self.session.set_classes([LabelClass.from_dict(c) for c in request["classes"]])

    def _live(self, page: int, request: Mapping[str, Any]) -> None:
        self.session.live = bool(request["live"])
        self._tell_state()

    def _section(self, page: int, request: Mapping[str, Any]) -> None:
        if self._overview is None:
            self._overview = Overview(
                self.session.reopened(), self._limits,
                on_progress=lambda done, total: self._tell({"kind": "overview", "done": done, "total": total}),
                on_error=lambda error: self._tell({"kind": "trouble", "message": str(error)}),
            )  # fmt: skip
        send, _ = self._pages[page]
        for axis in "yx":
            section = self._overview.section(axis, int(request[axis]))
            header = {"kind": "section", "axis": axis, "shape": section.shape, "step": self._overview.step}
            send(binary(header, section.tobytes()))

    def _recipe(self, page: int, request: Mapping[str, Any]) -> None:
        recipe = self.session.recipe(model=self.targets.model, labels=self.targets.labels)
        send, _ = self._pages[page]
        send({"kind": "recipe", "command": recipe.command(), "python": recipe.python()})

    def _save_model(self, page: int, request: Mapping[str, Any]) -> None:
        self._write(
            self.targets.model, lambda overwrite: self.session.save_model(self.targets.model, overwrite=overwrite)
        )

    def _classify(self, page: int, request: Mapping[str, Any]) -> None:
        overwrite = self._may_replace(self.targets.labels)
        self._written.add(self.targets.labels)
        self.session.classify(self.targets.labels, overwrite=overwrite)

    def _may_replace(self, path: str) -> bool:
        if os.path.exists(path) and path not in self._written and not self.targets.overwrite:
            do = "start with --overwrite, or with another name"
            raise DataError("was there before", where=path, do=do)
        return path in self._written or self.targets.overwrite

    def _write(self, path: str, write: Callable[[bool], object]) -> None:
        write(self._may_replace(path))
        self._written.add(path)

    def upload(self, name: str, content: Path) -> str:
        """Use an uploaded file: a model of ours or of Fiji, or strokes; gives what it was.

        Parameters
        ----------
        name : str
            As the person knows it; only its ending is looked at.
        content : path
            Where it was put.

        Raises
        ------
        TomoclassError
            If it cannot be used.
        """
        suffix = suffix_of(name)
        if suffix in MODELS:
            self.session.open_model(content)
            return "model"
        self.session.add_strokes(str(content))
        return "strokes"

    def strokes_file(self, folder: str | Path) -> Path:
        """A label image of the strokes, made in ``folder``, for whoever saves them on another computer."""
        stem = os.path.basename(Targets.beside(self.name, ""))
        path = Path(folder, f"{stem}_marks.tif")
        write_strokes(self.session.strokes, path, volume=self.session.volume)
        return path

    # --- what pages are told --------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if event.kind in KEPT:
            self._last[event.kind] = event.data
        if event.kind == "trained":
            self._last.pop("fit", None)  # of the model that was opened, which is not shown any more
        if event.kind == "overlay":
            for send, view in list(self._pages.values()):
                if view == event.data["z"]:
                    self._send_overlay(send, view)
        if event.kind == "strokes":
            for send, view in list(self._pages.values()):
                if view in event.data["planes"]:
                    send(self._strokes(view))
        if event.kind in ("strokes", "classes", "suggestions", "trained"):
            self._tell_state()
        self._tell({"kind": event.kind, **event.data})

    def _tell_state(self) -> None:
        self._tell({"kind": "state", **self.state()})

    def _tell(self, message: dict[str, Any]) -> None:
        for send, _ in list(self._pages.values()):
            send(message)

    def _plane(self, z: int) -> bytes:
        plane = grey_bytes(self.session.plane(z), self._limits)
        return binary({"kind": "plane", "z": z, "shape": plane.shape}, plane.tobytes())

    def _strokes(self, z: int) -> bytes:
        labels = self.session.strokes.labels(z)
        return binary({"kind": "marks", "z": z, "shape": labels.shape}, runs(labels))

    def _send_overlay(self, send: Send, z: int) -> None:
        overlay = self.session.overlay(z)
        if overlay is not None:
            header = {"kind": "labels", "z": z, "shape": overlay.labels.shape, "version": overlay.version}
            send(binary(header, runs(overlay.labels), overlay.uncertainty.tobytes()))


def suffix_of(name: str) -> str:
    """The ending of a file's name that can be opened; UsageError if it is none."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in (*MODELS, *STROKES):
        raise UsageError(f"a file {suffix or 'without ending'} cannot be opened here",
                         do=f"choose a model ({', '.join(MODELS)}) or strokes ({', '.join(STROKES)})")  # fmt: skip
    return suffix


def upload_folder() -> tempfile.TemporaryDirectory[str]:
    """Where uploads are put, for the time of their use."""
    return tempfile.TemporaryDirectory(prefix="gpu_tomoclass_")


ACTIONS: dict[str, Callable[[Painter, int, Mapping[str, Any]], object]] = {
    "look": Painter._look,
    "peek": Painter._peek,
    "stroke": Painter._stroke,
    "undo": lambda painter, page, request: painter.session.undo(),
    "redo": lambda painter, page, request: painter.session.redo(),
    "delete": lambda painter, page, request: painter.session.delete_stroke(int(request["number"])),
    "classes": Painter._classes,
    "live": Painter._live,
    "once": lambda painter, page, request: painter.session.learn_once(),
    "section": Painter._section,
    "adapt": lambda painter, page, request: painter.session.adapt(),
    "recipe": Painter._recipe,
    "save": Painter._save_model,
    "classify": Painter._classify,
    "stop": lambda painter, page, request: painter.session.stop_classifying(),
}
