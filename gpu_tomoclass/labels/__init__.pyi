from .boundaries import HaloShare
from .cleaning import clean
from .evaluate import Confusion, Evaluation, as_labels, compare_volumes, evaluate_volumes, same_planes
from .evaluation_files import save_evaluation
from .evaluation_page import evaluation_report
from .figure import PANELS, label_figure
from .particle_files import check_measurement_targets, save_histograms, save_particles
from .particles import BORDERS, Measurement, Particles, measure_classes, measure_particles
from .pictures import (
    check_picture_target,
    class_image,
    grey_image,
    histogram_figure,
    overlay_image,
    save_figure,
    save_preview,
    save_sections,
    volume_contrast,
)
from .report import Report
from .thumbnails import save_sweep, save_thumbnail

__all__ = [
    "BORDERS",
    "PANELS",
    "Confusion",
    "Evaluation",
    "HaloShare",
    "Measurement",
    "Particles",
    "Report",
    "as_labels",
    "check_measurement_targets",
    "check_picture_target",
    "class_image",
    "clean",
    "compare_volumes",
    "evaluate_volumes",
    "evaluation_report",
    "grey_image",
    "histogram_figure",
    "label_figure",
    "measure_classes",
    "measure_particles",
    "overlay_image",
    "same_planes",
    "save_evaluation",
    "save_figure",
    "save_histograms",
    "save_particles",
    "save_preview",
    "save_sections",
    "save_sweep",
    "save_thumbnail",
    "volume_contrast",
]
