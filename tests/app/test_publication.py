"""How a job's models get into the catalogue."""

from pathlib import Path

from app.places import Places
from app.publication import publish
from app.records import JobFolder


def test_a_model_takes_the_place_of_the_one_that_an_earlier_attempt_left(tmp_path: Path):
    places = Places(tmp_path / "state", tmp_path / "data", tmp_path / "checkpoints")
    folder = JobFolder(places.jobs / "1f")
    for model in (places.models / "mine-1f", places.models / "mine-21f", folder.ready / "mine-1f"):
        model.mkdir(parents=True)
        (model / "card.json").write_text(str(model.parent))
    assert publish(folder, places) == ("mine-1f",), "the other is of a job whose id ends alike"
    assert (places.models / "mine-1f" / "card.json").read_text() == str(folder.ready)
    assert list(folder.ready.iterdir()) == []


def test_the_first_models_of_all_are_named_in_the_alphabets_order(tmp_path: Path):
    places = Places(tmp_path / "new" / "state", tmp_path / "data", tmp_path / "checkpoints")
    folder = JobFolder(tmp_path / "jobs" / "1f")
    names = [f"{letter}-1f" for letter in "badfec"]
    for name in names:
        (folder.ready / name).mkdir(parents=True)
    assert publish(folder, places) == tuple(sorted(names))
    assert {path.name for path in places.models.iterdir()} == set(names)
