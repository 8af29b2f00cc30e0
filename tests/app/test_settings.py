"""Settings: where they come from, and which are refused."""

import runpy
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from app import places
from app.settings import Settings


def test_own_name_of_the_port_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "1234")
    assert Settings().port == 1234
    monkeypatch.setenv("L2D_PORT", "4321")
    assert Settings().port == 4321
    assert Settings(port=1).port == 1


@pytest.mark.parametrize("token", ["fifteen-letters", "abcdefghijklmnop\n", "two words of mine", "schlüssel-schlüssel"])
def test_a_token_is_what_a_header_can_carry(token: str):
    with pytest.raises(ValidationError, match="expected at least 16 letters, digits and signs of ASCII, without blanks and line breaks"):
        Settings.model_validate({"token": token})
    assert Settings.model_validate({"token": "sixteen-letters!"}).token


def test_names_of_models_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("L2D_DEFAULT_MODELS", "one, two,")
    assert Settings().default_models == ("one", "two")


def test_by_default_only_this_machine_can_reach_it():
    assert Settings.model_fields["host"].default == "127.0.0.1"


def test_folders_are_the_repositorys_or_those_of_the_start_where_the_packages_are_installed(tmp_path: Path):
    assert Settings().places == tuple(places.SOURCE_TREE / name for name in ("runs", "data", "checkpoints"))
    installed = tmp_path / "site-packages" / "app" / "places.py"
    installed.parent.mkdir(parents=True)
    shutil.copy(places.__file__, installed)
    assert runpy.run_path(str(installed))["HOME"] == Path.cwd()
