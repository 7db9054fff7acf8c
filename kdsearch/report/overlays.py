"""Images with ground truth outlined in green and predictions in red, as in figure 2 of Behboodi et al. 2025."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

TILE = 192
GAP = 8
LINE = 22
TRUTH, PREDICTION = (0, 220, 90), (255, 60, 60)
INK, PAPER = (30, 30, 30), (255, 255, 255)

Bits = npt.NDArray[np.bool_]

QUANTILES = (("easy", 0.95), ("easy", 0.80), ("typical", 0.60), ("typical", 0.40), ("hard", 0.20), ("hard", 0.05))
"""Quantiles of the teacher's Dice over the images with a lesion; neither its best nor its worst image is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image to show."""

    position: int
    """In the validation split."""
    kind: str
    """``easy``, ``typical`` or ``hard``."""


def choose_cases(teacher_dice: npt.NDArray[np.float64]) -> tuple[Case, ...]:
    """Six images, or fewer if fewer have a lesion, from the teacher's N Dice coefficients (NaN: no lesion)."""
    lesions = np.flatnonzero(~np.isnan(teacher_dice))
    order = lesions[np.argsort(teacher_dice[lesions], kind="stable")]
    found: dict[int, str] = {}
    for kind, quantile in QUANTILES if len(order) else ():
        found.setdefault(int(order[round(quantile * (len(order) - 1))]), kind)
    return tuple(Case(position=position, kind=kind) for position, kind in found.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image and the prediction of each network."""

    caption: str
    """The image's name and whether it is easy, typical or hard."""
    gray: npt.NDArray[np.uint8]
    """H×W."""
    truth: Bits
    """H×W, true inside a lesion."""
    predictions: tuple[Bits, ...]
    """One per network, H×W."""
    dice: tuple[float, ...]
    """One per network."""


def overlay_sheet(rows: Sequence[Row], networks: Sequence[str], *, title: str) -> bytes:
    """PNG with one row per image: the image itself, then one tile per network with its Dice."""
    columns = 1 + len(networks)
    width = GAP + columns * (TILE + GAP)
    height = 3 * LINE + GAP + len(rows) * (TILE + LINE + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    draw.text((GAP, 3), title, fill=INK, font=ImageFont.load_default(size=15))
    draw.text((GAP, height - LINE), "ground truth", fill=(0, 150, 60), font=font)
    draw.text((GAP + 110, height - LINE), "prediction", fill=(210, 30, 30), font=font)
    for column, name in enumerate(("image", *networks)):
        draw.text((_left(column), LINE + 2), name, fill=INK, font=font)
    for index, row in enumerate(rows):
        top = 2 * LINE + index * (TILE + LINE + GAP)
        sheet.paste(_tile(row.gray), (_left(0), top))
        draw.text((_left(0), top + TILE + 2), row.caption, fill=INK, font=font)
        for column, (prediction, dice) in enumerate(zip(row.predictions, row.dice, strict=True), start=1):
            sheet.paste(outlined(row.gray, row.truth, prediction, side=TILE), (_left(column), top))
            draw.text((_left(column), top + TILE + 2), f"Dice {100 * dice:.1f} %", fill=INK, font=font)
    file = io.BytesIO()
    sheet.save(file, format="PNG", optimize=True)
    return file.getvalue()


def outlined(gray: npt.NDArray[np.uint8], truth: Bits | None, prediction: Bits, *, side: int) -> Image.Image:
    """The image in color, at least ``side`` pixels on its longer side, with the outlines of both masks."""
    scale = max(1.0, side / max(gray.shape))
    size = (round(gray.shape[1] * scale), round(gray.shape[0] * scale))
    pixels = np.array(Image.fromarray(gray).resize(size, Image.Resampling.BICUBIC).convert("RGB"))
    for mask, color in ((truth, TRUTH), (prediction, PREDICTION)):
        if mask is not None:
            wide = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
            pixels[_edge(wide)] = color
    return Image.fromarray(pixels)


def _tile(gray: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(gray).resize((TILE, TILE), Image.Resampling.BICUBIC).convert("RGB")


def _left(column: int) -> int:
    return GAP + column * (TILE + GAP)


def _edge(mask: Bits) -> Bits:
    """The outermost two pixels of the mask."""
    inner = np.pad(mask, 2)
    for _ in range(2):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return np.asarray(mask & ~inner[2:-2, 2:-2])
