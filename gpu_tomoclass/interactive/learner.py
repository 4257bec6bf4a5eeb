"""The background of a session: strokes become rows, rows a forest, and the forest is shown on planes, the one in view
first.

One thread does one thing at a time, the most urgent that is left. Whatever it does, it asks several times in 100 ms
whether something more urgent has come, and leaves off. What was shown stays until what is new is complete.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import DataError, StoppedError, TomoclassError
from gpu_tomoclass.features import FeatureBank, FeatureCache, IntensityScale
from gpu_tomoclass.forest import DeviceForest, Forest, grow_forest
from gpu_tomoclass.interactive.events import Events
from gpu_tomoclass.interactive.marked_rows import MarkedRows
from gpu_tomoclass.interactive.overlays import NumberedForest, Overlay, Overlays
from gpu_tomoclass.interactive.plane_features import FeatureHolder, PlaneFeatures
from gpu_tomoclass.interactive.strokes import Strokes
from gpu_tomoclass.interactive.suggestions import Suggestion, patch_size, patches_to_mark, suggest_places
from gpu_tomoclass.model import Model
from gpu_tomoclass.training import Description, Patch, TrainingRows, check_drift, cross_validate
from gpu_tomoclass.volumes import Volume

NEIGHBOURS = 2  # planes on each side of the one in view that are shown before others
CHECKED_PLANES = 4


class Rank(IntEnum):
    """Order of the work."""

    VIEW_EMPTY = 0  # the plane in view shows nothing, and there is a forest
    TRAIN = 1
    VIEW = 2
    AHEAD = 3  # features of the plane in view, while strokes are still being painted
    NEIGHBOUR = 4
    MARKED = 5
    CHECK = 6
    SCORE = 7
    SUGGEST = 8
    DISK = 9


class Learner:
    """Trains and classifies in a thread of its own.

    Parameters
    ----------
    volume : Volume
    strokes : Strokes
    shown : sequence of int
        Planes that a person may look at, rising.
    bank, scale, nan, device, cache, budget
        See :class:`~gpu_tomoclass.interactive.plane_features.FeatureHolder`.
    forest_options : mapping
        Of :func:`gpu_tomoclass.forest.grow.grow_forest`.
    events : Events
    """

    def __init__(
        self,
        volume: Volume,
        strokes: Strokes,
        *,
        shown: Sequence[int],
        bank: FeatureBank,
        scale: IntensityScale,
        nan: str,
        device: Device,
        cache: FeatureCache | None,
        budget: int | None,
        forest_options: Mapping[str, Any],
        events: Events,
    ) -> None:
        self.volume, self.strokes, self.shown, self.bank, self.scale = volume, strokes, list(shown), bank, scale
        self.device, self.nan, self.forest_options, self._events = device, nan, dict(forest_options), events
        self.live = True
        self._holder = FeatureHolder(volume, bank, scale=scale, nan=nan, device=device, cache=cache, budget=budget)
        self._change = threading.Condition(threading.RLock())
        self._closed = False
        self._view = self.shown[len(self.shown) // 2]
        self._once = False
        self._trained = strokes.version  # that the forest has seen; nothing to learn yet
        self._tried = strokes.version  # that gave an error
        self._grown: NumberedForest | None = None
        self._overlays = Overlays(plane_pixels=volume.shape[1] * volume.shape[2])
        self._useless: set[int] = set()  # planes that cannot be classified
        self._rows = MarkedRows(volume, bank, scale=scale, nan=nan)
        self._scored = self._suggested = 0  # versions of the forest
        self._unchecked: Model | None = None
        self._last_rows: TrainingRows | None = None
        self._version = 0
        self._ended_stroke: float | None = None
        self.suggestions: list[Suggestion] = []
        self._busy = ""
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

    # --- what others call -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; strokes that are there already are learnt from."""
        self._thread.start()

    def close(self) -> None:
        """Leave off what is being done, and end."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def take_over(self, old: Learner) -> None:
        """Begin where another has ended: the plane in view, and what is shown until there is something newer."""
        self._view, self.live = old._view, old.live
        self._overlays, self._version = old._overlays, old._version  # the other one has ended
        self._scored = self._suggested = self._version
        self._ended_stroke = old._ended_stroke

    @property
    def view(self) -> int:
        """The plane in view."""
        return self._view

    def look_at(self, z: int) -> None:
        """This plane is in view now."""
        with self._change:
            self._view = z
            self._useless.discard(z)  # whoever looks again wants another attempt
            self._change.notify_all()

    def changed(self) -> None:
        """Strokes have changed."""
        with self._change:
            self._ended_stroke = time.perf_counter()
            self._change.notify_all()

    def relearn(self) -> None:
        """Take strokes as not learnt from yet, such as those of an earlier session."""
        with self._change:
            self._trained = self._tried = -1
            self._change.notify_all()

    def set_live(self, live: bool) -> None:
        """Tell whether each stroke is learnt from at once."""
        with self._change:
            self.live = live
            self._change.notify_all()

    def learn_once(self) -> None:
        """Learn from the strokes as they are."""
        with self._change:
            self._once, self._tried = True, -1
            self._change.notify_all()

    def use(self, model: Model) -> None:
        """Show what a model makes of the planes, until strokes have taught another."""
        with self._change:
            values = np.array([c.value for c in model.classes], np.uint8)
            self._put_forest(model.forest, values)
            self._unchecked = model
            self._change.notify_all()

    def overlay(self, z: int) -> Overlay | None:
        """Labels known of plane ``z``, perhaps of an older forest."""
        with self._change:
            return self._overlays.get(z)

    @property
    def version(self) -> int:
        """Of the forest; 0 if there is none."""
        return self._version

    def resting(self, *, timeout: float) -> bool:
        """Wait until nothing is left to do."""
        with self._change:
            return self._change.wait_for(lambda: self._closed or (self._next() is None and not self._busy), timeout)

    # --- what is next ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or self._next() is not None)
                if self._closed:
                    return
                found = self._next()
                assert found is not None
                rank, what, z, work = found
                self._busy = what
            self._events.tell("work", what=what, z=z)
            try:
                work()
            except StoppedError:
                pass
            except TomoclassError as error:
                self._give_up(rank, z)
                self._events.tell("trouble", message=str(error))
            except MemoryError:
                self._holder.forget()
                self._give_up(rank, z)
                self._events.tell("trouble", message="memory is not enough; close other programs or use fewer features")
            except Exception as error:
                traceback.print_exc()
                self._give_up(rank, z)
                self._events.tell("trouble", message=f"this is a bug, please report it: {error!r}")
            with self._change:
                self._busy = ""
                rests = self._next() is None
                self._change.notify_all()
            if rests:
                self._events.tell("work", what="", z=self._view)

    def _next(self) -> tuple[Rank, str, int, Callable[[], None]] | None:
        """The most urgent thing; the lock is held."""
        view = self._view
        if self._grown is not None and self._overlays.get(view) is None and view not in self._useless:
            return Rank.VIEW_EMPTY, "plane", view, partial(self._classify, view, Rank.VIEW_EMPTY)
        if self._wants_training():
            return Rank.TRAIN, "forest", view, self._train
        if self._is_outdated(view):
            return Rank.VIEW, "plane", view, partial(self._classify, view, Rank.VIEW)
        if not self._holder.holds(view) and view not in self._useless:
            return Rank.AHEAD, "features", view, partial(self._look_ahead, view, Rank.AHEAD)
        place = int(np.searchsorted(self.shown, view))
        near = self.shown[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1]
        for z in sorted(near, key=lambda z: (abs(z - view), z)):
            if self._is_outdated(z):
                return Rank.NEIGHBOUR, "plane", z, partial(self._classify, z, Rank.NEIGHBOUR)
        for z in sorted(self.strokes.planes(), key=lambda z: (abs(z - view), z)):
            if self._is_outdated(z):
                return Rank.MARKED, "plane", z, partial(self._classify, z, Rank.MARKED)
        if self._unchecked is not None:
            return Rank.CHECK, "check", view, self._check
        if self._last_rows is not None and self._scored < self._version:
            return Rank.SCORE, "score", view, self._score
        if self._grown is not None and self._suggested < self._version:
            return Rank.SUGGEST, "suggestions", view, self._suggest
        for z in self.strokes.planes():
            if self._holder.wants_disk(z):
                return Rank.DISK, "cache", z, partial(self._to_disk, z)
        return None

    def _wants_training(self) -> bool:
        version = self.strokes.version
        if version in (self._trained, self._tried) and not self._once:
            return False
        return (self.live or self._once) and self._two_classes()

    def _two_classes(self) -> bool:
        return len(self.strokes.values()) >= 2

    def _is_outdated(self, z: int) -> bool:
        if self._grown is None or z in self._useless:
            return False
        known = self._overlays.get(z)
        return known is None or known.version < self._grown.version

    def _stop(self, rank: Rank, z: int | None = None) -> bool:
        """Tell whether something that is more urgent than ``rank`` waits, or plane ``z`` is not in view any more."""
        with self._change:
            if self._closed or (z is not None and z != self._view):
                return True
            found = self._next()
            return found is not None and found[0] < rank

    def _give_up(self, rank: Rank, z: int) -> None:
        """Do not try again what has failed before something changes."""
        with self._change:
            if rank == Rank.TRAIN:
                self._tried, self._once = self.strokes.version, False
            elif rank in (Rank.VIEW_EMPTY, Rank.VIEW, Rank.AHEAD, Rank.NEIGHBOUR, Rank.MARKED, Rank.DISK):
                self._useless.add(z)
            elif rank == Rank.CHECK:
                self._unchecked = None
            elif rank == Rank.SCORE:
                self._scored = self._version
            else:
                self._suggested = self._version

    # --- work -----------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        began = time.perf_counter()
        version = self.strokes.version
        ended_stroke = self._ended_stroke
        marked = {z: self.strokes.marked(z) for z in self.strokes.planes()}
        # Features do not depend on strokes: what is computed is not outdated by another one.
        rows = self._rows.of(
            marked,
            self.strokes.classes,
            order=sorted(marked, key=lambda z: (z != self._view, abs(z - self._view))),
            features=lambda z: self._features(z, Rank.TRAIN),
        )
        rows_seconds = time.perf_counter() - began
        trained = grow_forest(
            rows.values,
            rows.labels,
            channels=self.bank.channels,
            should_stop=lambda: self._closed or self.strokes.version != version,
            **self.forest_options,
        )
        forest_seconds = time.perf_counter() - began - rows_seconds
        if self.strokes.version != version:
            raise StoppedError("the forest is outdated")  # and nothing would be shown before the next one
        with self._change:
            self._put_forest(trained.forest, np.array(trained.class_values, np.uint8))
            self._trained, self._once, self._last_rows = version, False, rows
            self._unchecked = None
            number = self._version
        self._events.tell(
            "trained",
            version=number,
            oob_error=trained.oob_error,
            counts=dict(zip(trained.class_values, trained.class_counts, strict=True)),
            seconds={"rows": rows_seconds, "forest": forest_seconds},
            since_stroke=None if ended_stroke is None else time.perf_counter() - ended_stroke,
            notes=list(trained.notes),
        )

    def _put_forest(self, forest: Forest, class_values: npt.NDArray[np.uint8]) -> None:
        on_device = DeviceForest(forest, self.device) if self.device.runs_kernels else None
        with self._change:
            self._version += 1
            self._grown = NumberedForest(forest, on_device, self.device, class_values, self._version)

    def _features(self, z: int, rank: Rank, *, in_view: bool = False) -> PlaneFeatures:
        return self._holder.get(z, should_stop=lambda: self._stop(rank, z if in_view else None))

    def _look_ahead(self, z: int, rank: Rank) -> None:
        def stop() -> bool:
            # A stroke on the plane needs its features first: going on is the shortest way.
            if z == self._view and not self._closed and self._wants_rows(z):
                return False
            return self._stop(rank, z)

        self._holder.get(z, should_stop=stop)

    def _wants_rows(self, z: int) -> bool:
        return self.strokes.plane_version(z) > 0 and self._wants_training()

    def _classify(self, z: int, rank: Rank) -> None:
        in_view = rank in (Rank.VIEW, Rank.VIEW_EMPTY)
        began = time.perf_counter()
        plane = self._features(z, rank, in_view=in_view)
        features_seconds = time.perf_counter() - began
        grown, ended_stroke = self._grown, self._ended_stroke
        assert grown is not None
        overlay = grown.overlay(
            z,
            plane,
            shape=self.volume.shape[1:],
            mask=self.nan == "mask",
            should_stop=lambda: self._stop(rank, z if in_view else None),
        )
        with self._change:
            self._overlays.put(overlay, view=self._view)
            is_last = self._trained == self.strokes.version
        self._events.tell(
            "overlay",
            z=z,
            version=grown.version,
            seconds={"features": features_seconds, "forest": time.perf_counter() - began - features_seconds},
            since_stroke=time.perf_counter() - ended_stroke if ended_stroke is not None and is_last else None,
        )

    def _score(self) -> None:
        rows, version = self._last_rows, self._version
        assert rows is not None

        def check(done: int, total: int) -> None:
            if self._stop(Rank.SCORE):
                raise StoppedError("the score is not wanted any more")

        try:
            found = cross_validate(
                rows, device=self.device, progress=check, should_stop=lambda: self._stop(Rank.SCORE),
                **self.forest_options,
            )  # fmt: skip
        except DataError as error:
            self._events.tell("score", version=version, reason=str(error))
        else:
            dice = dict(zip(found.confusion.values, found.confusion.dice.tolist(), strict=True))
            mean = float(found.confusion.mean_dice)
            self._events.tell("score", version=version, mean_dice=mean, dice=dice, strokes=found.n_groups)
        with self._change:
            self._scored = version

    def _suggest(self) -> None:
        with self._change:
            grown, version = self._grown, self._version
            known = self._overlays.of_version(version)
        assert grown is not None
        describe = Description(grown.forest)
        patches: list[Patch] = []
        for overlay in known:
            if self._stop(Rank.SUGGEST):
                raise StoppedError("suggestions are not wanted any more")
            if not self._holder.holds(overlay.z):  # planes whose features are gone would take seconds each
                continue
            plane = self._features(overlay.z, Rank.SUGGEST)
            channels = np.concatenate([band[describe.channels] for band in plane.bands], axis=1)
            patches += patches_to_mark(
                overlay.z,
                overlay.uncertainty,
                overlay.labels,
                describe(channels.reshape(-1, *overlay.labels.shape)),
                self.strokes.labels(overlay.z) > 0,
                values=grown.class_values.tolist(),
            )
        found = suggest_places(patches, size=patch_size(self.volume.shape))
        with self._change:
            self.suggestions, self._suggested = found, version
        self._events.tell("suggestions", version=version)

    def _check(self) -> None:
        model = self._unchecked
        assert model is not None

        def check(done: int, total: int) -> None:
            if self._stop(Rank.CHECK):
                raise StoppedError("the check is not wanted any more")

        drift = check_drift(model, self.volume, device=self.device, n_planes=CHECKED_PLANES, force=True, progress=check)
        with self._change:
            if self._unchecked is model:
                self._unchecked = None
        self._events.tell("fit", verdict=drift.verdict, drift=drift.drift,
                          margin=drift.mean_margin, trained_margin=drift.trained_margin)  # fmt: skip

    def _to_disk(self, z: int) -> None:
        self._holder.to_disk(z, should_stop=lambda: self._stop(Rank.DISK))
