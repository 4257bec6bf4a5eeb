"""A stand-in for cuML where there is none.

Its parameters are those of ``cuml.ensemble.RandomForestClassifier`` in the wheels of cuML 26.8 and 26.10; a parameter
that cuML does not have is a TypeError here as it is there. Its trees are scikit-learn's, handed over as cuML does: a
treelite model, float32, ``<=``, with data counts.
"""

import types

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn
from gpu_tomoclass.forest.treelite_arrays import treelite_from_forest


def features_looked_at(max_features, n_features):
    """As cuML 26.10 counts them, in float32 and cut to a whole number."""
    share = max_features / n_features if isinstance(max_features, int) else max_features
    return int(np.float32(share) * np.float32(n_features))


class StandIn:
    made = None

    def __init__(
        self,
        *,
        n_estimators=100,
        split_criterion="gini",
        bootstrap=True,
        max_samples=1.0,
        max_depth=None,
        max_leaves=-1,
        max_features="sqrt",
        n_bins=128,
        min_samples_leaf=1,
        min_samples_split=2,
        min_impurity_decrease=0.0,
        max_batch_size=4096,
        random_state=None,
        n_streams=4,
        oob_score=False,
        class_weight=None,
        verbose=False,
        output_type=None,
    ):
        self.settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        StandIn.made = self

    def fit(self, X, y, sample_weight=None):
        s = self.settings
        assert X.dtype == np.float32
        assert y.dtype == np.int32
        assert np.isfinite(X).all()  # cuML refuses missing values
        assert y.min() == 0
        n_features = features_looked_at(s["max_features"], X.shape[1])
        self.grown = RandomForestClassifier(
            s["n_estimators"], criterion=s["split_criterion"], max_depth=s["max_depth"],
            max_features=n_features, min_samples_leaf=s["min_samples_leaf"], class_weight=s["class_weight"],
            bootstrap=s["bootstrap"], oob_score=s["oob_score"], random_state=s["random_state"],
        ).fit(X, y)  # fmt: skip
        self.oob_decision_function_ = self.grown.oob_decision_function_
        self.feature_importances_ = self.grown.feature_importances_.astype(np.float32)
        return self

    def as_treelite(self):
        return treelite_from_forest(forest_from_sklearn(self.grown))


def modules():
    """What ``sys.modules`` must hold for ``import cuml``."""
    module = types.ModuleType("cuml")
    module.__version__ = "26.10.00"
    module.ensemble = types.ModuleType("cuml.ensemble")
    module.ensemble.RandomForestClassifier = StandIn
    return {"cuml": module, "cuml.ensemble": module.ensemble}
