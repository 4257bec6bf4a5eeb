"""3-D images on disk or in memory, read plane by plane: no arithmetic on voxels; one module per format."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)  # the names are in __init__.pyi
