"""Which folders are models, noticed without a restart, and why the others are not."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from app import catalog as catalogs
from app.catalog import MAX_DEFAULTS, Catalog
from app.entries import Entry, read_entry
from app.errors import ParameterError, UnavailableError, UnknownModelError
from l2d.checkpoint import CheckpointError, ModelCard, save_checkpoint
from l2d.model import LabelNet, create_model
from l2d.runtime import OpenVino, draw_pixels

Card = dict[str, object]


@pytest.fixture
def catalog(checkpoints: Path) -> Catalog:
    return Catalog(checkpoints, ("the-teacher", "student-vanilla", "not-there"), cache=Path(os.environ["L2D_CACHE"]))


def change_card(folder: Path, change: Callable[[Card], object]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def test_preferred_models_come_first_then_the_others_by_name(catalog: Catalog):
    assert [entry.name for entry in catalog.entries()] == ["the-teacher", "student-vanilla", "alien", "student-l2d"]
    assert [entry.name for entry in catalog.entries() if entry.detail.default] == ["the-teacher", "student-vanilla"]
    assert [entry.name for entry in catalog.choose(None, limit=8)] == ["the-teacher", "student-vanilla"]
    assert catalog.refused() == {}


def test_without_preferred_models_the_first_ones_are_compared(checkpoints: Path):
    catalog = Catalog(checkpoints, ("other",))
    assert [entry.name for entry in catalog.choose(None, limit=2)] == ["alien", "student-l2d"]
    shutil.copytree(checkpoints / "alien", checkpoints / "a-fifth")
    assert len(catalog.choose(None, limit=8)) == MAX_DEFAULTS < len(catalog.entries())


def test_named_models_keep_their_order_and_come_once(catalog: Catalog):
    assert [entry.name for entry in catalog.choose(["alien", "the-teacher", "alien"], limit=2)] == ["alien", "the-teacher"]


def test_too_many_models_are_refused(catalog: Catalog):
    with pytest.raises(ParameterError, match="At most 1 model can be compared at once; got 2"):
        catalog.choose(["alien", "the-teacher"], limit=1)


def test_unknown_model_is_told_which_are_known(catalog: Catalog):
    with pytest.raises(UnknownModelError, match=r"Unknown model 'alein'. Did you mean 'alien'\? Known are: the-teacher, student-vanilla"):
        catalog.find("alein")


def test_no_folder_and_no_model_are_said_in_words(tmp_path: Path):
    with pytest.raises(UnavailableError, match="There is no model"):
        Catalog(tmp_path / "nothing").choose(None, limit=8)


def test_new_changed_and_removed_models_are_noticed(catalog: Catalog, checkpoints: Path):
    assert len(catalog.entries()) == 4
    shutil.copytree(checkpoints / "alien", checkpoints / "newcomer")
    assert len(catalog.entries()) == 5
    change_card(checkpoints / "newcomer", lambda card: card.update(title="New name"))
    assert catalog.find("newcomer").detail.title == "New name"
    shutil.rmtree(checkpoints / "newcomer")
    with pytest.raises(UnknownModelError):
        catalog.find("newcomer")


def test_no_two_models_have_one_title(catalog: Catalog, checkpoints: Path):
    for name in ("copy", "first", "second"):
        shutil.copytree(checkpoints / "alien", checkpoints / name)
    for name, job in (("first", "0123456789ab"), ("second", "ba9876543210")):
        change_card(checkpoints / name, lambda card, job=job: card.update(title="Mine", lineage={"job": job}))
    titles = {entry.name: entry.detail.title for entry in catalog.entries()}
    assert [titles[name] for name in ("alien", "copy", "first", "second")] == ["alien", "copy", "Mine (012345)", "Mine (ba9876)"]
    assert titles["the-teacher"] == "The-Teacher"
    shutil.rmtree(checkpoints / "copy")
    assert catalog.find("alien").detail.title == "Alien"


def test_data_are_called_as_a_training_calls_them(catalog: Catalog, checkpoints: Path):
    change_card(checkpoints / "alien", lambda card: card.update(data={"source": "voc", "images": 12}))
    assert catalog.find("alien").data_title == "voc"
    change_card(checkpoints / "alien", lambda card: card.update(data={"source": "voc", "name": "Birds of 2026"}))
    assert catalog.find("alien").data_title == "Birds of 2026"


def test_finished_card_of_a_folder_that_was_there_already_is_noticed(catalog: Catalog, checkpoints: Path):
    shutil.copytree(checkpoints / "alien", checkpoints / "late")
    (checkpoints / "late" / "card.json").rename(checkpoints / "late" / ".card")
    assert catalog.refused() == {"late": "late holds no card.json."}
    (checkpoints / "late" / ".card").rename(checkpoints / "late" / "card.json")
    assert catalog.refused() == {}
    assert catalog.find("late").name == "late"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: card.clear(), "is not a model card"),
        (lambda card: card.update(labels=["cat", "cat"]), "none twice"),
        (lambda card: card.update(labels=[]), "labels must be names"),
        (lambda card: card.update(labels=[1, 2]), "labels must be names"),
        (lambda card: card.update(image_size="large"), "image_size must be"),
        (lambda card: card.update(image_size=10**9), "image_size: "),
        (lambda card: card.update(width=10**9), "width: "),
        (lambda card: card.update(std=[0, 1, 1]), "std must not hold a zero"),
        (lambda card: card.update(resize="crop"), "resize must be"),
        (lambda card: card.update(surprise=1), "is not a model card"),
        (lambda card: card.update(scores=[12.5]), "scores: "),
        (lambda card: card.update(lineage=["a job"]), "lineage: "),
        (lambda card: card.update(title="\ud800"), "a text in it is no Unicode"),
        (lambda card: card["recipe"].update(note="\udfff"), "a text in it is no Unicode"),
    ],
)
def test_wrong_card_is_refused_by_name_and_the_others_load(
    catalog: Catalog, checkpoints: Path, change: Callable[[Card], object], reason: str
):
    change_card(checkpoints / "alien", change)
    assert reason in catalog.refused()["alien"]
    assert str(checkpoints) not in catalog.refused()["alien"]
    assert len(catalog.entries()) == 3
    with pytest.raises(UnknownModelError, match="The checkpoint 'alien' cannot be used"):
        catalog.find("alien")


def test_a_network_that_is_asked_has_its_branches_merged(checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    catalog = Catalog(checkpoints)
    torch.manual_seed(0)
    model = create_model("repvgg_a0", 2, image_size=32, width=16, feedforward=24)
    card = ModelCard("merged", "Merged", "student", "vanilla", "repvgg_a0", ("cat", "zebra"), 32, width=16, feedforward=24)
    save_checkpoint(checkpoints / "merged", model, card)
    prepared: list[LabelNet] = []
    monkeypatch.setattr(catalogs, "prepare", lambda network, *rest: prepared.append(network))
    catalog.load(catalog.find("merged"))
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared[0].modules())


def test_links_out_of_the_folder_are_refused(catalog: Catalog, checkpoints: Path, tmp_path: Path):
    shutil.move(checkpoints / "alien", tmp_path / "elsewhere")
    (checkpoints / "alien").symlink_to(tmp_path / "elsewhere")
    assert "a link that leads out" in catalog.refused()["alien"]
    weights = checkpoints / "student-l2d" / "model.safetensors"
    shutil.move(weights, tmp_path / "weights")
    weights.symlink_to(tmp_path / "weights")
    change_card(checkpoints / "student-l2d", lambda card: card.update(title="changed"))
    assert "a link that leads out" in catalog.refused()["student-l2d"]


def test_links_that_lead_nowhere_are_refused_and_the_others_load(catalog: Catalog, checkpoints: Path):
    (checkpoints / "notes.txt").touch()
    (checkpoints / "linked").symlink_to("notes.txt")
    (checkpoints / "round").symlink_to("round")
    (checkpoints / "gone").symlink_to("nowhere")
    for name, file in (("alien", "card.json"), ("student-l2d", "model.safetensors")):
        (checkpoints / name / file).unlink()
        (checkpoints / name / file).symlink_to(file)
    assert catalog.refused() == {
        "linked": "linked is no folder.",
        "round": "round cannot be read: Too many levels of symbolic links.",
        "gone": "gone cannot be read: No such file or directory.",
        "alien": "alien holds no card.json.",
        "student-l2d": "student-l2d holds no model.safetensors.",
    }
    assert [entry.name for entry in catalog.entries()] == ["the-teacher", "student-vanilla"]
    with pytest.raises(UnknownModelError, match="The checkpoint 'round' cannot be used: round cannot be read"):
        catalog.find("round")


def test_a_folder_that_nobody_may_read_is_refused_and_the_others_load(catalog: Catalog, checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    ask = Path.stat

    def deny(path: Path, **options: bool) -> os.stat_result:
        """Root may read everything, and tests may run as root."""
        if path.parent == checkpoints / "alien":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return ask(path, **options)

    monkeypatch.setattr(Path, "stat", deny)
    assert catalog.refused() == {"alien": "alien cannot be read: Permission denied."}
    assert len(catalog.entries()) == 3


@pytest.mark.skipif(sys.platform == "darwin", reason="Macs have no names that are no text")
def test_strange_names_and_huge_cards_are_refused_and_hidden_folders_ignored(catalog: Catalog, checkpoints: Path):
    (checkpoints / "alien").rename(checkpoints / "a b")
    (checkpoints / "student-l2d" / "card.json").write_text(" " * (5 * 2**20))
    (checkpoints / ".partial").mkdir()
    (checkpoints / os.fsdecode(b"caf\xe9")).mkdir()
    (checkpoints / "README.md").write_text("# Models")
    assert set(catalog.refused()) == {"a b", "caf\ufffd", "student-l2d"}, "names that answers can hold"
    assert "larger than" in catalog.refused()["student-l2d"]


@pytest.mark.parametrize("damage", ["flip", "cut", "garbage"])
def test_damaged_weights_are_refused_when_asked_for(catalog: Catalog, checkpoints: Path, damage: str):
    weights = checkpoints / "alien" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes({"flip": bytes(data), "cut": bytes(data[:1000]), "garbage": b"\xff" * 64}[damage])
    entry = catalog.find("alien")
    for _ in range(2):  # also whoever looked it up before it was refused
        with pytest.raises(UnavailableError, match=r"The model 'alien' cannot be loaded: .*SHA-256 differs"):
            catalog.load(entry)
    assert "SHA-256 differs" in catalog.refused()["alien"]
    assert "alien" not in [entry.name for entry in catalog.entries()]


@pytest.mark.parametrize("depth", [300, 600])
def test_card_that_is_nested_too_deeply_is_refused_and_the_others_load(catalog: Catalog, checkpoints: Path, depth: int):
    card = checkpoints / "alien" / "card.json"
    card.write_text(card.read_text().replace('"recipe": {}', f'"recipe": {{"a": {"[" * depth + "]" * depth}}}'))
    assert catalog.find("student-l2d")
    assert "nested too deeply" in catalog.refused()["alien"]


def replace_weights(folder: Path, data: bytes) -> None:
    """Put other weights in, and a card that vouches for them: whoever writes one can write the other."""
    (folder / "model.safetensors").write_bytes(data)
    change_card(folder, lambda card: card.update(sha256=hashlib.sha256(data).hexdigest()))


def claim_header(size: int, header: bytes = b"") -> bytes:
    return struct.pack("<Q", size) + header


@pytest.mark.parametrize(
    "data",
    [
        b"",
        claim_header(2**62),
        claim_header(2**31, b"{}"),
        claim_header(2, b"[]"),
        claim_header(50_000, b"[" * 50_000),
        b"\x80\x04cposix\nsystem\n",
        safetensors.torch.save({}),
        safetensors.torch.save({"backbone.conv1.weight": torch.zeros(3)}),
    ],
    ids=["empty", "header of 4 EiB", "header of 2 GiB", "no object", "deep", "pickle", "no tensors", "foreign tensors"],
)
def test_hostile_weights_are_refused_by_name_and_the_others_load(catalog: Catalog, checkpoints: Path, data: bytes):
    replace_weights(checkpoints / "alien", data)
    with pytest.raises(UnavailableError, match="The model 'alien' cannot be loaded: ") as refusal:
        catalog.load(catalog.find("alien"))
    assert str(checkpoints) not in refusal.value.message
    assert set(catalog.refused()) == {"alien"}
    assert catalog.load(catalog.find("student-l2d"))


def test_weights_of_other_shapes_are_refused(catalog: Catalog, checkpoints: Path):
    replace_weights(checkpoints / "alien", (checkpoints / "the-teacher" / "model.safetensors").read_bytes())
    with pytest.raises(UnavailableError, match="The model 'alien' cannot be loaded: "):
        catalog.load(catalog.find("alien"))
    tensors = safetensors.torch.load((checkpoints / "student-l2d" / "model.safetensors").read_bytes())
    replace_weights(checkpoints / "student-l2d", safetensors.torch.save({name: tensor[None] for name, tensor in tensors.items()}))
    with pytest.raises(UnavailableError, match="The model 'student-l2d' cannot be loaded: "):
        catalog.load(catalog.find("student-l2d"))
    assert catalog.load(catalog.find("student-vanilla"))


def test_unknown_backbone_is_refused(catalog: Catalog, checkpoints: Path):
    change_card(checkpoints / "alien", lambda card: card.update(backbone="../../etc/passwd"))
    with pytest.raises(UnavailableError, match="The model 'alien' cannot be loaded: "):
        catalog.load(catalog.find("alien"))


def test_foreign_folders_and_pipes_are_refused(catalog: Catalog, checkpoints: Path):
    (checkpoints / "from-a-hub").mkdir()
    (checkpoints / "from-a-hub" / "config.json").write_text("{}")
    (checkpoints / "from-a-hub" / "pytorch_model.bin").write_bytes(b"PK")
    for name, file in (("alien", "card.json"), ("student-l2d", "model.safetensors")):
        (checkpoints / name / file).unlink()
        os.mkfifo(checkpoints / name / file)
        os.utime(checkpoints / name / "card.json", (1, 1))
    (checkpoints / "student-vanilla" / "card.json").write_text("[" * 100_000)
    assert catalog.refused().keys() == {"from-a-hub", "alien", "student-l2d", "student-vanilla"}
    assert catalog.refused()["alien"] == "alien holds no card.json."
    assert catalog.refused()["student-l2d"] == "student-l2d holds no model.safetensors."
    assert [entry.name for entry in catalog.entries()] == ["the-teacher"]


def test_network_is_read_once_and_is_ready_to_be_asked(catalog: Catalog):
    loaded = catalog.load(catalog.find("alien"))
    assert catalog.load(catalog.find("alien")) is loaded
    assert not loaded.head.training
    assert not any(parameter.requires_grad for parameter in loaded.head.parameters())
    assert {parameter.dtype for parameter in loaded.head.parameters()} == {torch.float32}


def test_of_a_network_that_was_converted_before_the_head_alone_is_read(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = (Catalog(checkpoints, cache=tmp_path / "cache") for _ in range(2))
    before = first.load(first.find("alien"))
    monkeypatch.setattr(catalogs, "load_checkpoint", lambda _: pytest.fail("the backbone was built"))
    after = second.load(second.find("alien"))
    torch.testing.assert_close(after.head.state_dict(), before.head.state_dict())
    pixels = draw_pixels(1, second.find("alien").card.image_size)
    torch.testing.assert_close(after.read(pixels).scores, before.read(pixels).scores)
    assert isinstance(before.read, OpenVino)
    assert isinstance(after.read, OpenVino)


def test_as_many_pictures_are_read_at_once_as_torch_would_use_threads(checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    for there, expected in ((False, 5), (True, 1)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert Catalog(checkpoints).streams == expected


def test_of_too_many_networks_the_one_that_nobody_asked_for_longest_goes(checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalogs, "MAX_LOADED", 2)
    catalog = Catalog(checkpoints, cache=Path(os.environ["L2D_CACHE"]))
    first, second, third, _ = catalog.entries()
    for entry in (first, second, first, third):
        catalog.load(entry)
    assert [catalog.has_loaded(entry) for entry in (first, second, third)] == [True, False, True]


def test_replaced_network_is_read_again(catalog: Catalog, checkpoints: Path):
    before = catalog.load(catalog.find("student-vanilla"))
    stale = catalog.find("student-vanilla")
    for name in ("model.safetensors", "card.json"):
        shutil.copy(checkpoints / "student-l2d" / name, checkpoints / "student-vanilla" / name)
    assert catalog.load(catalog.find("student-vanilla")) is not before
    assert catalog.load(stale) is before


def test_a_network_is_not_taken_for_the_one_that_it_replaced(catalog: Catalog, checkpoints: Path):
    stale = catalog.find("student-vanilla")
    for name in ("model.safetensors", "card.json"):
        shutil.copy(checkpoints / "student-l2d" / name, checkpoints / "student-vanilla" / name)
    with pytest.raises(UnavailableError, match="replaced just now"):
        catalog.load(stale)
    assert catalog.load(catalog.find("student-vanilla"))


def test_no_job_takes_the_name_of_a_shipped_model_not_even_of_a_refused_one(checkpoints: Path, tmp_path: Path):
    made = tmp_path / "made"
    for name in ("alien", "student-l2d"):
        shutil.copytree(checkpoints / name, made / name)
    (checkpoints / "alien" / "card.json").write_text("{}")
    catalog = Catalog(checkpoints, made=made)
    assert catalog.refused().keys() == {"alien"}
    assert "alien" not in [entry.name for entry in catalog.entries()]
    assert catalog.find("student-l2d").place == checkpoints
    # Moved away, with its times.
    shutil.rmtree(made / "student-l2d")
    (checkpoints / "student-l2d").rename(made / "student-l2d")
    assert catalog.find("student-l2d").place == made


def test_weights_that_come_or_are_mended_later_are_noticed(catalog: Catalog, checkpoints: Path):
    weights, aside = checkpoints / "alien" / "model.safetensors", checkpoints / "alien" / "aside"
    weights.rename(aside)
    assert catalog.refused() == {"alien": "alien holds no model.safetensors."}
    weights.write_bytes(b"half of them")
    with pytest.raises(UnavailableError, match="SHA-256 differs"):
        catalog.load(catalog.find("alien"))
    aside.replace(weights)
    assert catalog.load(catalog.find("alien"))


def test_an_edited_card_makes_another_version_of_the_model(catalog: Catalog, checkpoints: Path):
    before = catalog.find("alien")
    loaded = catalog.load(before)
    change_card(checkpoints / "alien", lambda card: card.update(labels=["cat", "horse"]))
    after = catalog.find("alien")
    assert after.key != before.key
    assert catalog.load(after) is not loaded
    assert after.detail.labels == ["cat", "horse"]


def test_checking_takes_damaged_weights_out_and_loads_nothing(catalog: Catalog, checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("app.catalog.load_checkpoint", lambda _: pytest.fail("built a network"))
    before = catalog.entries()
    (checkpoints / "alien" / "model.safetensors").write_bytes(b"damaged")
    entries = catalog.entries()
    for entry in entries:
        if entry.name == "alien":
            with pytest.raises(UnavailableError, match=r"alien/model\.safetensors is not the file that its card describes"):
                catalog.check(entry)
        else:
            catalog.check(entry)
    assert [entry.name for entry in catalog.entries()] == [entry.name for entry in before if entry.name != "alien"]
    assert list(catalog.refused()) == ["alien"]


def test_weights_that_go_away_before_they_are_checked_keep_no_other_from_it(catalog: Catalog, checkpoints: Path):
    entry = catalog.find("alien")
    (checkpoints / "alien" / "model.safetensors").unlink()
    catalog.check(entry)
    assert catalog.refused() == {"alien": "alien holds no model.safetensors."}


def test_a_model_that_is_replaced_while_its_old_files_are_refused_stays(checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    catalog = Catalog(checkpoints)

    def fail(folder: Path) -> None:
        change_card(folder, lambda card: card.update(title="New"))
        catalog.entries()
        raise CheckpointError("half of them")

    monkeypatch.setattr("app.catalog.load_checkpoint", fail)
    with pytest.raises(UnavailableError, match="half of them"):
        catalog.load(catalog.find("alien"))
    assert catalog.find("alien").detail.title == "New"


def test_a_model_that_moves_to_the_shipped_ones_while_it_is_read_stays(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    catalog = Catalog(tmp_path / "shipped", made=checkpoints)
    (tmp_path / "shipped").mkdir()

    def fail(folder: Path) -> None:
        folder.rename(tmp_path / "shipped" / folder.name)
        catalog.entries()
        raise CheckpointError("it is gone")

    monkeypatch.setattr("app.catalog.load_checkpoint", fail)
    with pytest.raises(UnavailableError, match="it is gone"):
        catalog.load(catalog.find("alien"))
    assert catalog.find("alien").place == tmp_path / "shipped"


def test_a_model_may_be_refused_while_the_refused_ones_are_listed(catalog: Catalog, checkpoints: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("bad", "worse"):
        (checkpoints / name).mkdir()
    (checkpoints / "alien" / "model.safetensors").write_bytes(b"damaged")
    entry, encode = catalog.find("alien"), os.fsencode

    def refuse_one_more(name: str) -> bytes:
        with contextlib.suppress(UnavailableError):
            catalog.check(entry)
        return encode(name)

    monkeypatch.setattr("app.catalog.os.fsencode", refuse_one_more)
    assert catalog.refused().keys() == {"bad", "worse"}
    assert catalog.refused().keys() == {"bad", "worse", "alien"}


def test_another_model_brings_no_damaged_one_back_and_only_itself_is_read(
    catalog: Catalog, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
):
    (checkpoints / "alien" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UnavailableError):
        catalog.check(catalog.find("alien"))
    read: list[str] = []
    monkeypatch.setattr("app.catalog.read_entry", lambda place, stamp: read.append(stamp[0]) or read_entry(place, stamp))
    change_card(checkpoints / "student-l2d", lambda card: card.update(title="Other"))
    shutil.copytree(checkpoints / "student-l2d", checkpoints / "new")
    assert [entry.name for entry in catalog.entries()] == ["the-teacher", "student-vanilla", "new", "student-l2d"]
    assert list(catalog.refused()) == ["alien"]
    assert read == ["new", "student-l2d"]


def test_damaged_defaults_leave_others_to_be_compared(checkpoints: Path):
    catalog = Catalog(checkpoints, ("alien",), cache=Path(os.environ["L2D_CACHE"]))
    (checkpoints / "alien" / "model.safetensors").write_bytes(b"damaged")
    (entry,) = catalog.choose(None, limit=8)
    with pytest.raises(UnavailableError):
        catalog.load(entry)
    assert [entry.name for entry in catalog.choose(None, limit=8)] == ["student-l2d", "student-vanilla", "the-teacher"]


def test_a_network_that_is_there_waits_for_none_that_is_read(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    loaded, started, go_on = catalog.load(catalog.find("alien")), threading.Event(), threading.Event()

    def read_slowly(entry: Entry) -> nn.Module:
        started.set()
        assert go_on.wait(60)
        raise UnavailableError("enough")

    monkeypatch.setattr(catalog, "_read", read_slowly)
    with ThreadPoolExecutor(1) as other:
        slow = other.submit(catalog.load, catalog.find("the-teacher"))
        assert started.wait(60)
        assert catalog.load(catalog.find("alien")) is loaded
        assert not slow.done()
        go_on.set()
        with pytest.raises(UnavailableError, match="enough"):
            slow.result()


def test_those_who_ask_at_the_same_time_wait_for_one_reading(catalog: Catalog, monkeypatch: pytest.MonkeyPatch):
    entry, go_on, read, real = catalog.find("alien"), threading.Event(), [], catalog._read

    def read_slowly(entry: Entry) -> nn.Module:
        read.append(entry.name)
        assert go_on.wait(60)
        return real(entry)

    monkeypatch.setattr(catalog, "_read", read_slowly)
    with ThreadPoolExecutor(2) as clients:
        first, second = (clients.submit(catalog.load, entry) for _ in range(2))
        while not (read and second.running()):
            time.sleep(0.01)
        time.sleep(0.05)
        go_on.set()
        assert first.result() is second.result()
    assert read == ["alien"]
