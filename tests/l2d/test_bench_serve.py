"""The serving benchmark runs a real server, and says what it cannot measure."""

import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image

from l2d import bench_server
from l2d.bench_serve import bench_serve
from l2d.bench_server import draw_photograph, encode_photograph, hammer, serve
from l2d.checkpoint import ModelCard, save_checkpoint
from l2d.model import create_model

LABELS = tuple(f"label {number}" for number in range(10))


def test_photographs_are_all_different_and_the_same_for_a_seed():
    first = draw_photograph(0)
    assert (first.size, first.mode) == ((640, 480), "RGB")
    assert first.tobytes() == draw_photograph(0).tobytes() != draw_photograph(1).tobytes()
    assert Image.Image is type(first)
    assert 30_000 < len(encode_photograph(0)) < 500_000


class Broken(BaseHTTPRequestHandler):
    """A server that answers each connection once, and then breaks it off."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_):
        pass


def test_a_client_that_gets_no_answer_is_told_of():
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with pytest.raises(ConnectionError, match="without a whole answer"):
                hammer(server.server_port, 2, 10, [b"picture"], {})
        finally:
            server.shutdown()


def test_a_server_that_neither_speaks_nor_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mute = tmp_path / "python"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(mute))
    monkeypatch.setattr(bench_server, "START_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="it said nothing"), serve(tmp_path, tmp_path, torch.device("cpu")):
        pass
    assert time.monotonic() - start < 30


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_server_is_measured_beside_its_networks(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_CACHE", str(tmp_path / "cache"))
    for number in range(3):
        torch.manual_seed(number)
        model = create_model("test_efficientnet", 10, image_size=64, width=32, feedforward=48)
        card = ModelCard(f"s{number}", "S", "student", "vanilla", "test_efficientnet", LABELS, 64, width=32, feedforward=48)
        save_checkpoint(tmp_path / "networks" / card.name, model, card)
    report = bench_serve(tmp_path / "networks", seconds=4, clients=3, rounds=2, device=torch.device(device))
    assert report["setting"]["students"] == ["s0", "s1", "s2"]
    assert report["cold_start"]["seconds"] > 0
    assert set(report["load"]["statuses"]) == {"200"}
    assert report["load"]["requests_per_second"] > 0
    assert report["load"]["p99"] >= report["load"]["p50"] > 0
    assert all(ratio > 0 for ratio in report["limit"]["ratio"].values())


@pytest.mark.slow
def test_a_server_that_cannot_start_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_MAX_PIXELS", "none")
    with pytest.raises(ConnectionError, match="L2D_MAX_PIXELS"), serve(tmp_path, tmp_path, torch.device("cpu")):
        pass
