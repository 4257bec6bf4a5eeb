"""Streams, events and memory of the simulated GPU: work is done as late, or in as odd an order, as CUDA allows.

CUDA promises the order within a stream, and between streams where one waits for an event of the other; the host may
only rely on what it has waited for. Everything else is left open here, on purpose: with ``order="late"`` work runs when
a wait forces it, with ``"mixed"`` some of it earlier, of any stream. Memory that is freed is overwritten as CuPy's
pools would let it be: that of the GPU in the order of the stream that it was taken on, pinned memory by whoever asks
next.
"""

from __future__ import annotations

import ctypes
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np

ALIGNMENT = 256  # bytes, as CUDA's
CAPTURING = "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
POISON = 0xFF  # NaN, or 255


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class Stream:
    """A queue of work; ``Schedule`` says when it is done."""

    def __init__(self, schedule: Schedule, *, is_null: bool = False) -> None:
        self.schedule, self.is_null = schedule, is_null
        self.queue: deque[Callable[[], bool]] = deque()  # each says whether it is done, or must wait
        self.captured: list[Callable[[], bool]] | None = None  # of the graph that is made now

    def __enter__(self) -> Stream:
        self.schedule.of_thread().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.schedule.of_thread().pop()

    def synchronize(self) -> None:
        self.schedule.note("cuda.Stream.synchronize", self)
        self.schedule.finish(self)

    def begin_capture(self) -> None:
        """From now on work is kept for a graph, not done."""
        self.schedule.note("cuda.Stream.begin_capture", self)
        self.schedule.check()
        if self.is_null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.schedule.capture_fails:
            raise CUDARuntimeError("cudaErrorNotSupported: operation not supported")
        self.captured = []

    def end_capture(self) -> Graph:
        self.schedule.note("cuda.Stream.end_capture", self)
        assert self.captured is not None
        captured, self.captured = self.captured, None
        return Graph(self.schedule, captured)

    def wait_event(self, event: Event) -> None:
        self.schedule.note("cuda.Stream.wait_event", self, event)
        source, number = event.source, event.n_recorded

        def wait() -> bool:
            if source is not None and event.n_done < number:
                self.schedule.step(source)
            return event.n_done >= number

        self.schedule.ask(wait, self)


class Graph:
    """Work that was captured, with the pointers of that time: it does not keep their memory."""

    def __init__(self, schedule: Schedule, captured: list[Callable[[], bool]]) -> None:
        self.schedule, self.captured = schedule, captured

    def launch(self, stream: Stream) -> None:
        self.schedule.note("cuda.Graph.launch", self, stream)
        for work in self.captured:
            self.schedule.ask(work, stream)


class Event:
    """A place in a stream."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.source: Stream | None = None
        self.n_recorded = self.n_done = 0
        self.at = 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.schedule.note("cuda.Event.record", self, stream)
        self.schedule.refuse_capture(stream)  # it would be part of the graph, and tell no time
        self.source = stream or self.schedule.current()
        self.n_recorded += 1
        number = self.n_recorded

        def reach() -> bool:
            self.n_done, self.at = number, self.schedule.clock()
            return True

        self.schedule.ask(reach, self.source)

    def synchronize(self) -> None:
        self.schedule.note("cuda.Event.synchronize", self)
        self.schedule.check()
        with self.schedule.lock:
            while self.source is not None and self.n_done < self.n_recorded:
                self.schedule.step(self.source)
        self.schedule.check()


class Schedule:
    """What was asked of a GPU and is not done yet.

    Parameters
    ----------
    order : {"now", "late", "mixed"}
    seed : int
        Of the mixture.
    note : callable
        Told of every call.
    clock : callable
        Seconds, for events.
    """

    def __init__(self, order: str, seed: int, *, note: Callable[..., None], clock: Callable[[], float]) -> None:
        self.order, self.note, self.clock = order, note, clock
        self.lock = threading.RLock()
        self.null = Stream(self, is_null=True)
        self.streams: list[Stream] = [self.null]
        self.capture_fails = False
        self.error: Exception | None = None  # of work; every later call raises it, as CUDA does
        self._random = random.Random(seed)
        self._threads = threading.local()

    def new_stream(self, *, non_blocking: bool = False) -> Stream:
        self.note("cuda.Stream.__init__", None, non_blocking=non_blocking)
        if not non_blocking:
            raise AssertionError("a stream that waits for the default stream makes the threads wait for each other")
        stream = Stream(self)
        with self.lock:
            self.streams.append(stream)
        return stream

    def of_thread(self) -> list[Stream]:
        """The streams that are current, the last of them now."""
        if not hasattr(self._threads, "streams"):
            self._threads.streams = [self.null]
        streams: list[Stream] = self._threads.streams
        return streams

    def current(self) -> Stream:
        return self.of_thread()[-1]

    def ask(self, work: Callable[[], bool], stream: Stream | None = None) -> None:
        """Queue work on a stream, the current one by default."""
        self.check()
        with self.lock:
            stream = stream or self.current()
            if stream.captured is not None:
                stream.captured.append(work)
                return
            stream.queue.append(work)
            if self.order == "now":
                while stream.queue:
                    self.step(stream)
            elif self.order == "mixed":
                for _ in range(self._random.randrange(3)):
                    self.step(self._random.choice(self.streams))

    def step(self, stream: Stream) -> None:
        """Do the next of a stream's work, if there is any and it need not wait."""
        with self.lock:
            if not stream.queue:
                return
            try:
                is_done = stream.queue[0]()
            except CUDARuntimeError as error:
                self.error, is_done = error, True
            if is_done:
                stream.queue.popleft()

    def refuse_capture(self, stream: Stream | None = None) -> None:
        """For what must not be asked while launches are captured."""
        if (stream or self.current()).captured is not None:
            raise CUDARuntimeError(CAPTURING)

    def finish(self, stream: Stream) -> None:
        self.refuse_capture(stream)
        self.check()
        with self.lock:
            while stream.queue:
                self.step(stream)
        self.check()

    def finish_all(self) -> None:
        for stream in tuple(self.streams):
            self.finish(stream)

    def check(self) -> None:
        if self.error is not None:
            raise self.error


