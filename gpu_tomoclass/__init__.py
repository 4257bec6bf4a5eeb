"""gpu_tomoclass: classify imperfect electron tomograms from a few brush strokes.

The names of ``__init__.pyi`` are the public interface (``docs/python.md``); each is loaded when it is first used.
"""

from lazy_loader import attach_stub

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
