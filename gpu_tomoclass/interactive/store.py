"""Strokes on disk, written while a person paints: a sparse label image that survives a kill of the process.

An OME-Zarr label image of which only planes with strokes have chunks; ``gpu-tomoclass train`` and napari read it as it
is. A chunk is replaced at once, never half written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from gpu_tomoclass.annotations import Annotation, load_annotation
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.classification import locked
from gpu_tomoclass.errors import DataError, ModelError, TomoclassError, UsageError
from gpu_tomoclass.interactive.strokes import Strokes
from gpu_tomoclass.outputs import atomic, write_error
from gpu_tomoclass.volumes import Volume, ZarrStore, create_volume, open_volume

SUFFIX = ".ome.zarr"
LOCK = "strokes.lock"  # in the folder, beside the Zarr files


class StrokeStore:
    """Where the strokes of a volume are kept; one process writes it at a time.

    Parameters
    ----------
    path : path
        Ends in ``.ome.zarr``. Made if it does not exist; else it is gone on with.
    volume : Volume
        Whose planes are painted on.
    classes : sequence of LabelClass
        Of a new one.
    on_error : callable
        Called with a TomoclassError if a plane cannot be written; it is tried again with the next change.

    Raises
    ------
    UsageError
        If the name has another ending.
    ModelError
        If it holds the strokes of a volume of another shape.
    DataError
        If something else is there.
    ResourceError
        If another process writes it, or it cannot be written.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        volume: Volume,
        classes: Sequence[LabelClass],
        *,
        on_error: Callable[[TomoclassError], None],
    ) -> None:
        self.path = fspath(path)
        self._on_error = on_error
        if not self.path.endswith(SUFFIX):
            raise UsageError(f"strokes are kept in a folder whose name ends in {SUFFIX}", where=path)
        folder = Path(path)
        self._held = ExitStack()
        self.found: Annotation | None = None
        self._named: tuple[LabelClass, ...] = tuple(classes)
        self._name, self._voxel_size = folder.name, volume.voxel_size
        if not folder.exists():
            with atomic(path, inputs=volume.inputs(), folder=True) as temporary:
                ZarrStore.create(temporary, name=folder.name, shape=volume.shape, dtype=np.dtype(np.uint8),
                                 voxel_size=volume.voxel_size, classes=classes)  # fmt: skip
        elif not folder.is_dir():
            raise DataError("is not a folder of strokes", where=path, do="choose another name")
        else:
            self.found, self._named = _read(path, volume)
        self._held.enter_context(locked(folder / LOCK, what=self.path))
        self._store = ZarrStore.open(folder)
        self._store.remove_torn_files()
        self._wanted: dict[int, Strokes] = {}
        self._closed = False
        self._failed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="strokes to disk", daemon=True)
        self._thread.start()

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """As the file names them."""
        return self._named

    def save(self, strokes: Strokes, planes: Sequence[int]) -> None:
        """Write these planes soon, and the classes if they have changed."""
        with self._change:
            self._wanted.update(dict.fromkeys(planes, strokes))
            if strokes.classes != self._named:
                self._wanted.setdefault(-1, strokes)
            self._change.notify_all()

    def flush(self, *, timeout: float = 60.0) -> bool:
        """Wait until all is on disk; False if that was not possible."""
        with self._change:
            return self._change.wait_for(lambda: not self._wanted or self._failed, timeout) and not self._failed

    def close(self) -> None:
        """Write what is left and let another process take over."""
        self.flush()
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()
        self._held.close()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or (self._wanted and not self._failed))
                if self._closed:
                    return
                z, strokes = next(iter(self._wanted.items()))
                version = strokes.plane_version(z)
                classes = strokes.classes
            try:
                if z < 0:
                    self._store.describe(self._name, self._voxel_size, classes)
                    self._named = classes
                else:
                    self._store.write(z, strokes.labels(z)[None])
            except OSError as error:
                self._fail(write_error(error, self.path))
                continue
            with self._change:
                done = classes == strokes.classes if z < 0 else version == strokes.plane_version(z)
                if done:
                    self._wanted.pop(z, None)
                self._change.notify_all()

    def _fail(self, error: TomoclassError) -> None:
        """Say it once; try again in a while."""
        self._on_error(error)
        with self._change:
            self._failed = True
            self._change.notify_all()
            self._change.wait_for(lambda: self._closed, RETRY)
            self._failed = False


RETRY = 2.0  # seconds until a full or absent disk is tried again


def _read(path: str | PathLike[str], volume: Volume) -> tuple[Annotation, tuple[LabelClass, ...]]:
    """The strokes of an earlier session, and its classes, painted or not."""
    with open_volume(path, sparse=True) as labels:
        if labels.shape != volume.shape:
            raise ModelError(f"holds strokes on {labels.shape}, and {volume.path} is {volume.shape}", where=path,
                             do="choose another place for the strokes of this volume")  # fmt: skip
        if not labels.classes:
            raise DataError("is a Zarr store without classes: no strokes", where=path, do="choose another name")
        found = load_annotation(labels, volume_shape=volume.shape, partial=True)
        return found, labels.classes


def write_strokes(strokes: Strokes, path: str | PathLike[str], *, volume: Volume, overwrite: bool = False) -> None:
    """Write strokes as a dense label image of their volume, in any format that :func:`create_volume` writes.

    Raises
    ------
    UsageError, DataError, ResourceError
        See :func:`create_volume`.
    """
    with create_volume(
        path, shape=volume.shape, dtype="uint8", voxel_size=volume.voxel_size, classes=strokes.classes,
        overwrite=overwrite, inputs=volume.inputs(),
    ) as writer:  # fmt: skip
        for z in range(volume.shape[0]):
            writer.write_plane(z, strokes.labels(z))
