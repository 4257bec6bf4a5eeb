from .batch import Outcome, check_job, run_job
from .classify_volume import ClassifyResult, classify, plane_range
from .cluster import Cluster
from .job_file import load_job
from .plan import make_plan
from .preview_plane import Preview, preview
from .slab import Wanted

__all__ = [
    "ClassifyResult",
    "Cluster",
    "Outcome",
    "Preview",
    "Wanted",
    "check_job",
    "classify",
    "load_job",
    "make_plan",
    "plane_range",
    "preview",
    "run_job",
]
