"""Lists of the dock: classes and strokes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from gpu_tomoclass.classes import PALETTE, LabelClass

VALUE = Qt.ItemDataRole.UserRole
ROWS = 8  # seen without scrolling
LISTED = 500  # strokes


def swatch(colour: tuple[int, int, int]) -> QIcon:
    """A square of a colour."""
    square = QPixmap(14, 14)
    square.fill(QColor(*colour))
    return QIcon(square)


def table(*headings: str) -> QTreeWidget:
    """An empty list with columns."""
    found = QTreeWidget()
    found.setHeaderLabels(headings)
    found.setRootIsDecorated(False)
    found.setUniformRowHeights(True)
    fit(found, 3)
    header = found.header()
    header.setStretchLastSection(False)
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    return found


def fit(of: QTreeWidget, rows: int) -> None:
    """Make a list as high as so many rows; more are scrolled."""
    row = max(of.sizeHintForRow(0), of.fontMetrics().height() + 4)
    of.setFixedHeight(of.header().sizeHint().height() + min(max(rows, 3), ROWS) * row + 8)


def button(text: str, tip: str) -> QPushButton:
    """A button with an explanation."""
    found = QPushButton(text)
    found.setToolTip(tip)
    return found


class ClassList(QWidget):
    """Classes with colours, names, keys and pixels.

    Attributes
    ----------
    chosen : Signal
        The value of the class to paint.
    changed : Signal
        A list of LabelClass: other names or colours, or more or fewer classes.
    """

    chosen = Signal(int)
    changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._classes: tuple[LabelClass, ...] = ()
        self.list = table("class", "key", "pixels")
        self.list.setEditTriggers(QAbstractItemView.EditTrigger.EditKeyPressed)  # a double click: see _rename
        self.add = button("Add", "One more class")
        self.colour = button("Colour..", "Another colour for the chosen class")
        self.remove = button("Remove", "Remove the chosen class, which must have no strokes")
        row = QHBoxLayout()
        for part in (self.add, self.colour, self.remove):
            row.addWidget(part)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        layout.addLayout(row)
        self.list.currentItemChanged.connect(lambda item, _: item and self.chosen.emit(item.data(0, VALUE)))
        self.list.itemDoubleClicked.connect(lambda item, _: self.list.editItem(item, 0))
        self.list.itemChanged.connect(self._rename)
        self.add.clicked.connect(self._add)
        self.colour.clicked.connect(self._recolour)
        self.remove.clicked.connect(self._remove)

    def show_classes(self, classes: Sequence[LabelClass], counts: dict[int, int]) -> None:
        """Show these classes, with so many pixels each."""
        self.list.blockSignals(True)
        value = self.value
        self._classes = tuple(classes)
        self.list.clear()
        for c in classes:
            key = str(c.value) if c.value < 10 else ""
            item = QTreeWidgetItem([c.name, key, f"{counts.get(c.value, 0):,}"])
            item.setIcon(0, swatch(c.colour))
            item.setData(0, VALUE, c.value)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
            item.setTextAlignment(2, Qt.AlignmentFlag.AlignRight)
            self.list.addTopLevelItem(item)
        self.choose(classes[0].value if value is None else value)
        fit(self.list, len(classes))
        self.list.blockSignals(False)

    @property
    def value(self) -> int | None:
        """Of the chosen class."""
        item = self.list.currentItem()
        return None if item is None else int(item.data(0, VALUE))

    def choose(self, value: int) -> None:
        """Mark a class as chosen."""
        for number in range(self.list.topLevelItemCount()):
            item = self.list.topLevelItem(number)
            if item.data(0, VALUE) == value and item is not self.list.currentItem():
                self.list.setCurrentItem(item)

    def _replace(self, value: int | None, **changes: Any) -> None:
        self.changed.emit([dataclasses.replace(c, **changes) if c.value == value else c for c in self._classes])

    def _rename(self, item: QTreeWidgetItem, column: int) -> None:
        if column == 0:
            self._replace(item.data(0, VALUE), name=item.text(0).strip())

    def _add(self) -> None:
        used = {c.value for c in self._classes}
        value = next(v for v in range(1, 256) if v not in used or v == 255)
        new = LabelClass(value, f"class {value}", PALETTE[(value - 1) % len(PALETTE)])
        self.changed.emit([*self._classes, new])

    def _recolour(self) -> None:
        colour = QColorDialog.getColor(parent=self)
        if colour.isValid():
            self._replace(self.value, colour=(colour.red(), colour.green(), colour.blue()))

    def _remove(self) -> None:
        self.changed.emit([c for c in self._classes if c.value != self.value])


class StrokeList(QWidget):
    """Strokes with classes, planes and pixels.

    Attributes
    ----------
    jump : Signal
        A Stroke to look at.
    delete : Signal
        The number of a stroke to erase.
    """

    jump = Signal(object)
    delete = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.list = table("stroke", "plane", "pixels")
        self.erase = button("Delete stroke", "Erase the chosen stroke")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.list)
        layout.addWidget(self.erase)
        self.list.itemActivated.connect(lambda item, _: self.jump.emit(item.data(0, VALUE)))
        self.list.itemClicked.connect(lambda item, _: self.jump.emit(item.data(0, VALUE)))
        self.erase.clicked.connect(self._delete)

    def show_strokes(self, strokes: Sequence[Any], classes: Sequence[LabelClass]) -> None:
        """Show the last of these strokes, the newest first."""
        known = {c.value: c for c in classes}
        self.list.clear()
        for stroke in sorted(strokes, key=lambda s: -s.number)[:LISTED]:
            c = known[stroke.value]
            item = QTreeWidgetItem([c.name, str(stroke.z), f"{stroke.pixels:,}"])
            item.setIcon(0, swatch(c.colour))
            item.setData(0, VALUE, stroke)
            for column in (1, 2):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            self.list.addTopLevelItem(item)
        fit(self.list, self.list.topLevelItemCount())

    def _delete(self) -> None:
        item = self.list.currentItem()
        if item is not None:
            self.delete.emit(item.data(0, VALUE).number)
