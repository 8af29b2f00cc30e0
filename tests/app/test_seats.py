"""What the jobs of a host run on, as its settings say."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app import settings as settings_module
from app.cluster import PLAIN_LOG, RayCluster
from app.places import Places
from app.processes import LocalMachine
from app.seats import list_seats
from app.settings import Settings
from app.worker import create_machine

ADDRESS = "ray://127.0.0.1:8265"


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_module, "find_spec", lambda name: name)


def test_a_cluster_is_one_seat_beside_which_a_device_can_still_be_named(with_ray: None, tmp_path: Path):
    settings = Settings(engine=ADDRESS, engine_gpus=1)
    places = Places(tmp_path, tmp_path, tmp_path)
    assert list_seats(settings) == ["ray"]
    assert isinstance(create_machine(settings, places, "ray"), RayCluster)
    assert isinstance(create_machine(settings, places, "cpu"), LocalMachine)
    assert create_machine(settings, places, "ray").device == "auto"
    assert create_machine(Settings(engine=ADDRESS), places, "ray").device == "cpu"


def test_the_cluster_is_told_where_things_are_and_no_secret(with_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_TOKEN", "a-token-of-the-server")
    machine = create_machine(Settings(engine=ADDRESS), Places(tmp_path, tmp_path, tmp_path), "ray")
    assert isinstance(machine, RayCluster)
    places = {"L2D_STATE", "L2D_DATA", "L2D_CHECKPOINTS", "L2D_CACHE", "PYTHONPATH"}
    assert machine.make_environment().keys() == places | PLAIN_LOG.keys()


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "http://head:8265", "ray://head", "ray://head:8265/x y"])
def test_an_address_of_another_kind_is_refused(with_ray: None, address: str):
    with pytest.raises(ValidationError, match="engine"):
        Settings(engine=address)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings_module, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match="extra `ray`"):
        Settings(engine=ADDRESS)
    assert Settings().engine is None
