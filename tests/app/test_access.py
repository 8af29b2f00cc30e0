"""Who may order jobs, and what the processes that run them are told."""

import pytest
from pydantic import SecretStr

from app.access import Access, ForbiddenError, UnauthorizedError, choose_token, is_loopback
from app.places import Places
from app.processes import make_environment
from app.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "::1", "[::1]", "::ffff:127.0.0.1"])
def test_this_machine_alone_needs_no_token(host: str):
    assert is_loopback(host)
    assert choose_token(Settings(host=host, token=None)) is None
    assert choose_token(Settings(host=host, token=None, root_path="/l2d")), "a proxy lets others in"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_any_other_address_gets_one(host: str):
    assert not is_loopback(host)
    one, other = (choose_token(Settings(host=host, token=None)) for _ in range(2))
    assert one is not None
    assert len(one) >= 32
    assert one != other


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_token_that_was_set_is_the_token(host: str):
    assert choose_token(Settings(host=host, token=SecretStr("a-secret-of-mine"))) == "a-secret-of-mine"


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "[::1]:7860", "localhost", "127.0.0.1"])
def test_a_page_of_this_server_may_pass(host: str):
    Access(None).check_request(None, host, None, "127.0.0.1")
    Access(None).check_request(None, host, f"http://{host}", "::1")


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "127.0.0.1.evil.example", "evil.example:7860", "127.0.0.1].evil.example", "[::1", "[evil.example]:80"],
)
def test_names_that_others_own_may_not(host: str | None):
    with pytest.raises(ForbiddenError):
        Access(None).check_request(None, host, None, "127.0.0.1")


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8888", "http://localhost:7860", "null"])
def test_pages_of_others_may_not(origin: str):
    """Those of other servers of this machine, and those that a browser gives no origin, included."""
    with pytest.raises(ForbiddenError):
        Access(None).check_request(None, "127.0.0.1:7860", origin, "127.0.0.1")


def test_those_whom_a_proxy_on_this_machine_lets_in_may_not():
    with pytest.raises(ForbiddenError, match=r"not for 192\.0\.2\.1: set L2D_TOKEN"):
        Access(None).check_request(None, "127.0.0.1:7860", None, "192.0.2.1")


def test_a_token_is_compared_whole():
    access = Access("abcdefgh")
    access.check_request("Bearer abcdefgh", "anywhere", "http://anywhere.else", "192.0.2.1")
    access.check_request("bearer  abcdefgh", None, None, None)
    for sent in ("Bearer abcdefg", "Bearer abcdefghi", "Bearer ä", "Bearer \ud800"):
        with pytest.raises(ForbiddenError):
            access.check_request(sent, None, None, None)
    for sent in (None, "", "Bearer", "Bearer ", "Basic abcdefgh", "abcdefgh"):
        with pytest.raises(UnauthorizedError):
            access.check_request(sent, None, None, None)


def test_workers_are_told_no_secret(tmp_path):
    secrets = {"L2D_TOKEN": "s", "AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "s", "PIP_INDEX_URL": "s", "PYTHONSTARTUP": "s"}
    gpus = {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    told = make_environment(secrets | gpus | {"PATH": "/bin"}, Places(tmp_path, tmp_path, tmp_path))
    assert "s" not in told.values()
    assert (told["PATH"], told["L2D_STATE"]) == ("/bin", str(tmp_path))
    assert {name: told[name] for name in gpus} == gpus, "a number means another GPU where they are counted otherwise"
