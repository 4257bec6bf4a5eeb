from .demo import run_demo
from .reproduction.study import reproduce
from .simulation.files import write_phantom, write_pillar
from .simulation.tilt_series import WEDGE, tilt_angles

__all__ = [
    "WEDGE",
    "reproduce",
    "run_demo",
    "tilt_angles",
    "write_phantom",
    "write_pillar",
]
