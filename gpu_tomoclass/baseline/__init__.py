"""The conventional way to classes of material, to compare with: denoise by NAD, then thresholds of grey."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
