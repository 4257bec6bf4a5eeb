from .bank import DEFINITION_VERSION, FEATURE_SETS, FeatureBank, FeatureBlock
from .cache import FeatureCache, block_values, default_cache_folder
from .channel_names import check_grey_planes, image_kind
from .engine import FeatureEngine, accelerated_family
from .families import FAMILIES, ORIGINAL
from .hessian_formula import formula_of_relation, formula_of_table
from .inspection import write_features
from .intensity import INTENSITY_MODES, NAN_POLICIES, IntensityScale
from .prepare import PreparedPlane, prepare_plane

__all__ = [
    "DEFINITION_VERSION",
    "FAMILIES",
    "FEATURE_SETS",
    "INTENSITY_MODES",
    "NAN_POLICIES",
    "ORIGINAL",
    "FeatureBank",
    "FeatureBlock",
    "FeatureCache",
    "FeatureEngine",
    "IntensityScale",
    "PreparedPlane",
    "accelerated_family",
    "block_values",
    "check_grey_planes",
    "default_cache_folder",
    "formula_of_relation",
    "formula_of_table",
    "image_kind",
    "prepare_plane",
    "write_features",
]
