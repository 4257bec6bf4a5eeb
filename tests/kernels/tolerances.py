"""The table has moved to :mod:`gpu_tomoclass.accelerated.tolerances`, as ``gpu-tomoclass doctor`` needs it too."""

from gpu_tomoclass.accelerated.tolerances import TOLERANCES, Tolerance

__all__ = ["TOLERANCES", "Tolerance"]
