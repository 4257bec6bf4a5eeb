from .batch import load_job, run_job
from .classify_volume import ClassifyResult, classify, plane_range
from .cluster import Cluster
from .plan import make_plan
from .preview_plane import Preview, preview
from .slab import Wanted

__all__ = [
    "ClassifyResult",
    "Cluster",
    "Preview",
    "Wanted",
    "classify",
    "load_job",
    "make_plan",
    "plane_range",
    "preview",
    "run_job",
]
