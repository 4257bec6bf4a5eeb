from .commands import Recipe
from .events import Event
from .overlays import Overlay
from .painter import Painter, Targets
from .server import listening_socket, origins_of, serve
from .session import Session
from .strokes import Stroke, Strokes, brush_pixels
from .suggestions import Suggestion
from .watching import watch

__all__ = [
    "Event",
    "Overlay",
    "Painter",
    "Recipe",
    "Session",
    "Stroke",
    "Strokes",
    "Suggestion",
    "Targets",
    "brush_pixels",
    "listening_socket",
    "origins_of",
    "serve",
    "watch",
]
