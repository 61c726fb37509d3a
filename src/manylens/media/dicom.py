"""DICOM: one slice, with its window applied, as it is shown on a reading screen. Needs the extra ``dicom``."""

from __future__ import annotations

from typing import Any

import numpy as np

from manylens.errors import MediaError
from manylens.media.formats import ImageInfo, check_size
from manylens.media.pixels import RGB, frozen, gray_to_rgb, scale_values
from manylens.media.sources import Source

_ANY_VALUE = 2**31 - 1


def check_dicom(source: Source) -> None:
    """Read the header: are there pixels, and not too many?"""
    dataset = _read(source, pixels=False)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise MediaError(f"{source.name}: the DICOM file holds no picture", "give one with pixel data")
    check_size(source.name, int(dataset.Columns), int(dataset.Rows))


def decode_dicom(source: Source, page: int = 0) -> tuple[RGB, ImageInfo]:
    """Decode one frame to RGB.

    Gray values go through the modality look-up (Hounsfield units for CT) and then the first window that the file
    states; without a window they are scaled from the smallest to the largest. MONOCHROME1 is inverted, so white is
    always the high value of the reader. Colour is converted to RGB.
    """
    check_dicom(source)
    dataset = _read(source, pixels=True)
    frames = int(dataset.get("NumberOfFrames", None) or 1)
    if not 0 <= page < frames:
        raise MediaError(f"{source.name}: has no page {page}", f"give a page from 0 to {frames - 1}")
    from pydicom.pixels import pixel_array

    try:
        values = pixel_array(dataset, index=page)
        pixels, note = _colour(values) if values.ndim == 3 else _gray(dataset, values, source.name)
    except MediaError:
        raise
    except Exception as error:  # a missing decoder, a cut file and a wrong tag each have their own kind of error
        raise MediaError(
            f"{source.name}: the DICOM pixels cannot be decoded ({error})",
            "get a whole copy of it, or save it uncompressed",
        ) from error
    notes = [note] + ([f"first of {frames} frames" if page == 0 else f"frame {page} of {frames}"] if frames > 1 else [])
    mode = str(dataset.get("PhotometricInterpretation", ""))
    return pixels, ImageInfo("DICOM", mode, int(dataset.get("BitsStored", 8)), frames, page, notes=tuple(notes))


def _read(source: Source, pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise MediaError(f"{source.name}: reading DICOM needs pydicom", "run: pip install 'manylens[dicom]'") from error
    with source.open() as file:
        try:
            return pydicom.dcmread(file, stop_before_pixels=not pixels)
        except Exception as error:
            raise MediaError(
                f"{source.name}: the DICOM file is cut short or broken ({error})", "get a whole copy of it"
            ) from error


def _colour(values: Any) -> tuple[RGB, str]:
    if values.dtype == np.uint8:
        return frozen(values), "colour as stored"
    return frozen((values >> 8).astype(np.uint8)), "16-bit colour cut to 8 bit"


def _gray(dataset: Any, values: Any, name: str) -> tuple[RGB, str]:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values = apply_modality_lut(values, dataset)
    if "WindowCenter" in dataset or "VOILUTSequence" in dataset:
        shown = np.asarray(apply_voi_lut(values, dataset), np.float64)
        # The ends of the window's output, found by asking it, since they depend on the bits stored and the rescale.
        low, high = np.asarray(apply_voi_lut(np.array([-_ANY_VALUE, _ANY_VALUE]), dataset), np.float64)
        if high == low:
            high = low + 1
        gray = np.rint(np.clip((shown - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        note = "window of the file applied"
    else:
        # As floats beyond 0..1, so that the scale runs from the smallest to the largest value.
        low, high = float(values.min()), float(values.max())
        gray, _ = scale_values((np.asarray(values, np.float64) - low) / ((high - low) or 1.0), name)
        note = f"no window in the file: values {low:g} to {high:g} scaled to 8 bit"
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        gray = 255 - gray
    return gray_to_rgb(gray), note
