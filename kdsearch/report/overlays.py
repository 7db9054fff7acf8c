"""Images with masks: outlines of one class, as in figure 2 of Behboodi et al. 2025, or several classes in colors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from kdsearch.config.task import IGNORED

TILE = 192
GAP = 8
LINE = 22
TRUTH, PREDICTION = (0, 220, 90), (255, 60, 60)
INK, PAPER = (30, 30, 30), (255, 255, 255)

Bits = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.uint8]
"""Class numbers; 0 is the background."""

CLASS_COLORS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)
)  # fmt: skip
"""Colors that people with any kind of color vision can distinguish (Okabe and Ito 2008)."""
OPACITY = 0.5
"""How much of a class's color covers the image."""

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
    pixels: npt.NDArray[np.uint8]
    """Gray values H×W, or RGB H×W×3."""
    truth: Classes
    """H×W."""
    predictions: tuple[Classes, ...]
    """One per network, H×W."""
    dice: tuple[float, ...]
    """One per network."""


def overlay_sheet(rows: Sequence[Row], networks: Sequence[str], *, title: str, classes: Sequence[str] = ()) -> bytes:
    """PNG with one row per image: the image itself, then one tile per network with its Dice.

    ``classes`` are the names of several classes; the second tile then shows the mask.
    """
    first = ("image", "ground truth") if classes else ("image",)
    columns = len(first) + len(networks)
    width = GAP + columns * (TILE + GAP)
    height = 3 * LINE + GAP + len(rows) * (TILE + LINE + GAP)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    draw.text((GAP, 3), title, fill=INK, font=ImageFont.load_default(size=15))
    left = GAP
    for name, color in _legend(classes):
        draw.rectangle((left, height - LINE + 3, left + 10, height - LINE + 13), fill=color)
        draw.text((left + 15, height - LINE), name, fill=INK, font=font)
        left += 15 + round(draw.textlength(name, font=font)) + 2 * GAP
    for column, name in enumerate((*first, *networks)):
        draw.text((_left(column), LINE + 2), name, fill=INK, font=font)
    for index, row in enumerate(rows):
        top = 2 * LINE + index * (TILE + LINE + GAP)
        sheet.paste(_tile(row.pixels), (_left(0), top))
        if classes:
            sheet.paste(colored(row.pixels, row.truth, side=TILE), (_left(1), top))
        draw.text((_left(0), top + TILE + 2), row.caption, fill=INK, font=font)
        for column, (prediction, dice) in enumerate(zip(row.predictions, row.dice, strict=True), start=len(first)):
            tile = (
                colored(row.pixels, prediction, side=TILE)
                if classes
                else outlined(row.pixels, row.truth == 1, prediction > 0, side=TILE)
            )
            sheet.paste(tile, (_left(column), top))
            draw.text((_left(column), top + TILE + 2), f"Dice {100 * dice:.1f} %", fill=INK, font=font)
    file = io.BytesIO()
    sheet.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _legend(classes: Sequence[str]) -> list[tuple[str, tuple[int, int, int]]]:
    if not classes:
        return [("ground truth", TRUTH), ("prediction", PREDICTION)]
    return list(zip(classes, class_colors(len(classes)), strict=True))


def class_colors(count: int) -> list[tuple[int, int, int]]:
    """The colors of the classes other than the background; darker ones repeat if there are many."""
    found = []
    for place in range(count):
        turn, index = divmod(place, len(CLASS_COLORS))
        red, green, blue = (round(level * 0.6**turn) for level in CLASS_COLORS[index])
        found.append((red, green, blue))
    return found


def colored(pixels: npt.NDArray[np.uint8], classes: Classes, *, side: int) -> Image.Image:
    """The image, at least ``side`` pixels on its longer side, with each class in its color; ignored pixels are gray."""
    size, image = _enlarged(pixels, side=side)
    wide = np.asarray(Image.fromarray(classes).resize(size, Image.Resampling.NEAREST))
    table = np.full((256, 3), 128, dtype=np.float32)
    present = [number for number in np.unique(wide).tolist() if number != IGNORED]
    for number, color in enumerate(class_colors(max(present, default=0)), start=1):
        table[number] = color
    covered = (wide > 0)[..., None]
    mixed = np.where(covered, (1 - OPACITY) * image + OPACITY * table[wide], image)
    return Image.fromarray(mixed.round().astype(np.uint8))


def _enlarged(pixels: npt.NDArray[np.uint8], *, side: int) -> tuple[tuple[int, int], npt.NDArray[np.uint8]]:
    """Width and height, at least ``side`` on the longer side, and the image in color at this size."""
    scale = max(1.0, side / max(pixels.shape[:2]))
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return size, np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert("RGB"))


def outlined(image: npt.NDArray[np.uint8], truth: Bits | None, prediction: Bits, *, side: int) -> Image.Image:
    """The image in color, at least ``side`` pixels on its longer side, with the outlines of both masks."""
    size, pixels = _enlarged(image, side=side)
    for mask, color in ((truth, TRUTH), (prediction, PREDICTION)):
        if mask is not None:
            wide = np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
            pixels[_edge(wide)] = color
    return Image.fromarray(pixels)


def _tile(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BICUBIC).convert("RGB")


def _left(column: int) -> int:
    return GAP + column * (TILE + GAP)


def _edge(mask: Bits) -> Bits:
    """The outermost two pixels of the mask."""
    inner = np.pad(mask, 2)
    for _ in range(2):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return np.asarray(mask & ~inner[2:-2, 2:-2])
