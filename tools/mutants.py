"""The planted faults of ``tools/mutate.py``: one small, plausible mistake each, and the tests that must notice it.

A fault replaces ``old``, which must occur exactly once in the file, by ``new``. Its tests are those of its own room:
a fault that only a far-away test of a command would notice counts as missed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes
    ----------
    file : str
        Below ``gpu_tomoclass/``, or one of the ``kernels/``.
    old, new : str
        Text that is there once, and what replaces it.
    tests : str
        Files or folders below ``tests/``, separated by spaces, one of whose tests must fail.
    only : str
        Those whose names pytest's ``-k`` finds with this; all where it is empty.
    """

    file: str
    old: str
    new: str
    tests: str
    only: str = ""


EVERY_KERNEL = "kernels/test_every_kernel.py"
GPU = "test_compiled_for_a_gpu"  # the interpreter of PTX
ALONE = "test_thread_by_thread"

MUTANTS = (
    # ground floor
    Mutant("classes.py", "int(text) <= 255", "int(text) <= 256", "test_ground.py"),
    Mutant("outputs/sizes.py", '"M": 10**6', '"M": 2**20', "test_ground.py"),
    Mutant(
        "outputs/publishing.py",
        "            refuse_inputs(self.target, self._inputs)\n",
        "",
        "test_outputs.py test_inputs_stay.py",
    ),
    # device
    Mutant("device/cores.py", "return len(os.sched_getaffinity(0))", "return os.cpu_count() or 1", "device"),
    Mutant("device/memory.py", "max(0, min(known))", "max(0, max(known))", "device"),
    Mutant(
        "device/tolerances.py",
        "if difference > 0:",
        "if difference > 1:",
        "device/test_tolerances.py",
    ),
    # volumes
    Mutant(
        "volumes/reordered.py",
        "(size[z], size[y], size[x])",
        "(size[x], size[y], size[z])",
        "volumes/test_array.py",
    ),
    Mutant("volumes/reordered.py", "start = z - z % self._thickness", "start = z", "volumes/test_array.py"),
    Mutant("volumes/mrc/mrc.py", 'int(header["nsymbt"])', '0 * int(header["nsymbt"])', "volumes/test_mrc.py"),
    Mutant(
        "volumes/region.py",
        "self.mask.plane(z)[self.in_plane] == 0",
        "self.mask.plane(z)[self.in_plane] != 1",
        "volumes/test_region_of_volume.py",
    ),
    Mutant("volumes/units.py", '"micron": 1e3', '"micron": 1e6', "volumes/test_units.py"),
    # annotations
    Mutant("annotations/substack.py", "(every or 1) // 2", "0", "annotations"),
    Mutant(
        "annotations/roi_pixels.py",
        "np.lexsort((pixels.y, pixels.x))",
        "np.lexsort((pixels.x, pixels.y))",
        "annotations/test_rois.py",
    ),
    Mutant(
        "annotations/roi_pixels.py",
        "roi.float_stroke_width if roi.float_stroke_width > 0 else ",
        "",
        "annotations/test_rois.py",
    ),
    # features
    Mutant(
        "features/intensity.py", "PERCENTILES = (0.5, 99.5)", "PERCENTILES = (1.0, 99.0)", "features/test_intensity.py"
    ),
    Mutant("features/intensity.py", "offset=32768.0", "offset=32767.0", "features/test_intensity.py"),
    Mutant(
        "features/family.py",
        "            sigma *= 2\n",
        "            sigma += 1\n",
        "features/test_channel_names.py features/test_features.py",
    ),
    Mutant(
        "features/prepare.py",
        "for other in (z - d, z + d)",
        "for other in (z + d, z - d)",
        "features/test_prepare.py",
    ),
    Mutant("features/cache.py", "/{device}/{image.shape}", "/{image.shape}", "features/test_cache.py"),
    # forest
    Mutant("forest/arrays.py", "np.where(s > t, s, np.nextafter(s, np.float32(np.inf)))", "s", "forest"),
    Mutant(
        "forest/predict.py",
        "rows[feature(node)].take(at) < threshold(node)",
        "rows[feature(node)].take(at) <= threshold(node)",
        "forest",
    ),
    Mutant("forest/predict.py", "weight * (1 - share)", "weight * share", "forest"),
    Mutant("forest/java_random.py", "(self.state * _MULTIPLIER + 11)", "(self.state * _MULTIPLIER + 12)", "forest"),
    Mutant("forest/arrays.py", '_require(left > parent, "child"', '_require(left >= 0, "child"', "forest"),
    # model
    Mutant(
        "model/fits.py",
        "first = 0 if across else 1",
        "first = 2",
        "model training",
    ),
    Mutant(
        "model/fits.py", 'return "float" if dtype.kind == "f" else dtype.name', "return dtype.kind", "model training"
    ),
    Mutant(
        "model/archive.py",
        "or member.read(1):",
        "and member.read(1):",
        "model/test_model_faults.py model/test_model_header_faults.py",
    ),
    # training
    Mutant(
        "training/cross_validation.py",
        "splitter.split(rows.labels, rows.labels, groups)",
        "splitter.split(rows.labels, rows.labels, np.arange(groups.size))",
        "training/test_cross_validation.py",
    ),
    Mutant(
        "forest/arrays.py",
        "share[left + 1] = share[asking] - share[left]",
        "share[left + 1] = share[asking]",
        "forest/test_forest.py",
    ),
    Mutant(
        "training/drift.py",
        "values = np.sort(values[np.isfinite(values)])",
        "values = np.sort(values)",
        "training/test_drift.py",
    ),
    # labels
    Mutant(
        "labels/evaluate.py",
        "_ratio(right, self._true_counts + self._predicted_counts - right)",
        "_ratio(right, self._true_counts + self._predicted_counts)",
        "labels/test_evaluate.py",
    ),
    Mutant("labels/boundaries.py", "sampling=(y, x)", "sampling=(x, y)", "labels/test_boundaries.py"),
    Mutant("labels/boundaries.py", "<= self.distance)", "< self.distance)", "labels/test_boundaries.py"),
    Mutant("labels/cleaning.py", "small = size < min_size", "small = size <= min_size", "labels/test_cleaning.py"),
    # classification
    Mutant(
        "classification/slabs.py",
        "todo[i + n] == todo[i] + n",
        "todo[i + n] > todo[i]",
        "classification/test_slabs.py",
    ),
    Mutant("classification/slabs.py", "half = (n_planes + 1) // 2", "half = n_planes", "classification/test_slabs.py"),
    Mutant(
        "classification/slabs.py",
        "min(free, limit) - memory.shared",
        "min(free, limit)",
        "classification/test_slabs.py",
    ),
    Mutant(
        "classification/predict_arrays.py",
        "found.probabilities[:, 0]",
        "found.probabilities[0]",
        "classification/test_predict.py",
    ),
    Mutant(
        "classification/staging.py",
        "if plane is None or checksum(plane) != self._crc[product][z]:",
        "if plane is None:",
        "classification/test_damaged_run.py",
    ),
    Mutant("classification/backoff.py", "np.log(len(p))", "1.0", "classification/test_uncertainty.py"),
    Mutant(
        "classification/backoff.py",
        "2 * max(along) + 1 for along",
        "2 * max(along) - 1 for along",
        "classification/test_uncertainty.py",
    ),
    # api, interactive, studies, doctor, cli
    Mutant("api/pixel_classifier.py", "chosen = mark != 0", "chosen = mark >= 0", "api/test_pixel_classifier.py"),
    Mutant(
        "studies/strokes.py",
        "(predicted != truth) & (truth > 0)",
        "(predicted != truth)",
        "studies/test_drawn_strokes.py",
    ),
    Mutant(
        "studies/simulation/pillar.py", "tilt_angles(-76, 70, 2)", "tilt_angles(-70, 76, 2)", "studies/test_simulate.py"
    ),
    Mutant(
        "doctor/examining.py",
        "if any(not check.agrees for check in report.checks)",
        "if all(not check.agrees for check in report.checks)",
        "cli/test_doctor.py",
    ),
    Mutant("cli/command.py", "option in given[:number]", "option in given[:0]", "cli/test_first_use.py"),
    Mutant("cli/__init__.py", "errno.ENOSPC, errno.EDQUOT", "errno.ENOSPC", "cli/test_cli.py cli/test_terminal.py"),
    # baseline
    Mutant(
        "baseline/thresholds.py",
        "starts = (edges[:-1] + 0.5)",
        "starts = (edges[:-1] + 1.5)",
        "baseline/test_thresholds.py",
    ),
    Mutant("baseline/thresholds.py", "minlength=len(exact)", "minlength=0", "baseline/test_thresholds.py"),
    # kernels: a value, an array's end, barriers; each by the kind of run that has to notice it
    Mutant("kernels/labels.cu", "probability > best", "probability >= best", EVERY_KERNEL, "test_agrees and labels"),
    Mutant("kernels/difference.cu", "if (i < n)", "if (i <= n)", EVERY_KERNEL, f"{GPU} and difference_of_gaussians"),
    Mutant("kernels/entropy.cu", "if (x >= nx) return;", "if (x > nx) return;", EVERY_KERNEL, f"{GPU} and entropy-0"),
    Mutant("kernels/blur.cu", "    __syncthreads();\n", "", EVERY_KERNEL, f"{GPU} and gaussian_blur"),
    Mutant("kernels/disk_extremes.cu", "        __syncthreads();\n", "", EVERY_KERNEL, f"{ALONE} and minimum"),
    Mutant(
        "kernels/extremes.cu", "int i = 1; i < n_parts", "int i = 2; i < n_parts", EVERY_KERNEL, "test_agrees and bytes"
    ),
    Mutant(
        "kernels/neighbors_cpu.cu",
        "(last - first) * sizeof",
        "(last - first + 1) * sizeof",
        EVERY_KERNEL,
        "test_agrees and neighbors",
    ),
)
