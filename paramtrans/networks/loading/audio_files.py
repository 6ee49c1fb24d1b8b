"""Recordings from files, as calibration inputs are made of."""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from paramtrans.api.architecture import Recording
from paramtrans.errors import DataError, StoreError
from paramtrans.storage import outside
from paramtrans.utils.boundary import reason

AUDIO = (".wav", ".flac")
MAX_AUDIO, MAX_SAMPLES, MAX_RATE = 2**28, 2**27, 400_000
"""Bytes of a recording, its samples in all channels, and samples a second, at most."""


def read_audio(path: Path) -> Recording:
    """A recording, its channels averaged.

    Args:
        path: `.wav` with whole numbers of 8 to 32 bits or floating-point ones; `.flac` where soundfile is installed.

    Raises:
        DataError: the file is no such recording, is empty, or holds more than `MAX_SAMPLES`.
    """
    try:
        content = outside.content(path, MAX_AUDIO)
    except StoreError as error:
        raise DataError(str(error)) from error
    read = _flac if path.suffix.lower() == ".flac" else _wav
    try:
        rate, samples = read(path, BytesIO(content))
    except (DataError, MemoryError):
        raise
    except Exception as error:  # the libraries answer malformed files with errors of many kinds
        raise DataError(
            f"{path}: cannot be read as a recording: {reason(error)}; save it as .wav with 16 bits"
        ) from error
    return _checked(path, rate, samples)


def _wav(path: Path, file: BytesIO) -> tuple[int, Any]:
    """Rate and samples, `[samples]` or `[samples, channels]`, between -1 and 1."""
    from scipy.io import wavfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # pieces of the file that are no samples
        warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
        rate, samples = wavfile.read(file)
    if samples.size > MAX_SAMPLES:
        raise DataError(_too_long(path, samples.size))
    kind = samples.dtype
    if kind.kind == "f":
        return rate, samples.astype(numpy.float32)
    middle = 128 if kind.kind == "u" else 0  # 8 bits are without a sign
    return rate, (samples.astype(numpy.float32) - middle) / 2 ** (8 * kind.itemsize - 1)


def _flac(path: Path, file: BytesIO) -> tuple[int, Any]:
    """As `_wav`."""
    try:
        import soundfile
    except ImportError as error:
        raise DataError(
            f"{path}: FLAC is read by soundfile, which is not installed; pip install soundfile, or save it as .wav"
        ) from error
    with soundfile.SoundFile(file) as recording:
        if recording.frames * recording.channels > MAX_SAMPLES:
            raise DataError(_too_long(path, recording.frames * recording.channels))
        return recording.samplerate, recording.read(dtype="float32")


def _too_long(path: Path, samples: int) -> str:
    return f"{path}: {samples:,} samples are too many (at most {MAX_SAMPLES:,}); cut it into several recordings"


def _checked(path: Path, rate: int, samples: Any) -> Recording:
    """The recording in one channel; raises `DataError` where it is none that anything could be made of."""
    if not 1 <= rate <= MAX_RATE:
        raise DataError(f"{path}: {rate:,} samples a second; recordings have at most {MAX_RATE:,}; save it anew")
    if not samples.size or not numpy.isfinite(samples).all():
        what = "is empty" if not samples.size else "holds values that are not finite"
        raise DataError(f"{path}: the recording {what}; leave it out")
    mono = samples.mean(axis=1) if samples.ndim > 1 else samples
    return Recording(torch.from_numpy(numpy.ascontiguousarray(mono, dtype=numpy.float32)), int(rate))


def resampled(recording: Recording, rate: int) -> Tensor:
    """A recording at another rate, by a polyphase low-pass filter.

    Args:
        recording: In one channel.
        rate: Samples a second.

    Returns:
        Samples, `[samples]`.
    """
    if recording.rate == rate:
        return recording.samples
    from scipy.signal import resample_poly

    common = math.gcd(recording.rate, rate)
    samples = resample_poly(recording.samples.double().numpy(), rate // common, recording.rate // common)
    return torch.from_numpy(samples).float()
