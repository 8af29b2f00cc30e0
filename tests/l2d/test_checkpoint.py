"""A checkpoint folder: what is saved comes back, and what cannot be used is refused in a sentence."""

import json
import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils.prune import l1_unstructured

from l2d import checkpoint, disk
from l2d.checkpoint import (
    CARD,
    WEIGHTS,
    CheckpointError,
    ModelCard,
    Network,
    add_scores,
    hash_file,
    load_checkpoint,
    load_head,
    read_card,
    save_checkpoint,
    select_labels,
    write_card,
)
from l2d.model import LabelNet, create_model

Loader = Callable[[Path], object]

LABELS = ("cat", "dog", "Mähne")


def make_model() -> LabelNet:
    torch.manual_seed(0)
    return create_model("test_resnet", len(LABELS), image_size=48, width=16, feedforward=24)


def make_card(**changes: Any) -> ModelCard:
    fields = {
        "name": "one",
        "title": "One",
        "role": "student",
        "method": "l2d",
        "backbone": "test_resnet",
        "labels": LABELS,
        "image_size": 48,
        "width": 16,
        "feedforward": 24,
        "mean": (0.4, 0.5, 0.6),
        "recipe": {"lr": 1e-4, "weights": {"mld": 10.0}},
        "scores": {"mAP": 12.5},
    }
    return ModelCard(**{**fields, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "one", make_model(), make_card())
    return tmp_path / "one"


def rewrite_card(folder: Path, **changes: Any) -> None:
    fields = json.loads((folder / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(json.dumps({**fields, **changes}), encoding="utf-8")


def replace_weights(folder: Path, content: bytes) -> None:
    """Other weights, and a card that says that they are the right ones."""
    (folder / WEIGHTS).write_bytes(content)
    rewrite_card(folder, sha256=hash_file(folder / WEIGHTS))


def test_some_labels_of_a_network_in_another_order(tmp_path: Path):
    network, images = Network(make_model().eval(), make_card()), torch.randn(2, 3, 48, 48)
    chosen = select_labels(network, ["Mähne", "cat"])
    assert (chosen.card.labels, chosen.card.scores) == (("Mähne", "cat"), {})
    with torch.inference_mode():
        expected, found = network.model(images).logits, chosen.model(images).logits
    assert expected.shape == (2, 3)
    torch.testing.assert_close(found, expected[:, [2, 0]])
    save_checkpoint(tmp_path, *chosen)
    assert load_checkpoint(tmp_path).card.labels == ("Mähne", "cat")
    with pytest.raises(ValueError, match="one does not know the labels bird"):
        select_labels(network, ["bird"])


def test_round_trip(tmp_path: Path) -> None:
    model = make_model()
    saved = save_checkpoint(str(tmp_path / "deep" / "one"), model, make_card())
    loaded, card = load_checkpoint(tmp_path / "deep" / "one")
    assert card == saved == read_card(tmp_path / "deep" / "one")
    assert saved == make_card(sha256=saved.sha256, parameters=sum(p.numel() for p in model.parameters()))
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        torch.testing.assert_close(tensor, expected[name], rtol=2**-11, atol=2**-24)


def test_a_loaded_network_is_ready_to_use(folder: Path) -> None:
    model, card = load_checkpoint(str(folder))
    assert card == read_card(str(folder)) == read_card(folder)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert repr(Network(model, card)) == "<Network one: test_resnet with 3 labels at 48 pixels>"


def test_a_network_that_was_loaded_in_inference_mode_is_as_any_other(folder: Path) -> None:
    with torch.inference_mode():
        network = load_checkpoint(folder)
        networks = [network, select_labels(network, network.card.labels[:2])]
    assert not any(tensor.is_inference() for model, _ in networks for tensor in model.state_dict().values())


def test_the_head_alone_is_that_of_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, card = load_checkpoint(folder)
    monkeypatch.setattr(checkpoint, "create_model", lambda *_, **__: pytest.fail("the backbone was built"))
    head, same = load_head(folder)
    assert same == card
    assert not any(module.training for module in head.modules())
    assert not any(parameter.requires_grad for parameter in head.parameters())
    torch.testing.assert_close(head.state_dict(), model.head.state_dict(), rtol=0, atol=0)


def test_weights_without_a_head(folder: Path) -> None:
    save_file({"backbone.weight": torch.zeros(3)}, folder / WEIGHTS)
    rewrite_card(folder, sha256=hash_file(folder / WEIGHTS))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit the network: it lacks head\."):
        load_head(folder)


def test_the_files_are_small_plain_and_readable_by_others(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [CARD, WEIGHTS]
    assert {tensor.dtype for tensor in load_file(folder / WEIGHTS).values()} == {torch.float16, torch.int64}
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}
    assert "Mähne" in (folder / CARD).read_text(encoding="utf-8")


def test_numbers_beyond_half_precision_survive(tmp_path: Path) -> None:
    model = make_model()
    model.backbone.bn1.running_var[0] = 1e6
    save_checkpoint(tmp_path, model, make_card())
    assert load_checkpoint(tmp_path)[0].backbone.bn1.running_var[0] == 1e6


def test_what_could_not_be_loaded_again_is_not_written(tmp_path: Path) -> None:
    model, card = make_model(), make_card()
    with pytest.raises(ValueError, match="a LabelNet; got DataParallel, which may wrap one"):
        save_checkpoint(tmp_path / "new", nn.DataParallel(model), card)
    with pytest.raises(ValueError, match="another network: it says labels 1, not 3, width 32, not 16"):
        save_checkpoint(tmp_path / "new", model, make_card(labels=("cat",), width=32))
    with pytest.raises(ValueError, match="not the test_efficientnet that its card describes, or was changed since: it lacks backbone"):
        save_checkpoint(tmp_path / "new", model, make_card(backbone="test_efficientnet"))
    pruned = make_model()
    l1_unstructured(pruned.head.embed, "weight", 0.5)
    with pytest.raises(ValueError, match=r"changed since: it lacks head\.embed\.weight; unknown are head\.embed\.weight_"):
        save_checkpoint(tmp_path / "new", pruned, card)
    for number in (torch.tensor(1.0), np.float32(1)):
        with pytest.raises(ValueError, match=r"The card cannot be written \(.* is not JSON serializable\): give plain numbers"):
            save_checkpoint(tmp_path / "new", model, make_card(scores={"mAP": number}))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("victim", [WEIGHTS, CARD])
def test_a_write_that_fails_leaves_what_was_there(folder: Path, victim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fill_disk(path: Path, content: Any, **options: Any) -> None:
        with path.open("wb") as file:
            file.write(content[:10] if isinstance(content, bytes) else content[:10].encode())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes" if victim == WEIGHTS else "write_text", fill_disk)
    model = make_model()
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(folder, model, make_card()) if victim == WEIGHTS else write_card(folder, make_card())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_training_left_is_swept_by_the_next_one(folder: Path) -> None:
    left = folder / f".state.pt.{uuid.uuid4().hex}.partial"
    left.write_bytes(b"half a fi")
    os.utime(left, (0, 0))
    save_checkpoint(folder, make_model(), make_card())
    assert {path.name for path in folder.iterdir()} == {CARD, WEIGHTS}


def test_the_weights_reach_the_disk_before_their_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(disk.os, "fsync", lambda file: (calls.append("sync"), fsync(file)))
    monkeypatch.setattr(disk.os, "replace", lambda source, target: (calls.append(Path(target).name), replace(source, target)))
    save_checkpoint(folder, make_model(), make_card())
    assert calls == ["sync", WEIGHTS, "sync", CARD]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere holds no card\.json: not a checkpoint folder"):
        load_checkpoint(tmp_path / "nowhere")


def test_weights_missing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"one holds no model\.safetensors"):
        load_checkpoint(folder)


@pytest.mark.parametrize("content", [b"", b"not json", b"[1, 2]", b'"text"', b"null", b"\xff\xfe\x00", b"{}", b"[" * 100_000])
def test_a_card_that_is_none(folder: Path, content: bytes) -> None:
    (folder / CARD).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"card\.json is not a model card"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": []}, "labels must be names"),
        ({"labels": ["cat", "cat", "dog"]}, "none twice"),
        ({"labels": ["cat", 3, "dog"]}, "labels must be names"),
        ({"labels": ["cat", "", "dog"]}, "labels must be names"),
        ({"labels": "cat"}, "labels must be a list"),
        ({"image_size": "48"}, "image_size must be a positive whole number; it is '48'"),
        ({"width": -8}, "width must be a positive whole number; it is -8"),
        ({"mean": [0.5]}, "three numbers"),
        ({"std": [1.0, 0.0, 1.0]}, "std must not hold a zero"),
        ({"mean": [0.5, None, 0.5]}, "three numbers"),
        ({"resize": "crop"}, "resize must be 'squash'"),
        ({"surprise": 1, "news": 2}, "nothing is known here of its news, surprise; if a newer revision wrote it, use that one"),
    ],
)
def test_a_card_with_impossible_fields(folder: Path, changes: dict[str, Any], sentence: str) -> None:
    rewrite_card(folder, **changes)
    with pytest.raises(CheckpointError, match=rf"card\.json is not a model card: .*{sentence}"):
        read_card(folder)


@pytest.mark.parametrize(("gone", "sentence"), [({"labels"}, "it lacks 'labels'"), ({"role", "title"}, "it lacks 'title', 'role'")])
def test_a_card_without_what_it_needs(folder: Path, gone: set[str], sentence: str) -> None:
    fields = json.loads((folder / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(json.dumps({name: value for name, value in fields.items() if name not in gone}))
    with pytest.raises(CheckpointError, match=f"is not a model card: {sentence}"):
        read_card(folder)


@pytest.mark.parametrize("load", [load_checkpoint, load_head])
def test_other_weights_than_the_cards(folder: Path, load: Loader) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        load(folder)


@pytest.mark.parametrize("load", [load_checkpoint, load_head])
@pytest.mark.parametrize("keep", [0, 4, 100, 20_000])
def test_truncated_weights(folder: Path, keep: int, load: Loader) -> None:
    replace_weights(folder, (folder / WEIGHTS).read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load(folder)


@pytest.mark.parametrize(
    "content", [struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 200_000_000) + b"{" * 64, b"PK\x03\x04 a zip, or a pickle", bytes(64)]
)
def test_foreign_weights_and_oversized_headers(folder: Path, content: bytes) -> None:
    replace_weights(folder, content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        load_checkpoint(folder)


@pytest.mark.parametrize("load", [load_checkpoint, load_head])
def test_weights_of_another_network(folder: Path, load: Loader) -> None:
    state = load_file(folder / WEIGHTS)
    state["head.queries"] = torch.zeros(4, 16)
    save_file(state, folder / WEIGHTS)
    rewrite_card(folder, sha256=hash_file(folder / WEIGHTS))
    with pytest.raises(CheckpointError, match=r"of another shape are head\.queries"):
        load(folder)
    del state["head.queries"]
    save_file(state, folder / WEIGHTS)
    rewrite_card(folder, sha256=hash_file(folder / WEIGHTS))
    with pytest.raises(CheckpointError, match=r"it lacks head\.queries"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"backbone": "resnet19"}, "Unknown backbone"), ({"width": 20}, "multiple of"), ({"output_stride": 7}, "stride")],
)
def test_a_card_of_a_network_that_cannot_be_built(folder: Path, changes: dict[str, Any], sentence: str) -> None:
    rewrite_card(folder, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(folder)


def test_scores_of_other_test_pictures_do_not_stay_beside_new_ones(folder: Path) -> None:
    add_scores(folder, {"mAP": 40.0, "checksum": 0})
    add_scores(str(folder), {"held_out": {"mAP": 70.0}, "localization": {"pairs": 3}})
    add_scores(folder, {"mAP": 50.0, "threshold_tuned": {"OF1": 40.0}, "checksum": 1})
    add_scores(folder, {"mAP": 51.0, "checksum": 1})
    assert read_card(folder).scores["threshold_tuned"] == {"OF1": 40.0}
    add_scores(folder, {"mAP": 60.0, "checksum": 2})
    assert read_card(folder).scores == {"held_out": {"mAP": 70.0}, "localization": {"pairs": 3}, "mAP": 60.0, "checksum": 2}


def test_new_scores_take_the_place_of_earlier_ones_of_the_same_names(folder: Path) -> None:
    add_scores(folder, {"mAP": 50.0, "images": 8})
    add_scores(folder, {"mAP": 60.0, "localization": {"pairs": 3}})
    assert read_card(folder).scores == {"mAP": 60.0, "images": 8, "localization": {"pairs": 3}}
    assert load_checkpoint(folder)
