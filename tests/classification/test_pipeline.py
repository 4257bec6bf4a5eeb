"""Three stages at once: nothing is lost, nothing hangs, failures come through as they are."""

import threading
import traceback

import pytest

from gpu_tomoclass.classification.pipeline import ITEMS_AHEAD, Pipeline

TIMEOUT = 10  # seconds until a hang counts as one


def finish(pipeline):
    """Run in a thread, so that a hang is a failure and not a stuck test."""
    caught = []

    def run():
        try:
            pipeline.run()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the pipeline hangs"
    return caught[0] if caught else None


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_every_item_goes_through_once(workers, n):
    written = []
    pipeline = Pipeline(lambda: iter(range(n)), lambda i: i * i, written.append, workers=workers)
    assert finish(pipeline) is None
    assert sorted(written) == [i * i for i in range(n)]
    assert not pipeline.stopped
    assert pipeline.seconds.wall >= pipeline.seconds.write >= 0


def test_stages_overlap():
    """Item 1 is computed and item 2 read while item 0 is still being written: each waits for the others."""
    computed_1, read_2 = threading.Event(), threading.Event()

    def read():
        for i in range(3):
            if i == 2:
                read_2.set()
            yield i

    def compute(i):
        if i == 1:
            computed_1.set()
        return i

    def write(i):
        if i == 0:
            assert computed_1.wait(TIMEOUT)
            assert read_2.wait(TIMEOUT)

    assert finish(Pipeline(read, compute, write)) is None


@pytest.mark.parametrize("workers", [1, 3])
def test_few_items_are_in_flight(workers):
    """However slow writing is, reading does not run ahead."""
    n_read, n_written, largest = 0, 0, 0

    def read():
        nonlocal n_read, largest
        for i in range(60):
            n_read += 1
            largest = max(largest, n_read - n_written)
            yield i

    def write(i):
        nonlocal n_written
        threading.Event().wait(0.002)
        n_written += 1

    assert finish(Pipeline(read, lambda i: i, write, workers=workers)) is None
    # In the two queues, with each worker, being read, and being written.
    assert largest <= 2 * ITEMS_AHEAD + workers + 2


def fail(i):
    if i == 5:
        raise ValueError("item 5 is bad")
    return i


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_a_failure_in_any_stage_is_raised_with_its_traceback(stage, workers):
    def read():
        for i in range(100):
            yield fail(i) if stage == "read" else i

    pipeline = Pipeline(
        read, fail if stage == "compute" else lambda i: i, fail if stage == "write" else lambda i: None, workers=workers
    )
    error = finish(pipeline)
    assert isinstance(error, ValueError)
    assert "fail" in [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert threading.active_count() < 50


def test_an_interrupt_of_the_writer_ends_all():
    def write(i):
        raise KeyboardInterrupt

    assert isinstance(finish(Pipeline(lambda: iter(range(100)), lambda i: i, write, workers=2)), KeyboardInterrupt)


def test_stopping_finishes_what_is_in_flight():
    read, written = [], []
    pipeline = Pipeline(
        lambda: (read.append(i) or i for i in range(1000)),
        lambda i: i,
        written.append,
        workers=2,
        should_stop=lambda: len(written) >= 3,
    )
    assert finish(pipeline) is None
    assert pipeline.stopped
    assert sorted(written) == read  # nothing that was read is lost
    assert 3 <= len(written) < 20
