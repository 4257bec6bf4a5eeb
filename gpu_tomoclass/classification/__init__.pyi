from .batch import Outcome, check_job, run_job
from .classify_volume import ClassifyResult, classify
from .cluster import Cluster
from .job_file import load_job
from .lock import locked
from .plan import Plan, make_plan
from .predict_arrays import Prediction, predict
from .predicted import batch_script, planned_gpus
from .preview_plane import Preview, preview
from .smoothing import TRUNCATE, Smoother, planes_around, sigma_in_voxels

__all__ = [
    "TRUNCATE",
    "ClassifyResult",
    "Cluster",
    "Outcome",
    "Plan",
    "Prediction",
    "Preview",
    "Smoother",
    "batch_script",
    "check_job",
    "classify",
    "load_job",
    "locked",
    "make_plan",
    "planes_around",
    "planned_gpus",
    "predict",
    "preview",
    "run_job",
    "sigma_in_voxels",
]
