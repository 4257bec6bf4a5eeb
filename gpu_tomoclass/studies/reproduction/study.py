"""The whole study: simulate or open, classify in every way, judge, and write one page and one file of numbers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

from gpu_tomoclass import Device, Model, choose_device, open_volume, preview
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.outputs import check_output, refuse_inputs, write_json
from gpu_tomoclass.studies.reproduction import needle, phantom, pillar, series
from gpu_tomoclass.studies.reproduction.added import N_STEPS, added_steps
from gpu_tomoclass.studies.reproduction.case import Case, CaseResult, Settings, n_steps, outputs, study_case
from gpu_tomoclass.studies.reproduction.given import given_case
from gpu_tomoclass.studies.reproduction.operator import Habits
from gpu_tomoclass.studies.reproduction.results import Study
from gpu_tomoclass.studies.reproduction.scores import Scores
from gpu_tomoclass.studies.simulation.pillar import SAMPLE_CLASSES
from gpu_tomoclass.types import Progress

SUBJECTS = ("phantom", "pillar", "needle")
UNFINISHED = "unfinished.txt"  # in the folder of a study, while it is made
FAR = 15  # planes; beyond, a plane shares hardly a silica sphere with a painted one


@dataclass(frozen=True)
class Given:
    """Volumes that the user brings; pillar and needle with their truth."""

    pillar: tuple[str, str] | None = None
    needles: tuple[str, ...] = ()
    needle_truth: str | None = None
    needle_planes: tuple[int, int | None] | None = None
    needle_series: str | None = None

    @property
    def has_needle(self) -> bool:
        return bool(self.needles) or self.needle_series is not None

    def needle_names(self) -> list[str]:
        """Of the needle's cases."""
        n = 2 if self.needle_series is not None else len(self.needles)
        return ["needle"] if n == 1 else [f"needle_{i + 1}" for i in range(n)]

    def paths(self) -> list[str]:
        """Of all files."""
        return [*(self.pillar or ()), *self.needles, *(p for p in (self.needle_truth, self.needle_series) if p)]


