"""Classifiers that Fiji's Trainable Weka Segmentation (TWS) saved (``.model``), read as data.

A ``.model`` is a stream of two Java objects: a FastRandomForest and the header of its training data. Only the classes
that such a file holds are accepted, their fields are checked one by one, and nothing is executed.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features import FeatureBank, IntensityScale, formula_of_relation, grey_dimensions
from gpu_tomoclass.forest import LEAF, Forest
from gpu_tomoclass.model.fiji.java_stream import MAGIC, JavaObject, JavaReader
from gpu_tomoclass.model.fiji.trees import TREE_CLASS, TreeShortcut, forest_of
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.outputs import size_text

FOREST_CLASS = "hr.irb.fastRandomForest.FastRandomForest"
BAGGING_CLASS = "hr.irb.fastRandomForest.FastRfBagging"
INSTANCES_CLASS = "weka.core.Instances"
ALLOWED_CLASSES = frozenset(
    (
        FOREST_CLASS,
        BAGGING_CLASS,
        TREE_CLASS,
        INSTANCES_CLASS,
        "weka.core.Attribute",
        "weka.core.NominalAttributeInfo",
        "weka.core.ProtectedProperties",
        "weka.classifiers.AbstractClassifier",
        "weka.classifiers.SingleClassifierEnhancer",
        "weka.classifiers.IteratedSingleClassifierEnhancer",
        "weka.classifiers.RandomizableIteratedSingleClassifierEnhancer",
        "java.lang.Integer",
        "java.lang.Number",
        "java.util.ArrayList",
        "java.util.HashMap",
        "java.util.Hashtable",
        "java.util.Properties",
        "[D",
        f"[L{TREE_CLASS};",
        "[Lweka.classifiers.Classifier;",
    )
)
NUMERIC, NOMINAL = 0, 1
GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 8 * 2**30
MAX_RATIO = 100  # trees shrink to a fifth or so; deflate itself can reach 1 : 1030
ALWAYS_ALLOWED = 64 * 2**20
_PIECE = 16 * 2**20


@dataclass(frozen=True, eq=False)
class FijiModel:
    """Contents of a ``.model`` file.

    Attributes
    ----------
    forest : Forest
        Its features are the channels of ``bank``, in the bank's order; its thresholds and votes are Weka's.
    bank : FeatureBank
        As the names of the attributes imply.
    class_names : tuple of str
    relation : str
        The name of the training data: TWS and its version.
    seed, max_features, max_depth : int
        What the forest was trained with; depth 0 is unlimited.
    oob_error : float
        FastRandomForest's out-of-bag error.
    notes : tuple of str
        What the file cannot tell and a user should know.
    """

    forest: Forest
    bank: FeatureBank
    class_names: tuple[str, ...]
    relation: str
    seed: int
    max_features: int
    max_depth: int
    oob_error: float
    notes: tuple[str, ...] = ()


def import_fiji_model(
    path: str | PathLike[str], *, signed_16_bit: bool = False, hessian: str = "auto", gabor: str = "fast"
) -> Model:
    """Make a model of a classifier that Fiji saved; it classifies as Fiji does.

    Parameters
    ----------
    path : str or path
        A ``.model`` file, gzipped or not.
    signed_16_bit : bool
        Whether Fiji's image was signed 16 bit. ImageJ adds 32768 to such voxels, so the model will do so too.
    hessian, gabor : str
        See :func:`load_fiji_model`.

    Raises
    ------
    UsageError, ModelError
        See :func:`load_fiji_model`.
    """
    fiji = load_fiji_model(path, hessian=hessian, gabor=gabor)
    scale = IntensityScale(kind="signed-16-bit", offset=32768.0) if signed_16_bit else IntensityScale()
    return Model(
        forest=fiji.forest,
        bank=fiji.bank,
        classes=default_classes(fiji.class_names),
        intensity=scale,
        training={
            "settings": {
                "engine": "Fiji FastRandomForest",
                "n_trees": fiji.forest.n_trees,
                "max_features": fiji.max_features,
                "max_depth": fiji.max_depth or None,
                "seed": fiji.seed,
            },
            "oob_error": fiji.oob_error if np.isfinite(fiji.oob_error) else None,
            "fiji_model": Path(path).name,
            "relation": fiji.relation,
            "notes": list(fiji.notes),
        },
        versions={"gpu_tomoclass": __version__},
    )


def describe_fiji_model(fiji: FijiModel) -> dict[str, Any]:
    """Describe a classifier of Fiji, JSON-ready: what ``gpu-tomoclass model info CLASSIFIER.model`` prints.

    Returns
    -------
    dict
        ``format``, ``relation``, ``classes``, ``channels`` (their number), ``bank``, ``forest``, ``trained with``.
    """
    return {
        "format": "classifier of Fiji's Trainable Weka Segmentation (FastRandomForest)",
        "relation": fiji.relation,
        "classes": list(fiji.class_names),
        "channels": fiji.bank.n_channels,
        "bank": fiji.bank.to_dict(),
        "forest": {
            "trees": fiji.forest.n_trees,
            "nodes": fiji.forest.n_nodes,
            "depth": fiji.forest.depth,
            "channels used": int(fiji.forest.used_features().size),
        },
        "trained with": {
            "seed": fiji.seed,
            "channels tried per split": fiji.max_features,
            "largest depth": fiji.max_depth or "unlimited",
            "out-of-bag error": fiji.oob_error if np.isfinite(fiji.oob_error) else None,
        },
        "notes": list(fiji.notes),
    }


def load_fiji_model(path: str | PathLike[str], *, hessian: str = "auto", gabor: str = "fast") -> FijiModel:
    """Read and check a ``.model`` file of TWS.

    Parameters
    ----------
    path : str or path
    hessian : {"auto", "current", "legacy"}
        The formula of the Hessian's eigenvalues, see :class:`~gpu_tomoclass.features.FeatureBank`. ``"auto"``: legacy
        where the relation begins with ``segment``, as TWS's window has it.
    gabor : {"fast", "exact"}
        How Gabor is computed, see there.

    Raises
    ------
    UsageError
        If there is no such file.
    ModelError
        If it is none, is damaged, holds another classifier than FastRandomForest, or was trained on channels that
        the feature bank does not have; they are named.
    """
    try:
        return _interpret(_read_bytes(path), hessian=hessian, gabor=gabor)
    except ModelError as error:
        what = f"{error.where}: {error.what}" if error.where is not None else error.what
        raise ModelError(what, where=path, do=error.do) from error


def _read_bytes(path: str | PathLike[str]) -> bytes:
    file = Path(path)
    if not file.is_file():
        raise UsageError("is a folder" if file.is_dir() else "does not exist", where=path)
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(4)
            stream.seek(0)
            if start[:2] == GZIP_MAGIC:
                with gzip.open(stream) as unpacked:
                    limit = min(MAX_BYTES, max(ALWAYS_ALLOWED, MAX_RATIO * size))
                    return _read_at_most(unpacked, limit, what=f"unpacks from {size_text(size)}")
            if start != MAGIC:
                raise ModelError("is no classifier of Fiji: it does not begin like a Java object stream")
            return _read_at_most(stream, MAX_BYTES, what="holds")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ModelError(f"is a damaged gzip file ({error})", do="copy it again") from error
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}") from error


def _read_at_most(stream: Any, limit: int, *, what: str) -> bytes:
    pieces, n_bytes = [], 0
    while piece := stream.read(_PIECE):
        pieces.append(piece)
        n_bytes += len(piece)
        if n_bytes > limit:
            raise ModelError(f"{what} to more than {size_text(limit)}, which no classifier does")
    return b"".join(pieces)


# --- the two objects -------------------------------------------------------------------------------------------------


class _ClassCheck:
    """Refuses classes that no classifier of TWS holds; the first class is the classifier's own."""

    def __init__(self) -> None:
        self._is_first = True

    def __call__(self, name: str) -> None:
        if self._is_first and name != FOREST_CLASS:
            raise ModelError(
                f"the classifier is {name:.120}, only FastRandomForest can be imported",
                do="train a FastRandomForest in Fiji, or save its training data and use gpu-tomoclass train --from",
            )
        self._is_first = False
        if name not in ALLOWED_CLASSES:
            raise ModelError(f"holds an object of the class {name:.120}, which no FastRandomForest of Fiji holds")


