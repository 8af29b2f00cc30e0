"""Labels as people write them: between commas, misspelt; and those worth showing."""

import pytest

from l2d.labels import check_known, choose_labels, split_labels

ANIMALS = ("cat", "dog", "horse", "sheep")


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["cat, dog", "cat", "horse"], ["cat", "dog", "horse"]),
        (["bow, arrow"], ["bow, arrow"]),
        (["bow, arrow", "cat,bow"], ["bow, arrow", "cat", "bow"]),
        (["", " , ,"], []),
        (["teddy bear ", " cat ,dog "], ["teddy bear ", "cat", "dog"]),
    ],
)
def test_a_label_with_a_comma_or_blanks_at_its_ends_is_named_by_itself(texts: list[str], labels: list[str]) -> None:
    assert split_labels(texts, [*ANIMALS, "bow", "bow, arrow", "teddy bear "]) == labels


def test_a_label_is_known_in_either_coding_of_its_accents_and_its_own_comes_first() -> None:
    composed, apart = "m\u00f6we", "mo\u0308we"
    assert split_labels([f"cat, {composed}"], ["cat", apart]) == ["cat", apart]
    assert split_labels([apart], [composed]) == [composed]
    assert split_labels([composed, apart], [composed, apart]) == [composed, apart]


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["cta"], r"No network knows the label 'cta'; close are cat\. Known"),
        (["zebra", "cat", "hores"], r"No network knows the label 'zebra' or 'hores'; close are horse\. Known"),
        (["xyz"], r"No network knows the label 'xyz'\. Known"),
        ([], "No label to show; .* Known"),
    ],
)
def test_unknown_labels_are_refused_with_close_ones_and_all_that_are_known(labels: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=rf"{sentence} are cat, dog, horse, sheep\.$"):
        check_known(labels, ANIMALS)


def test_known_labels_pass() -> None:
    check_known(["dog", "cat"], ANIMALS)


def test_what_is_predicted_is_shown_else_what_is_most_probable() -> None:
    many = {f"label{number}": 0.9 - number / 100 for number in range(20)}
    assert choose_labels([many], 0.5) == [f"label{number}" for number in range(8)]
    assert choose_labels([{"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.05}, {"d": 0.4}], 0.5) == ["d", "b", "c"]
    assert choose_labels([{"a": 0.5, "b": 0.49}], 0.5) == ["a"]
    # By the best probability of any network, whichever comes first.
    assert choose_labels([{"a": 0.9, "b": 0.6}, {"a": 0.1, "b": 0.8}], 0.5) == ["a", "b"]
