from .annotation import Annotation, merge_annotations, merge_classes
from .arff import (
    MIXED_RELATION,
    OLD_RELATION,
    TWS_3D_RELATION,
    TWS_RELATION,
    TrainingTable,
    check_arff_target,
    load_arff,
    match_channels,
    pooled_tables,
    save_arff,
)
from .loading import load_annotation, load_annotations
from .roi_write import Rectangle, save_rectangles
from .substack import SubStack

__all__ = [
    "MIXED_RELATION",
    "OLD_RELATION",
    "TWS_3D_RELATION",
    "TWS_RELATION",
    "Annotation",
    "Rectangle",
    "SubStack",
    "TrainingTable",
    "check_arff_target",
    "load_annotation",
    "load_annotations",
    "load_arff",
    "match_channels",
    "merge_annotations",
    "merge_classes",
    "pooled_tables",
    "save_arff",
    "save_rectangles",
]
