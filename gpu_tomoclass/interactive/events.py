"""Events that a session tells those who listen: nobody needs to ask again and again."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

KINDS = (
    "strokes",  # planes: those that changed
    "classes",
    "work",  # what the worker does now, and on which plane; "" when it rests
    "trained",  # version, oob_error, counts, seconds by step, notes
    "overlay",  # z, version, seconds by step; since_stroke: seconds since the last stroke ended
    "score",  # dice by class, mean_dice, strokes; or a reason why there is none
    "suggestions",
    "fit",  # verdict, text: whether a model that was opened fits the volume
    "classify",  # done, total; path when finished; error
    "saved",  # what, path
    "trouble",  # message
)


@dataclass(frozen=True)
class Event:
    """Something that has happened: one of ``KINDS``, and what is to know about it."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


class Events:
    """Those who listen. Listeners are called by the thread in which something happens, and must return at once."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._troubles: list[Event] = []
        self._lock = threading.Lock()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` with every event from now on, and what trouble there was; gives a function that ends it."""
        with self._lock:
            self._listeners.append(listener)
            troubles = list(self._troubles)
        for event in troubles:
            listener(event)

        def leave() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return leave

    def tell(self, kind: str, **data: Any) -> None:
        """Call all listeners."""
        assert kind in KINDS, kind
        event = Event(kind, data)
        with self._lock:
            listeners = list(self._listeners)
            if kind == "trouble":
                self._troubles = [*self._troubles[-19:], event]
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # of a listener that does not belong to us: learning goes on
                traceback.print_exc()
