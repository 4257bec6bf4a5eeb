"""Labels of the largest probability, and probabilities as bytes."""

from __future__ import annotations

import numpy as np
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.forest.labels_on_device import device_bytes, device_labels
from gpu_tomoclass.forest.predict import predict_classes


def make(random: np.random.Generator, size: tuple[int, int]) -> Inputs:
    # Few different values, so that there are ties.
    probabilities = (random.integers(0, 4, size=size) / 4).astype(np.float32)
    return {"probabilities": probabilities, "values": random.permutation(255)[: size[0]].astype(np.uint8) + 1}


def run(device: Device, inputs: Inputs) -> np.ndarray:
    out = device.zeros(inputs["probabilities"].shape[1], np.uint8)
    probabilities, values = device.array(inputs["probabilities"]), device.array(inputs["values"].astype(np.uint8))
    device_labels(device, probabilities, values=values, out=out)
    return device.numpy(out)


def make_probabilities(random: np.random.Generator, size: tuple[int, int]) -> Inputs:
    """All that lie half-way between two bytes, as near as float32 comes, 0 and 1, and any."""
    half = (np.arange(255) + 0.5) / 255
    edges = np.concatenate([half, np.nextafter(half.astype(np.float32), np.float32(0)), [0, 1]]).astype(np.float32)
    found = random.random(size, np.float32)
    found.ravel()[: edges.size] = random.permutation(edges)[: found.size]
    return {"probabilities": found}


def run_bytes(device: Device, inputs: Inputs) -> np.ndarray:
    out = device.zeros(inputs["probabilities"].shape, np.uint8)
    device_bytes(device, device.array(inputs["probabilities"]), out=out)
    return device.numpy(out)


SMALL = ((3, 300), (2, 7), (1, 40), (19, 33))
CASES = [
    Case(
        name="labels",
        make=make,
        run=run,
        expected=lambda inputs: predict_classes(inputs["probabilities"], inputs["values"].astype(np.uint8)),
        sizes=(*SMALL, (255, 1009)),
        small_sizes=SMALL,
        tolerance=0,
        why="bytes",
    ),
    Case(
        name="probability bytes",
        make=make_probabilities,
        run=run_bytes,
        expected=lambda inputs: np.rint(inputs["probabilities"] * 255).astype(np.uint8),
        sizes=(*SMALL, (255, 1009)),
        small_sizes=SMALL,
        tolerance=0,
        why="one product, rounded once, and a whole number of it",
    ),
]
