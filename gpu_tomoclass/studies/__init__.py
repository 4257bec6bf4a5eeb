"""Studies whose truth is known: the demo, simulated tomograms, the paper rerun. They use what users use."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
