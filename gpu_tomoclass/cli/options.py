"""Parts that several commands share: parameter types, options, progress and notes on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpu_tomoclass.cli.paths import InputPath, OutputPath
from gpu_tomoclass.cli.terminal import show_notes
from gpu_tomoclass.outputs import size_bytes

if TYPE_CHECKING:
    from gpu_tomoclass.device import Device
    from gpu_tomoclass.features import FeatureBank
    from gpu_tomoclass.model import Model

F = TypeVar("F", bound=Callable[..., Any])


class PlaneRange(click.ParamType):
    """``a:b``, planes a to b - 1; either may be left out."""

    name = "a:b"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        first, colon, last = value.partition(":")
        try:
            start = int(first) if first else 0
            if not colon:
                return start, start + 1
            return start, int(last) if last else None
        except ValueError:
            self.fail(f"{value!r} is not a range of planes such as 100:200", param, ctx)


class SigmaList(click.ParamType):
    """``family=1,2,4``, or in nm ``family=1,2,4nm``."""

    name = "FAMILY=S,S,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        family, equals, numbers = str(value).partition("=")
        try:
            if not equals:
                raise ValueError
            from gpu_tomoclass.features import parse_sigmas

            values, in_nm = parse_sigmas(numbers)
            return family.strip(), numbers.strip() if in_nm else values
        except ValueError:
            self.fail(f"{value!r} is not of the form gaussian_blur=1,2,4", param, ctx)


class ValuePairs(click.ParamType):
    """``a:b`` or ``a:b,c:d``, pairs of label values."""

    name = "a:b,.."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            pairs = [(int(first), int(second)) for first, _, second in (p.partition(":") for p in value.split(","))]
        except ValueError:
            self.fail(f"{value!r} is not of the form 0:1,1:2, pairs of label values", param, ctx)
        return tuple(pairs)


class Numbers(click.ParamType):
    """Numbers separated by commas: ``861,428,317``; ``x`` also separates whole ones."""

    def __init__(self, name: str, example: str, *, whole: bool = False, count: int | None = None) -> None:
        self.name, self._example, self._whole, self._count = name, example, whole, count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            if self._whole:
                numbers: tuple[float, ...] = tuple(int(n) for n in value.lower().replace("x", ",").split(","))
            else:
                numbers = tuple(float(n) for n in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or self._count not in (None, len(numbers)):
            self.fail(f"{value!r} is not of the form {self._example}", param, ctx)
        return numbers


class VoxelEdges(Numbers):
    """One or three lengths in nm."""

    def __init__(self) -> None:
        super().__init__("Z,Y,X", "0.55 or 1.1,0.55,0.55")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        numbers = super().convert(value, param, ctx)
        if len(numbers) not in (1, 3) or not all(0 < n < float("inf") for n in numbers):
            self.fail(f"{value!r} is not one or three positive lengths in nm (z,y,x)", param, ctx)
        return tuple(numbers) * (3 // len(numbers))


class Boxes(Numbers):
    """One or three whole numbers of voxels."""

    def __init__(self) -> None:
        super().__init__("N", "2 or 1,2,2", whole=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        numbers = super().convert(value, param, ctx)
        if len(numbers) not in (1, 3) or min(numbers) < 1:
            self.fail(f"{value!r} is not one or three numbers of voxels (z,y,x)", param, ctx)
        return tuple(numbers) * (3 // len(numbers))


class ByteSize(click.ParamType):
    """``4G``, ``800M``, or a number of bytes; decimal units, as disks and memory are sold."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return size_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def region_options(command: F) -> F:
    """Options for the voxels that count, as :meth:`gpu_tomoclass.volumes.Region.of` takes."""
    for option in (
        click.option("--mask", type=InputPath(), metavar="VOLUME",
                     help="Only voxels where this volume is not 0; planes without any are not computed."),
        click.option("--crop", metavar="Z0:Z1,Y0:Y1,X0:X1",
                     help="Only this box; an end may be left out. Features still see what is around it."),
    ):  # fmt: skip
        command = option(command)
    return command


BYTE_ORDER = "gpu_tomoclass.byte_order"


