"""Feature banks: ordered families of image filters with their parameters. Nothing else knows a sigma.

`reference/` defines every family in NumPy; `accelerated/` is its same-named twin that launches kernels.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
