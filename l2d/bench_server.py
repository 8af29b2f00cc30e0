"""A server of its own for benchmarks, in a process of its own, and clients that ask it over HTTP."""

import contextlib
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

# Of a photograph as cameras and data sets give it, in pixels.
SIZE = (640, 480)
# As phones take them.
LARGE = (4000, 3000)
START_SECONDS = 120
# As a server that is full asks for.
RETRY_SECONDS = 1.0
ANNOUNCEMENT = "L2D is at "


class Server(NamedTuple):
    """A running server.

    Attributes:
        ready_after: seconds from the start of its process until it said that it was ready.
    """

    process: subprocess.Popen[str]
    port: int
    ready_after: float

    def measure_memory(self) -> int | None:
        """Bytes of its memory that are in RAM now; None where the system does not tell."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])


class Answer(NamedTuple):
    """What a client got: HTTP status, seconds that it waited, and the body."""

    status: int
    seconds: float
    body: bytes


@contextlib.contextmanager
def serve(checkpoints: Path, cache: Path, device: torch.device) -> Iterator[Server]:
    """Run `python -m app` on a free port and that device until the block ends; it starts no workers and keeps nothing.

    Raises:
        ConnectionError: if it does not get ready in time; its log is part of the message.
    """
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryFile("w+") as log:
        own = {"PORT": "0", "HOST": "127.0.0.1", "CHECKPOINTS": checkpoints, "STATE": state, "CACHE": cache, "WORKERS": "false"}
        environment = os.environ | {f"L2D_{name}": str(value) for name, value in own.items()} | _show_alone(device)
        start = time.monotonic()
        command = [sys.executable, "-m", "app"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            try:
                port = _read_port(process)
                while port is None or _get(port, "/readyz")[0] != http.client.OK:
                    if port is None or process.poll() is not None or time.monotonic() - start > START_SECONDS:
                        log.seek(0)
                        raise ConnectionError(f"The server did not get ready: {log.read()[-2000:] or 'it said nothing'}")
                    time.sleep(0.02)
                yield Server(process, port, time.monotonic() - start)
            finally:
                process.terminate()


def _show_alone(device: torch.device) -> dict[str, str]:
    """What makes a server, which takes the first GPU that it sees, take this device."""
    if device.type == "cpu":
        return {"CUDA_VISIBLE_DEVICES": ""}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": seen.split(",")[device.index or 0] if seen else str(device.index or 0)}


def _read_port(process: subprocess.Popen[str]) -> int | None:
    """What a server announces; None if it ends without a word, or has to be ended."""
    patience = threading.Timer(START_SECONDS, process.kill)
    patience.start()
    try:
        for line in process.stdout or ():
            if line.startswith(ANNOUNCEMENT):
                return int(line.removeprefix(ANNOUNCEMENT).split()[0].rpartition(":")[2])
        return None
    finally:
        patience.cancel()


class Client:
    """One connection that is kept."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)

    def compare(self, picture: bytes, fields: Mapping[str, str]) -> Answer:
        """Ask for a comparison of models on a picture.

        Raises:
            ConnectionError: if no whole answer comes.
        """
        body, content_type = _encode_form(picture, fields)
        start = time.perf_counter()
        try:
            self._connection.request("POST", "/v1/compare", body, {"Content-Type": content_type})
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"The server left a request without a whole answer: {error!r}.") from error
        return Answer(response.status, time.perf_counter() - start, content)

    def close(self) -> None:
        """Give the connection up."""
        self._connection.close()


def hammer(port: int, clients: int, seconds: float, pictures: Sequence[bytes], fields: Mapping[str, str]) -> list[Answer]:
    """Let so many clients ask at once, each again as soon as it is answered, always about another picture; bodies are dropped.

    Raises:
        ConnectionError: if one of them gets no whole answer: without it the others would measure a smaller load.
    """
    end = time.monotonic() + seconds

    def ask(number: int) -> list[Answer]:
        answers: list[Answer] = []
        with contextlib.closing(Client(port)) as client:
            while time.monotonic() < end:
                turn = number + clients * len(answers)
                answer = client.compare(make_new(pictures[turn % len(pictures)]), fields)
                answers.append(answer._replace(body=b""))
                if answer.status == http.client.TOO_MANY_REQUESTS:
                    time.sleep(RETRY_SECONDS)
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(ask, range(clients)) for answer in answers]


def list_models(port: int) -> list[dict[str, object]]:
    """The server's models, the default ones first."""
    return json.loads(_get(port, "/v1/models")[1])["models"]


def _get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def draw_photograph(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture with as much detail as a photograph: coloured noise whose amplitude falls with its frequency."""
    width, height = size
    spectrum = np.fft.rfft2(np.random.default_rng(seed).standard_normal((3, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    picture = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / width), s=(height, width))
    pixels = 128 + 48 * (picture - picture.mean()) / picture.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


def encode_photograph(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    """The same as a JPEG file."""
    buffer = io.BytesIO()
    draw_photograph(seed, size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make_new(picture: bytes) -> bytes:
    """Bytes behind a JPEG's end change nothing in it, but make it new to every cache."""
    return picture + uuid.uuid4().bytes


def _encode_form(picture: bytes, fields: Mapping[str, str]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return "".join([*parts, head]).encode() + picture + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
