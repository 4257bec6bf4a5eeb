"""Types that several rooms share; they know no tomogram."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # (planes done, planes in all)
