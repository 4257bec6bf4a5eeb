"""Sub-stacks: planes taken out of a volume at regular distances, for painting on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_tomoclass.errors import UsageError


@dataclass(frozen=True)
class SubStack:
    """Planes of a volume that a smaller stack holds.

    Attributes
    ----------
    planes : numpy.ndarray
        (n,) int64 planes of the volume.
    open_end : bool
        The stack may end earlier (only its first plane was given).
    every, start : int or None
        As the user gave them.
    """

    planes: np.ndarray
    open_end: bool = False
    every: int | None = None
    start: int | None = None

    @classmethod
    def of(
        cls, nz: int, *, every: int | None = None, start: int | None = None, planes: Sequence[int] | None = None
    ) -> SubStack | None:
        """The sub-stack that the options mean, or None without any.

        ``every`` alone starts at ``every // 2``, the middle of the first step, as writing a sub-stack does.

        Raises
        ------
        UsageError
            If a plane is not in the volume of ``nz`` planes or the options contradict each other.
        """
        if planes is not None:
            if every is not None or start is not None:
                raise UsageError("planes are given together with every or start; give one of them")
            chosen = np.asarray(planes, dtype=np.int64)
            if chosen.ndim != 1 or chosen.size == 0 or np.unique(chosen).size != chosen.size:
                raise UsageError(f"planes must be different plane numbers, not {planes}")
            if chosen.min() < 0 or chosen.max() >= nz:
                raise UsageError(f"planes {chosen.min()} to {chosen.max()} are not all in a volume of {nz} planes")
            return cls(chosen)
        if every is None and start is None:
            return None
        if every is not None and every < 1:
            raise UsageError(f"every {every}th plane makes no sense; every must be 1 or more")
        first = start if start is not None else min((every or 1) // 2, nz - 1)
        if not 0 <= first < nz:
            raise UsageError(f"start is plane {first}, and the volume has planes 0 to {nz - 1}")
        return cls(np.arange(first, nz, every or 1), open_end=every is None, every=every, start=start)
