"""One folder of checkpoints: the model in it, or why it is none."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from app.schemas import ModelDetail
from l2d.checkpoint import CARD, WEIGHTS, CheckpointError, ModelCard, read_card

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
MAX_CARD_BYTES = 4 * 2**20

# Time and size of a file; a folder's name with those of its card and weights; all folders of one place.
FileStamp = tuple[int, int]
FolderStamp = tuple[str, FileStamp, FileStamp]
Stamp = tuple[FolderStamp, ...]


class Entry(NamedTuple):
    """One model of the catalogue.

    Attributes:
        name: of its folder, in `place`.
        detail: the card as the API shows it.
        version: a digest of the card, which holds that of the weights.
        stamp: of its folder, just before it was read.
    """

    name: str
    card: ModelCard
    detail: ModelDetail
    place: Path
    version: str
    stamp: FolderStamp

    @property
    def key(self) -> tuple[str, str]:
        """Tells one version of a model from another."""
        return self.name, self.version

    @property
    def data_title(self) -> str:
        """What the data are called that it was trained and scored on."""
        return name_data(self.card.data)


def take_stamp(folder: Path) -> Stamp:
    """What tells whether a folder of checkpoints changed; one that is not there, or cannot be read, holds none."""
    try:
        with os.scandir(folder) as places:
            # Links first, whatever they lead to: one that leads to itself cannot be asked whether it is a folder.
            names = [place.name for place in places if not place.name.startswith(".") and (place.is_symlink() or place.is_dir())]
    except OSError:
        return ()
    return tuple((name, _stamp_file(f"{folder}/{name}/{CARD}"), _stamp_file(f"{folder}/{name}/{WEIGHTS}")) for name in sorted(names))


def _stamp_file(path: str) -> FileStamp:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def read_entry(place: Path, stamp: FolderStamp) -> Entry:
    """The model in a folder of this place.

    Raises:
        CheckpointError, OSError: if there is none.
    """
    name, folder = stamp[0], place / stamp[0]
    if not NAME.fullmatch(name):
        raise CheckpointError("A model's folder is named with at most 80 letters, digits, dots, dashes and underscores.")
    # Asked first, because `is_dir` and `is_file` call some of what cannot be read merely not there.
    folder.stat()
    if not folder.is_dir():
        raise CheckpointError(f"{name} is no folder.")
    _check_link(folder, place)
    for path in (folder / CARD, folder / WEIGHTS):
        # A pipe would keep its reader waiting for ever.
        if not path.is_file():
            raise CheckpointError(f"{name} holds no {path.name}.")
        _check_link(path, place)
    if (folder / CARD).stat().st_size > MAX_CARD_BYTES:
        raise CheckpointError(f"Its {CARD} is larger than {MAX_CARD_BYTES} bytes.")
    card = read_card(folder)
    return Entry(name, card, _describe_card(name, card), place, take_version(card), stamp)


def _check_link(path: Path, place: Path) -> None:
    if not path.resolve().is_relative_to(place.resolve()):
        raise CheckpointError(f"{path.name} is a link that leads out of the folder of checkpoints.")


def take_version(card: ModelCard) -> str:
    """A digest of a card."""
    return hashlib.sha256(repr(card).encode()).hexdigest()


def _describe_card(name: str, card: ModelCard) -> ModelDetail:
    try:
        fields = dataclasses.asdict(card) | {
            "name": name,
            "num_labels": len(card.labels),
            "mAP": card.scores.get("mAP") if isinstance(card.scores, dict) else None,
            "default": False,
            "job": card.lineage.get("job") if isinstance(card.lineage, dict) else None,
        }
        detail = ModelDetail.model_validate(fields)
        # Halves of characters, which JSON can spell and no answer can hold.
        detail.model_dump_json()
    except RecursionError as error:
        raise CheckpointError(f"{CARD}: it is nested too deeply.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{CARD}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    except ValueError as error:  # of pydantic's serializer, which Python's own limit comes before or after
        wrong = "it is nested too deeply" if "depth exceeded" in str(error) else f"a text in it is no Unicode: {error}"
        raise CheckpointError(f"{CARD}: {wrong}.") from error
    return detail


def find_untaught(entry: Entry, entries: Iterable[Entry]) -> Entry | None:
    """The first student of the same network that learnt without a teacher, which a method's gain is above; None if there is none."""
    alone = (other for other in entries if other.card.role == "student" and other.card.method == "vanilla")
    return next((other for other in alone if not _name_networks(entry).isdisjoint(_name_networks(other))), None)


def _name_networks(entry: Entry) -> set[str]:
    """timm's names for it: the card's; with the tag of the weights that were fetched; without a tag, if none were."""
    backbone, lineage = entry.card.backbone, entry.card.lineage
    if not str(lineage.get("init")).startswith("timm"):
        return {backbone, backbone.partition(".")[0]}
    name = str(lineage.get("source")).removeprefix("timm/")
    return {backbone, name} if name.startswith(f"{backbone}.") else {backbone}


def name_data(data: Any) -> str:
    """What a card's description of its data calls them."""
    data = data if isinstance(data, dict) else {}
    return next((str(data[key]) for key in ("title", "name", "source") if data.get(key)), "unnamed data")
