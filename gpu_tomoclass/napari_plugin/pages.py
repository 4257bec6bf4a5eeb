"""The two pages of the dock: to begin, and to work. Buttons and lists only; the dock knows what they do."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from gpu_tomoclass.features import FEATURE_SETS
from gpu_tomoclass.napari_plugin.lists import ClassList, StrokeList, button


class BeginPage(QWidget):
    """Choices before a session: volume, planes, classes, features."""

    def __init__(self) -> None:
        super().__init__()
        form = QFormLayout(self)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.images = QComboBox()
        self.images.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.file = button("Open a volume..", "A file that is not in the viewer; planes are read when you look at them")
        self.every = QSpinBox()
        self.every.setRange(1, 10_000)
        self.every.setToolTip("1: all planes; 15: planes 7, 22, 37, ..")
        self.names = QLineEdit("class 1, class 2")
        self.names.setToolTip("Names of the classes; more can be added later")
        self.features = QComboBox()
        self.features.addItems(list(FEATURE_SETS))
        self.features.setCurrentText("paper")
        self.start = button("Begin", "Show strokes and classes as layers")
        form.addRow("Image layer", self.images)
        form.addRow("Every n-th plane", self.every)
        form.addRow("Classes", self.names)
        form.addRow("Features", self.features)
        form.addRow(self.start)
        form.addRow(QLabel("or"))
        form.addRow(self.file)


class WorkPage(QWidget):
    """Controls of a session."""

    def __init__(self) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.state, self.scores, self.fit = QLabel(), QLabel(), QLabel()
        for label in (self.scores, self.fit):
            label.setWordWrap(True)
        self.scores.setToolTip(
            "Held-out: each stroke is classified by a forest that has not seen it. Out-of-bag is usually too good: "
            "pixels of one stroke resemble each other."
        )
        self.classes, self.strokes = ClassList(), StrokeList()
        self.live = QCheckBox("Live")
        self.live.setToolTip("Learn from each stroke at once")
        self.once = button("Once", "Learn now (t)")
        self.next = button("Next place to mark", "Where the forest is least sure (n)")
        self.undo, self.redo = button("Undo", "Ctrl+Z"), button("Redo", "Ctrl+Shift+Z")
        self.adapt = button("Adapt the model", "Make the model that was opened fit this volume")
        self.open = button("Open..", "A model, or strokes: label images and ImageJ ROIs")
        self.save_as = button("Save model..", "For classify, and for other tomograms")
        self.strokes_as = button("Save strokes..", "As a label image of the whole volume")
        self.command = button("Copy as command", "The command lines that give the same model and labels")
        self.all = button("Classify all planes..", "The whole volume, to a file")
        self.progress = QProgressBar()
        self.progress.setFormat("%v of %m planes")
        self.cancel = button("Cancel", "What is done is kept for the next time")
        self.end = button("Another volume", "End; strokes that are kept in a file are found again")
        for row in (
            [self.state], [self.classes], [self.live, self.once, self.next], [self.scores], [self.fit, self.adapt],
            [self.strokes], [self.undo, self.redo], [self.open, self.save_as], [self.strokes_as, self.command],
            [self.all], [self.progress, self.cancel], [self.end],
        ):  # fmt: skip
            line = QHBoxLayout()
            for part in row:
                line.addWidget(part)
            layout.addLayout(line)
        layout.addStretch()
        self._next_text = self.next.text()
        self.reset()

    def reset(self) -> None:
        """As it is when a session begins, whatever another has left."""
        for hidden in (self.fit, self.adapt, self.progress, self.cancel):
            hidden.hide()
        self.all.setEnabled(True)
        self.next.setText(self._next_text)
        self.scores.setText("mark two classes, and the plane gets their colours")
        self.state.setText("up to date")
