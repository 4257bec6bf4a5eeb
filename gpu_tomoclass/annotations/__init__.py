"""Sparse labels from people: 0 unlabelled, 1..k classes. A stroke is used entirely or refused by name."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
