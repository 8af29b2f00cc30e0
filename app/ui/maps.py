"""Where a job's student looks after an epoch, as HTML: maps of the probe pictures, beside the teacher's, and what their paint means."""

import contextlib
import functools
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from app.jobs import TEACHER
from app.probes import INDEX
from app.ui.photographs import encode
from l2d.layers import format_number, format_probability, measure_by_area

COLOUR_MAP, OPACITY = "inferno", 0.85
# How many views are kept: whoever polls, or moves back and forth between epochs, has them drawn once.
KEPT_VIEWS = 64
# Files whose peaks are kept: those of a few long jobs.
KEPT_PEAKS = 4096
# What reading a file raises that is no longer what was written.
DAMAGE = (ValueError, TypeError, LookupError, OSError)

CSS = """
.l2d-probes { overflow-x: auto; }
.l2d-probes p { max-width: 62ch; margin: 0 0 6px; font-size: 13px; }
.l2d-probes p img { display: inline-block; width: 96px; height: 8px; border-radius: 4px; }
.l2d-probes span { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 6px; }
.l2d-probes small { white-space: nowrap; color: var(--body-text-color-subdued); }
.l2d-probes table { border-collapse: collapse; }
.l2d-probes :is(table, tr, th, td) { border: 0 !important; }
.l2d-probes tbody tr { border-top: 1px solid var(--border-color-primary) !important; }
.l2d-probes th, .l2d-probes td { padding: 3px 6px; text-align: left; vertical-align: top; }
.l2d-probes td img { width: 128px; min-width: 64px; height: auto; display: block; image-rendering: auto; }
.l2d-probes td { min-width: 64px; font-size: 13px; overflow-wrap: anywhere; }
"""


def list_epochs(folder: Path) -> list[int]:
    """The epochs after which the student was mapped.

    Args:
        folder: where `app.probes` keeps a job's pictures and maps; may not exist.
    """
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())


def show_maps(folder: Path, epoch: int) -> str:
    """The probe pictures with the student's maps after an epoch, and the teacher's to compare with; until there are any, words."""
    try:
        # Files come by renaming, and each one touches the folder.
        return _draw_view(folder, epoch, folder.stat().st_mtime_ns)
    except FileNotFoundError:
        # True of a job that has ended, too.
        return "<p>No maps so far: they are made after every epoch of the student.</p>"
    except DAMAGE:
        return "<p>The maps after this epoch cannot be shown: a file of them is damaged. Those of other epochs may be whole.</p>"


# In these functions `changed` is for the cache alone: what is written anew is read anew.
@functools.lru_cache(KEPT_VIEWS)
def _draw_view(folder: Path, epoch: int, changed: int) -> str:
    pictures, student, teacher = (_read(folder / name) for name in (INDEX, f"{epoch:04}.json", f"{TEACHER}.json"))
    if not pictures or not student:
        raise FileNotFoundError(folder)
    scales = find_scales(folder)
    rows = []
    for number, picture in enumerate(pictures):
        with Image.open(folder / picture["file"]) as file:
            image = file.convert("RGB")
        for place, found in enumerate(student[number]):
            cells = [f'<img src="{encode(image)}" alt="photograph {number + 1}">' if place == 0 else "", escape(found["label"])]
            cells.append(_show_map(image, found, scales[number, found["label"]]))
            if teacher:
                known = teacher[number][place]
                cells.append(_show_map(image, known, _find_peak(known)))
            rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("Photograph", "Label", "Student", *(["Teacher"] if teacher else [])))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    # It scrolls where labels are long: by keyboard, too, as tables of scores do.
    return f'<div class="l2d-probes" tabindex="0" role="region" aria-label="maps">{_explain(bool(teacher))}{table}</div>'


def _read(path: Path) -> Any:
    with contextlib.suppress(FileNotFoundError):
        return json.loads(path.read_text(encoding="utf-8"))["pictures"]
    return None


def _explain(taught: bool) -> str:
    """What the paint means, and where the scales end."""
    bar = paint(Image.new("RGB", (96, 8), (128, 128, 128)), np.linspace(0, 1, 96, dtype=np.float32)[None], 1.0)
    words = (
        "Paint is LayerCAM evidence for the label per picture area, from none"
        f' <img src="{encode(bar)}" alt="bare to full paint"> to the end of a scale.'
        " Beneath each map are the label's probability and the ends of its scale. For each picture and label the student has one scale,"
        " up to its strongest evidence in any epoch, so that one sees it grow."
    )
    other = " The teacher's goes up to its own strongest: compare where the two look, not how bright they are."
    return f"<p>{words}{other if taught else ''}</p>"


def find_scales(folder: Path) -> dict[tuple[int, str], float]:
    """The student's strongest evidence in any epoch, by picture and label. A file is read once, until it is written again."""
    scales: dict[tuple[int, str], float] = {}
    for epoch in list_epochs(folder):
        path = folder / f"{epoch:04}.json"
        for key, peak in _read_peaks(path, path.stat().st_mtime_ns).items():
            scales[key] = max(scales.get(key, 0.0), peak)
    return scales


@functools.lru_cache(KEPT_PEAKS)
def _read_peaks(path: Path, changed: int) -> dict[tuple[int, str], float]:
    try:
        return {(number, found["label"]): _find_peak(found) for number, picture in enumerate(_read(path)) for found in picture}
    except DAMAGE:
        # Told to who looks at this epoch; the others are shown without it.
        return {}


def _find_peak(found: dict[str, Any]) -> float:
    return float(measure_by_area(found["rows"]).max(initial=0))


def _show_map(image: Image.Image, found: dict[str, Any], scale: float) -> str:
    picture = paint(image, measure_by_area(found["rows"]), scale)
    text = f"{escape(format_probability(found['score']))} <small>{f'0 to {format_number(scale)}' if scale > 0 else 'no evidence'}</small>"
    return f'<img src="{encode(picture)}" alt="map for {escape(found["label"])}"><span>{text}</span>'


def paint(image: Image.Image, rows: NDArray[np.float32], scale: float) -> Image.Image:
    """A map over its picture: little evidence is little paint, none is the bare picture."""
    share = np.clip(rows / scale, 0, 1) if scale > 0 else np.zeros_like(rows)
    smooth = np.asarray(Image.fromarray(share.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR))
    paints, cover = colormaps[COLOUR_MAP](smooth, bytes=True)[..., :3], OPACITY * smooth[..., None]
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
    return Image.fromarray((grey * (1 - cover) + paints * cover).astype(np.uint8))
