"""Functions for users that span several rooms: paths, arrays and names go in, the rooms do the work."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
