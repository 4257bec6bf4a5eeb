"""Turn prepared planes into finished slabs; take smaller slabs or fewer threads where memory is not enough."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from os import PathLike

import numpy as np

from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.classification.passes import InPasses, Passes
from gpu_tomoclass.classification.slab import UNLABELLED, ProductOptions, Slab
from gpu_tomoclass.classification.slabs import SlabSize
from gpu_tomoclass.classification.smoothing import Smoother, sigma_in_voxels
from gpu_tomoclass.device import Device, available_bytes, is_out_of_memory
from gpu_tomoclass.errors import ResourceError
from gpu_tomoclass.features import Aspect, FeatureBlock, PreparedSlab
from gpu_tomoclass.forest import lead, predict_classes, probability_bytes
from gpu_tomoclass.model import Model
from gpu_tomoclass.outputs import size_text
from gpu_tomoclass.volumes import VoxelSize


class SlabClassifier:
    """Classifies slabs on a device from several threads.

    Parameters
    ----------
    model : Model
    device : Device
        That of one thread; see :meth:`gpu_tomoclass.device.Device.side_by_side`.
    products : ProductOptions
    size : SlabSize, optional
        How many planes, and in how many threads, are computed at once; default one plane in one thread.
    in_plane : (slice, slice)
        Rows and columns of the planes that are wanted.
    voxel_size : tuple of float, optional
        (z, y, x) in nm, by which probabilities are smoothed.
    passes : Passes, optional
        Take planes one by one, each in these passes.
    folder : path, optional
        Of what is kept between passes.
    forest_engine : {"kernels", "nvforest"}
        See :class:`~gpu_tomoclass.classification.on_device.Classifier`.
    """

    def __init__(
        self,
        model: Model,
        device: Device,
        *,
        products: ProductOptions,
        size: SlabSize | None = None,
        in_plane: tuple[slice, slice] = (slice(None), slice(None)),
        voxel_size: VoxelSize | None = None,
        passes: Passes | None = None,
        folder: str | PathLike[str] | None = None,
        forest_engine: str = "kernels",
    ) -> None:
        self.classifier = Classifier(model, device, forest_engine=forest_engine)
        self.products, self.size = products, size or SlabSize(device, self.classifier.blocks)
        self._in_plane = in_plane
        self._smoother = None if products.smooth is None else Smoother(sigma_in_voxels(products.smooth, voxel_size))
        self.notes: list[str] = []
        self.in_passes = None if passes is None else InPasses(self.classifier, passes, folder=folder)
        self._n_threads = self.size.n_threads
        self._gate = _Gate(self.size)
        self._at_work: list[tuple[int, int]] = []  # (start, stop) of the slabs of all threads

    def halo(self, aspect: Aspect) -> int:
        """Planes on each side of a slab that its labels depend on."""
        return self.classifier.halo(aspect) + (self._smoother.reach if self._smoother is not None else 0)

    def slab_planes(self) -> int:
        """Planes to give at once."""
        return 1 if self.in_passes is not None else self.size.planes(self.classifier.memory)

    def classify(self, start: int, prepared: PreparedSlab, timings: dict[str, float]) -> list[Slab]:
        """Classify planes; ``start`` is the number of the first in the output. In several slabs if memory is not enough
        for one.

        Raises
        ------
        ResourceError
            If memory is not enough on one thread for one plane, or for the slab that the user fixed.
        """
        slabs: list[Slab] = []
        done, place = 0, prepared.place
        halo = self.halo(place.aspect)
        while done < place.n_wanted:
            n = min(self.slab_planes(), place.n_wanted - done)  # memory may have run out since the planes were read
            part = prepared.part(place.start + done, place.start + done + n, halo=halo)
            with self._gate as n_threads:
                mine = (start + done, start + done + n)
                self._at_work.append(mine)
                try:
                    if n_threads == 1 < self._n_threads:  # nobody else is in here
                        self.classifier.release_others()
                    slabs.append(self._classify(start + done, part, timings))
                    done += n
                    for note in self.classifier.device.found_out:
                        self._note(note)
                    if self.size.n_threads < self._n_threads:  # the next to be let in may be another thread
                        self.classifier.release()
                    continue
                except Exception as error:
                    if is_out_of_memory(error):  # its traceback holds arrays
                        error.__traceback__ = error.__context__ = None
                    self.classifier.release()  # before anything else: this very message needs memory
                    if not is_out_of_memory(error):
                        # A GPU tells of an error to whoever asks next, whichever of the slabs at work made it.
                        at_work = ", ".join(f"{first} to {stop - 1}" for first, stop in sorted(self._at_work))
                        error.add_note(f"while planes {mine[0]} to {mine[1] - 1} were classified; at work: {at_work}")
                        raise
                    reason = error
                finally:
                    self._at_work.remove(mine)
            changed = self.size.take_less(n, n_threads=n_threads)
            if changed is None:
                raise self._too_little(n) from reason
            self._note(f"{self._needed(n)}: {changed}")
        return slabs

    def _classify(self, start: int, prepared: PreparedSlab, timings: dict[str, float]) -> Slab:
        planes, images = prepared.wanted, prepared.images
        shape = (len(planes), *images[0].shape)
        n_classes, products = len(self.classifier.class_values), self.products
        want_probabilities = products.needs_probabilities
        if all(plane.missing or (plane.outside is not None and plane.outside.all()) for plane in planes):
            labels = np.full(shape, UNLABELLED, np.uint8)
            p = np.zeros((n_classes, *shape), np.float32) if want_probabilities else None
        elif self.in_passes is not None:
            return Slab(start, self._in_passes(self.in_passes, prepared, timings), list(prepared.notes))
        elif self._smoother is not None:
            p = self._smoothed(prepared, self._smoother, timings)
            labels = predict_classes(p.reshape(n_classes, -1), self.classifier.class_values).reshape(shape)
        else:
            labels, p = self.classifier.classify(
                images,
                place=prepared.place,
                want_probabilities=want_probabilities,
                as_bytes=products.needs_bytes_only,
                timings=timings,
            )
        if products.mask_filled:
            labels[influenced(prepared, self.classifier.blocks)] = UNLABELLED
        for i, plane in enumerate(planes):
            if plane.missing or plane.outside is not None:
                nowhere = np.s_[:] if plane.missing else plane.outside
                labels[i][nowhere] = UNLABELLED
                if p is not None:
                    p[:, i][:, nowhere] = 0
        labels = np.ascontiguousarray(labels[:, *self._in_plane])
        p = None if p is None else np.ascontiguousarray(p[:, :, *self._in_plane])
        return Slab(start, self._values(labels, p), list(prepared.notes))

    def _values(self, labels: np.ndarray, p: np.ndarray | None) -> dict[str, np.ndarray]:
        """The products of labels (...) and probabilities (n_classes, ...), or their bytes, by name."""
        products, values = self.products, {"labels": labels}
        if p is not None and products.probabilities:
            is_ready = products.probabilities == "float32" or p.dtype == np.uint8
            values["probabilities"] = p if is_ready else probability_bytes(p)
        if p is not None and products.uncertainty:
            values["uncertainty"] = uncertainty(p, kind=products.uncertainty)
        return values

    def _in_passes(
        self, in_passes: InPasses, prepared: PreparedSlab, timings: dict[str, float]
    ) -> dict[str, np.ndarray]:
        """The products of one plane, made for some of its pixels after the other."""
        plane, made = prepared.wanted[0], dict[str, np.ndarray]()
        outside = None if plane.outside is None else plane.outside.ravel()
        for pixels, labels, p in in_passes.bands(
            prepared.images,
            place=prepared.place,
            want_probabilities=self.products.needs_probabilities,
            timings=timings,
        ):
            if outside is not None:
                labels[outside[pixels]] = UNLABELLED
                p[:, outside[pixels]] = 0
            for name, values in self._values(labels, p).items():
                if name not in made:
                    made[name] = np.empty((*values.shape[:-1], plane.image.size), values.dtype)
                made[name][..., pixels] = values
        shaped = {name: values.reshape(*values.shape[:-1], 1, *plane.image.shape) for name, values in made.items()}
        if self.products.mask_filled:
            shaped["labels"][influenced(prepared, self.classifier.blocks)] = UNLABELLED
        return {name: np.ascontiguousarray(values[(..., *self._in_plane)]) for name, values in shaped.items()}

    def _smoothed(self, prepared: PreparedSlab, smoother: Smoother, timings: dict[str, float]) -> np.ndarray:
        """Probabilities of the wanted planes, for which those around are classified, too."""
        place, halo = prepared.place, self.classifier.halo(prepared.place.aspect)
        seconds = time.perf_counter() - sum(timings.values())

        def compute(first: int, last: int) -> list[np.ndarray | None]:
            found: list[np.ndarray | None] = []
            while first < last:
                part = prepared.part(first, min(last, first + self.slab_planes()), halo=halo)
                first = part.place.stop
                if all(plane.missing for plane in part.wanted):
                    found += [None] * len(part.wanted)
                    continue
                _, p = self.classifier.classify(part.images, place=part.place, want_probabilities=True, timings=timings)
                assert p is not None  # they were asked for
                found += [None if plane.missing else p[:, i] for i, plane in enumerate(part.wanted)]
            return found

        shape = (len(self.classifier.class_values), *prepared.planes[0].image.shape)
        planes = smoother.smoothed(place.start, place.stop, depth=place.depth, compute=compute)
        result = np.stack([np.zeros(shape, np.float32) if p is None else p for p in planes], axis=1)
        seconds = time.perf_counter() - sum(timings.values()) - seconds
        timings["smoothing"] = timings.get("smoothing", 0.0) + seconds
        return result

    def _needed(self, n_planes: int) -> str:
        memory = self.classifier.memory
        needed = "an unknown amount" if memory is None else size_text(memory.per_plane * n_planes)
        device = self.classifier.device
        free = device.free_memory() if device.has_own_memory else available_bytes()
        where = "GPU memory" if device.has_own_memory else "memory"
        return f"{where} is not enough (needed {needed}, free {'unknown' if free is None else size_text(free)})"

    def _too_little(self, n_planes: int) -> ResourceError:
        fits = ""
        memory, device = self.classifier.memory, self.classifier.device
        free = device.free_memory() if device.has_own_memory else available_bytes()
        if self.size.fixed is not None and memory is not None and memory.per_plane and free is not None:
            fits = f"give --slab-planes {max(1, free // memory.per_plane)} or fewer, "
        return ResourceError(
            f"{self._needed(n_planes)} for {n_planes} plane{'s' if n_planes > 1 else ''} at once",
            do=f"{fits}use fewer features, or a machine with more memory",
        )

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


class _Gate:
    """Lets as many threads in at once as may compute."""

    def __init__(self, size: SlabSize) -> None:
        self._size = size
        self._inside = 0
        self._changed = threading.Condition()

    def __enter__(self) -> int:
        """Wait for a place; how many threads may compute while this one is inside."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self._size.n_threads)
            self._inside += 1
            return self._size.n_threads

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