class Memory:
    """Device memory and pinned memory of a simulated GPU."""

    def __init__(self, schedule: Schedule, *, limit: int | None) -> None:
        self.schedule, self.limit = schedule, limit
        self.n_bytes = self.n_pinned = 0
        self._pinned: list[np.ndarray] = []
        self._free: dict[int, list[np.ndarray]] = {}

    def device(self, n_bytes: int) -> tuple[np.ndarray, np.ndarray]:
        """Bytes of the GPU, and an array whose end gives them back."""
        with self.schedule.lock:
            if self.limit is not None and self.n_bytes + n_bytes > self.limit:
                raise OutOfMemoryError(f"Out of memory allocating {n_bytes} bytes")
            self.n_bytes += n_bytes
        raw = _aligned(n_bytes)
        stream = self.schedule.current()
        owner = raw.view()

        def give_back() -> None:
            with self.schedule.lock:
                self.n_bytes -= n_bytes
                stream.queue.append(lambda: _poison(raw))  # whoever has it next, in the order of this stream
                if self.schedule.order == "now":
                    self.schedule.step(stream)

        weakref.finalize(owner, give_back).atexit = False
        return raw, owner

    def pinned(self, n_bytes: int) -> ctypes.Array[ctypes.c_ubyte]:
        """Page-locked bytes, of a pool that knows nothing of streams."""
        size = 1 << (max(512, n_bytes) - 1).bit_length()
        with self.schedule.lock:
            free = self._free.setdefault(size, [])
            if free:
                raw = free.pop()
            else:
                raw = _aligned(size)
                self._pinned.append(raw)
            self.n_pinned += size
        _poison(raw)
        # Not an array: views of arrays forget those that they went through.
        owner = (ctypes.c_ubyte * size).from_buffer(raw)

        def give_back() -> None:
            with self.schedule.lock:
                self.n_pinned -= size
                free.append(raw)

        weakref.finalize(owner, give_back).atexit = False
        return owner

    def as_pinned(self, values: np.ndarray) -> np.ndarray | None:
        """The same values without keeping the memory from its end; None if they are not in pinned memory."""
        with self.schedule.lock:
            found = [raw for raw in self._pinned if within(values, raw)]
        return same(values, found[0]) if found else None


def within(array: np.ndarray, raw: np.ndarray) -> bool:
    return 0 <= array.ctypes.data - raw.ctypes.data <= raw.nbytes - array.nbytes


def same(array: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """A view of the bytes that has the shape of an array among them."""
    offset = array.ctypes.data - raw.ctypes.data
    return np.ndarray(array.shape, array.dtype, buffer=raw, offset=offset, strides=array.strides)


def _poison(raw: np.ndarray) -> bool:
    raw.fill(POISON)
    return True


def _aligned(n_bytes: int) -> np.ndarray:
    memory = np.empty(n_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    raw = memory[start : start + n_bytes]
    _poison(raw)
    return raw
