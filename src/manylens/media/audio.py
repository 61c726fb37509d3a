"""Sound: one channel of float32 samples at a sample rate."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from manylens.errors import MediaError
from manylens.media import wav
from manylens.media._av import container
from manylens.media.base import Media
from manylens.media.identity import content_id
from manylens.media.sources import Source, find, is_encoded

Samples = npt.NDArray[np.float32]

_MAX_RATE = 1_000_000


class Audio(Media):
    """Sound as every model here hears it: mono, float32 in -1..1, never changed. Make one with `Audio.of`.

    Attributes:
        samples: Float32 ``(N,)``, read-only; several channels are averaged.
        rate: Samples a second.
        name: The file's name, or what it was given as.
        path: The file, or None.
    """

    json_format: ClassVar[str] = "audio"
    json_description: ClassVar[str] = "A recording: the path of a file, or its content as a data URI"

    def __init__(self, samples: Samples, rate: int, *, name: str = "array", path: Path | None = None) -> None:
        """Not called by users: `Audio.of` checks what it is given, this does not."""
        self.samples = samples.astype(np.float32)  # a copy
        self.samples.flags.writeable = False
        self.rate = rate
        self.name = name
        self.path = path

    @classmethod
    def of(cls, source: Any, rate: int | None = None) -> Self:
        """Make a sound from whatever holds one.

        Args:
            source: A path, bytes or ``data:`` URI of a WAV file or, with the extra ``video``, of any file that FFmpeg
                reads (MP3, FLAC, OGG, M4A, the sound of a video); a pair ``(samples, rate)``; an array ``(N,)`` or
                ``(N, channels)`` of float in -1..1 or of integers, together with ``rate``; or an Audio.
            rate: Samples a second of an array.

        Raises:
            MediaError: It is none of these, is cut short, holds no sound, or has NaN in it.
        """
        if isinstance(source, cls):
            return source
        if is_encoded(source):
            found = find(source)
            samples, found_rate = _decode(found)
            return cls._checked(samples, found_rate, found.label, found.path, found.name)
        if isinstance(source, tuple) and len(source) == 2:
            source, rate = source
        if not isinstance(source, np.ndarray):
            raise MediaError(f"{type(source).__name__}: not sound", "give a path, bytes or (samples, rate)")
        if rate is None:
            raise MediaError("array: its sample rate is not given", "give (samples, rate)")
        if source.dtype.kind not in "iuf" or source.ndim not in (1, 2):
            raise MediaError(
                f"array: {source.dtype} of {source.ndim} dimensions is not sound",
                "give float in -1..1, (N,) or (N, channels)",
            )
        samples = wav.to_float(source)
        return cls._checked(samples, rate, "array", None, "array")

    @classmethod
    def _checked(cls, samples: Samples, rate: int, name: str, path: Path | None, shown: str) -> Self:
        if not samples.size:
            raise MediaError(f"{shown}: holds no sound", "give at least one sample")
        if not isinstance(rate, int | np.integer) or not 1 <= rate <= _MAX_RATE:
            raise MediaError(f"{shown}: {rate} is not a sample rate", f"give 1 to {_MAX_RATE} Hz")
        mono = samples if samples.ndim == 1 else samples.mean(axis=1)
        if not np.isfinite(mono).all():
            raise MediaError(f"{shown}: has samples that are not finite numbers", "repair the recording")
        return cls(mono, int(rate), name=name, path=path)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate

    @cached_property
    def id(self) -> str:
        """Hash of the samples and the rate: 40 hexadecimal digits."""
        return content_id("audio", [self.rate, self.samples])

    def resampled(self, rate: int) -> Self:
        """The same sound at another rate, free of aliasing (its spectrum is cut or padded); itself if at that rate."""
        if rate == self.rate:
            return self
        if not 1 <= rate <= _MAX_RATE:
            raise MediaError(f"{self.name}: {rate} is not a sample rate", f"give 1 to {_MAX_RATE} Hz")
        # The Fourier transform takes sound to be a loop; silence at the end keeps the start from ringing into it.
        # Whole seconds make the two lengths stand exactly in the relation of the two rates.
        loop = int(np.ceil(self.seconds)) + 1
        spectrum = np.fft.rfft(self.samples, n=loop * self.rate)
        bins = loop * rate // 2 + 1
        scaled = np.zeros(bins, spectrum.dtype)
        kept = min(bins, len(spectrum))
        scaled[:kept] = spectrum[:kept]
        length = max(1, round(len(self.samples) * rate / self.rate))
        samples = np.fft.irfft(scaled, n=loop * rate)[:length] * (rate / self.rate)
        return type(self)(samples.astype(np.float32), rate, name=self.name, path=None)

    def summary(self) -> dict[str, Any]:
        """``name``, ``seconds``, ``rate`` and ``id``: how sound stands in JSON."""
        return {"name": self.name, "seconds": self.seconds, "rate": self.rate, "id": self.id}

    def __repr__(self) -> str:
        return f"<Audio {self.name} {self.seconds:.2f} s at {self.rate} Hz>"


def _decode(source: Source) -> tuple[Samples, int]:
    data = source.read()
    if wav.is_wav(data) and (decoded := wav.read_wav(data, source.name)) is not None:
        return decoded
    with container(source, "audio") as opened:
        parts: list[Samples] = []
        rates: set[int] = set()
        for frame in opened.decode(audio=0):
            values = frame.to_ndarray()
            # Planar sound is (channels, N); packed sound is (1, N * channels).
            planar = frame.format.is_planar
            values = values.T if planar else values.reshape(-1, frame.layout.nb_channels)
            parts.append(wav.to_float(values).mean(axis=1))
            rates.add(int(frame.sample_rate))
        if len(rates) > 1:
            raise MediaError(f"{source.name}: its sample rate changes on the way", "convert it to WAV first")
    if not parts:
        raise MediaError(f"{source.name}: holds no sound", "give a whole recording")
    return np.concatenate(parts), rates.pop()
