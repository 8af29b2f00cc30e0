"""The paper's tables and the recipes, as they are written down."""

import pytest

from l2d.data import READERS
from l2d.distill import METHODS
from l2d.model import BACKBONES
from l2d.published import choose_rows, read_recipes, read_rows


def test_the_supplements_recipe_weighs_mld_beside_a_summed_loss_and_is_the_papers_otherwise():
    recipes = read_recipes()["recipes"]
    paper, supplement = (recipes[name] for name in ("paper", "supplement"))
    assert {name for name in supplement if supplement[name] != paper.get(name)} == {"weights", "weights_from"}
    assert supplement["weights"] == {"mld": METHODS["mld"]["mld"] * supplement["recipe"]["batch_size"]}


def test_recipes_name_readers_and_methods_that_exist():
    recipes = read_recipes()
    assert set(recipes["data"].values()) <= set(READERS)
    assert set(recipes["methods"]) <= set(METHODS)
    assert sorted(recipes["backbones"].values()) == sorted(BACKBONES)


@pytest.mark.parametrize(
    ("names", "numbers"), [([], [1, 2, 3, 4]), (["4", "1"], [1, 4]), (["resnet50:mobile"], [3]), (["swin:mobile", "swin:resnet18"], [2, 4])]
)
def test_rows_by_number_or_by_the_beginning_of_their_names(names: list[str], numbers: list[int]):
    assert [row.number for row in choose_rows(read_rows("table4"), names)] == numbers
