"""A job's models in the catalogue: how they get there, and which they are."""

from pathlib import Path

from app.places import Places
from app.records import JobFolder, remove_folder


def publish(folder: JobFolder, places: Places) -> tuple[str, ...]:
    """Move what a job laid out into the catalogue, each model in one step; returns the names of all that are there.

    An earlier worker may have moved some, and left before that was on record.
    """
    places.models.mkdir(parents=True, exist_ok=True)
    for model in sorted(folder.ready.iterdir()):
        remove_folder(places.models / model.name)
        model.rename(places.models / model.name)
    return tuple(model.name for model in find_models(places, folder.path.name))


def find_models(places: Places, job: str) -> list[Path]:
    """The models of a job in the catalogue."""
    return sorted(places.models.glob(f"*-{job}"))
