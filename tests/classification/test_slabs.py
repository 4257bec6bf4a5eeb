"""Which planes are computed at once: runs without a gap, halves after memory ran out, never more than memory holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_tomoclass.classification import slabs
from gpu_tomoclass.classification.slabs import MAX_SLAB, MEMORY_SHARE, SlabMemory, SlabSize, gpu_planes
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features.bank import FeatureBank

FLAT = FeatureBank.create(["mean"], sigma_max=2).blocks
ACROSS = FeatureBank.create(["mean", "mean_3d"], sigma_max=2).blocks
memories = st.builds(
    SlabMemory, shared=st.integers(0, 10**6), fixed=st.integers(0, 10**6), per_plane=st.integers(1, 10**6)
)
amounts = st.integers(1, 10**9)


class Gpu(NumpyDevice):
    has_own_memory = True

    def __init__(self, free):
        super().__init__(threads=1)
        self.free = free

    def free_memory(self):
        return self.free


@given(done=st.lists(st.booleans(), max_size=60), sizes=st.lists(st.integers(1, 9), min_size=1))
def test_runs_are_the_missing_planes_in_order_and_never_reach_over_one_that_is_done(done, sizes):
    todo = np.flatnonzero(~np.array(done, dtype=np.bool_))
    asked = []

    def most(n_left):
        asked.append(n_left)
        return sizes[len(asked) % len(sizes)]

    found = list(slabs.runs(todo, most=most))
    assert [z for start, stop in found for z in range(start, stop)] == todo.tolist()
    assert all(1 <= stop - start <= sizes[(i + 1) % len(sizes)] for i, (start, stop) in enumerate(found))
    assert asked == [todo.size - sum(stop - start for start, stop in found[:i]) for i in range(len(found))]


@pytest.mark.parametrize(
    ("todo", "most", "runs"),
    [
        ([0, 1, 2, 3], 4, [(0, 4)]),
        ([0, 1, 2, 3, 4], 2, [(0, 2), (2, 4), (4, 5)]),
        ([0, 1, 4, 5, 6, 9], 4, [(0, 2), (4, 7), (9, 10)]),
        ([2, 3, 5], 2, [(2, 4), (5, 6)]),
        ([7], 8, [(7, 8)]),
    ],
)
def test_runs_are_as_long_as_they_may_be(todo, most, runs):
    assert list(slabs.runs(np.array(todo), most=lambda n_left: most)) == runs


@given(
    memory=memories, free=st.integers(0, 10**9), n_threads=st.integers(1, 4), limit=st.none() | st.integers(1, 10**9)
)
def test_a_gpu_gets_the_largest_slab_that_fits(memory, free, n_threads, limit):
    n = gpu_planes(memory, free=free, n_threads=n_threads, limit=limit)
    room = memory.shared + MEMORY_SHARE * (free - memory.shared) if limit is None else min(free, limit)
    assert 1 <= n <= MAX_SLAB
    assert n == 1 or memory.bytes(n, n_threads=n_threads) <= room
    if n < MAX_SLAB:
        assert memory.bytes(n + 1, n_threads=n_threads) > room - n_threads  # whole bytes for each thread


@given(memory=memories, free=st.integers(0, 10**8), refused=st.lists(st.integers(1, 40), max_size=12))
def test_a_slab_that_was_too_large_is_never_tried_again(memory, free, refused):
    device = Gpu(free)
    size = SlabSize(device, FLAT, n_threads=2)
    assert size.planes() == 1  # nothing is measured yet
    before = size.planes(memory)
    for n in refused:
        tried = min(n, before)
        changed = size.take_less(tried, n_threads=1)
        device.free *= 2  # what others give back does not make slabs larger again
        now = size.planes(memory)
        assert now <= before
        if tried == 1:
            assert changed is None
            assert now == before
        else:
            assert changed == f"slabs are halved to {(tried + 1) // 2} planes"
            assert now == min(before, (tried + 1) // 2) < max(2, tried)
        before = now


def test_threads_leave_once_slabs_cannot_be_smaller():
    size = SlabSize(NumpyDevice(threads=3), FLAT, n_threads=3)
    assert size.take_less(1, n_threads=3) == "going on with 2 threads"
    assert size.take_less(1, n_threads=3) == "going on with 2 threads"  # another of the three, at the same time
    assert size.n_threads == 2
    assert size.take_less(1, n_threads=2) == "going on with 1 thread"
    assert size.take_less(1, n_threads=1) is None


def test_a_size_of_the_user_stays():
    size = SlabSize(Gpu(10), FLAT, n_threads=2, fixed=5, most=3)
    assert size.planes(SlabMemory(0, 0, 100)) == size.planes() == 5
    assert size.take_less(5, n_threads=2) == "going on with 1 thread"
    assert size.take_less(5, n_threads=1) is None
    assert size.planes() == 5


def test_a_cpu_takes_slabs_only_across_planes():
    """What the features of a slab take is at most CPU_SLAB_BYTES."""
    pixels = 2000 * 2000
    assert slabs.cpu_planes(FLAT, pixels) == 1
    n_channels = sum(len(block.channels) for block in ACROSS)
    n = slabs.cpu_planes(ACROSS, pixels)
    assert n * n_channels * pixels * 4 <= slabs.CPU_SLAB_BYTES < (n + 1) * n_channels * pixels * 4
    assert slabs.cpu_planes(ACROSS, 10) == slabs.CPU_SLAB
    assert slabs.cpu_planes(ACROSS, 10**10) == 1
    size = SlabSize(NumpyDevice(), ACROSS, plane_pixels=pixels, most=2)
    assert size.planes() == min(n, 2)
    size.take_less(2)
    assert size.planes() == 1


@given(base=st.integers(0, 1000), thread=st.integers(1, 100), plane=st.integers(1, 100), limit=st.integers(1, 3000))
def test_limits_hold(base, thread, plane, limit):
    def needed(n_threads, n_planes):
        return base + n_threads * (thread + n_planes * plane)

    device = NumpyDevice(threads=6)
    if needed(1, 1) > limit:
        with pytest.raises(ResourceError, match="raise --memory-limit"):
            slabs.threads_within(limit, needed, device=device, blocks=FLAT)
    else:
        n = slabs.threads_within(limit, needed, device=device, blocks=FLAT)
        assert needed(n, 1) <= limit
        assert n == 6 or needed(n + 1, 1) > limit
    n = slabs.planes_within(limit, needed, most=8)
    assert n == 1 or needed(1, n) <= limit
    assert n == 8 or needed(1, n + 1) > limit


@given(
    n_left=st.integers(1, 500),
    preferred=st.lists(st.integers(1, 50), max_size=4),
    n_slabs=st.integers(1, 16),
)
def test_the_last_planes_are_shared_by_all_workers(n_left, preferred, n_slabs):
    n = slabs.planes_to_share(n_left, preferred=preferred, n_slabs=n_slabs)
    assert 1 <= n <= min(preferred, default=1)
    assert n == 1 or n * n_slabs <= n_left
    assert n == min(preferred, default=1) or (n + 1) * n_slabs > n_left
    assert slabs.planes_to_share(n_left, preferred=preferred, n_slabs=n_slabs, fixed=7) == 7
