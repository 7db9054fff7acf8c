"""From a map of tissue to a B-mode image: scatterers, point-spread function, attenuation, envelope, log compression."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

Map: TypeAlias = npt.NDArray[np.float32]

OVERSAMPLING = 4
"""Axial samples of the radio-frequency signal for one pixel of depth."""
WAVELENGTH = 6.0
"""Of the pulse, in axial samples."""
PULSE_SIGMA = 5.0
"""Standard deviation of the pulse's envelope, in axial samples."""
BEAM_SIGMAS = (1.4, 1.0, 1.3, 1.7, 2.1, 2.6)
"""Standard deviation of the beam in lateral pixels, at even steps from the skin down; the second is the focus."""
DYNAMIC_RANGE_DB = 55.0


def envelope(echo: Map, attenuation: Map, rng: np.random.Generator) -> Map:
    """The detected envelope, H×W, of dense random scatterers seen through the point-spread function.

    Args:
        echo: H×W scatterer amplitudes (not power), any unit.
        attenuation: H×W one-way attenuation in nepers per pixel; what is left above the mean is not compensated.
        rng: draws the scatterers.
    """
    amplitudes = np.repeat(echo, OVERSAMPLING, axis=0)
    scatterers = rng.standard_normal(amplitudes.shape, dtype=np.float32) * amplitudes
    loss = np.cumsum(attenuation, axis=0, dtype=np.float32)
    compensation = loss.mean(axis=1, keepdims=True)
    detected = np.abs(_analytic_echoes(_lateral_beam(scatterers)))[::OVERSAMPLING]
    compensated: Map = (detected * np.exp(2 * (compensation - loss))).astype(np.float32)
    return compensated


def log_compress(detected: Map, *, gain_db: float, noise_db: float, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Grey values 0-255 for DYNAMIC_RANGE_DB below the 99th percentile, shifted by the gain, over electronic noise."""
    top = np.percentile(detected, 99)
    floor = top * 10 ** (noise_db / 20) * np.abs(rng.standard_normal(detected.shape, dtype=np.float32))
    decibels = 20 * np.log10((detected + floor) / top + 1e-6) + gain_db
    grey: npt.NDArray[np.uint8] = np.clip(255 * (decibels / DYNAMIC_RANGE_DB + 1), 0, 255).round().astype(np.uint8)
    return grey


def _lateral_beam(scatterers: Map) -> Map:
    """Blurs each depth with the beam's width there; widths between two zones are blends of both."""
    height = scatterers.shape[0]
    place = np.linspace(0, len(BEAM_SIGMAS) - 1, height, dtype=np.float32)[:, None]
    blurred = np.zeros_like(scatterers)
    for zone, sigma in enumerate(BEAM_SIGMAS):
        share = np.clip(1 - np.abs(place - zone), 0, 1)
        rows = np.flatnonzero(share[:, 0])
        part = ndimage.gaussian_filter1d(scatterers[rows], sigma, axis=1, mode="reflect")
        blurred[rows] += share[rows] * part * np.float32(np.sqrt(2 * np.sqrt(np.pi) * sigma))
    return blurred


def _analytic_echoes(scatterers: Map) -> npt.NDArray[np.complex64]:
    """The analytic signal along depth: echoes of the pulse and their Hilbert transform, in one filter."""
    height = scatterers.shape[0]
    length = fft.next_fast_len(height + 8 * int(PULSE_SIGMA))
    frequencies = np.fft.fftfreq(length)[:, None]
    passband = np.exp(-0.5 * (2 * np.pi * PULSE_SIGMA * (frequencies - 1 / WAVELENGTH)) ** 2) * (frequencies > 0)
    spectrum = fft.fft(scatterers, n=length, axis=0) * passband.astype(np.float32)
    analytic: npt.NDArray[np.complex64] = fft.ifft(spectrum, axis=0)[:height]
    return analytic
