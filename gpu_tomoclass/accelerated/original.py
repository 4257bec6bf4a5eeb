"""``original``: a copy of the slab."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_tomoclass.accelerated.source import BlockRequest, DeviceSource


def original(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.reference.source.original` in every bit."""
    for request in requests:
        source.device.copy(source.image, request.out[0])
