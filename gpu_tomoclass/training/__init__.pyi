from .adapt_model import Adaptation, adapt, check_drift
from .cross_validation import CrossValidation, cross_validate, make_folds, marked_classes
from .drift import Drift
from .earlier_rows import OldRows, old_rows
from .patch_ranking import PATCH, Description, Patch, patches_of_plane, ranked_patches
from .rows import TrainingRows, collect_rows
from .selection import Selection, measure_costs, measure_together, select_families, slab_to_time, trade_off_figure
from .suggest_places import SuggestedPlace, suggest
from .suggestion_files import save_suggestions, suggestion_targets
from .tables import bank_of_table
from .train_model import TrainingResult, train, train_from_table

__all__ = [
    "PATCH",
    "Adaptation",
    "CrossValidation",
    "Description",
    "Drift",
    "OldRows",
    "Patch",
    "Selection",
    "SuggestedPlace",
    "TrainingResult",
    "TrainingRows",
    "adapt",
    "bank_of_table",
    "check_drift",
    "collect_rows",
    "cross_validate",
    "make_folds",
    "marked_classes",
    "measure_costs",
    "measure_together",
    "old_rows",
    "patches_of_plane",
    "ranked_patches",
    "save_suggestions",
    "select_families",
    "slab_to_time",
    "suggest",
    "suggestion_targets",
    "trade_off_figure",
    "train",
    "train_from_table",
]
