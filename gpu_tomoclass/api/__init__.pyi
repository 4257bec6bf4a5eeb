from .learning import cross_validate, select_features, train, train_from_table
from .pixel_classifier import PixelClassifier

__all__ = ["PixelClassifier", "cross_validate", "select_features", "train", "train_from_table"]
