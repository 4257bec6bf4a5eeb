"""A slab on a device as the features see it that look across planes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array, Workspace
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.reference.volume_ball import BallRow
from gpu_tomoclass.features.reference.volume_source import Positions, within


class VolumeDeviceSource:
    """A slab with its halo.

    Parameters
    ----------
    image : array on the device
        (nz, ny, nx) float32: all planes of the slab.
    workspace : Workspace
    place : Place
        Where they lie in the volume, and which of them are wanted.
    """

    def __init__(self, image: Array, workspace: Workspace, place: Place) -> None:
        self.image, self.workspace, self.device = image, workspace, workspace.device
        self.first, self.depth, self.aspect = place.first, place.depth, place.aspect
        self.start, self.stop = place.start, place.stop
        self._ready: set[str] = set()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(planes that are wanted, ny, nx)."""
        return self.stop - self.start, int(self.image.shape[1]), int(self.image.shape[2])

    def within_slab(self, positions: Positions) -> Positions:
        """The same positions; ValueError if the slab lacks one of them: its halo is too small."""
        return within(positions, self.first, len(self.image)) + self.first

    def planes(self, reach: int) -> tuple[int, Array]:
        """Planes that the wanted ones see with this reach: position of the first, and the planes."""
        low, high = max(self.start - reach, 0), min(self.stop + reach, self.depth)
        indices = within(np.array([low, high - 1]), self.first, len(self.image))
        return low, self.image[int(indices[0]) : int(indices[1]) + 1]

    def scratch(self, name: str, n_planes: int) -> Array:
        """The first ``n_planes`` planes of the array of this name, which keeps its size from one sigma to the next."""
        most = max(n_planes, self.image.shape[0] + 2)  # the derivatives have a copy of the first and of the last plane
        return self.workspace.array(f"volume {name}", (most, *self.image.shape[1:]), np.float32)[:n_planes]

    def shared(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike, fill: Callable[[Array], None]) -> Array:
        """The array ``name`` of this slab: ``fill`` is called with it once."""
        array = self.workspace.array(f"shared volume {name}", shape, dtype)
        if name not in self._ready:
            fill(array)
            self._ready.add(name)
        return array

    def table(self, positions: Positions) -> Array:
        """Positions on the device as int32."""
        values = positions.astype(np.int32)
        return self.workspace.constant(("positions", values.tobytes()), lambda: values)

    def ball(self, rows: Sequence[BallRow]) -> Array:
        """Rows of a ball as :file:`volume_*.cu` take them: (n_rows, 4) int32: dz, dy, width, and the largest k such
        that 2^k voxels fit the row."""
        values = [(*row, (2 * row.width + 1).bit_length() - 1) for row in rows]
        return self.workspace.constant(("ball", tuple(rows)), lambda: np.array(values, np.int32))
