from .accelerated.diffusion import smallest_cluster
from .bank import FeatureBank
from .bank_description import DEFINITION_VERSION
from .block import FeatureBlock, check_lengths, halo
from .cache import FeatureCache, SlabKeys, block_values, default_cache_folder
from .channel_names import grey_dimensions, image_kind
from .computing import Channels, compute_features, make_bank
from .engine import FeatureEngine, accelerated_family
from .families import FAMILIES, FEATURE_SETS, ORIGINAL, PLANE_FAMILIES, VOLUME_FAMILIES
from .family import parse_sigmas
from .feature_file import write_features
from .hessian_formula import formula_of_relation, formula_of_table
from .intensity import INTENSITY_MODES, NAN_POLICIES, IntensityScale
from .place import Place, aspect_of
from .planes_on_gpu import prepare_on_device, scale_on_device
from .prepare import PreparedPlane, PreparedSlab, prepare_plane, prepare_slab
from .reference.volume_source import CUBES, Aspect

__all__ = [
    "CUBES",
    "DEFINITION_VERSION",
    "FAMILIES",
    "FEATURE_SETS",
    "INTENSITY_MODES",
    "NAN_POLICIES",
    "ORIGINAL",
    "PLANE_FAMILIES",
    "VOLUME_FAMILIES",
    "Aspect",
    "Channels",
    "FeatureBank",
    "FeatureBlock",
    "FeatureCache",
    "FeatureEngine",
    "IntensityScale",
    "Place",
    "PreparedPlane",
    "PreparedSlab",
    "SlabKeys",
    "accelerated_family",
    "aspect_of",
    "block_values",
    "check_lengths",
    "compute_features",
    "default_cache_folder",
    "formula_of_relation",
    "formula_of_table",
    "grey_dimensions",
    "halo",
    "image_kind",
    "make_bank",
    "parse_sigmas",
    "prepare_on_device",
    "prepare_plane",
    "prepare_slab",
    "scale_on_device",
    "smallest_cluster",
    "write_features",
]
