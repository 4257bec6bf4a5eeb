"""gpu_tomoclass: classify imperfect electron tomograms from a few brush strokes."""

__version__ = "0.1.0"
