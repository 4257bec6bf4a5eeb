from .any_file import model_of_file
from .fiji.classifier import describe_fiji_model, import_fiji_model, load_fiji_model
from .fits import check_fits, fits_volume, same_voxels
from .model import (
    GREY_LEVELS,
    MODEL_SUFFIX,
    N_QUANTILES,
    Model,
    TrainingReport,
    check_model_target,
    describe_model,
    save_model,
)
from .reading import is_model_file, load_model

__all__ = [
    "GREY_LEVELS",
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
    "model_of_file",
    "same_voxels",
    "save_model",
]