def _interpret(data: bytes, *, hessian: str, gabor: str) -> FijiModel:
    if data[: len(MAGIC)] != MAGIC:
        raise ModelError("is no classifier of Fiji: it does not begin like a Java object stream")
    reader = JavaReader(data, check_class=_ClassCheck(), shortcut=TreeShortcut())
    forest = _of_class(reader.read(), FOREST_CLASS, "the classifier")
    header = reader.read() if not reader.at_end else None
    if _field(forest, "m_ZeroR", object, optional=True) is not None:
        raise ModelError("the classifier was trained without channels: it only knows the most frequent class")
    if forest.fields.get("m_bagger") is None:
        raise ModelError("the classifier is not trained")
    names, class_names, relation = _header(_field(forest, "m_Info", JavaObject))
    if header is not None:
        of_data = _header(_of_class(header, INSTANCES_CLASS, "the training header"))
        if of_data[:2] != (names, class_names):
            raise ModelError("the classifier and the training header name other channels or classes")
        relation = of_data[2]
    dimensions, notes = grey_dimensions(relation, names)
    formula, of_formula = formula_of_relation(relation, hessian)
    bank, order = FeatureBank.from_channels(names, hessian=formula, gabor=gabor, dimensions=dimensions)
    notes += [*_notes(bank), *(of_formula if "hessian" in bank.families else ())]

    bagging = _of_class(_field(forest, "m_bagger", JavaObject), BAGGING_CLASS, "the bagging")
    trees, n_trees = _field(bagging, "m_Classifiers", list), _field(bagging, "m_NumIterations", int)
    if not trees or n_trees != len(trees):
        raise ModelError(f"the classifier has {len(trees)} trees and says that it has {n_trees}")
    by_file = forest_of(trees, n_features=len(names), n_classes=len(class_names))
    channel = np.empty(len(names), dtype=np.int32)
    channel[order] = np.arange(len(names), dtype=np.int32)
    feature = np.where(by_file.feature == LEAF, np.int32(LEAF), channel[by_file.feature])
    return FijiModel(
        forest=Forest(
            feature,
            by_file.threshold,
            by_file.child,
            by_file.left_fraction,
            by_file.votes,
            by_file.roots,
            bank.n_channels,
        ),
        bank=bank,
        class_names=class_names,
        relation=relation,
        seed=_field(forest, "m_randomSeed", int),
        max_features=_field(forest, "m_KValue", int),
        max_depth=_field(forest, "m_MaxDepth", int),
        oob_error=_field(bagging, "m_OutOfBagError", float),
        notes=tuple(notes),
    )


