"""Work that takes time, done one after the other in a thread of its own; results come back to the viewer's thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Signal

from gpu_tomoclass import errors


class Hand(QObject):
    """Works for a window, which never waits.

    Attributes
    ----------
    told : Signal
        Whatever :meth:`tell` was given, from any thread, arrives in the thread of the window.
    failed : Signal
        A message of what could not be done.
    """

    told = Signal(object)
    failed = Signal(str)
    _done = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hand")
        self._done.connect(lambda then, result: then(result))

    def do(
        self, work: Callable[[], Any], then: Callable[[Any], None] | None = None,
        instead: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """Work after all that was asked for before; then, or if it fails instead, something in the window's thread."""

        def run() -> None:
            try:
                result = work()
            except errors.TomoclassError as error:
                self.failed.emit(str(error))
            except Exception as error:
                traceback.print_exc()
                self.failed.emit(f"this is a bug, please report it: {error!r}")
            else:
                if then is not None:
                    self._done.emit(then, result)
                return
            if instead is not None:
                self._done.emit(lambda _: instead(), None)

        self._thread.submit(run)

    def tell(self, what: Any) -> None:
        """Send something to the window's thread, which gets it as ``told``."""
        self.told.emit(what)

    def end(self) -> None:
        """Finish what was asked for; no more is taken."""
        self._thread.shutdown(wait=False)
