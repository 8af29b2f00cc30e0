"""Labels as people write them: between commas, misspelt."""

import pytest

from l2d.labels import check_known, split_labels

ANIMALS = ("cat", "dog", "horse", "sheep")


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        (["cat, dog", "cat", "horse"], ["cat", "dog", "horse"]),
        (["bow, arrow"], ["bow, arrow"]),
        (["bow, arrow", "cat,bow"], ["bow, arrow", "cat", "bow"]),
        (["", " , ,"], []),
    ],
)
def test_a_label_that_holds_a_comma_is_named_by_itself(texts: list[str], labels: list[str]) -> None:
    assert split_labels(texts, [*ANIMALS, "bow", "bow, arrow"]) == labels


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["cta"], "No network knows the label 'cta'; close are cat"),
        (["zebra", "cat", "hores"], "No network knows the label 'zebra' or 'hores'; close are horse"),
        (["xyz"], "known are cat, dog, horse, sheep"),
        ([], "No label to show"),
    ],
)
def test_unknown_labels_are_refused_with_close_ones(labels: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_known(labels, ANIMALS)
