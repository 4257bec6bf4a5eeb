"""From a layer of the viewer to a volume."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from gpu_tomoclass import Volume, open_volume
from gpu_tomoclass.errors import TomoclassError, UsageError

NM = {"nanometer": 1.0, "angstrom": 0.1, "micrometer": 1e3, "millimeter": 1e6, "meter": 1e9}


@dataclass(frozen=True)
class Source:
    """A volume that is to be marked.

    Attributes
    ----------
    name : str
    path : str or None
        Of its file.
    data : array or None
        Of a layer, if there is no file or the file holds something else.
    voxel_size : tuple of float or None
        In nm, of a layer.
    """

    name: str
    path: str | None
    data: Any = None
    voxel_size: tuple[float, ...] | None = None

    @classmethod
    def of_layer(cls, layer: Any) -> Source:
        """A layer with an image; UsageError if it is no volume."""
        data = layer.data[0] if layer.multiscale else layer.data
        if data.ndim != 3 or layer.rgb:
            raise UsageError(f"{layer.name} has {data.ndim} axes{' of colours' if layer.rgb else ''}, not z, y, x",
                             do="choose one channel")  # fmt: skip
        units = [NM[str(unit)] for unit in layer.units if str(unit) in NM]
        sizes = (abs(float(s)) * u for s, u in zip(layer.scale, units, strict=False))
        size = tuple(sizes) if len(units) == data.ndim else None
        path = layer.source.path
        return cls(layer.name, path if path and os.path.exists(path) else None, data, size)

    @classmethod
    def of_file(cls, path: str) -> Source:
        """A file that is not in the viewer."""
        return cls(os.path.basename(path.rstrip("/\\")), path)

    def open(self) -> Volume:
        """The volume: that of the file where it is the same, for its planes are read as they are stored."""
        if self.data is None:
            assert self.path is not None
            return open_volume(self.path)
        if self.path is not None:
            try:
                volume = open_volume(self.path)
            except TomoclassError:
                pass
            else:
                if volume.shape == tuple(self.data.shape) and volume.dtype == self.data.dtype:
                    return volume if volume.voxel_size else open_volume(self.path, voxel_size=self.voxel_size)
        return open_volume(self.data, voxel_size=self.voxel_size)
