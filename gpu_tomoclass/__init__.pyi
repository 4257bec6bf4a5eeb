from . import errors as errors
from .annotations import Annotation, TrainingTable, load_annotation, load_arff, save_arff
from .api import PixelClassifier, Tuning, cross_validate, select_features, train, train_from_table, tune
from .classes import LabelClass, default_classes
from .classification import ClassifyResult, Plan, Prediction, Preview, classify, make_plan, predict, preview
from .device import Device, choose_device
from .features import Channels, FeatureBank, FeatureCache, compute_features
from .interactive import Event, Session, Suggestion
from .labels import Evaluation, Measurement, Particles, clean, evaluate_volumes, measure_classes, measure_particles
from .model import Model, TrainingReport, import_fiji_model, load_model, save_model
from .training import (
    Adaptation,
    CrossValidation,
    Drift,
    Selection,
    SuggestedPlace,
    adapt,
    check_drift,
    save_suggestions,
    suggest,
)
from .volumes import ArrayVolume, Volume, VolumeWriter, VoxelSize, create_volume, open_volume

__version__: str
__all__ = [
    "Adaptation",
    "Annotation",
    "ArrayVolume",
    "Channels",
    "ClassifyResult",
    "CrossValidation",
    "Device",
    "Drift",
    "Evaluation",
    "Event",
    "FeatureBank",
    "FeatureCache",
    "LabelClass",
    "Measurement",
    "Model",
    "Particles",
    "PixelClassifier",
    "Plan",
    "Prediction",
    "Preview",
    "Selection",
    "Session",
    "SuggestedPlace",
    "Suggestion",
    "TrainingReport",
    "TrainingTable",
    "Tuning",
    "Volume",
    "VolumeWriter",
    "VoxelSize",
    "adapt",
    "check_drift",
    "choose_device",
    "classify",
    "clean",
    "compute_features",
    "create_volume",
    "cross_validate",
    "default_classes",
    "errors",
    "evaluate_volumes",
    "import_fiji_model",
    "load_annotation",
    "load_arff",
    "load_model",
    "make_plan",
    "measure_classes",
    "measure_particles",
    "open_volume",
    "predict",
    "preview",
    "save_arff",
    "save_model",
    "save_suggestions",
    "select_features",
    "suggest",
    "train",
    "train_from_table",
    "tune",
]
