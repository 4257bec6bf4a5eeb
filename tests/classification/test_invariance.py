"""Labels do not depend on slab size, number of threads, the device's memory, or where the run was interrupted."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import StoppedError
from gpu_tomoclass.volumes.opening import open_volume


@pytest.fixture(scope="module")
def reference(sample_path, sample_model):
    """Plane by plane on one thread."""
    return classified(sample_path, sample_model, device=NumpyDevice(threads=1))


def classified(sample_path, sample_model, *, device, slab_planes=None, stops=()):
    """Labels and probabilities after interruptions once so many planes are done."""
    with tempfile.TemporaryDirectory() as folder, open_volume(sample_path) as volume:
        output = Path(folder) / "labels.tif"
        for limit in (*stops, None):
            done = [0]

            def progress(n, total, done=done):
                done[0] = n

            try:
                classify(
                    volume,
                    sample_model,
                    output=output,
                    device=device,
                    probabilities="float32",
                    slab_planes=slab_planes,
                    should_stop=lambda limit=limit, done=done: limit is not None and done[0] >= limit,
                    progress=progress,
                )
                break
            except StoppedError:
                continue
        with open_volume(output) as labels, open_volume(output.with_stem("labels_probabilities"), channel=0) as first:
            return np.stack([p for _, p in labels.planes()]), np.stack([p for _, p in first.planes()])


@settings(max_examples=25, deadline=None)
@given(
    slab_planes=st.none() | st.integers(1, 14),
    threads=st.integers(1, 4),
    stops=st.lists(st.integers(0, 11), max_size=3),
    native=st.booleans(),
)
def test_labels_do_not_depend_on_how_they_are_run(
    sample_path, sample_model, reference, slab_planes, threads, stops, native
):
    device = NativeDevice(threads=threads) if native else NumpyDevice(threads=threads)
    labels, first = classified(sample_path, sample_model, device=device, slab_planes=slab_planes, stops=stops)
    np.testing.assert_array_equal(labels, reference[0])
    # The native forest adds the votes of a tree's rows in another order: the last bit may differ between devices.
    np.testing.assert_allclose(first, reference[1], atol=6.1e-8 if native else 0, rtol=0)
