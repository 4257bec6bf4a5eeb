from .denoise import Denoised, write_nad
from .nad_kernels import nad_planes
from .nad_reference import NadParameters
from .nad_volume_kernels import nad_volume
from .thresholds import GreyHistogram, Thresholded, otsu_thresholds, threshold_labels, volume_histogram, write_otsu

__all__ = [
    "Denoised",
    "GreyHistogram",
    "NadParameters",
    "Thresholded",
    "nad_planes",
    "nad_volume",
    "otsu_thresholds",
    "threshold_labels",
    "volume_histogram",
    "write_nad",
    "write_otsu",
]
