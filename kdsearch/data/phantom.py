"""Simulates ultrasound images with lesions from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft, ndimage

from kdsearch.config.sources import PhantomSource
from kdsearch.data.pixels import Pixels, to_pixels

SIZE = 192
"""Height and width of the simulated field in pixels of about 0.2 mm."""
TISSUE_ATTENUATION = 0.002
"""Nepers per pixel, one way."""

Label = Literal["benign", "malignant", "normal"]
Region: TypeAlias = npt.NDArray[np.bool_]


@dataclass(slots=True, kw_only=True)
class Anatomy:
    """The tissue that the beam passes through."""

    echo: Map
    """H×W scatterer amplitudes, 1 for glandular tissue."""
    attenuation: Map
    """H×W nepers per pixel, one way."""
    lesion: Region
    """H×W, true inside the lesion."""
    cysts: Region
    """H×W, true inside a cyst."""
    label: Label


def draw_anatomy(label: Label, rng: np.random.Generator) -> Anatomy:
    """Draws a breast with one benign or malignant lesion, or none if the label is ``normal``."""
    anatomy = _layers(label, rng)
    for _ in range(rng.integers(3, 8)):
        _add_fat_lobule(anatomy, rng)
    for _ in range(rng.integers(1, 5)):
        _add_ligament(anatomy, rng)
    for _ in range(rng.integers(0, 3)):
        _add_cyst(anatomy, rng)
    if label == "benign":
        _add_benign(anatomy, rng)
    elif label == "malignant":
        _add_malignant(anatomy, rng)
    return anatomy


def _layers(label: Label, rng: np.random.Generator) -> Anatomy:
    rows = np.arange(SIZE, dtype=np.float32)[:, None]
    waviness = ndimage.gaussian_filter1d(rng.standard_normal((3, SIZE)), 25, axis=1) * 40
    skin, fat, muscle = (float(rng.uniform(*span)) for span in ((6, 12), (30, 55), (140, 185)))
    echo = np.full((SIZE, SIZE), _amplitude(rng.uniform(-1, 1)), dtype=np.float32)
    echo[rows + waviness[0] < fat] = _amplitude(rng.uniform(-10, -6))
    echo[rows + waviness[1] > muscle] = _amplitude(rng.uniform(-8, -3))
    echo[np.broadcast_to(rows < skin, echo.shape)] = _amplitude(4)
    echo *= _amplitude(2.5 * _smooth_noise(rng, 8) + 1.5 * _smooth_noise(rng, 25))
    attenuation = np.full_like(echo, TISSUE_ATTENUATION)
    return Anatomy(
        echo=echo,
        attenuation=attenuation,
        lesion=np.zeros(echo.shape, dtype=bool),
        cysts=np.zeros(echo.shape, dtype=bool),
        label=label,
    )


def _add_fat_lobule(anatomy: Anatomy, rng: np.random.Generator) -> None:
    inside = _blob(rng, center=rng.uniform((25, 0), (150, SIZE)), radii=rng.uniform((6, 12), (16, 34)), roughness=0.08)
    anatomy.echo[inside] *= _amplitude(rng.uniform(-7, -3))
    rim = ndimage.binary_dilation(inside, iterations=2) & ~inside
    anatomy.echo[rim] *= _amplitude(rng.uniform(1, 5))


def _add_ligament(anatomy: Anatomy, rng: np.random.Generator) -> None:
    columns = np.arange(SIZE)
    start, slope, bend = rng.uniform(15, 130), rng.uniform(-0.5, 0.5), rng.uniform(-25, 25)
    middle = start + slope * columns + bend * np.sin(columns / SIZE * np.pi)
    distance = np.abs(np.arange(SIZE)[:, None] - middle)
    anatomy.echo[distance < rng.uniform(0.8, 2.2)] *= _amplitude(rng.uniform(5, 10))


def _add_cyst(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Adds a round, anechoic cyst with enhancement behind it; it is not a lesion, but resembles one."""
    radius = rng.uniform(4, 11)
    inside = _blob(
        rng,
        center=rng.uniform((30, 8), (160, SIZE - 8)),
        radii=(radius, radius * rng.uniform(0.9, 1.3)),
        roughness=0.03,
    )
    anatomy.echo[inside] = _amplitude(-32)
    anatomy.cysts |= inside
    anatomy.attenuation[inside] = -TISSUE_ATTENUATION * rng.uniform(2, 5)


