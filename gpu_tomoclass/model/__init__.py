"""The model file: forest, feature bank, classes, intensity scale, provenance. A file is data, never code."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
