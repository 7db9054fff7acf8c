"""A study's images as one offline HTML page: tables, and pictures of what a person should look at."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion

from kdsearch.data.audit import Finding
from kdsearch.data.native import NativeImage
from kdsearch.report.page import STYLE, html_table

SIDE = 160
"""Pixels of a drawn image's longer side."""
OUTLINE = (255, 140, 0)
GALLERY = """
figure { display: inline-block; margin: .3em; font-size: 12px; text-align: center; vertical-align: top }
.together { display: inline-block; border: 1px solid #ccc; margin: .3em }
"""


def data_page(
    *,
    name: str,
    tables: Sequence[Sequence[Sequence[str]]],
    remarks: Sequence[str],
    findings: Sequence[Finding],
    pictures: Mapping[str, NativeImage],
    most_shown: int,
    skipped: Sequence[str],
) -> str:
    """The page; ``pictures`` are by the images' ids, and each finding draws at most ``most_shown``."""
    parts = [html_table(head, rows) for head, *rows in (table for table in tables if table)]
    parts += [f"<p>{html.escape(remark)}.</p>" for remark in remarks]
    parts += [_section(finding, pictures, most_shown) for finding in findings]
    if skipped:
        listed = "".join(f"<li>{html.escape(line)}</li>" for line in skipped)
        parts.append(f"<h2>Left out: {len(skipped)} images with defects</h2><ul>{listed}</ul>")
    title = html.escape(name)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>kdsearch: images of {title}</title>'
        f"<style>{STYLE}{GALLERY}</style></head>\n<body><h1>Images of {title}</h1>\n"
        "<p>Masks are outlined. What stands here is to be looked at, not necessarily wrong.</p>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _section(finding: Finding, pictures: Mapping[str, NativeImage], most_shown: int) -> str:
    drawn, shown = [], 0
    for together in finding.images:
        if shown >= most_shown:
            break
        figures = "".join(_figure(pictures[one]) for one in together if one in pictures)
        drawn.append(f'<span class="together">{figures}</span>' if len(together) > 1 else figures)
        shown += len(together)
    total = len(finding.ids)
    count = f"{total} images" if len(finding.images) == total else f"{len(finding.images)} groups of {total} images"
    rest = "" if shown >= total else f"<p>{shown} of {total} are drawn.</p>"
    return f"<h2>{html.escape(finding.what[0].upper() + finding.what[1:])}: {count}</h2>{''.join(drawn)}{rest}"


def _figure(image: NativeImage) -> str:
    pixels = np.repeat(image.grey[..., None], 3, axis=2)
    mask = image.mask > 0
    pixels[mask & ~binary_erosion(mask, iterations=2)] = OUTLINE
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "PNG")
    name = html.escape(image.id)
    content = base64.b64encode(file.getvalue()).decode()
    return f'<figure><img alt="{name}" src="data:image/png;base64,{content}"><figcaption>{name}</figcaption></figure>'
