"""Messages that tifffile logs while a file is opened or read: its only report of most kinds of damage."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator

_LOGGER = logging.getLogger("tifffile")
_SWITCHING = threading.RLock()  # the level of a logger is shared by all threads


class LogRecords(logging.Handler):
    """Messages of the thread that made it, as ``"tifffile: invalid page offset 4711"``."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            text = f"tifffile: {plain(record.getMessage())}"
            (self.errors if record.levelno >= logging.ERROR else self.warnings).append(text)


def plain(message: str) -> str:
    """``"<tifffile.TiffFile 'a.tif'> raised ValueError('no')"`` as ``"no"``: what happened, without Python objects."""
    inner = re.search(r"raised \w+\(['\"](.*)", message)
    text = inner[1] if inner else message
    return re.sub(r"^(<[^>]*>\s*)+", "", text).rstrip("'\")")


@contextlib.contextmanager
def tifffile_log() -> Iterator[LogRecords]:
    """Collect tifffile's warnings and errors in the block, even where a program has set its logger to be quiet.

    The records are not passed on to other handlers: they become errors and notes.
    """
    records = LogRecords()
    with _SWITCHING:
        level, propagate = _LOGGER.level, _LOGGER.propagate
        if _LOGGER.getEffectiveLevel() > logging.WARNING:
            _LOGGER.setLevel(logging.WARNING)
        _LOGGER.propagate = False
        _LOGGER.addHandler(records)
        try:
            yield records
        finally:
            _LOGGER.removeHandler(records)
            _LOGGER.setLevel(level)
            _LOGGER.propagate = propagate
