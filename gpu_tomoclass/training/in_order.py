"""Plane-wise work on a few threads, in order, with a bounded number of planes in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


Result = TypeVar("Result")


def map_in_order(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """``work(item)`` for each item, results in the order of the items.

    At most ``workers + 1`` items are in flight, so memory does not grow with their number; ``items`` is iterated in
    the caller's thread (a volume is read by one thread only). The first exception ends the iteration and is raised.
    """
    if workers == 1:
        for item in items:
            yield work(item)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="plane") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