def _add_benign(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Adds a smooth lesion that is wider than tall, with enhancement behind it."""
    tall = rng.uniform(13, 30)
    wide = tall * rng.uniform(1.2, 2.0)
    inside = _blob(rng, center=_lesion_center(rng, tall, wide), radii=(tall, wide), roughness=0.06)
    _fill(anatomy, inside, contrast_db=rng.uniform(-24, -6), rng=rng)
    anatomy.attenuation[inside] = -TISSUE_ATTENUATION * rng.uniform(0.0, 5.0)


def _add_malignant(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Adds an irregular lesion that is taller than wide, with a shadow behind it."""
    wide = rng.uniform(13, 30)
    tall = wide * rng.uniform(1.0, 1.6)
    inside = _blob(rng, center=_lesion_center(rng, tall, wide), radii=(tall, wide), roughness=0.13, spicules=True)
    _fill(anatomy, inside, contrast_db=rng.uniform(-23, -5), rng=rng)
    anatomy.attenuation[inside] = TISSUE_ATTENUATION * rng.uniform(2, 16)


def _fill(anatomy: Anatomy, inside: Region, *, contrast_db: float, rng: np.random.Generator) -> None:
    """Fills the lesion with scatterers, relative to the tissue around it; its border is slightly blurred."""
    around = ndimage.binary_dilation(inside, iterations=8) & ~inside
    level = np.sqrt(np.mean(anatomy.echo[around] ** 2)) * _amplitude(contrast_db)
    texture = _amplitude(2 * _smooth_noise(rng, 6))
    share = ndimage.gaussian_filter(inside.astype(np.float32), rng.uniform(0.5, 2.5))
    anatomy.echo = ((1 - share) * anatomy.echo + share * level * texture).astype(np.float32)
    anatomy.lesion = inside


def _lesion_center(rng: np.random.Generator, tall: float, wide: float) -> npt.NDArray[np.float64]:
    margin = np.array([tall + 4, wide * 0.8])
    center: npt.NDArray[np.float64] = rng.uniform(np.array([30.0, 0.0]) + margin, np.array([178.0, SIZE]) - margin)
    return center


def _blob(
    rng: np.random.Generator,
    *,
    center: npt.NDArray[np.float64],
    radii: tuple[float, float] | npt.NDArray[np.float64],
    roughness: float,
    spicules: bool = False,
) -> Region:
    """Draws an ellipse with an irregular outline; ``radii`` are (tall, wide), ``roughness`` is relative to them."""
    reach = 1.7 * max(radii)
    top, left = (max(0, int(middle - reach)) for middle in center)
    bottom, right_end = (max(0, min(SIZE, int(middle + reach) + 1)) for middle in center)
    rows, columns = np.mgrid[top:bottom, left:right_end].astype(np.float32)
    tilt = rng.uniform(-0.3, 0.3)
    down, right = rows - center[0], columns - center[1]
    down, right = down * np.cos(tilt) - right * np.sin(tilt), down * np.sin(tilt) + right * np.cos(tilt)
    limit = _outline(rng, roughness=roughness, orders=np.arange(2, 13 if spicules else 6))
    angle = np.arctan2(down / radii[0], right / radii[1])
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    place = (angle + np.pi) / (2 * np.pi) * (len(limit) - 1)
    inside[top:bottom, left:right_end] = np.hypot(down / radii[0], right / radii[1]) < limit[place.astype(np.int32)]
    return inside


def _outline(rng: np.random.Generator, *, roughness: float, orders: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """Draws a closed outline: radii around 1 at 720 angles from -pi to pi."""
    swings = rng.standard_normal(len(orders)) / np.sqrt(orders) * roughness
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    angles = np.linspace(-np.pi, np.pi, 720)[:, None]
    outline: npt.NDArray[np.float64] = np.clip(1 + (swings * np.cos(orders * angles + phases)).sum(axis=1), 0.4, 1.6)
    return outline


def _smooth_noise(rng: np.random.Generator, scale: float) -> Map:
    """Draws H×W Gaussian noise with unit variance and a correlation length of ``scale`` pixels."""
    coarse = max(1, int(scale / 3))
    cells = -(-SIZE // coarse)
    noise = ndimage.gaussian_filter(rng.standard_normal((cells, cells), dtype=np.float32), scale / coarse, mode="wrap")
    noise = ndimage.zoom(noise, coarse, order=1, grid_mode=True, mode="nearest")[:SIZE, :SIZE]
    smooth: Map = (noise / noise.std()).astype(np.float32)
    return smooth


def _amplitude(decibels: float | Map) -> Map:
    return np.power(10, np.asarray(decibels, dtype=np.float32) / 20, dtype=np.float32)


Map: TypeAlias = npt.NDArray[np.float32]

OVERSAMPLING = 4
"""Axial samples of the radio-frequency signal per pixel of depth."""
WAVELENGTH = 6.0
"""Wavelength of the pulse, in axial samples."""
PULSE_SIGMA = 5.0
"""Standard deviation of the pulse's envelope, in axial samples."""
BEAM_SIGMAS = (1.4, 1.0, 1.3, 1.7, 2.1, 2.6)
"""Standard deviation of the beam in lateral pixels, in equal steps from the skin down; the second is the focus."""
DYNAMIC_RANGE_DB = 55.0


def envelope(echo: Map, attenuation: Map, rng: np.random.Generator) -> Map:
    """Computes the detected envelope, H×W, of dense random scatterers convolved with the point-spread function.

    Args:
        echo: H×W scatterer amplitudes (not power), any unit.
        attenuation: H×W one-way attenuation in nepers per pixel; the mean at each depth is compensated.
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
    """Maps DYNAMIC_RANGE_DB below the 99th percentile to gray values 0-255, after adding gain and electronic noise."""
    top = np.percentile(detected, 99)
    floor = top * 10 ** (noise_db / 20) * np.abs(rng.standard_normal(detected.shape, dtype=np.float32))
    decibels = 20 * np.log10((detected + floor) / top + 1e-6) + gain_db
    gray: npt.NDArray[np.uint8] = np.clip(255 * (decibels / DYNAMIC_RANGE_DB + 1), 0, 255).round().astype(np.uint8)
    return gray


def _lateral_beam(scatterers: Map) -> Map:
    """Blurs each depth by the width of the beam there, interpolated between two zones."""
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
    """Computes the analytic signal along depth: one filter applies the pulse and the Hilbert transform."""
    height = scatterers.shape[0]
    length = fft.next_fast_len(height + 8 * int(PULSE_SIGMA))
    frequencies = np.fft.fftfreq(length)[:, None]
    passband = np.exp(-0.5 * (2 * np.pi * PULSE_SIGMA * (frequencies - 1 / WAVELENGTH)) ** 2) * (frequencies > 0)
    spectrum = fft.fft(scatterers, n=length, axis=0) * passband.astype(np.float32)
    analytic: npt.NDArray[np.complex64] = fft.ifft(spectrum, axis=0)[:height]
    return analytic


VERSION = 1
"""Incremented with each change to the simulation, so that cached images of older versions are not used."""
SHARES: dict[Label, float] = {"benign": 0.5, "malignant": 0.38, "normal": 0.12}


CHROMA = 44.0
"""How far the red of a lesion is above, and that of its lookalikes below, the gray value."""
RED_TO_GREEN = 0.299 / 0.587
"""Green that has the brightness of red (ITU-R 601-2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomImage:
    """A simulated image with its mask and label."""

    image: Pixels
    """H×W gray values, or RGB H×W×3."""
    mask: Pixels
    """H×W class numbers: 1 inside the lesion and, with three classes, 2 inside cysts."""
    label: Label

    def pixels(self, channels: int) -> Pixels:
        """Returns the image as gray values H×W, or as RGB H×W×3 for three channels."""
        return to_pixels(Image.fromarray(self.image), channels=channels)


def phantom_of(source: PhantomSource, index: int) -> PhantomImage:
    """Simulates image number ``index`` of a source."""
    return simulate(index, seed=source.seed, classes=source.classes, colored=source.colored)


def simulate(index: int, *, seed: int, classes: int = 2, colored: bool = False) -> PhantomImage:
    """Simulates image number ``index``; the same settings and number give the same image.

    With three ``classes``, the mask shows cysts too. In a ``colored`` image, a lesion and its lookalikes, which count
    as cysts, have the brightness of the tissue around them and differ in color only.
    """
    rng = np.random.default_rng([VERSION, seed, index])
    labels = list(SHARES)
    label = labels[rng.choice(len(labels), p=list(SHARES.values()))]
    anatomy = draw_anatomy("normal" if colored else label, rng)
    detected = envelope(anatomy.echo, anatomy.attenuation, rng)
    image = log_compress(detected, gain_db=float(rng.uniform(-3, 5)), noise_db=float(rng.uniform(-48, -38)), rng=rng)
    lesion, cysts = anatomy.lesion, anatomy.cysts
    if colored:
        image, lesion, cysts = _tinted(image, label, rng)
    mask = np.where(lesion, np.uint8(1), np.where(cysts & (classes == 3), np.uint8(2), np.uint8(0)))
    return PhantomImage(image=image, mask=mask, label=label)


def _tinted(gray: Pixels, label: Label, rng: np.random.Generator) -> tuple[Pixels, Region, Region]:
    """Colors a gray image without changing its brightness; returns RGB, the lesion and its lookalikes."""
    blank = np.zeros(gray.shape, dtype=bool)
    lesion, cysts = blank if label == "normal" else _somewhere(rng), blank
    for _ in range(rng.integers(1, 3)):
        cysts = cysts | (_somewhere(rng) & ~lesion)
    red = CHROMA * (lesion.astype(np.float32) - cysts) + 6 * _smooth_noise(rng, 12)
    red = ndimage.gaussian_filter(red, 1.0)
    middle = 72 + gray.astype(np.float32) * (110 / 255)  # leaves room, so that no color is clipped
    colors = np.stack([middle + red, middle - RED_TO_GREEN * red, middle], axis=2)
    return np.clip(colors, 0, 255).round().astype(np.uint8), lesion, cysts


def _somewhere(rng: np.random.Generator) -> Region:
    tall = rng.uniform(13, 28)
    wide = tall * rng.uniform(0.9, 1.6)
    return _blob(rng, center=_lesion_center(rng, tall, wide), radii=(tall, wide), roughness=0.08)
