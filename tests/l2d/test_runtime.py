"""One network in every engine: the same answers from any number of threads, and torch where an engine is missing."""

import dataclasses
import logging
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from l2d import runtime
from l2d.cam import evidence_from_features, label_maps
from l2d.checkpoint import ModelCard
from l2d.data.images import normalise
from l2d.model import LabelNet, create_model
from l2d.runtime import HalfPrecision, OpenVino, Reading, Whole, draw_pixels, find_prepared, prepare

CPU = torch.device("cpu")
SIZE = 64
CARD = ModelCard(
    "tiny", "Tiny", "student", "vanilla", "test_efficientnet", ("a", "b", "c"), SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3)
)


@pytest.fixture(scope="module")
def network() -> LabelNet:
    torch.manual_seed(0)
    return create_model(CARD.backbone, 3, image_size=SIZE, width=32, feedforward=48).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def cache(network: LabelNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the network, converted; nobody made the folder before."""
    folder = tmp_path_factory.mktemp("cache") / "l2d"
    assert isinstance(prepare(network, CARD, CPU, folder), OpenVino)
    return folder


@pytest.fixture
def own_cache(cache: Path, tmp_path: Path) -> Path:
    """As `cache`, for a test that changes it: to copy takes less than to convert."""
    return Path(shutil.copytree(cache, tmp_path / "cache"))


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "openvino", None)
    runtime.import_openvino.cache_clear()
    yield
    runtime.import_openvino.cache_clear()


def draw(seed: int = 0) -> Tensor:
    return draw_pixels(1, SIZE, seed)


def flatten(reading: Reading) -> list[Tensor]:
    return [reading.last_map, *reading.memory, reading.scores]


def test_both_engines_read_what_the_bare_network_does(network: LabelNet, cache: Path, no_openvino: None) -> None:
    pixels = draw()
    in_torch = prepare(network, CARD, CPU)(pixels)
    runtime.import_openvino.cache_clear()
    sys.modules.pop("openvino")
    in_openvino = prepare(network, CARD, CPU, cache)(pixels)
    expected = network(normalise(pixels.float() / 255, CARD.mean, CARD.std))
    for reading in (in_torch, in_openvino):
        torch.testing.assert_close(reading.scores, expected.logits.sigmoid(), rtol=0, atol=1e-3)
        torch.testing.assert_close(reading.last_map, expected.features[-1], rtol=1e-3, atol=1e-4)


def test_maps_come_from_what_was_read(network: LabelNet, cache: Path) -> None:
    pixels = draw()
    reading = prepare(network, CARD, CPU, cache)(pixels)
    maps, logits = evidence_from_features(network.head, reading.last_map, [2, 0], reading.memory)
    expected = label_maps(network, normalise(pixels.float() / 255, CARD.mean, CARD.std), [2, 0])
    assert (maps - expected).abs().amax() <= 1e-4 * expected.amax()
    torch.testing.assert_close(logits.sigmoid(), reading.scores[0, [2, 0]])


def test_threads_do_not_mix_their_pictures(network: LabelNet, cache: Path) -> None:
    read = prepare(network, CARD, CPU, cache)
    expected = [read(draw(seed)).scores for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda turn: read(draw(turn % 8)), range(64)))
    for turn, answer in enumerate(answers):
        torch.testing.assert_close(answer.scores, expected[turn % 8])


def test_calls_side_by_side_alone_have_a_compiled_network_each(network: LabelNet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    compile_model, compiled = openvino.compile_model, list[object]()
    monkeypatch.setattr(openvino, "compile_model", lambda *words: compiled.append(words) or compile_model(*words))
    read = prepare(network, CARD, CPU, cache)
    read(draw())
    with pytest.raises(RuntimeError):
        read(draw_pixels(1, SIZE + 1))
    read(draw())
    assert len(compiled) == 1
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, map(draw, range(64))))
    assert len(compiled) <= 4


def test_what_was_read_outlives_the_next_picture(network: LabelNet, cache: Path) -> None:
    read = prepare(network, CARD, CPU, cache)
    first = read(draw())
    before = [part.clone() for part in flatten(first)]
    read(draw(1))
    assert all(torch.equal(now, then) for now, then in zip(flatten(first), before, strict=True))


def test_a_network_is_converted_once(network: LabelNet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "convert", lambda *_: pytest.fail("converted again"))
    assert isinstance(prepare(network, CARD, CPU, cache), OpenVino)


def test_what_was_kept_is_ready_without_the_network(network: LabelNet, cache: Path) -> None:
    ready = find_prepared(dataclasses.replace(CARD, name="renamed", scores={"mAP": 1.0}), CPU, cache)
    assert ready is not None
    # As exact as a conversion that was never written: in single precision.
    for ours, expected in zip(flatten(ready(draw())), flatten(prepare(network, CARD, CPU)(draw())), strict=True):
        assert (ours - expected).abs().amax() <= 1e-5 * expected.abs().amax()


@pytest.mark.parametrize("changed", ["l2d.runtime.LAYOUT", "openvino.__version__", "torch.__version__"])
def test_what_another_release_kept_is_not_read(cache: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    assert find_prepared(CARD, CPU, cache) is not None
    monkeypatch.setattr(changed, "another")
    assert find_prepared(CARD, CPU, cache) is None


def test_without_what_was_kept_the_network_is_needed(cache: Path, own_cache: Path, tmp_path: Path, no_openvino: None) -> None:
    assert find_prepared(CARD, CPU, cache) is None
    runtime.import_openvino.cache_clear()
    sys.modules.pop("openvino")
    assert find_prepared(CARD, CPU, None) is None
    assert find_prepared(CARD, torch.device("cuda"), cache) is None
    assert find_prepared(CARD, CPU, tmp_path / "empty") is None
    assert find_prepared(dataclasses.replace(CARD, sha256="other"), CPU, cache) is None
    assert find_prepared(CARD, CPU, own_cache) is not None
    (weights,) = own_cache.rglob("*.bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    assert find_prepared(CARD, CPU, own_cache) is None


def test_a_converted_network_that_is_damaged_or_of_another_card_is_not_used(network: LabelNet, own_cache: Path) -> None:
    pixels = draw()
    expected = prepare(network, CARD, CPU, own_cache)(pixels).scores
    (file,) = own_cache.rglob("*.xml")
    file.write_text("<net")
    torch.testing.assert_close(prepare(network, CARD, CPU, own_cache)(pixels).scores, expected)
    other = ModelCard(**vars(CARD) | {"mean": (0.0, 0.0, 0.0)})
    assert not torch.allclose(prepare(network, other, CPU, own_cache)(pixels).scores, expected)
    assert len(list(own_cache.rglob("*.xml"))) == 2
    assert {path.suffix for path in own_cache.rglob("*") if path.is_file()} == {".xml", ".bin"}


def test_the_converted_networks_that_were_not_read_for_long_go(network: LabelNet, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "KEPT", 2)
    folder = own_cache / "openvino"
    (first,) = folder.glob("*.xml")
    (folder / "tmp-killed").mkdir()
    for hours, name in enumerate(("newer.xml", "older.xml", "older.bin", "tmp-killed"), start=2):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - 3600 * hours,) * 2)
    os.utime(first, (0, 0))
    prepare(network, CARD, CPU, own_cache)
    (tmp := folder / "tmp-writing").mkdir()
    prepare(network, dataclasses.replace(CARD, mean=(0.1, 0.1, 0.1)), CPU, own_cache)
    kept = {path.name for path in folder.iterdir()}
    assert first.name in kept, "it was read just now"
    assert tmp.name in kept
    assert len(list(folder.glob("*.xml"))) == len(list(folder.glob("*.bin"))) == 2
    assert not kept & {"newer.xml", "older.xml", "older.bin", "tmp-killed"}


def test_a_cache_that_cannot_be_written_is_one_line_in_the_log(network: LabelNet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert isinstance(prepare(network, CARD, CPU, tmp_path / "file"), OpenVino)
    assert [record.message[:40] for record in caplog.records] == ["A converted network cannot be kept in " + str(tmp_path)[:2]]


def test_so_is_a_full_disk(network: LabelNet, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert isinstance(prepare(network, CARD, CPU, tmp_path), OpenVino)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # The limit holds for the whole process: a server of other tests may run there, and tell of its queue.
    told = [record.message[:37] for record in caplog.records if record.name == "l2d.runtime"]
    assert told == ["A converted network cannot be kept in"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_the_package_torch_answers_and_the_log_says_so_once(
    network: LabelNet, caplog: pytest.LogCaptureFixture, no_openvino: None
) -> None:
    pixels = draw()
    for _ in range(2):
        scores = prepare(network, CARD, CPU)(pixels).scores
    with torch.no_grad():
        torch.testing.assert_close(scores, Whole(network, CARD)(pixels)[-1])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "networks run in plain torch" in caplog.text


@pytest.mark.parametrize("reason", ["unknown operation", "different probabilities"])
def test_a_network_that_openvino_cannot_run_is_left_to_torch(
    network: LabelNet, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if reason == "unknown operation":
        monkeypatch.setattr(runtime.import_openvino(), "convert_model", lambda *_, **__: 1 / 0)
    else:
        monkeypatch.setattr(runtime, "TOLERANCE", -1.0)
    pixels = draw()
    scores = prepare(network, CARD, CPU)(pixels).scores
    with torch.no_grad():
        torch.testing.assert_close(scores, Whole(network, CARD)(pixels)[-1])
    assert caplog.text.count("tiny runs in plain torch") == 1


def test_a_network_that_cannot_be_recorded_runs_all_the_same(network: LabelNet, caplog: pytest.LogCaptureFixture) -> None:
    """As on a GPU for some operations: here there is none."""
    scores = HalfPrecision(Whole(network, CARD), CPU)(draw()).scores
    torch.testing.assert_close(scores, prepare(network, CARD, CPU)(draw()).scores, rtol=0, atol=1e-2)
    assert caplog.text.count("tiny runs without a CUDA graph") == 1


@pytest.mark.gpu
def test_half_precision_stays_within_a_hundredth(network: LabelNet) -> None:
    pixels, device = draw(), torch.device("cuda")
    expected = prepare(network, CARD, CPU)(pixels).scores
    scores = prepare(network.to(device), CARD, device)(pixels).scores.cpu()
    network.to(CPU)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-2)


def test_use_is_reported_to_nobody(cache: Path):
    """OpenVINO's converter would fork processes that report its use."""
    from openvino.tools.ovc import convert_impl

    assert "telemetry_stub" in str(convert_impl.tm)
