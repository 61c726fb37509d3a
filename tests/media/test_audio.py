from __future__ import annotations

import base64
import io
import struct
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manylens.errors import MediaError
from manylens.media import Audio


def wav(values, rate=8000, coding=1, bits=16, size=None, extra=b""):
    """A WAV file of an array ``(N,)`` or ``(N, channels)``; ``size`` is what the header says of the sound's bytes."""
    values = np.asarray(values)
    body = values.tobytes()
    channels = 1 if values.ndim == 1 else values.shape[1]
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", coding, channels, rate, rate * width, width, bits) + extra
    sound = b"data" + struct.pack("<I", len(body) if size is None else size) + body
    # An odd chunk before it, padded to even, as a reader must skip.
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"LIST" + struct.pack("<I", 3) + b"abc\0" + sound
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tone(hertz, rate, seconds=0.5):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32) * 0.5


def encoded(samples, rate, format_name, codec, sample_format):
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format=format_name) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.format = sample_format
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return file.getvalue()


S24 = np.frombuffer(b"\0\0\x80" + b"\xff\xff\xff" + b"\0\0\x40", np.uint8)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (wav(np.array([-32768, 0, 16384], "<i2")), [-1, 0, 0.5]),
        (wav(np.array([0, 128, 192], "u1"), bits=8), [-1, 0, 0.5]),
        (wav(S24.copy(), bits=24), [-1, -(2**-23), 0.5]),
        (wav(np.array([-(2**31), 2**30], "<i4"), bits=32), [-1, 0.5]),
        (wav(np.array([-1, 0.25], "<f4"), coding=3, bits=32), [-1, 0.25]),
        (wav(np.array([-1, 0.25], "<f8"), coding=3, bits=64), [-1, 0.25]),
        (wav(np.array([[16384, 0], [-16384, -16384]], "<i2")), [0.25, -0.5]),
        (wav(np.array([16384], "<i2"), coding=0xFFFE, extra=struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)), [0.5]),
        (wav(np.array([16384, 0], "<i2"), size=0xFFFFFFFF), [0.5, 0]),
    ],
    ids=["16", "8", "24", "32", "float32", "float64", "stereo", "extensible", "streamed"],
)
def test_wav(data, expected):
    audio = Audio.of(data)
    assert audio.rate == 8000
    assert audio.samples.dtype == np.float32
    np.testing.assert_allclose(audio.samples, expected, atol=1e-9)


def test_wav_of_the_standard_library(tmp_path):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.arange(100, dtype="<i2").tobytes())
    audio = Audio.of(path)
    np.testing.assert_array_equal(audio.samples, np.arange(100, dtype=np.float32) / 32768)
    assert (audio.rate, audio.seconds, audio.name, audio.path) == (16000, 100 / 16000, "a.wav", path)


@pytest.mark.parametrize("kind", [("flac", "flac", "s16"), ("wav", "pcm_s16le", "s16")])
def test_lossless_formats_have_one_id(kind):
    samples = (tone(440, 8000) * 30000).astype(np.int16)
    audio = Audio.of(encoded(samples, 8000, *kind))
    assert audio.id == Audio.of(wav(samples)).id == Audio.of(samples, 8000).id
    assert audio == Audio.of((samples, 8000))


def test_id_depends_on_samples_and_rate():
    samples = tone(440, 8000)
    ids = {Audio.of(samples, 8000).id, Audio.of(samples, 8001).id, Audio.of(samples[:-1], 8000).id}
    assert len(ids) == 3


def test_of_is_idempotent():
    audio = Audio.of(tone(440, 8000), 8000)
    assert Audio.of(audio) is audio


def test_data_uri():
    data = wav(np.array([16384], "<i2"))
    assert Audio.of("data:audio/wav;base64," + base64.b64encode(data).decode()).samples.tolist() == [0.5]


def test_never_changed():
    source = tone(440, 8000)
    audio = Audio.of(source, 8000)
    source[:] = 0
    assert audio.samples.any()
    with pytest.raises(ValueError, match="read-only"):
        audio.samples[0] = 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "bytes: the file is empty"),
        (b"just words", "bytes: not audio that can be read, or cut short"),
        ("none.wav", r"none\.wav: no such file"),
        (".", "is a folder"),
        (wav(np.zeros(100, "<i2"))[:-60], r"bytes: the WAV file is cut short \(140 of 200 bytes of sound\)"),
        (wav(np.zeros(100, "<i2"))[:40], "bytes: the WAV file is cut short or broken"),
        (wav(np.zeros(0, "<i2")), "bytes: holds no sound"),
        (wav(np.zeros(9, "<i2"), rate=0), "bytes: the WAV file states 1 channels at 0 Hz"),
        (wav(np.array([0, np.nan], "<f4"), coding=3, bits=32), "bytes: has samples that are not finite"),
        (np.zeros(5), "array: its sample rate is not given"),
        ((np.zeros(5), 0), "array: 0 is not a sample rate"),
        ((np.zeros(5), 44.1), "array: 44.1 is not a sample rate"),
        ((np.zeros((2, 3, 4)), 8000), "float64 of 3 dimensions is not sound"),
        ((np.zeros(5, bool), 8000), "bool of 1 dimensions is not sound"),
        (3, "int: not sound"),
    ],
)
def test_refuses(source, message):
    with pytest.raises(MediaError, match=message) as caught:
        Audio.of(source)
    assert "\n" not in str(caught.value)


def test_other_formats_need_pyav(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MediaError, match=r"reading it needs PyAV; run: pip install 'manylens\[video\]'"):
        Audio.of(b"fLaC\0\0")
    assert Audio.of(wav(np.zeros(9, "<i2"))).seconds > 0


@settings(deadline=None)
@given(st.integers(1, 2000), st.sampled_from([8000, 16000, 22050, 44100]), st.sampled_from([8000, 16000, 44100]))
def test_resampled_length(count, rate, new):
    audio = Audio.of(np.ones(count, np.float32), rate)
    other = audio.resampled(new)
    assert (len(other.samples), other.rate) == (max(1, round(count * new / rate)), new)
    assert (other is audio) == (new == rate)


@pytest.mark.parametrize(("rate", "new"), [(44100, 16000), (8000, 16000), (16000, 22050)])
def test_resampled_is_the_same_sound(rate, new):
    slow = Audio.of(tone(440, rate), rate).resampled(new).samples
    middle = slice(len(slow) // 10, -len(slow) // 10)
    np.testing.assert_allclose(slow[middle], tone(440, new)[middle], atol=0.01)


def test_resampled_has_no_alias():
    """A tone above half the new rate is gone, not folded to a lower one."""
    slow = Audio.of(tone(7000, 44100), 44100).resampled(8000).samples
    assert np.abs(slow[400:-400]).max() < 0.01


def test_summary():
    audio = Audio.of(np.zeros(4000), 8000)
    assert audio.summary() == {"name": "array", "seconds": 0.5, "rate": 8000, "id": audio.id}
