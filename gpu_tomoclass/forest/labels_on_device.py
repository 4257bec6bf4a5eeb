"""Labels and bytes from probabilities by ``kernels/labels.cu`` and ``kernels/probability_bytes.cu``."""

from __future__ import annotations

from gpu_tomoclass.device import Array, Device

THREADS = 256


def device_labels(device: Device, probabilities: Array, *, values: Array, out: Array) -> None:
    """Equal to :func:`gpu_tomoclass.forest.predict.predict_classes`.

    Parameters
    ----------
    device : Device
        One that runs kernels.
    probabilities : array on the device
        (n_classes, n_pixels) float32.
    values : array on the device
        (n_classes,) uint8, the label value of each class.
    out : array on the device
        (n_pixels,) uint8.
    """
    n_classes, n_pixels = probabilities.shape
    device.launch(
        "labels.cu",
        "labels",
        grid=(-(-n_pixels // THREADS),),
        block=(THREADS,),
        args={
            "probabilities": probabilities,
            "values": values,
            "result": out,
            "n_classes": n_classes,
            "n_pixels": n_pixels,
        },
        defines={"THREADS": THREADS},
    )


def device_bytes(device: Device, probabilities: Array, *, out: Array) -> None:
    """Equal to :func:`gpu_tomoclass.forest.predict.probability_bytes`.

    Parameters
    ----------
    device : Device
        One that runs kernels.
    probabilities : array on the device
        float32 of any shape, from 0 to 1.
    out : array on the device
        uint8 of the same size.
    """
    n = int(probabilities.size)
    device.launch(
        "probability_bytes.cu",
        "probability_bytes",
        grid=(-(-n // THREADS),),
        block=(THREADS,),
        args={"probabilities": probabilities, "result": out, "n": n},
        defines={"THREADS": THREADS},
    )