def _remember_byte_order(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    context.meta[BYTE_ORDER] = value


def _voxel_type(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The type with its byte order, as NumPy writes it: ``>u2``."""
    order = context.meta.get(BYTE_ORDER)
    if value is None:
        if order is not None:
            raise click.UsageError("--byte-order belongs to --dtype", context)
        return None
    import numpy as np

    try:
        dtype = np.dtype(value)
    except (TypeError, ValueError) as error:
        raise click.BadParameter(f"{value!r} is no type of voxels such as uint16 or float32", context) from error
    return value if order is None else dtype.newbyteorder(">" if order == "big" else "<").str


# What open_volume takes beside the path: the names of volume_options.
READING = ("axes", "series", "channel", "allow_missing_planes", "voxel_size", "shape", "dtype", "offset", "bin")


def volume_options(command: F) -> F:
    """Options for reading an ambiguous or damaged volume, or raw voxels: :data:`READING`."""
    for option in (
        click.option("--offset", type=click.IntRange(0), help="Raw voxels: bytes before the first one; default 0."),
        click.option("--byte-order", type=click.Choice(["little", "big"]), is_eager=True, expose_value=False,
                     callback=_remember_byte_order, help="Raw voxels: default little."),
        click.option("--dtype", metavar="TYPE", callback=_voxel_type,
                     help="Raw voxels: uint8, uint16, int16, float32, ..; needs --shape."),
        click.option("--shape", type=Numbers("Z,Y,X", "850,400,400", whole=True),
                     help="Raw voxels without a header: planes, rows, columns."),
        click.option("--allow-missing-planes", is_flag=True, help="Read planes that are damaged or absent as zeros."),
        click.option("--channel", type=click.IntRange(0), help="Channel of a multi-channel file."),
        click.option("--series", type=click.IntRange(0), help="Series of a multi-series TIFF."),
        click.option("--axes", metavar="ORDER", help="Read the stored axes in this order, e.g. xyz."),
        click.option("--bin", type=Boxes(), metavar="N",
                     help="Read means of N voxels along each axis (or Z,Y,X) as one; other numbers count these."),
        click.option("--voxel-size", type=VoxelEdges(),
                     help="In nm, one number or three, where the file is wrong or does not say."),
    ):  # fmt: skip
        command = option(command)
    return command


hessian_option = click.option(
    "--hessian",
    type=click.Choice(["auto", "current", "legacy"]),
    default="auto",
    show_default=True,
    help="Formula of the Hessian's eigenvalues: of TWS since 3.2.25, or before; auto: as what Fiji saved says.",
)


gabor_option = click.option(
    "--gabor",
    type=click.Choice(["fast", "exact"]),
    default="fast",
    show_default=True,
    help="exact: every bit as Fiji, in seconds per plane on the CPU; fast: to 1e-5 of a channel's deviation.",
)


def _complete_features(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from gpu_tomoclass.features import FAMILIES, FEATURE_SETS

    before, comma, begun = incomplete.rpartition(",")
    names = [*([] if before else FEATURE_SETS), *FAMILIES]
    return [f"{before}{comma}{name}" for name in names if name.startswith(begun)]


def bank_options(command: F) -> F:
    """Options of the feature bank."""
    for option in (
        gabor_option,
        hessian_option,
        click.option(
            "--z-sigma",
            metavar="SIGMA",
            default="2",
            show_default=True,
            help="Of families such as z_hessian: smooth planes along z by so many voxels of x, or 4nm.",
        ),
        click.option("--membrane-patch", type=int, default=19, show_default=True, help="Membrane and Kuwahara patch."),
        click.option("--membrane-thickness", type=int, default=1, show_default=True, help="Membrane thickness."),
        click.option(
            "--sigmas",
            multiple=True,
            type=SigmaList(),
            help="Sigmas of one family instead of the range; of families made of Gaussians also in nm, "
            "gaussian_blur=2,4nm; repeatable.",
        ),
        click.option("--sigma-max", type=float, help="Largest sigma; default 16, or 8 of families across planes."),
        click.option("--sigma-min", type=float, default=1.0, show_default=True, help="Smallest sigma; they double."),
        click.option(
            "--features",
            default="paper",
            show_default=True,
            metavar="SET|FAMILY,..",
            shell_complete=_complete_features,
            help="weka-default, paper (252 channels), all (272), paper+z (also of planes smoothed along z), across "
            "planes weka-3d-default (9) or weka-3d (95), or families separated by commas.",
        ),
    ):
        command = option(command)
    return command


def make_bank(
    *,
    features: str,
    sigma_min: float,
    sigma_max: float | None,
    sigmas: Iterable[tuple[str, tuple[float, ...] | str]],
    membrane_thickness: int,
    membrane_patch: int,
    hessian: str = "auto",
    gabor: str = "fast",
    z_sigma: str = "2",
) -> FeatureBank:
    """The bank that the options of :func:`bank_options` ask for."""
    from gpu_tomoclass.features import FeatureBank

    return FeatureBank.create(
        [name.strip() for name in features.split(",")],
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        sigmas=dict(sigmas),
        membrane_thickness=membrane_thickness,
        membrane_patch=membrane_patch,
        hessian="current" if hessian == "auto" else hessian,
        gabor=gabor,
        z_sigma=z_sigma,
    )


volume_output_option = click.option(
    "-o",
    "--output",
    type=OutputPath(),
    required=True,
    metavar="OUT",
    help="A new volume: .tif, .mrc, .nxs or .ome.zarr.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
intensity_option = click.option(
    "--intensity",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="auto gives float volumes a robust scale; none leaves every value as stored.",
)
nan_option = click.option(
    "--nan",
    type=click.Choice(["error", "fill", "mask"]),
    default="error",
    show_default=True,
    help="Non-finite voxels: refuse; take the nearest value; or also leave their surroundings unlabelled.",
)


VERBOSE = "gpu_tomoclass.verbose"


def _remember_verbose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.meta[VERBOSE] = value


def device_options(command: F) -> F:
    """Where to compute: what :func:`open_device` takes."""
    for option in (
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_remember_verbose,
            help="Also say why a faster device is not used.",
        ),
        click.option("--workers", type=click.IntRange(1), help="CPU threads; default one per usable core."),
        click.option("--gpu-id", type=click.IntRange(0), default=0, show_default=True, help="Which GPU."),
        click.option(
            "--device",
            "device_name",
            type=click.Choice(["auto", "cuda", "native", "numpy"]),
            default="auto",
            show_default=True,
            help="cuda: a GPU; native: compiled for this CPU; numpy: slow, always works; auto: the first that works.",
        ),
    ):
        command = option(command)
    return command


def product_options(command: F) -> F:
    """Options for outputs beside the labels."""
    for option in (
        click.option(
            "--smooth",
            type=click.FloatRange(0, min_open=True),
            metavar="NM",
            help="Smooth probabilities in 3-D by this sigma before the class is taken: fewer specks.",
        ),
        click.option(
            "--uncertainty",
            type=click.Choice(["margin", "entropy"]),
            is_flag=False,
            flag_value="margin",
            help="Also write LABELS_uncertainty: 0 where the forest is sure, 1 where it is not.",
        ),
        click.option(
            "--probabilities",
            type=click.Choice(["float32", "uint8"]),
            is_flag=False,
            flag_value="float32",
            help="Also write LABELS_probabilities, one channel per class; uint8 is a quarter of the size.",
        ),
    ):
        command = option(command)
    return command


def volume_and_model(volume: str, model: str, *, quiet: bool) -> tuple[str, Model]:
    """The volume's name and the model, whose content tells it from the volume where they were given the other way."""
    from gpu_tomoclass.model import is_model_file, load_model

    if is_model_file(volume) and not is_model_file(model):
        show_notes([f"{volume} is a model: taken as MODEL, and {model} as VOLUME"], quiet=quiet)
        volume, model = model, volume
    return volume, load_model(model)


def zarr_options(command: F) -> F:
    """Options for writing OME-Zarr; see :func:`given_zarr_options`."""
    for option in (
        click.option("--portal", is_flag=True,
                     help="OME-Zarr as cryo-ET portals keep it: 256^3 blocks, levels 1x, 2x, 4x, in angstrom."),
        click.option("--sharded", is_flag=True, help="OME-Zarr 0.5 with 32 planes to a file."),
        click.option("--ome-version", type=click.Choice(["0.4", "0.5"]), help="Of OME-Zarr output; default 0.4."),
    ):  # fmt: skip
        command = option(command)
    return command


def given_zarr_options(ome_version: str | None, sharded: bool, portal: bool) -> dict[str, Any]:
    """Those of :func:`zarr_options` that were given: other formats refuse any."""
    options: dict[str, Any] = {} if ome_version is None else {"ome_version": ome_version}
    return options | ({"sharded": True} if sharded else {}) | ({"portal": True} if portal else {})


def open_device(device_name: str, gpu_id: int, workers: int | None, *, quiet: bool) -> Device:
    """The device that :func:`device_options` ask for; says on stderr which it is and why not a faster one."""
    from gpu_tomoclass.device import choose_device, when_compiling

    when_compiling(lambda: show_notes(["compiling kernels for this processor, once"], quiet=quiet))
    device = choose_device(device_name, gpu_id, threads=workers)
    context = click.get_current_context(silent=True)
    verbose = context is not None and context.meta.get(VERBOSE, False)
    # Most machines have no GPU: said where it was asked for, by doctor, and with -v.
    notes = [note for note in device.notes if verbose or "the cuda device does not work" not in note]
    show_notes([f"device: {device.name}, {device.description}", *notes], quiet=quiet)
    return device


json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")
