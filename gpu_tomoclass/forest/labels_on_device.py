"""Labels from probabilities by ``kernels/labels.cu``."""

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
