"""A run's epochs as a table."""

from pathlib import Path
from typing import Any

from l2d.epochs import EPOCHS, add_epoch
from l2d.train import EpochReport
from tests.l2d.conftest import make_network

HEADER = "epoch,loss_bce,loss_id,held_out_mAP,seconds,images_per_second\n"


def report(epoch: int, scores: dict[str, Any] | None, bce: float = 412.3456789) -> EpochReport:
    return EpochReport(epoch, {"bce": bce, "id": 0.00012345678}, scores, make_network().model, 3.456, 10.0, 812.34)


def test_every_epoch_is_a_row_and_one_that_comes_again_replaces_what_was_there(tmp_path: Path) -> None:
    for told in (report(1, {"mAP": 12.3456789}), report(2, {"mAP": None}), report(3, None), report(2, None, bce=1.0)):
        add_epoch(tmp_path, told)
    rows = "1,412.346,0.000123457,12.3457,3.46,812.3\n2,1,0.000123457,,3.46,812.3\n"
    assert (tmp_path / EPOCHS).read_text() == HEADER + rows


def test_a_table_that_a_spreadsheet_saved_in_its_own_way_ends_no_training(tmp_path: Path) -> None:
    (tmp_path / EPOCHS).write_bytes("\ufeffepoch;loss_bce;gr\u00fc\xdfe\r\n1;412,3;\r\n".encode("utf-16"))
    add_epoch(tmp_path, report(2, None))
    assert (tmp_path / EPOCHS).read_text() == HEADER + "2,412.346,0.000123457,,3.46,812.3\n"
