"""The tasks of the platform: what goes in, what comes out, declared once (floor 2)."""

from manylens.tasks.declarations import TASKS, Task, get, request
from manylens.tasks.prompts import Example, ObjectPrompt, Request
from manylens.tasks.requests import (
    AnswerRequest,
    AskRequest,
    ClassifyRequest,
    DetectRequest,
    EmbedRequest,
    ReadRequest,
    SegmentRequest,
)
from manylens.tasks.results import (
    Answer,
    Classification,
    Embedding,
    Evidence,
    Label,
    Provenance,
    Reading,
    Result,
    TextLine,
    detections,
    provenance_of,
    to_json,
    with_provenance,
)

__all__ = [
    "TASKS",
    "Answer",
    "AnswerRequest",
    "AskRequest",
    "Classification",
    "ClassifyRequest",
    "DetectRequest",
    "EmbedRequest",
    "Embedding",
    "Evidence",
    "Example",
    "Label",
    "ObjectPrompt",
    "Provenance",
    "ReadRequest",
    "Reading",
    "Request",
    "Result",
    "SegmentRequest",
    "Task",
    "TextLine",
    "detections",
    "get",
    "provenance_of",
    "request",
    "to_json",
    "with_provenance",
]
