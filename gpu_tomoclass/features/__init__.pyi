from .bank import DEFINITION_VERSION, FEATURE_SETS, FeatureBank, FeatureBlock
from .cache import FeatureCache, block_values, default_cache_folder
from .engine import FeatureEngine, accelerated_family
from .families import FAMILIES, ORIGINAL
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
    "default_cache_folder",
    "prepare_plane",
    "write_features",
]
