"""One simulated ultrasound image with its mask, by seed and number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdsearch.data.phantom.acoustics import envelope, log_compress
from kdsearch.data.phantom.anatomy import Label, draw_anatomy
from kdsearch.data.pixels import Pixels

VERSION = 1
"""Counts changes to the simulation, so that cached images of an older one are not taken for new."""
SHARES: dict[Label, float] = {"benign": 0.5, "malignant": 0.38, "normal": 0.12}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomImage:
    """A simulated image, its lesion and what kind of lesion it is."""

    image: Pixels
    """H×W grey values."""
    mask: Pixels
    """H×W, 255 inside the lesion."""
    label: Label


def simulate(index: int, *, seed: int) -> PhantomImage:
    """The image of that number; the same seed and number give the same image."""
    rng = np.random.default_rng([VERSION, seed, index])
    labels = list(SHARES)
    label = labels[rng.choice(len(labels), p=list(SHARES.values()))]
    anatomy = draw_anatomy(label, rng)
    detected = envelope(anatomy.echo, anatomy.attenuation, rng)
    image = log_compress(detected, gain_db=float(rng.uniform(-3, 5)), noise_db=float(rng.uniform(-48, -38)), rng=rng)
    return PhantomImage(image=image, mask=anatomy.lesion.astype(np.uint8) * np.uint8(255), label=label)
