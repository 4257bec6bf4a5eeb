"""The choice of a device, by name or the first that works."""

from __future__ import annotations

from collections.abc import Callable

from gpu_tomoclass.device.base import Device, NumpyDevice
from gpu_tomoclass.errors import ResourceError, UsageError

DEVICES = ("cuda", "native", "numpy")


def choose_device(name: str | Device = "auto", gpu_id: int = 0, *, threads: int | None = None) -> Device:
    """The device to compute on.

    Parameters
    ----------
    name : {"auto", "cuda", "native", "numpy"} or Device
        ``auto`` takes the first of the others that works; ``notes`` of the device say why those before it do not. A
        device comes back as it is.
    gpu_id : int
        Which GPU, for ``cuda`` and ``auto``.
    threads : int, optional
        CPU threads, for ``native`` and ``numpy``; default one per usable core.

    Raises
    ------
    ResourceError
        If the named device does not work here.
    UsageError
        If the name is unknown, or there is no GPU of this number.
    """
    if isinstance(name, Device):
        return name
    makers = _makers(gpu_id, threads)
    if name in makers:
        try:
            return makers[name]()
        except ResourceError as error:
            raise ResourceError(f"the {name} device does not work: {error.what}", do=error.do) from error
    if name != "auto":
        raise UsageError(f"device {name!r} is unknown", do=f"choose one of auto, {', '.join(DEVICES)}")
    notes: list[str] = []
    for candidate in DEVICES:
        try:
            device = makers[candidate]()
        except ResourceError as error:
            notes.append(f"the {candidate} device does not work: {error.what}")
        else:
            device.notes = (*notes, *device.notes)
            return device
    raise AssertionError("the numpy device always works")


def _makers(gpu_id: int, threads: int | None) -> dict[str, Callable[[], Device]]:
    def cuda() -> Device:
        from gpu_tomoclass.device.cuda import CudaDevice

        return CudaDevice(gpu_id)

    def native() -> Device:
        from gpu_tomoclass.device.native import NativeDevice

        return NativeDevice(threads=threads)

    def numpy() -> Device:
        return NumpyDevice(threads=threads)

    return {"cuda": cuda, "native": native, "numpy": numpy}
