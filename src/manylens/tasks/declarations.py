"""Every task, declared once. All faces of the product are made from this list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manylens.errors import UnknownTaskError
from manylens.tasks import requests as q


@dataclass(frozen=True)
class Task:
    """One task of the platform.

    Attributes:
        name: The verb, the same on every face.
        summary: One line for lists.
        meaning: One paragraph for users, planners and tool descriptions.
        request: The type of what goes in.
        result: The name of what comes out: ``Detections`` or a class of :mod:`manylens.tasks.results`.
        hub_names: The standard names of the task on model hubs.
        workflow: Served by a plan over other tasks instead of by a model.
    """

    name: str
    summary: str
    meaning: str
    request: type[q.Request]
    result: str
    hub_names: tuple[str, ...] = ()
    workflow: bool = False


_DETECTION = ("zero-shot-object-detection", "object-detection")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "segment",
            "Masks of what is clicked, boxed, named, shown by example, or of everything.",
            "Cuts things out of a picture. Give clicks, a box or a coarse mask for an object (or several objects), words "
            "that name it, or an example picture with its mask; or ask for everything, the main object, or a closed set "
            "of classes. Returns masks with scores; a click returns up to three: whole, part and subpart.",
            q.SegmentRequest,
            "Detections",
            ("mask-generation", "image-segmentation"),
        ),
        Task(
            "track",
            "Follows an object through a video.",
            "Takes a video and a prompt on one of its frames, and returns the object's mask in each frame with a tracker id.",
            q.TrackRequest,
            "Tracks",
            ("video-mask-generation",),
        ),
        Task(
            "detect",
            "Boxes of things, by name or of a closed set.",
            "Finds things in a picture and returns a box, a class name and a score for each. Give the names to look for, "
            "an example box, or nothing for all classes that the model knows.",
            q.DetectRequest,
            "Detections",
            _DETECTION,
        ),
        Task(
            "classify",
            "Ranked labels of a picture, from given names or a closed set.",
            "Says what a picture shows as a list of labels with probabilities. Give the names to choose from, or nothing "
            "for the model's own labels.",
            q.ClassifyRequest,
            "Classification",
            ("zero-shot-image-classification", "image-classification"),
        ),
        Task(
            "embed",
            "A unit vector of a picture, a region, text or sound.",
            "Turns a picture, a region of it, text or sound into a unit vector for search and comparison; patch features "
            "on request.",
            q.EmbedRequest,
            "Embedding",
            ("image-feature-extraction", "feature-extraction"),
        ),
        Task(
            "match",
            "How well a text or another picture fits a picture.",
            "Scores how well a text, or a second picture, fits a picture.",
            q.MatchRequest,
            "Match",
            ("image-text-matching",),
        ),
        Task(
            "caption",
            "A sentence about a picture or a region.",
            "Describes a picture, or a region of it, in a sentence.",
            q.CaptionRequest,
            "Caption",
            ("image-to-text",),
        ),
        Task(
            "answer",
            "The answer to a question about a picture, with its evidence.",
            "Answers a question about one picture or several in a few words, and returns what the answer rests on: boxes, "
            "labels, read text. Says when it cannot answer.",
            q.AnswerRequest,
            "Answer",
            ("visual-question-answering", "document-question-answering"),
        ),
        Task(
            "read",
            "The written text in a picture.",
            "Reads printed text in a picture, line by line, each with its box and score.",
            q.ReadRequest,
            "Reading",
            ("image-to-text", "ocr"),
        ),
        Task(
            "structure",
            "A map of edges, lines, pose or the like.",
            "Extracts a picture's structure as a map or keypoints: canny, edges, lines, scribble, pose, normal, depth or "
            "segmentation; used to condition new pictures.",
            q.StructureRequest,
            "StructureMap",
            ("controlnet-preprocessor",),
        ),
        Task(
            "depth",
            "How far away each pixel is.",
            "Estimates depth for each pixel, relative or in metres as the result says.",
            q.DepthRequest,
            "Depth",
            ("depth-estimation",),
        ),
        Task(
            "generate",
            "A new picture from words.",
            "Makes a picture from a description, following a structure map where one is given.",
            q.GenerateRequest,
            "Picture",
            ("text-to-image",),
        ),
        Task(
            "edit",
            "A changed picture, by instruction or mask.",
            "Changes a picture as an instruction says, or makes the part under a mask anew from words.",
            q.EditRequest,
            "Picture",
            ("image-to-image",),
        ),
        Task(
            "upscale",
            "The picture with more pixels.",
            "Enlarges a picture two or four times with detail that a model fills in.",
            q.UpscaleRequest,
            "Picture",
            ("image-to-image", "super-resolution"),
        ),
        Task(
            "transcribe",
            "The words of a recording, with times.",
            "Writes down what is said in a recording, with times.",
            q.TranscribeRequest,
            "Transcript",
            ("automatic-speech-recognition",),
        ),
        Task(
            "speak",
            "Text as speech.",
            "Says a text aloud and returns the sound.",
            q.SpeakRequest,
            "Speech",
            ("text-to-speech",),
        ),
        Task(
            "recognize",
            "Everything in a picture, named and described.",
            "Finds the regions of a picture and gives each a box, a mask, an open-world name and a sentence "
            "(the All-Seeing task).",
            q.RecognizeRequest,
            "Recognition",
        ),
        Task(
            "ask",
            "A request in words, served by a plan over all tasks.",
            "Takes a request in plain words with pictures, plans steps over the other tasks, runs them and answers with "
            "text and files; says what it did not understand.",
            q.AskRequest,
            "Run",
            ("any-to-any",),
            workflow=True,
        ),
    )
}


def get(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownTaskError: Naming the tasks that there are.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise UnknownTaskError(f"{name!r} is not a task", f"the tasks are {', '.join(TASKS)}") from None


def request(task: str, **fields: Any) -> q.Request:
    """A validated request of a task; see :meth:`manylens.tasks.requests.Request.of` for the errors."""
    return get(task).request.of(**fields)
