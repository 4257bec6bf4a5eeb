"""Labels of the largest probability."""

from __future__ import annotations

import numpy as np
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.forest.labels_on_device import device_labels
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
    )
]
