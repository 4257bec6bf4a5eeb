from .annotation import Annotation, load_annotation, load_annotations, merge_annotations, merge_classes
from .arff import TrainingTable, check_arff_target, load_arff, save_arff

__all__ = [
    "Annotation",
    "TrainingTable",
    "check_arff_target",
    "load_annotation",
    "load_annotations",
    "load_arff",
    "merge_annotations",
    "merge_classes",
    "save_arff",
]
