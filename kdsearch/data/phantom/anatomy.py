"""Draws a breast: layers of tissue, fat lobules, ligaments, cysts, and perhaps one lesion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from kdsearch.data.phantom.acoustics import Map

SIZE = 192
"""Height and width of the simulated field in pixels; about 0.2 mm each."""
TISSUE_ATTENUATION = 0.002
"""Of one pixel, one way, in nepers."""

Label = Literal["benign", "malignant", "normal"]
Region: TypeAlias = npt.NDArray[np.bool_]


@dataclass(slots=True, kw_only=True)
class Anatomy:
    """What the beam meets."""

    echo: Map
    """H×W scatterer amplitudes, 1 for glandular tissue."""
    attenuation: Map
    """H×W nepers per pixel, one way."""
    lesion: Region
    """H×W, true inside the lesion."""
    label: Label


def draw_anatomy(label: Label, rng: np.random.Generator) -> Anatomy:
    """A breast with one lesion of that kind, or with none where the label is ``normal``."""
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
    return Anatomy(echo=echo, attenuation=attenuation, lesion=np.zeros(echo.shape, dtype=bool), label=label)


def _add_fat_lobule(anatomy: Anatomy, rng: np.random.Generator) -> None:
    inside = _blob(rng, centre=rng.uniform((25, 0), (150, SIZE)), radii=rng.uniform((6, 12), (16, 34)), roughness=0.08)
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
    """Echo-free, round, bright behind: not a lesion, and looks like the easiest one."""
    radius = rng.uniform(4, 11)
    inside = _blob(
        rng,
        centre=rng.uniform((30, 8), (160, SIZE - 8)),
        radii=(radius, radius * rng.uniform(0.9, 1.3)),
        roughness=0.03,
    )
    anatomy.echo[inside] = _amplitude(-32)
    anatomy.attenuation[inside] = -TISSUE_ATTENUATION * rng.uniform(2, 5)


def _add_benign(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Smooth, wider than tall, enhancement behind."""
    tall = rng.uniform(13, 30)
    wide = tall * rng.uniform(1.2, 2.0)
    inside = _blob(rng, centre=_lesion_centre(rng, tall, wide), radii=(tall, wide), roughness=0.06)
    _fill(anatomy, inside, contrast_db=rng.uniform(-24, -6), rng=rng)
    anatomy.attenuation[inside] = -TISSUE_ATTENUATION * rng.uniform(0.0, 5.0)


def _add_malignant(anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Irregular, taller than wide, shadow behind."""
    wide = rng.uniform(13, 30)
    tall = wide * rng.uniform(1.0, 1.6)
    inside = _blob(rng, centre=_lesion_centre(rng, tall, wide), radii=(tall, wide), roughness=0.13, spicules=True)
    _fill(anatomy, inside, contrast_db=rng.uniform(-23, -5), rng=rng)
    anatomy.attenuation[inside] = TISSUE_ATTENUATION * rng.uniform(2, 16)


def _fill(anatomy: Anatomy, inside: Region, *, contrast_db: float, rng: np.random.Generator) -> None:
    """Scatterers inside the lesion, relative to the tissue around it; the border is not perfectly sharp."""
    around = ndimage.binary_dilation(inside, iterations=8) & ~inside
    level = np.sqrt(np.mean(anatomy.echo[around] ** 2)) * _amplitude(contrast_db)
    texture = _amplitude(2 * _smooth_noise(rng, 6))
    share = ndimage.gaussian_filter(inside.astype(np.float32), rng.uniform(0.5, 2.5))
    anatomy.echo = ((1 - share) * anatomy.echo + share * level * texture).astype(np.float32)
    anatomy.lesion = inside


def _lesion_centre(rng: np.random.Generator, tall: float, wide: float) -> npt.NDArray[np.float64]:
    margin = np.array([tall + 4, wide * 0.8])
    centre: npt.NDArray[np.float64] = rng.uniform(np.array([30.0, 0.0]) + margin, np.array([178.0, SIZE]) - margin)
    return centre


def _blob(
    rng: np.random.Generator,
    *,
    centre: npt.NDArray[np.float64],
    radii: tuple[float, float] | npt.NDArray[np.float64],
    roughness: float,
    spicules: bool = False,
) -> Region:
    """An ellipse whose radius wobbles with the angle; ``radii`` are (tall, wide), ``roughness`` is relative to them."""
    reach = 1.7 * max(radii)
    top, left = (max(0, int(middle - reach)) for middle in centre)
    bottom, right_end = (max(0, min(SIZE, int(middle + reach) + 1)) for middle in centre)
    rows, columns = np.mgrid[top:bottom, left:right_end].astype(np.float32)
    tilt = rng.uniform(-0.3, 0.3)
    down, right = rows - centre[0], columns - centre[1]
    down, right = down * np.cos(tilt) - right * np.sin(tilt), down * np.sin(tilt) + right * np.cos(tilt)
    limit = _outline(rng, roughness=roughness, orders=np.arange(2, 13 if spicules else 6))
    angle = np.arctan2(down / radii[0], right / radii[1])
    inside = np.zeros((SIZE, SIZE), dtype=bool)
    place = (angle + np.pi) / (2 * np.pi) * (len(limit) - 1)
    inside[top:bottom, left:right_end] = np.hypot(down / radii[0], right / radii[1]) < limit[place.astype(np.int32)]
    return inside


def _outline(rng: np.random.Generator, *, roughness: float, orders: npt.NDArray[np.int_]) -> npt.NDArray[np.float64]:
    """Radius of a closed outline around 1, at 720 angles from -pi to pi."""
    swings = rng.standard_normal(len(orders)) / np.sqrt(orders) * roughness
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    angles = np.linspace(-np.pi, np.pi, 720)[:, None]
    outline: npt.NDArray[np.float64] = np.clip(1 + (swings * np.cos(orders * angles + phases)).sum(axis=1), 0.4, 1.6)
    return outline


def _smooth_noise(rng: np.random.Generator, scale: float) -> Map:
    """H×W Gaussian noise of unit variance that changes over ``scale`` pixels."""
    coarse = max(1, int(scale / 3))
    cells = -(-SIZE // coarse)
    noise = ndimage.gaussian_filter(rng.standard_normal((cells, cells), dtype=np.float32), scale / coarse, mode="wrap")
    noise = ndimage.zoom(noise, coarse, order=1, grid_mode=True, mode="nearest")[:SIZE, :SIZE]
    smooth: Map = (noise / noise.std()).astype(np.float32)
    return smooth


def _amplitude(decibels: float | Map) -> Map:
    return np.power(10, np.asarray(decibels, dtype=np.float32) / 20, dtype=np.float32)
