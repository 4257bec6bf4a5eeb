"""Large folders removed beside other work: an old store of a hundred thousand files takes minutes on a network disk.

They have hidden names by then, so a program that is killed meanwhile leaves what the next run removes.
"""

from __future__ import annotations

import threading
from pathlib import Path

from gpu_tomoclass.outputs.hidden_names import discard

_threads: list[threading.Thread] = []
_lock = threading.Lock()


def discard_later(path: Path) -> None:
    """Begin to remove a hidden folder; Python waits for it before it ends, see also :func:`wait_for_removals`."""
    thread = threading.Thread(target=discard, args=(path,), name=f"remove {path.name}")
    try:
        thread.start()
    except RuntimeError:  # the interpreter is about to end, or there are too many threads
        discard(path)
        return
    with _lock:
        _threads[:] = [*(t for t in _threads if t.is_alive()), thread]


def wait_for_removals() -> None:
    """Wait until all that :func:`discard_later` was given is gone."""
    with _lock:
        threads = tuple(_threads)
    for thread in threads:
        thread.join()
