from .arrays import FIELDS, LEAF, Forest
from .grow import grow_forest
from .labels_on_device import device_bytes, device_labels
from .predict import lead, predict_classes, predict_probabilities, probability_bytes
from .predict_nvforest import NvForestPredictor, nvforest_version
from .predict_on_device import DeviceForest
from .trained import TrainedForest
from .walks import describe_walks
from .weka_trees import smallest_float32_not_below

__all__ = [
    "FIELDS",
    "LEAF",
    "DeviceForest",
    "Forest",
    "NvForestPredictor",
    "TrainedForest",
    "describe_walks",
    "device_bytes",
    "device_labels",
    "grow_forest",
    "lead",
    "nvforest_version",
    "predict_classes",
    "predict_probabilities",
    "probability_bytes",
    "smallest_float32_not_below",
]
