from .batch import Outcome, check_job, run_job
from .classify_volume import ClassifyResult, classify
from .cluster import Cluster
from .job_file import load_job
from .lock import locked
from .plan import Plan, make_plan
from .predict_arrays import Prediction, predict
from .predicted import batch_script, planned_gpus
from .preview_plane import Preview, preview

__all__ = [
    "ClassifyResult",
    "Cluster",
    "Outcome",
    "Plan",
    "Prediction",
    "Preview",
    "batch_script",
    "check_job",
    "classify",
    "load_job",
    "locked",
    "make_plan",
    "planned_gpus",
    "predict",
    "preview",
    "run_job",
]
