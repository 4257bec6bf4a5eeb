"""Options of a classification: one object that the command line, job files, threads and cluster workers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_tomoclass.classification.slab import PROBABILITIES, UNCERTAINTIES, ProductOptions
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import NAN_POLICIES
from gpu_tomoclass.volumes import Volume, crop_pairs

ADAPT_CHOICES = ("off", "auto")
INTENSITY_CHOICES = ("model", "auto", "none")
FOREST_ENGINES = ("kernels", "nvforest")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Everything that a user can choose about a run, beside volume, model, output, format and where to compute.

    A field is a keyword of :func:`gpu_tomoclass.classification.classify_volume.classify`, an option of the command
    ``classify`` and a setting of job files, under the same name; workers of a cluster get the object as it is.

    Attributes
    ----------
    probabilities, uncertainty, smooth
        See :class:`gpu_tomoclass.classification.slab.ProductOptions`.
    planes : (int, int), optional
        First and last + 1 of the planes to classify; default all.
    crop : str, optional
        ``"z0:z1,y0:y1,x0:x1"``: classify only this box; the outputs have its shape. Features see what is around it.
    mask : path or Volume, optional
        Of the volume's shape: voxels where it is 0 are not labelled, planes without any other are not computed.
    adapt : {"off", "auto"}
        Where the model does not fit the volume, adapt it first; see :func:`gpu_tomoclass.training.adapt`.
    intensity : {"model", "auto", "none"}
        The scale recorded in the model, one measured on this volume, or none.
    nan : {"error", "fill", "mask"}
        See :func:`gpu_tomoclass.features.prepare.prepare_slab`.
    force : bool
        Go on although the voxel size differs from that of the training.
    forest_engine : {"kernels", "nvforest"}
        Who walks the trees: our own kernels, or NVIDIA's nvForest as a second opinion.
    slab_planes : int, optional
        Planes at once, never changed.
    memory_limit : int, optional
        Bytes that a process may take.
    overwrite, restart : bool
        Replace an output that exists; throw away what an interrupted run has kept.

    Raises
    ------
    UsageError
        If an option has no such value.
    """

    probabilities: str | None = None
    uncertainty: str | None = None
    smooth: float | None = None
    planes: tuple[int, int] | None = None
    crop: str | None = None
    mask: str | Volume | None = None
    adapt: str = "off"
    intensity: str = "model"
    nan: str = "error"
    force: bool = False
    forest_engine: str = "kernels"
    slab_planes: int | None = None
    memory_limit: int | None = None
    overwrite: bool = False
    restart: bool = False

    def __post_init__(self) -> None:
        _check_choice("probabilities", self.probabilities, (None, *PROBABILITIES))
        _check_choice("uncertainty", self.uncertainty, (None, *UNCERTAINTIES))
        _check_choice("adapt", self.adapt, ADAPT_CHOICES)
        _check_choice("intensity", self.intensity, INTENSITY_CHOICES)
        if self.crop is not None:
            crop_pairs(self.crop)
        _check_choice("nan", self.nan, NAN_POLICIES)
        _check_choice("forest_engine", self.forest_engine, FOREST_ENGINES)
        if self.smooth is not None and not 0 < self.smooth < float("inf"):
            raise UsageError(f"probabilities cannot be smoothed by {self.smooth:g} nm", do="give more than 0")
        if self.slab_planes is not None and self.slab_planes < 1:
            raise UsageError(f"slabs of {self.slab_planes} planes cannot be classified", do="give 1 or more")
        if self.memory_limit is not None and self.memory_limit < 1:
            raise UsageError(f"the memory limit must be at least 1 byte, not {self.memory_limit}")

    @property
    def products(self) -> ProductOptions:
        """Products made of every plane."""
        return ProductOptions(self.probabilities, self.uncertainty, self.smooth, mask_filled=self.nan == "mask")


def _check_choice(name: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices if choice is not None)
        raise UsageError(f"{name} {value!r} is unknown", do=f"choose one of {listed}")
