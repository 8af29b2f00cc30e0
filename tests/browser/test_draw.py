import json
from importlib import resources

import pytest
import torch
from torch.nn import functional as F

from l2d.layers import format_number, measure_by_area

DRAW = (resources.files("app.ui") / "browser" / "draw.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(context):
    """Evaluate an expression with the drawing functions on an empty page, which it leaves empty."""
    page = context.new_page()
    yield lambda expression: page.evaluate(f"(() => {{ {DRAW}\n return {expression}; }})()")
    page.close()


@pytest.mark.parametrize(("smooth", "mode"), [("true", "bilinear"), ("false", "nearest-exact")])
def test_values_between_cells_are_those_of_torch(run, smooth, mode):
    maps = torch.rand(1, 1, 7, 5, generator=torch.Generator().manual_seed(0))
    rows = json.dumps(maps[0, 0].tolist())
    drawn = run(f"Array.from(sample(23, 31, (x, y) => valueAt({rows}, x, y, {smooth})).values)")
    torch.testing.assert_close(torch.tensor(drawn).view(31, 23), F.interpolate(maps, (31, 23), mode=mode)[0, 0], rtol=1e-5, atol=1e-6)


def test_the_same_evidence_on_a_finer_grid_is_the_same_per_area(run):
    maps = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    finer = torch.kron(maps, torch.ones(2, 5) / 10)
    measured = run(f"measureByArea({json.dumps({'coarse': maps.tolist(), 'fine': finer.tolist()})})")
    torch.testing.assert_close(torch.tensor(measured["coarse"]), torch.from_numpy(measure_by_area(maps)))
    torch.testing.assert_close(torch.tensor(measured["fine"]), torch.from_numpy(measure_by_area(finer)))
    torch.testing.assert_close(torch.kron(torch.tensor(measured["coarse"]), torch.ones(2, 5)), torch.tensor(measured["fine"]))


def test_the_largest_value_of_a_map_without_positive_evidence_is_zero(run):
    assert run("[largest([[0, 0]]), largest([[-1, -2]]), largest([[0, 3], [2, 1]])]") == [0, 0, 3]


def test_full_evidence_is_the_last_colour_and_none_is_no_paint(run):
    pixels = run(
        """(() => {
          const canvas = document.createElement("canvas"), colours = parseColours("000000".repeat(255) + "ff8000");
          paint(canvas, { values: [0, 2, 9], width: 3, height: 1 }, { range: 2, signed: false, colours, even: false, opacity: 1 });
          return Array.from(canvas.getContext("2d").getImageData(0, 0, 3, 1).data);
        })()"""
    )
    assert pixels == [0, 0, 0, 0, 255, 128, 0, 255, 255, 128, 0, 255]


def test_differences_spread_around_the_middle(run):
    pixels = run(
        """(() => {
          const canvas = document.createElement("canvas"), colours = parseColours("0000ff".repeat(128) + "ff0000".repeat(128));
          paint(canvas, { values: [-1, 1], width: 2, height: 1 }, { range: 1, signed: true, colours, even: false, opacity: 1 });
          return Array.from(canvas.getContext("2d").getImageData(0, 0, 2, 1).data);
        })()"""
    )
    assert pixels == [0, 0, 255, 255, 255, 0, 0, 255]


def test_numbers_read_as_in_a_figure(run):
    values = [0, 0.27111, 0.05, 0.00031, -0.00031, 3.14, 4, -9.96, 12.3, 99.4, 99.7, -1234.6]
    assert run(f"{values}.map(formatNumber)") == [format_number(value) for value in values]


def test_what_is_no_number_is_a_dash(run):
    assert run("formatNumber(NaN)") == "–"
