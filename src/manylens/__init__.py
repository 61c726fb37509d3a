"""manylens: many lenses, one view. One platform in which the visual foundation models work together."""

from typing import TYPE_CHECKING, Any

from manylens.version import __version__

if TYPE_CHECKING:
    from manylens import errors as errors
    from manylens.agent import ask as ask
    from manylens.data import Dataset as Dataset
    from manylens.errors import ManylensError as ManylensError
    from manylens.evaluation.comparing import compare as compare
    from manylens.evaluation.evaluate import evaluate as evaluate
    from manylens.media import Audio as Audio
    from manylens.media import Image as Image
    from manylens.media import Video as Video
    from manylens.session import Session as Session
    from manylens.session import default_session as default_session
    from manylens.training.exporting import export as export
    from manylens.training.run import train as train
    from manylens.verbs import answer as answer
    from manylens.verbs import caption as caption
    from manylens.verbs import classify as classify
    from manylens.verbs import depth as depth
    from manylens.verbs import detect as detect
    from manylens.verbs import edit as edit
    from manylens.verbs import embed as embed
    from manylens.verbs import generate as generate
    from manylens.verbs import match as match
    from manylens.verbs import read as read
    from manylens.verbs import recognize as recognize
    from manylens.verbs import segment as segment
    from manylens.verbs import speak as speak
    from manylens.verbs import structure as structure
    from manylens.verbs import track as track
    from manylens.verbs import transcribe as transcribe
    from manylens.verbs import upscale as upscale

_HOMES = {
    "manylens.agent": ("ask",),
    "manylens.data": ("Dataset",),
    "manylens.errors": ("ManylensError",),
    "manylens.evaluation.comparing": ("compare",),
    "manylens.evaluation.evaluate": ("evaluate",),
    "manylens.media": ("Audio", "Image", "Video"),
    "manylens.session": ("Session", "default_session"),
    "manylens.training.exporting": ("export",),
    "manylens.training.run": ("train",),
    "manylens.verbs": (
        *(
            "answer",
            "caption",
            "classify",
            "depth",
            "detect",
            "edit",
            "embed",
            "generate",
            "match",
            "read",
            "recognize",
        ),
        *("segment", "speak", "structure", "track", "transcribe", "upscale"),
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that ``import manylens`` stays quick."""
    import importlib

    try:
        home = _HOME_OF[name]
    except KeyError:
        raise AttributeError(f"module 'manylens' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
