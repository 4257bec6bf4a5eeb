"""Work on the whole volume, which takes minutes: in a thread of its own, one at a time; events tell of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from gpu_tomoclass.classification import classify
from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import StoppedError, TomoclassError, UsageError
from gpu_tomoclass.interactive.events import Events
from gpu_tomoclass.model import Model
from gpu_tomoclass.training import adapt
from gpu_tomoclass.volumes import Volume


class VolumeWork:
    """Classifies all planes, or adapts a model, beside a session.

    Parameters
    ----------
    events : Events
        Told how far it is, what came out, and what went wrong.
    device : Device
    nan : {"error", "fill", "mask"}
    """

    def __init__(self, events: Events, *, device: Device, nan: str) -> None:
        self._events, self._device, self._nan = events, device, nan
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def runs(self) -> bool:
        """Tell whether something is being done."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Stop a classification after the planes in work."""
        self._stop.set()

    def wait(self) -> None:
        """Wait for the end."""
        if self._thread is not None:
            self._thread.join()

    def classify(
        self,
        volume: Callable[[], Volume],
        model: Callable[[], Model],
        output: str | PathLike[str],
        options: Mapping[str, Any],
        *,
        n_planes: int,
    ) -> None:
        """Begin to classify ``n_planes``; volume and model are asked for in the thread, since both may take time.

        Raises
        ------
        UsageError
            If something is being done.
        """

        def work() -> None:
            self._events.tell("classify", done=0, total=n_planes)
            try:
                result = classify(
                    volume(), model(), output=output, device=self._device, nan=self._nan,
                    should_stop=self._stop.is_set,
                    progress=lambda done, total: self._events.tell("classify", done=done, total=total), **options,
                )  # fmt: skip
            except StoppedError:
                stopped = "stopped; what is done is kept for the next time"
                self._events.tell("classify", done=0, total=n_planes, error=stopped)
            except TomoclassError as error:
                self._events.tell("classify", done=0, total=n_planes, error=str(error))
            except Exception as error:
                bug = f"this is a bug, please report it: {error!r}"
                self._events.tell("classify", done=0, total=n_planes, error=bug)
            else:
                self._events.tell("classify", done=n_planes, total=n_planes, path=result.path,
                                  counts=dict(result.counts), seconds=result.seconds)  # fmt: skip

        self._begin(work, "classify all")

    def adapt(self, volume: Callable[[], Volume], model: Model, *, use: Callable[[Model], None]) -> None:
        """Begin to make a model fit the volume; ``use`` is called with it if that has changed it.

        Raises
        ------
        UsageError
            If something is being done.
        """

        def work() -> None:
            try:
                found = adapt(model, volume(), device=self._device, force=True)
                if found.adapted:
                    use(found.model)
            except TomoclassError as error:
                self._events.tell("trouble", message=str(error))
                return
            after = found.after if found.adapted and found.after is not None else found.before
            self._events.tell("fit", verdict=after.verdict, drift=after.drift, margin=after.mean_margin,
                              trained_margin=after.trained_margin, reason=found.reason)  # fmt: skip

        self._begin(work, "adapt")

    def _begin(self, work: Callable[[], None], name: str) -> None:
        if self.runs:
            raise UsageError("the volume is being worked on", do="wait for the end, or stop it")
        self._stop.clear()
        self._thread = threading.Thread(target=work, name=name)
        self._thread.start()
