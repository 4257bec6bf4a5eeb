from .fiji.classifier import describe_fiji_model, import_fiji_model, load_fiji_model
from .model import (
    MODEL_SUFFIX,
    N_QUANTILES,
    Model,
    TrainingReport,
    check_fits,
    check_model_target,
    describe_model,
    fits_volume,
    is_model_file,
    load_model,
    same_voxels,
    save_model,
)

__all__ = [
    "MODEL_SUFFIX",
    "N_QUANTILES",
    "Model",
    "TrainingReport",
    "check_fits",
    "check_model_target",
    "describe_fiji_model",
    "describe_model",
    "fits_volume",
    "import_fiji_model",
    "is_model_file",
    "load_fiji_model",
    "load_model",
    "same_voxels",
    "save_model",
]
