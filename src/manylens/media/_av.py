"""PyAV, asked for only when a file needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from manylens.errors import MediaError
from manylens.media.sniff import kind_of
from manylens.media.sources import Source


@contextmanager
def container(source: Source, kind: str) -> Iterator[Any]:
    """Open a video or sound file; whatever PyAV finds wrong in it, then or later, becomes a MediaError.

    Args:
        source: What to open.
        kind: ``video`` or ``audio``, the stream that the file must have.

    Yields:
        An open PyAV container.
    """
    try:
        import av
    except ImportError as error:
        raise MediaError(f"{source.name}: reading it needs PyAV", "run: pip install 'manylens[video]'") from error
    with source.open() as file:
        try:
            opened = av.open(file)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(
                f"{source.name}: not {kind} that can be read, or cut short ({kind_of(file)[0]})",
                f"give a whole {kind} file",
            ) from error
        with opened:
            if not any(stream.type == kind for stream in opened.streams):
                raise MediaError(f"{source.name}: holds no {kind}", f"give a file with {kind}")
            try:
                yield opened
            except av.FFmpegError as error:
                raise MediaError(
                    f"{source.name}: the {kind} is cut in the middle or broken ({error.strerror})",
                    "get a whole copy of it",
                ) from error
