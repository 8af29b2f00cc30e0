"""Everything that can be set from outside: environment variables `L2D_...`, refused in words where they make no sense."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.logs import Format
from app.places import HOME, Places

# What Pillow decodes without being told that it is no attack.
MOST_PIXELS = 178_956_970
# A day. Waits of some centuries and more are none that the system knows.
MOST_SECONDS = 86_400
# What a header carries unchanged.
TOKEN = re.compile(r"[!-~]{16,}")
# What stands unchanged in an address.
ROOT_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)*")
ENGINE = re.compile(r"ray://[^\s/]+:\d+")


class Settings(BaseSettings):
    """Settings of one app; each is read from `L2D_` and its name in capitals, e.g. `L2D_CHECKPOINTS`."""

    model_config = SettingsConfigDict(env_prefix="L2D_", populate_by_name=True, frozen=True)

    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; by default one of this machine alone")
    port: int = Field(
        default=7860, ge=0, le=65535, validation_alias=AliasChoices("L2D_PORT", "PORT"), description="0 takes a free one; PORT is read, too"
    )
    root_path: str = Field(
        default="",
        description="path below which a proxy shows the server, as /l2d; the proxy takes it off",
    )
    checkpoints: Path = Field(default=HOME / "checkpoints", description="folder with one folder per model")
    default_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("coco-edgetpu-teacher", "coco-mobilenetv2-vanilla", "coco-mobilenetv2-reviewkd", "coco-mobilenetv2-l2d"),
        description="separated by commas: listed first, and compared when a request names none (those of them that exist)",
    )
    max_upload_bytes: int = Field(default=20 * 2**20, ge=1, description="largest body of a request")
    max_pixels: int = Field(default=50_000_000, ge=1, le=MOST_PIXELS, description="largest picture, checked before it is decoded")
    max_models: int = Field(default=8, ge=1, description="models per request")
    max_labels: int = Field(default=128, ge=1, description="labels per request")
    max_instances: int = Field(default=16, ge=1, description="pictures per JSON request")
    max_requests: int = Field(default=32, ge=1, description="requests that wait or run; the next one is told to come back")
    request_seconds: float = Field(
        default=30.0, gt=0, le=MOST_SECONDS, description="longest time for a request's body to come, and again for its answer"
    )
    requests_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="requests from one address, of those that make work; an open Distil tab sends 30; no limit if not set",
    )
    cache_bytes: int = Field(default=256 * 2**20, ge=0, description="memory for what models saw in recent pictures")
    state: Path = Field(default=HOME / "runs", description="folder that jobs write to: their queue, logs and models")
    data: Path = Field(default=HOME / "data", description="folder with one folder per data set that jobs may name")
    token: SecretStr | None = Field(
        default=None, description="needed for jobs, at least 16 letters; if not set, made and printed where others can reach the server"
    )
    workers: bool = Field(default=True, description="start and supervise the processes that run jobs: one per GPU, or one on the CPU")
    log: Format = Field(default="text", description="lines of the log for people (text) or for machines (json)")
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="pictures that networks read at once, one processor thread each; by default one per core"
    )
    cache: Path | None = Field(
        default=None, description="folder for what can be made again, as converted networks; by default in L2D_STATE"
    )
    engine: str | None = Field(default=None, description="ray://HOST:PORT: the cluster that jobs run on")
    engine_cpus: float = Field(default=2, ge=0, le=1024, description="processors that one process of a job asks of the cluster")
    engine_gpus: float = Field(default=0, ge=0, le=64, description="GPUs that one process of a job asks of the cluster")

    @property
    def places(self) -> Places:
        """The folders that it was given."""
        return Places(self.state, self.data, self.checkpoints)

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        if not ROOT_PATH.fullmatch(path):
            raise ValueError(
                "expected a path as /l2d, without a slash at its end, of ASCII letters, digits, dots, dashes, tildes and underscores"
            )
        return path

    @field_validator("default_models", mode="before")
    @classmethod
    def _split_names(cls, names: object) -> object:
        return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names

    @field_validator("checkpoints", "state", "data", "cache", mode="before")
    @classmethod
    def _check_path(cls, path: object) -> object:
        # Else it would be the folder that the server was started in.
        if path == "":
            raise ValueError("expected a folder")
        return path

    @field_validator("checkpoints", "state", "data", "cache")
    @classmethod
    def _check_folder(cls, folder: Path | None) -> Path | None:
        try:
            if folder is not None:
                os.scandir(folder).close()
        except FileNotFoundError:  # yet to be made
            pass
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from error
        return folder

    @field_validator("token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not TOKEN.fullmatch(token.get_secret_value()):
            raise ValueError("expected at least 16 letters, digits and signs of ASCII, without blanks and line breaks")
        return token

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, address: str | None) -> str | None:
        if address is not None and not ENGINE.fullmatch(address):
            raise ValueError("expected ray://HOST:PORT")
        if address and find_spec("ray") is None:
            raise ValueError("jobs on a cluster need the extra `ray`: pip install -e '.[app,ray]'")
        return address
