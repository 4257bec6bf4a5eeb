"""Training and classification with scikit-learn's habits: settings in the constructor, ``fit``, ``predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from gpu_tomoclass.annotations import Annotation
from gpu_tomoclass.api.learning import marked_volumes, reported
from gpu_tomoclass.classification import predict
from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import FeatureBank, FeatureCache
from gpu_tomoclass.model import Model, load_model
from gpu_tomoclass.training import train
from gpu_tomoclass.volumes import Volume, is_array, open_volume


class PixelClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify the pixels of images from some that are marked, as a scikit-learn estimator.

    A sample is a pixel and its features are computed here from the image around it. So ``X`` is not a table: it is an
    image (ny, nx), a volume (nz, ny, nx), a path or an open Volume; or a list of these. ``y`` holds label images of the
    same shapes, 0 where a pixel is not marked, or anything that :func:`gpu_tomoclass.train` takes as marks.

    Parameters
    ----------
    features : str, sequence of str or FeatureBank
        ``"paper"``, ``"weka-default"``, ``"all"``, family names, or a bank with its sigmas.
    sigma_min, sigma_max : float
        Of the filters, in pixels, doubling; see :meth:`FeatureBank.create`. They mean nothing for a FeatureBank.
    n_trees, max_features, max_depth, min_samples_leaf, balance, engine
        Of the forest; see :func:`gpu_tomoclass.train`.
    intensity : {"auto", "none"}
    nan : {"error", "fill", "mask"}
    class_names : sequence of str or dict, optional
        Of the label values 1, 2, ..
    random_state : int, RandomState or None
        The same number grows the same forest; None another one each time.
    cache : path, optional
        Folder that keeps computed features.
    device : str or Device
        ``"auto"`` is the first that works.
    n_jobs : int, optional
        Threads that grow the forest; default one per core.

    Attributes
    ----------
    model_ : Model
        What was trained: what :func:`gpu_tomoclass.classify` takes for volumes too large for the memory.
    classes_ : numpy.ndarray
        (n_classes,) uint8, the label values met, rising.
    feature_names_in_ : numpy.ndarray
        (``n_features_in_``,) str, the channels that were computed.
    n_features_in_ : int
    feature_importances_ : dict
        Share of each feature family.
    oob_score_ : float
        Share of the marked pixels that the trees which had not seen them get right; NaN if every tree had seen all.
    notes_ : tuple of str
        Sentences the user should see.
    """

    def __init__(
        self,
        features: str | Sequence[str] | FeatureBank = "paper",
        *,
        sigma_min: float = 1.0,
        sigma_max: float | None = None,
        n_trees: int = 200,
        max_features: int = 2,
        max_depth: int | None = None,
        min_samples_leaf: int = 1,
        balance: bool = False,
        engine: str = "auto",
        intensity: str = "auto",
        nan: str = "error",
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        random_state: Any = 42,
        cache: str | PathLike[str] | None = None,
        device: Device | str = "auto",
        n_jobs: int | None = None,
    ) -> None:
        self.features = features
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.n_trees = n_trees
        self.max_features = max_features
        self.max_depth = max_depth
        self.min_samples_leaf = min_samples_leaf
        self.balance = balance
        self.engine = engine
        self.intensity = intensity
        self.nan = nan
        self.class_names = class_names
        self.random_state = random_state
        self.cache = cache
        self.device = device
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any) -> Self:
        """Train on the marked pixels.

        Parameters
        ----------
        X : image, volume, or list of them
        y : label image, or list of them
            Of the same shapes; 0 is not marked.

        Raises
        ------
        UsageError
            If a setting is not possible, or X and y are not as many.
        DataError
            If fewer than two classes are marked, or an image cannot be used.
        """
        images, marks = _listed(X), _listed(y) if _is_several(X) else [y]
        if len(images) != len(marks):
            raise UsageError(f"there are {len(images)} images and {len(marks)} label images")
        pairs = [_stacked(image, mark) for image, mark in zip(images, marks, strict=True)]
        (volume, annotation), *also = marked_volumes(pairs, class_names=self.class_names)
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31)
        bank = self.features
        if not isinstance(bank, FeatureBank):
            bank = FeatureBank.create(bank, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        result = train(
            volume,
            annotation,
            bank=bank,
            also=also,
            intensity=self.intensity,
            nan=self.nan,
            cache=None if self.cache is None else FeatureCache(self.cache),
            device=self.device,
            workers=self.n_jobs,
            engine=self.engine,
            n_trees=self.n_trees,
            max_features=self.max_features,
            max_depth=self.max_depth,
            min_samples_leaf=self.min_samples_leaf,
            balance=self.balance,
            seed=int(seed),
        )
        return self._take(reported(result))

    def predict(self, X: Any) -> Any:
        """Label values of all pixels: uint8 of the shape of X (a list for a list); for CuPy arrays CuPy's.

        May be called by several threads at once, and on blocks: ``dask_array.map_blocks(classifier.predict,
        dtype="uint8")``, whose blocks should hold whole planes.
        """
        return self._each(X, lambda image: self._predicted(image, probabilities=False).labels)

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes: float32, the shape of X with a last axis in the order of ``classes_``."""
        return self._each(X, lambda image: _last(self._predicted(image, probabilities=True).probabilities))

    def score(self, X: Any, y: Any, sample_weight: None = None) -> float:
        """Share of the marked pixels (y not 0) that are classified as marked."""
        if sample_weight is not None:
            raise UsageError("pixels have no weights here", do="leave out sample_weight")
        found, marks = _listed(self.predict(X)), _listed(y) if _is_several(X) else [y]
        if len(found) != len(marks):
            raise UsageError(f"there are {len(found)} images and {len(marks)} label images")
        right = marked = 0
        for labels, mark in zip(found, marks, strict=True):
            mark = np.asarray(mark)
            if mark.shape != labels.shape:
                raise DataError(f"the label image is {mark.shape}, the image {labels.shape}")
            chosen = mark != 0
            marked += int(chosen.sum())
            right += int((np.asarray(labels)[chosen] == mark[chosen]).sum())
        if not marked:
            raise DataError("no pixel is marked: there is nothing to score")
        return right / marked

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model file (``.tcm``), which the command line, :func:`load_model` and :meth:`load` read."""
        check_is_fitted(self)
        self.model_.save(path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: Device | str = "auto") -> Self:
        """A fitted classifier of a model file, whoever trained it."""
        model = load_model(path)
        settings = model.training.get("settings", {})
        known = {name: settings[name] for name in ("n_trees", "max_features", "max_depth", "balance", "engine")
                 if name in settings}  # fmt: skip
        seed = {"random_state": settings["seed"]} if "seed" in settings else {}
        return cls(features=model.bank, device=device, **known, **seed)._take(model)

    def _take(self, model: Model) -> Self:
        self.model_ = model
        self.classes_ = np.array([c.value for c in model.classes], np.uint8)
        self.feature_names_in_ = np.array(model.bank.channels, dtype=object)
        self.n_features_in_ = model.bank.n_channels
        self.feature_importances_ = dict(model.training.get("importance", {}))
        error = model.training.get("oob_error")
        self.oob_score_ = float("nan") if error is None else 1.0 - error
        self.notes_ = () if model.report is None else tuple(model.report.notes)
        return self

    def _each(self, X: Any, work: Any) -> Any:
        check_is_fitted(self)
        return [work(image) for image in X] if _is_several(X) else work(X)

    def _predicted(self, image: Any, *, probabilities: bool) -> Any:
        image = open_volume(image) if isinstance(image, (str, PathLike)) else _array(image)
        return predict(self.model_, image, probabilities=probabilities, nan=self.nan, device=self.device)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # not of samples and features
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.nan != "error"
        tags.no_validation = True
        return tags


def _is_several(X: Any) -> bool:
    """Tell whether these are images, in a list; a list of numbers is one image."""
    if not isinstance(X, (list, tuple)):
        return False
    return all(isinstance(item, (str, PathLike, Volume, Annotation)) or is_array(item) for item in X)


def _listed(X: Any) -> list[Any]:
    return list(X) if _is_several(X) else [X]


def _array(image: Any) -> Any:
    return image if isinstance(image, Volume) or is_array(image) else np.asarray(image)


def _stacked(image: Any, mark: Any) -> tuple[Any, Any]:
    """An image and its marks as volumes."""
    if isinstance(image, (str, PathLike)):
        return image, mark
    image = _array(image)
    if not isinstance(mark, (str, PathLike, Annotation)):
        mark = _array(mark)
    return tuple(a[None] if len(getattr(a, "shape", ())) == 2 else a for a in (image, mark))


def _last(probabilities: Any) -> Any:
    """The first axis as the last, without a copy; of NumPy's arrays and CuPy's."""
    return probabilities.transpose(*range(1, probabilities.ndim), 0)
