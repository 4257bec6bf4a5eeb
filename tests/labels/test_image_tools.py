"""cuCIM against its twins on the CPU, by a stand-in with the parameters of cuCIM 26.10, on a simulated GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cucim_stand_in
import numpy as np
import pytest
from late_gpu import late_gpu
from scipy import ndimage

from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.labels import clean, evaluate_volumes, measure_particles
from gpu_tomoclass.labels.image_tools import CpuTools, GpuTools, image_tools, in_order
from gpu_tomoclass.volumes import ArrayVolume, open_volume


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    """A simulated GPU with cuCIM."""
    with late_gpu("now") as (device, _):
        for name, module in cucim_stand_in.modules(device).items():
            monkeypatch.setitem(sys.modules, name, module)
        yield device


def blobs() -> np.ndarray:
    """Three classes with objects that touch by corners, and some of one voxel."""
    random = np.random.default_rng(6)
    smooth = ndimage.gaussian_filter(random.normal(size=(9, 24, 30)), 1.2)
    return np.digitize(smooth, np.quantile(smooth, [0.6, 0.85])).astype(np.uint8)


def test_components_and_distances_are_the_cpus(gpu: Device) -> None:
    values = blobs().astype(np.uint16)
    numbers, count = GpuTools(gpu).components(values)
    expected, n = CpuTools().components(values)
    assert count == n
    np.testing.assert_array_equal(numbers, in_order(expected, n))
    first = np.unique(numbers, return_index=True)[1]
    assert (np.diff(first[1:]) > 0).all()
    inside = values[4] > 0
    for sampling in (None, (0.5, 2.0)):
        np.testing.assert_array_equal(
            GpuTools(gpu).distances(inside, sampling=sampling), ndimage.distance_transform_edt(inside, sampling)
        )
    assert isinstance(image_tools(gpu), GpuTools)
    assert isinstance(image_tools("native"), CpuTools)


def test_clean_measure_and_evaluate_give_the_same(gpu: Device, tmp_path: Path) -> None:
    volume = ArrayVolume(blobs(), voxel_size=(2.0, 0.5, 1.0))
    truth = ArrayVolume(np.roll(blobs(), 1, axis=2), voxel_size=(2.0, 0.5, 1.0))
    results = []
    for device, name in ((None, "cpu.tif"), (gpu, "gpu.tif")):
        cleaned = clean(volume, tmp_path / name, min_size=5, fill=True, slab_planes=4, device=device)
        with open_volume(tmp_path / name) as found:
            planes = np.stack([plane for _, plane in found.planes()])
        particles = measure_particles(volume, value=1, slab_planes=4, device=device)
        split = measure_particles(volume, value=0, split=True, device=device)
        scores = evaluate_volumes(volume, truth, halo=(2, 0), device=device).to_dict()
        results.append((cleaned, planes, particles, split, scores))
    (cleaned, planes, particles, split, scores), (cleaned_too, planes_too, particles_too, split_too, scores_too) = (
        results
    )
    assert cleaned == cleaned_too
    assert cleaned.voxels > 0
    np.testing.assert_array_equal(planes, planes_too)
    assert len(split) > 1
    for ours, theirs in ((particles, particles_too), (split, split_too)):
        for name, values in vars(ours).items():
            np.testing.assert_array_equal(values, getattr(theirs, name))
    assert scores == scores_too


def test_what_is_missing_or_fails_is_said(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory allocating 5 bytes")

    monkeypatch.setattr(sys.modules["cucim.skimage.measure"], "label", fails)
    with pytest.raises(ResourceError, match=r"cuCIM failed on an image of \(1, 2, 2\): out of memory allocating 5"):
        GpuTools(gpu).components(np.zeros((1, 2, 2), np.uint16))
    monkeypatch.setitem(sys.modules, "cucim", None)
    for name in ("cucim.skimage.measure", "cucim.core.operations.morphology"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ResourceError, match=r"cuCIM .*; pip install 'gpu_tomoclass\[rapids12\]' or \[rapids13\], or"):
        GpuTools(gpu)
