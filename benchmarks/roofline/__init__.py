"""Predicted times on GPUs; run ``python benchmarks/roofline``."""
