"""The doctor: whether the devices of this machine work and compute what they should."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
