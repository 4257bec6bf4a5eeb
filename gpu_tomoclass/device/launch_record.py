"""Launches of a slab kept, so that the next slab of the same kind asks for them again at once, without their Python."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEAST_STEPS = 4  # fewer cost no more than the launch of a graph
Step = Callable[[], object]


@dataclass
class Graphs:
    """CUDA graphs are made of launches so long as no capture has failed.

    Attributes
    ----------
    problem : Exception or None
        The first failure; from then on launches are repeated one by one, which takes the host longer.
    n_captured : int
    """

    problem: Exception | None = None
    n_captured: int = 0


class LaunchRecord:
    """Launches and copies on one stream, to be repeated with the same arrays and numbers.

    Arrays stay in memory as long as the record does. What they hold may differ each time; everything else must be as it
    was, which is for the one who keeps the record to know.

    Parameters
    ----------
    gpu, stream : context managers
        CuPy's, in which all is asked.
    graphs : Graphs, optional
        Capture what is asked when it is repeated first, and launch it as one from then on.
    """

    def __init__(self, gpu: Any, stream: Any, *, graphs: Graphs | None = None) -> None:
        self._gpu, self._stream, self._graphs = gpu, stream, graphs
        self._steps: list[tuple[object, Step]] = []
        self._graph: Any = None
        self.is_whole = True

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, what: object, step: Step) -> None:
        """Keep a launch or a copy; ``what`` names it in an error."""
        if self.is_whole:
            self._steps.append((what, step))

    def break_off(self) -> None:
        """Forget all: something was asked that cannot be repeated, as the host saw or gave values."""
        self.is_whole = False
        self._steps.clear()

    def repeat(self) -> None:
        """Ask for everything again, in the same order."""
        if not self.is_whole:
            raise ValueError("not all that was asked can be repeated")
        with self._gpu, self._stream:
            graphs = self._graphs
            if self._graph is None and graphs and graphs.problem is None and len(self._steps) >= LEAST_STEPS:
                self._capture(graphs)
            if self._graph is not None:
                self._graph.launch(self._stream)
            else:
                self._ask()

    def _ask(self) -> None:
        for what, step in self._steps:
            try:
                step()
            except Exception as error:
                error.add_note(f"at the repeated launch of {what}")
                raise

    def _capture(self, graphs: Graphs) -> None:
        # Every kernel has been launched before, so that nothing is loaded or allocated meanwhile.
        try:
            self._stream.begin_capture()
            try:
                self._ask()
            except BaseException:
                with contextlib.suppress(Exception):  # the stream must leave the capture, whatever comes of it
                    self._stream.end_capture()
                raise
            self._graph = self._stream.end_capture()
            graphs.n_captured += 1
        # The driver, or CuPy: what cannot be captured can still be launched, and another error comes again there.
        except Exception as error:
            graphs.problem = error