def uncertainty(probabilities: np.ndarray, *, kind: str) -> np.ndarray:
    """Uncertainty from 0 (certain) to 1, see :class:`ProductOptions`.

    Parameters
    ----------
    probabilities : numpy.ndarray
        (n_classes, ...) float32; where all are 0 (not classified) the result is 1.
    kind : {"margin", "entropy"}

    Returns
    -------
    numpy.ndarray
        (...) float32.
    """
    if kind == "margin":
        return 1 - lead(probabilities)
    p = probabilities.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p), 0.0)
    entropy = -terms.sum(axis=0) / np.log(len(p))
    entropy[p.sum(axis=0) == 0] = 1
    return entropy.astype(np.float32)


def influenced(prepared: PreparedSlab, blocks: Sequence[FeatureBlock]) -> np.ndarray:
    """Voxels of the wanted planes whose features look at a filled voxel, by the largest radius of the blocks.

    Families that see the whole plane (the normalisation of Gabor, twenty steps of diffusion) are not counted: their
    dependence on one far voxel is slight, and counting it would unlabel the plane. Planes that could not be read count
    as filled where features look across planes.

    Returns
    -------
    numpy.ndarray
        (planes that are wanted, ny, nx) bool.
    """
    from scipy import ndimage

    place, shape = prepared.place, prepared.planes[0].image.shape
    filled = np.zeros((place.n_planes, *shape), np.bool_)
    for z, plane in enumerate(prepared.planes):
        filled[z] = plane.missing if plane.filled is None else plane.filled
    result = np.zeros_like(filled[place.wanted])
    for dimensions in (2, 3):
        reaches = [b.reaches(place.aspect) for b in blocks if b.dimensions == dimensions and b.is_local]
        if filled.any():
            size = tuple(2 * max(along) + 1 for along in zip((0, 0, 0), *reaches, strict=True))
            result |= ndimage.maximum_filter(filled, size=size, mode="constant", cval=False)[place.wanted]
    return result
