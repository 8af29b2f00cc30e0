"""The epochs of a run as a table in its folder, for plots."""

import csv
import io
from pathlib import Path
from typing import Any

from l2d.disk import replace_file
from l2d.train import EpochReport

EPOCHS = "epochs.csv"


def add_epoch(folder: Path, report: EpochReport) -> None:
    """Write an epoch's row into `EPOCHS`: in place of those of that epoch and later ones, which a run that was stopped may have left.

    The columns: `epoch`; `loss_NAME`, every weighted loss's mean over the epoch's steps; `held_out_mAP` in percent, empty where nothing is
    held out or nothing there shows a label; `seconds` of the epoch; `images_per_second`, of training alone.

    Raises:
        OSError: if it cannot be written.
    """
    # What somebody's spreadsheet made of the table is no reason to end a training.
    rows = [row for row in read_epochs(folder) if (row.get("epoch") or "").isdecimal() and int(row["epoch"]) < report.epoch]
    replace_file(folder / EPOCHS, lambda path: path.write_text(_as_csv([*rows, _describe(report)]), encoding="utf-8"), durable=False)


def read_epochs(folder: Path) -> list[dict[str, str]]:
    """The rows of a run's folder; none where an older revision trained."""
    path = folder / EPOCHS
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8", errors="replace")))) if path.exists() else []


def _describe(report: EpochReport) -> dict[str, Any]:
    losses = {f"loss_{name}": f"{value:.6g}" for name, value in report.losses.items()}
    score = report.scores["mAP"] if report.scores else None
    speed = {"seconds": f"{report.seconds:.2f}", "images_per_second": f"{report.images_per_second:.1f}"}
    return {"epoch": report.epoch, **losses, "held_out_mAP": "" if score is None else f"{score:.4f}", **speed}


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[-1].keys(), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