def _header(instances: JavaObject) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Channel names, class names and relation of a ``weka.core.Instances``."""
    attributes = _list(_field(instances, "m_Attributes", JavaObject), "the attributes")
    class_index = _field(instances, "m_ClassIndex", int)
    if len(attributes) < 2 or class_index != len(attributes) - 1:
        raise ModelError(f"the class is attribute {class_index} of {len(attributes)}, not the last")
    names = []
    for i, attribute in enumerate(attributes):
        one = _of_class(attribute, "weka.core.Attribute", f"attribute {i}")
        name, kind = _field(one, "m_Name", str), _field(one, "m_Type", int)
        if kind != (NOMINAL if i == class_index else NUMERIC):
            raise ModelError(f"attribute {i}, {name[:60]!r}, is of Weka's type {kind}")
        names.append(name)
    one = attributes[-1]
    info = one.fields.get("m_AttributeInfo")  # Weka before 3.9 kept the values in the attribute itself
    class_names = _list(_field(info if isinstance(info, JavaObject) else one, "m_Values", JavaObject), "the classes")
    if not all(isinstance(name, str) for name in class_names) or not 2 <= len(class_names) <= 255:
        raise ModelError(f"there are {len(class_names)} classes, not 2 to 255 with names")
    return tuple(names[:-1]), tuple(name.strip() for name in class_names), _field(instances, "m_RelationName", str)


def _notes(bank: FeatureBank) -> list[str]:
    notes = [
        "voxel values enter as stored; if Fiji's image was signed 16 bit, import with --signed-16-bit, "
        "as ImageJ adds 32768 to such values"
    ]
    stretched = [name for name in ("bilateral", "lipschitz") if name in bank.families]
    if stretched:
        notes.append(
            f"for 32-bit images Fiji's {' and '.join(stretched)} depend on the display range of the image, which the "
            "file does not hold; here they use the range of the plane"
        )
    return notes


# --- fields ----------------------------------------------------------------------------------------------------------


def _of_class(value: Any, name: str, what: str) -> JavaObject:
    if not isinstance(value, JavaObject) or value.name != name:
        found = value.name[:80] if isinstance(value, JavaObject) else type(value).__name__
        raise ModelError(f"{what} is {found}, not {name}")
    return value


def _field(owner: JavaObject, name: str, kind: type, *, optional: bool = False) -> Any:
    value = owner.fields.get(name)
    if value is None and optional:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        _wrong(owner, name, value, kind)
    return value


def _wrong(owner: JavaObject, name: str, value: Any, kind: type) -> NoReturn:
    found = value.name[:80] if isinstance(value, JavaObject) else type(value).__name__
    raise ModelError(f"{name} of {owner.name} is {found}, not {kind.__name__}")


def _list(value: JavaObject, what: str) -> Sequence[Any]:
    """The elements of a ``java.util.ArrayList``."""
    _of_class(value, "java.util.ArrayList", what)
    items = [item for item in value.written if not isinstance(item, bytes)]
    if value.fields.get("size") != len(items):
        raise ModelError(f"{what}: the list holds {len(items)} and says {value.fields.get('size')!r:.20}")
    return items
