from .learning import cross_validate, select_features, train, train_from_table
from .pixel_classifier import PixelClassifier
from .tuning import tune
from .tuning_result import Promise, Setting, Tried, Tuning

__all__ = [
    "PixelClassifier",
    "Promise",
    "Setting",
    "Tried",
    "Tuning",
    "cross_validate",
    "select_features",
    "train",
    "train_from_table",
    "tune",
]
