"""The conventional way to classes of material, to compare with: denoise by NAD, then thresholds of grey.

======================  ==========================================================================================
`nad_planes`            NAD of planes, each for itself
`nad_volume`            NAD of a volume in memory, in three dimensions
`otsu_thresholds`       thresholds between classes of grey
`threshold_labels`      classes by thresholds
`write_nad`             volume to volume, of any size
`write_otsu`            volume to label volume, of any size
======================  ==========================================================================================
"""

from gpu_tomoclass.accelerated.nad import nad as nad_planes
from gpu_tomoclass.accelerated.nad_volume import nad_volume
from gpu_tomoclass.nad_files import Denoised, write_nad
from gpu_tomoclass.reference.nad import NadParameters
from gpu_tomoclass.thresholds import (
    GreyHistogram,
    Thresholded,
    otsu_thresholds,
    threshold_labels,
    volume_histogram,
    write_otsu,
)

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
