"""gpu_tomoclass: classify imperfect electron tomograms from a few brush strokes.

The names of ``__init__.pyi`` are the public interface (``docs/python.md``); each is loaded when it is first used.
"""

from __future__ import annotations

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Every command imports this package and few need its names: reading the list of them waits too.
    from lazy_loader import attach_stub

    load, list_names, public = attach_stub(__name__, __file__)
    globals().update(__getattr__=load, __dir__=list_names, __all__=public)
    return public if name == "__all__" else load(name)


def __dir__() -> list[str]:
    return [*__getattr__("__all__"), "__version__"]
