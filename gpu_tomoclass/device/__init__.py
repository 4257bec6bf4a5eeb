"""The door to the machine: cores, memory, CuPy, the C++ compiler, kernels.

:func:`choose_device` returns a :class:`Device`: ``cuda`` (CuPy), ``native`` (the same kernels compiled for this CPU) or
``numpy`` (the reference implementation). See ``docs/devices.md``. Nothing else imports CuPy or calls a compiler.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
