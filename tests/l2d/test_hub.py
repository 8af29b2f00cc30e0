"""ImageNet weights from a hub that is there, slow, or out of reach; kept on this machine or not."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.utils import httpx
from safetensors.torch import save, save_file

from l2d import hub
from l2d.hub import CONNECT_SECONDS, FILES, check_pretrained
from l2d.model import create_model

BACKBONE = "test_resnet"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class SlowHub(BaseHTTPRequestHandler):
    """Gives everybody's weights, each time after a while."""

    seconds = 0.6

    def do_HEAD(self) -> None:
        time.sleep(self.seconds)
        self.send_response(200)
        for name, value in {"X-Repo-Commit": COMMIT, "ETag": '"one"', "Content-Length": str(len(save(make_weights())))}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(save(make_weights()))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def slow_hub(move_hub: Callable[[int], None]) -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowHub) as server:
        threading.Thread(target=server.serve_forever).start()
        move_hub(server.server_port)
        yield
        server.shutdown()


def make_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return timm.create_model(BACKBONE).state_dict()


def load_pretrained() -> torch.Tensor:
    """The first kernel of a network that starts from the hub's weights."""
    kernel: torch.Tensor = create_model(BACKBONE, 5, width=16, feedforward=24, pretrained=True).backbone.conv1[0].weight
    return kernel


@pytest.mark.usefixtures("no_hub")
def test_a_hub_out_of_reach_is_told_in_seconds() -> None:
    start = time.monotonic()
    sentence = r"No ImageNet weights for test_resnet: .* cannot be reached \(.*refused\); give them by --init, or .* \(--no-pretrained\)"
    with pytest.raises(ValueError, match=sentence):
        load_pretrained()
    # The hub's client alone takes 46.
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", FILES)
@pytest.mark.usefixtures("no_hub")
def test_what_is_kept_on_this_machine_needs_no_hub(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    for place in ("refs", f"snapshots/{COMMIT}"):
        (folder / place).mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    path = folder / "snapshots" / COMMIT / name
    if path.suffix == ".bin":
        torch.save(make_weights(), path)
        # The other name is asked for first, and again and again.
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    else:
        save_file(make_weights(), path)
    assert torch.equal(load_pretrained(), make_weights()["conv1.0.weight"])


UNREACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
# The client's own errors beside them: what it makes of an answer is an OSError, and so is a broken socket.
REACHED = (httpx.ReadTimeout, httpx.RemoteProtocolError, OSError)


@pytest.mark.parametrize("error", [*UNREACHED, *REACHED])
@pytest.mark.usefixtures("no_hub")
def test_a_hub_counts_as_out_of_reach_only_while_nobody_can_connect_to_it(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    waited = []

    def ask(url: str, timeout: float) -> None:
        waited.append(timeout)
        raise error("Nothing came.")

    monkeypatch.setattr(hub, "get_hf_file_metadata", ask)
    with pytest.raises(ValueError, match=r"cannot be reached \(Nothing came\.\)") if error in UNREACHED else nullcontext():
        check_pretrained(BACKBONE)
    assert waited == [CONNECT_SECONDS]


@pytest.mark.usefixtures("slow_hub")
def test_a_hub_that_is_merely_slow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "CONNECT_SECONDS", 0.2)
    assert torch.equal(load_pretrained(), make_weights()["conv1.0.weight"])


@pytest.mark.usefixtures("slow_hub")
def test_a_download_that_breaks_off_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise httpx.RemoteProtocolError("The peer closed the connection.")

    monkeypatch.setattr(timm, "create_model", break_off)
    with pytest.raises(ValueError, match=r"No ImageNet weights for test_resnet from the hub \(The peer closed the connection\); give them"):
        load_pretrained()


@pytest.mark.usefixtures("no_hub")
def test_a_network_that_the_hub_does_not_know_is_told_of_as_such() -> None:
    with pytest.raises(ValueError, match="No ImageNet weights for mobilenet_edgetpu_100 from the hub"):
        create_model("mobilenet_edgetpu_100", 5, pretrained=True)
    with pytest.raises(ValueError, match=r"from the hub \(Invalid pretrained tag \(bogus\) for resnet18\)"):
        create_model("resnet18.bogus", 5, pretrained=True)
