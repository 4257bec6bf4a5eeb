from .array import ArrayVolume, Planes, is_array, on_host
from .binned import NO_BIN, Bin, BinnedVolume, binned_shape, checked_bin, refuse_binned
from .conversion import convert, describe_volume, open_any_channel, reslice, substack, volume_statistics
from .detection import detect_format
from .formats import is_folder, is_written, product_name, split_suffix
from .ome_zarr.array import Node, ZarrArray, read_node
from .ome_zarr.codecs import decode, encoded_limit
from .ome_zarr.level import Stamp
from .ome_zarr.store import ZarrStore
from .opening import VolumeLike, create_volume, open_volume
from .part import PartVolume
from .place import moved, with_place
from .region import Crop, Region, crop_pairs
from .targets import check_folder, check_volume_target, least_bytes, volume_names
from .volume import Volume, VolumeWriter, VoxelSize, checked_voxel_size, ranges_text, voxel_text

__all__ = [
    "NO_BIN",
    "ArrayVolume",
    "Bin",
    "BinnedVolume",
    "Crop",
    "Node",
    "PartVolume",
    "Planes",
    "Region",
    "Stamp",
    "Volume",
    "VolumeLike",
    "VolumeWriter",
    "VoxelSize",
    "ZarrArray",
    "ZarrStore",
    "binned_shape",
    "check_folder",
    "check_volume_target",
    "checked_bin",
    "checked_voxel_size",
    "convert",
    "create_volume",
    "crop_pairs",
    "decode",
    "describe_volume",
    "detect_format",
    "encoded_limit",
    "is_array",
    "is_folder",
    "is_written",
    "least_bytes",
    "moved",
    "on_host",
    "open_any_channel",
    "open_volume",
    "product_name",
    "ranges_text",
    "read_node",
    "refuse_binned",
    "reslice",
    "split_suffix",
    "substack",
    "volume_names",
    "volume_statistics",
    "voxel_text",
    "with_place",
]
