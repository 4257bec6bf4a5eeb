"""Reading, computing and writing at the same time: one thread reads, some compute, the caller's and others write.

Few items are in flight, so memory does not grow with their number. A failure in any stage ends the others and is raised
with its own traceback; nothing hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
POLL = 0.1  # seconds between looks at whether another stage has failed
ITEMS_AHEAD = 1  # items read before a worker asks for them, and results that wait to be written


def n_writers(*, on_gpu: bool) -> int:
    """Threads that write files at the same time: they wait for the disk; beside a GPU they also have the processor."""
    return 4 if on_gpu else 2


@dataclass
class StageSeconds:
    """Busy time of each stage, without waiting for the others; ``compute`` and ``write`` are sums over threads."""

    read: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    wall: float = 0.0

    def add(self, other: StageSeconds) -> None:
        """Add the busy time of stages that ran elsewhere at the same time; their wall time is not added."""
        self.read += other.read
        self.compute += other.compute
        self.write += other.write


def one_after_the_other(
    read: Callable[[], Iterator[Item]],
    compute: Callable[[Item], Result],
    write: Callable[[Result], None],
    *,
    should_stop: Callable[[], bool],
    seconds: StageSeconds,
) -> None:
    """The same stages in the caller's thread, where memory holds one item only."""
    began = time.perf_counter()
    items = read()
    while not should_stop():
        started = time.perf_counter()
        item = next(items, None)
        if item is None:
            break
        has_read = time.perf_counter()
        result = compute(item)
        del item
        computed = time.perf_counter()
        write(result)
        del result
        seconds.add(StageSeconds(has_read - started, computed - has_read, time.perf_counter() - computed))
    seconds.wall = time.perf_counter() - began


class _Ended:
    """Stands in a queue behind the last item."""


class Pipeline(Generic[Item, Result]):
    """A run of all items through the three stages; :meth:`run` may be called once.

    Parameters
    ----------
    read : callable
        ``read()`` gives an iterator of items; runs in a thread of its own.
    compute : callable
        Item -> result; runs in ``workers`` threads.
    write : callable
        Takes results, in the order in which they are finished; runs in the thread that calls :meth:`run`, and with
        ``writers`` above 1 in others at the same time.
    workers, writers : int
    should_stop : callable
        Asked before each item is read; once it says True nothing more is read, and what is in flight is finished.
    """

    def __init__(
        self,
        read: Callable[[], Iterator[Item]],
        compute: Callable[[Item], Result],
        write: Callable[[Result], None],
        *,
        workers: int = 1,
        writers: int = 1,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._read, self._compute, self._write = read, compute, write
        self._workers, self._writers, self._should_stop = workers, writers, should_stop
        self._at_work = workers
        self._items: Queue[Item | _Ended] = Queue(ITEMS_AHEAD)
        self._results: Queue[Result | _Ended] = Queue(ITEMS_AHEAD)
        self._failed = threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self.seconds = StageSeconds()
        self.stopped = False

    def run(self) -> None:
        """Take all items through; raises what any stage raised first."""
        began = time.perf_counter()
        threads = [threading.Thread(target=self._guarded, args=(self._reader,), name="reader", daemon=True)]
        threads += [
            threading.Thread(target=self._guarded, args=(self._worker,), name=f"plane-{i}", daemon=True)
            for i in range(self._workers)
        ]
        threads += [
            threading.Thread(target=self._guarded, args=(self._writer,), name=f"writer-{i}", daemon=True)
            for i in range(1, self._writers)
        ]
        for thread in threads:
            thread.start()
        try:
            self._writer()
        except BaseException as error:  # also Ctrl-C: the other threads must end before the caller cleans up
            self._fail(error)
        for thread in threads:
            thread.join()
        self.seconds.wall = time.perf_counter() - began
        if self._failure is not None:
            raise self._failure

    def _reader(self) -> None:
        items = self._read()
        while not self._failed.is_set():
            if self._should_stop():
                self.stopped = True
                break
            began = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                break
            finally:
                self.seconds.read += time.perf_counter() - began
            self._put(self._items, item)
        for _ in range(self._workers):
            self._put(self._items, _Ended())

    def _worker(self) -> None:
        while not isinstance(item := self._get(self._items), _Ended):
            began = time.perf_counter()
            result = self._compute(item)
            with self._lock:
                self.seconds.compute += time.perf_counter() - began
            del item  # before waiting: a slab is large
            self._put(self._results, result)
            del result
        with self._lock:
            self._at_work -= 1
            was_last = self._at_work == 0
        if was_last:
            for _ in range(self._writers):
                self._put(self._results, _Ended())

    def _writer(self) -> None:
        while not isinstance(result := self._get(self._results), _Ended):
            began = time.perf_counter()
            self._write(result)
            del result  # before waiting: a slab is large
            with self._lock:
                self.seconds.write += time.perf_counter() - began

    def _guarded(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None and not isinstance(error, _Abandoned):
                self._failure = error
        self._failed.set()

    def _put(self, queue: Queue[Any], item: object) -> None:
        while not self._failed.is_set():
            try:
                return queue.put(item, timeout=POLL)
            except Full:
                continue
        raise _Abandoned

    def _get(self, queue: Queue[Any]) -> Any:
        while not self._failed.is_set():
            try:
                return queue.get(timeout=POLL)
            except Empty:
                continue
        raise _Abandoned


class _Abandoned(Exception):
    """Another stage has failed."""
