import csv
import io
from importlib import metadata

import pytest
from PIL import Image

from app.ui import examples
from app.ui.examples import EXAMPLES, list_examples, read_example


def list_shipped(distribution: str) -> set[str]:
    record = metadata.distribution(distribution).read_text("RECORD")
    return {row[0] for row in csv.reader(io.StringIO(record or ""))}


def test_every_example_lies_in_a_wheel_itself():
    shipped = list_shipped("scikit-image") | list_shipped("matplotlib")
    assert [example for example in EXAMPLES if f"{example.package}/{example.file}" not in shipped] == []
    assert list_examples() == EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_example_is_a_photograph_with_its_maker_named(example):
    with Image.open(io.BytesIO(read_example(example.name))) as image:
        assert min(image.size) >= 300
    assert example.credit.endswith(("(public domain)", "(CC0)"))


def test_an_unknown_example_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown example 'dog'; known are officer, coffee"):
        read_example("dog")


def test_an_example_that_the_installed_wheel_lacks_is_unknown(monkeypatch):
    monkeypatch.setattr(examples, "EXAMPLES", (EXAMPLES[0], EXAMPLES[1]._replace(file="data/gone.png")))
    with pytest.raises(ValueError, match=r"Unknown example 'coffee'; known are officer\."):
        read_example("coffee")
