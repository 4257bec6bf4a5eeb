from .commands import Recipe
from .events import Event
from .learner import Overlay
from .session import Session
from .strokes import Stroke, Strokes, brush_pixels
from .suggestions import Suggestion, suggest_places

__all__ = [
    "Event",
    "Overlay",
    "Recipe",
    "Session",
    "Stroke",
    "Strokes",
    "Suggestion",
    "brush_pixels",
    "suggest_places",
]
