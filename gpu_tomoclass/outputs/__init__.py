"""Outputs appear complete or not at all, and never in the place of an input."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