class _Steps:
    """Counts steps and tells how far the whole is."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self._progress = total, 0, progress
        self._tell()

    def step(self) -> None:
        self.done += 1
        self._tell()

    def up_to(self, first: int) -> Progress:
        """A callback that counts its own steps from ``first`` on."""

        def advance(done: int, total: int) -> None:
            self.done = first + done
            self._tell()

        return advance

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(min(self.done, self.total), self.total)


def reproduce(
    folder: str | PathLike[str],
    *,
    only: Sequence[str] = (),
    seed: int = 0,
    repeats: int = 4,
    quick: bool = False,
    pillar_shape: tuple[int, int, int] | None = None,
    given_pillar: tuple[str, str] | None = None,
    needles: Sequence[str] = (),
    needle_truth: str | None = None,
    needle_planes: tuple[int, int | None] | None = None,
    needle_series: str | None = None,
    device: Device | str = "auto",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
) -> tuple[str, str]:
    """Rerun the study and write ``report.html``, ``numbers.json`` and all volumes, labels and models into a folder.

    Parameters
    ----------
    folder : path
        Made if needed.
    only : sequence of {"phantom", "pillar", "needle"}
        All by default; the needle only where it is given.
    seed : int
        Of noise, misalignment and strokes.
    repeats : int
        The phantom is studied with so many seeds, from ``seed`` on; pictures are of the first.
    quick : bool
        Small images, few trees and corrections: to see whether everything works.
    pillar_shape : (nz, ny, nx), optional
        Of the simulated pillar.
    given_pillar : (volume, truth), optional
        Instead of a simulated one; classes vacuum, rubber, silica, from dark to bright.
    needles : sequence of paths
        Reconstructions of the needle, see docs/reproduce.md.
    needle_truth : path, optional
        Its classes: vacuum, dim substrate, middle layer, bright layer.
    needle_planes : (start, stop), optional
        Planes of the needle that are judged; default all.
    needle_series : path, optional
        Instead of volumes and truth: the needle's aligned tilt series, see `gpu_tomoclass.studies.reproduction.series`.
    device : str or Device
        ``"auto"`` is the first that works.
    overwrite : bool
    say : callable, optional
        Given a line of text for each step.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    report, numbers : str
        Paths.

    Raises
    ------
    UsageError
        If a subject is unknown, or the needle comes without its truth.
    DataError
        If an output exists and ``overwrite`` is not set, or a file cannot be used.
    ResourceError
        If the disk or the memory is not enough.
    """
    given = Given(given_pillar, tuple(needles), needle_truth, needle_planes, needle_series)
    subjects = _subjects(only, given)
    if repeats < 1:
        raise UsageError(f"{repeats} repeats", do="use 1 or more")
    target = Path(folder)
    shape = pillar_shape or (pillar.QUICK_SHAPE if quick else pillar.SHAPE)
    if "pillar" in subjects and not given_pillar and shape[0] < pillar.FEWEST_PLANES:
        raise UsageError(f"a pillar of {shape[0]} planes", do=f"use {pillar.FEWEST_PLANES} or more")
    size = phantom.QUICK_SIZE if quick else phantom.SIZE
    if (target / UNFINISHED).is_file():
        say("an earlier study was interrupted here: what it made is made again")
        overwrite = True
    _check_targets(target, subjects, given, overwrite=overwrite)
    target.mkdir(parents=True, exist_ok=True)
    (target / UNFINISHED).write_text("Of a study that has not been finished; the same command makes it again.\n")
    study = Study(Settings(choose_device(device), seed=seed), quick=quick)
    steps = _Steps(_total(subjects, given, shape=shape, repeats=repeats, habits=study.habits), progress)
    with ExitStack() as stack:
        if "phantom" in subjects:
            _phantom(study, target, stack, size=size, repeats=repeats, overwrite=overwrite, say=say, steps=steps)
        if "pillar" in subjects:
            _pillar(study, target, stack, shape=shape, given=given, overwrite=overwrite, say=say, steps=steps)
        if "needle" in subjects:
            _needle(study, target, stack, given=given, overwrite=overwrite, say=say, steps=steps)
        say("writing the report")
        from gpu_tomoclass.studies.reproduction.page import make_page

        began = time.perf_counter()
        page = make_page(study)
        page.write(target / "report.html", overwrite=overwrite)
        study.seconds["report"] = time.perf_counter() - began
    write_json(target / "numbers.json", study.to_dict(), overwrite=overwrite)
    (target / UNFINISHED).unlink(missing_ok=True)
    return str(target / "report.html"), str(target / "numbers.json")


def _subjects(only: Sequence[str], given: Given) -> list[str]:
    unknown = [name for name in only if name not in SUBJECTS]
    if unknown:
        raise UsageError(f"there is no {unknown[0]!r} in the study", do=f"choose among {', '.join(SUBJECTS)}")
    if bool(given.needles) != (given.needle_truth is not None):
        raise UsageError("the needle needs a volume and its truth", do="give --needle and --needle-truth")
    if given.needles and given.needle_series is not None:
        raise UsageError("volumes of the needle and its tilt series contradict each other", do="give one of them")
    if "needle" in only and not given.has_needle:
        raise UsageError("the needle is not simulated", do="give --needle-series, see docs/reproduce.md")
    chosen = [name for name in SUBJECTS if name in only] if only else list(SUBJECTS)
    return [name for name in chosen if name != "needle" or given.has_needle]


def _check_targets(folder: Path, subjects: Sequence[str], given: Given, *, overwrite: bool) -> None:
    """Raise before the work what writing would raise after it; and no input is an output."""
    targets = [folder / "report.html", folder / "numbers.json"]
    if "phantom" in subjects:
        for variant in phantom.VARIANTS:
            targets += [*phantom.phantom_files(folder, variant), *outputs(folder, f"phantom_{variant.name}").values()]
    if "pillar" in subjects:
        targets += [*(() if given.pillar else pillar.pillar_files(folder)), *outputs(folder, "pillar").values()]
    if "needle" in subjects:
        targets += [path for name in given.needle_names() for path in outputs(folder, name).values()]
        targets += [folder / name for name in series.FILES] if given.needle_series else []
    for target in targets:
        check_output(target, overwrite=overwrite)
    for path in given.paths():
        with open_volume(path) as volume:
            for target in targets:
                refuse_inputs(target, volume.inputs())


def _total(
    subjects: Sequence[str], given: Given, *, shape: tuple[int, int, int], repeats: int, habits: Callable[[str], Habits]
) -> int:
    total = 0
    if "phantom" in subjects:
        total += len(phantom.VARIANTS) * repeats * n_steps(1, habits("phantom"))
    if "pillar" in subjects and given.pillar:
        with open_volume(given.pillar[0]) as volume:
            total += n_steps(volume.shape[0], habits("pillar")) + N_STEPS
    elif "pillar" in subjects:
        total += 2 * shape[0] + n_steps(shape[0], habits("pillar")) + N_STEPS
    if "needle" in subjects and given.needle_series is not None:
        with open_volume(given.needle_series) as volume:
            total += volume.shape[2] + 2 * n_steps(volume.shape[2], habits("needle"))
    for path in given.needles if "needle" in subjects else ():
        with open_volume(path) as volume:
            total += n_steps(volume.shape[0], habits("needle"))
    return total


Say = Callable[[str], None]


def _phantom(
    study: Study, folder: Path, stack: ExitStack, *, size: int, repeats: int, overwrite: bool, say: Say, steps: _Steps
) -> None:
    began = time.perf_counter()
    settings = study.settings_for("phantom")
    for variant in phantom.VARIANTS:
        say(f"phantom, {variant.title}: simulated, classified in six ways")
        case = phantom.make_phantom(folder, variant, size=size, seed=settings.seed, overwrite=overwrite)
        study.cases[case.name] = study_case(case, folder=folder, settings=settings, stack=stack, overwrite=overwrite,
                                            step=steps.step)  # fmt: skip
    study.seconds["phantom, three cases"] = time.perf_counter() - began
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".repeats-") as scratch:
        say("the noisy phantom's classifier on another noise")
        study.reused = _reused(study.cases["phantom_noisy"].lesson.last, Path(scratch), study, size=size)
        for i in range(1, repeats):
            say(f"phantom again with seed {settings.seed + i}")
            for variant in phantom.VARIANTS:
                seed = settings.seed + i
                case = phantom.make_phantom(Path(scratch), variant, size=size, seed=seed, overwrite=True)
                with ExitStack() as inner:
                    result = study_case(case, folder=Path(scratch), settings=replace(settings, seed=seed), stack=inner,
                                        overwrite=True, step=steps.step)  # fmt: skip
                    methods = {
                        name: {"accuracy": m.scores.all.accuracy, "mean_iou": m.scores.all.mean_iou}
                        for name, m in result.methods.items()
                    }
                study.repeats.setdefault(case.name, []).append({"seed": seed, **methods})
    if repeats > 1:
        study.seconds[f"phantom, {repeats - 1} more seeds"] = time.perf_counter() - began


def _reused(model: Model, folder: Path, study: Study, *, size: int) -> float:
    """Accuracy on a phantom with other noise and other misalignment."""
    noisy = next(variant for variant in phantom.VARIANTS if variant.name == "noisy")
    case = phantom.make_phantom(folder, noisy, size=size, seed=study.settings.seed + 1000)
    with open_volume(case.volume) as volume, open_volume(case.truth) as truth:
        found = preview(model, volume, plane=0, device=study.settings.device).labels
        return float((found == truth.plane(0)).mean())


def _pillar(
    study: Study,
    folder: Path,
    stack: ExitStack,
    *,
    shape: tuple[int, int, int],
    given: Given,
    overwrite: bool,
    say: Say,
    steps: _Steps,
) -> None:
    began = time.perf_counter()
    if given.pillar is not None:
        volume, truth = given.pillar
        case = given_case("pillar", "rubber-silica pillar", volume, truth, names=SAMPLE_CLASSES,
                          n_painted=pillar.N_PAINTED)  # fmt: skip
    else:
        say(f"pillar of {' x '.join(map(str, shape))} voxels: grown, projected, reconstructed")
        case = pillar.make_pillar_case(folder, shape=shape, seed=study.settings.seed, overwrite=overwrite,
                                       progress=steps.up_to(steps.done))  # fmt: skip
        study.seconds["pillar, simulation"] = time.perf_counter() - began
    began = time.perf_counter()
    say("pillar: classified in six ways")
    result = study_case(case, folder=folder, settings=study.settings_for("pillar"), stack=stack, overwrite=overwrite,
                        step=steps.step)  # fmt: skip
    study.cases["pillar"] = result
    study.far = _far_scores(case, result)
    study.particles = pillar.silica_particles(result)
    study.seconds["pillar, classification"] = time.perf_counter() - began
    began = time.perf_counter()
    say("pillar: smoothing, z-context, suggestions, adapting")
    study.added = added_steps(result, folder=folder, settings=study.settings_for("pillar"),
                              with_other=given.pillar is None, step=steps.step)  # fmt: skip
    study.seconds["pillar, what each step adds"] = time.perf_counter() - began


def _far_scores(case: Case, result: CaseResult) -> dict[str, Scores]:
    far = [z for z in case.judged if min(abs(z - p) for p in case.painted) > FAR]
    found = {}
    for name, method in result.methods.items() if far else ():
        found[name] = Scores(case.classes, halo=case.halo)
        for z in far:
            found[name].update(result.truth(z), method.labels(z))
    return found


def _needle(
    study: Study, folder: Path, stack: ExitStack, *, given: Given, overwrite: bool, say: Say, steps: _Steps
) -> None:
    began = time.perf_counter()
    volumes, truth, planes = list(given.needles), given.needle_truth, given.needle_planes
    if given.needle_series is not None:
        say("needle: reconstructed by filtered back-projection and SIRT, labelled")
        volumes, truth, found = series.reconstruct_needle(given.needle_series, folder, overwrite=overwrite,
                                                          progress=steps.up_to(steps.done))  # fmt: skip
        planes = planes or found
    assert truth is not None  # checked by _subjects
    for case in needle.needle_cases(volumes, truth, planes=planes):
        say(f"{case.title}: classified in six ways")
        study.cases[case.name] = study_case(case, folder=folder, settings=study.settings_for("needle"), stack=stack,
                                            overwrite=overwrite, step=steps.step)  # fmt: skip
    study.seconds["needle"] = time.perf_counter() - began
