"""The paper's tables and the recipes, as they are written down."""

import pytest

from l2d.data import READERS
from l2d.distill import METHODS
from l2d.model import BACKBONES
from l2d.published import choose_rows, describe_data, read_recipes, read_rows
from tests.l2d.conftest import make_index


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


@pytest.mark.parametrize(
    ("kind", "labels", "pictures", "told"),
    [
        ("voc", 20, 5011, None),
        ("voc-easy", 20, 5011, "The data set is voc-easy, the paper's is VOC 2007: "),
        ("voc", 20, 1, "The pictures are not those of VOC 2007 (1 instead of 5,011 training pictures): "),
        ("voc", 3, 5011, "The pictures are not those of VOC 2007 (3 instead of 20 labels): "),
    ],
)
def test_data_laid_out_like_the_papers_are_not_taken_for_them(kind: str, labels: int, pictures: int, told: str | None):
    notes = describe_data("VOC 2007", kind, make_index(labels, pictures))
    assert [note.startswith(told or "-") for note in notes] == ([True] if told else [])
