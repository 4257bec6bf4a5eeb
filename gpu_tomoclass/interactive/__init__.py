"""The loop of a person: mark, look, correct. Nothing here waits for what takes time; a thread does that."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
