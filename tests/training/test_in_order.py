"""Work on planes keeps order, stays bounded, and passes the first failure on."""

import threading

import pytest

from gpu_tomoclass.device.cores import worker_count
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.training.in_order import map_in_order


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_is_kept_whatever_finishes_first(workers):
    release = threading.Event()

    def work(i):
        if i == 0 and workers > 1:
            assert release.wait(1200)  # the first item finishes last
        if i == 1:
            release.set()
        return i * i

    assert list(map_in_order(work, range(20), workers=workers)) == [i * i for i in range(20)]


def test_no_more_than_workers_plus_one_items_are_in_flight():
    drawn = []
    finished = []

    def items():
        for i in range(30):
            drawn.append(i)
            assert len(drawn) - len(finished) <= 3 + 1
            yield i

    for result in map_in_order(lambda i: i, items(), workers=3):
        finished.append(result)
    assert finished == list(range(30))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_failure_is_raised_and_ends_the_work(workers):
    started = []

    def work(i):
        started.append(i)
        if i == 4:
            raise ValueError("plane 4")
        return i

    with pytest.raises(ValueError, match="plane 4"):
        list(map_in_order(work, range(1000), workers=workers))
    assert len(started) < 20


def test_worker_count():
    assert worker_count(3) == 3
    assert worker_count(None) >= 1
    with pytest.raises(UsageError):
        worker_count(0)
