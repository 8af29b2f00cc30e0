"""Whatever is sent, the answer is the documented one: never a failure, a hang or a crash."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from app.errors import RequestError
from app.uploads import FORMATS, read_inputs
from tests.app.conftest import encode

MUTANTS = 500
SEED = 20260101
# Generous for one picture of 120 x 90 pixels; a hang takes longer.
SECONDS = 5.0
MAX_PIXELS = 4_000_000
# A JPEG is decoded whole for the larger input, and in part for the smaller one.
SIZES = (32, 224)


def draw_originals(photograph: Image.Image) -> list[bytes]:
    """The same photograph in every format and kind of pixel that is read here."""
    kinds = {"JPEG": ("RGB", "L", "CMYK"), "PNG": ("RGB", "RGBA", "P", "1", "I;16"), "TIFF": ("RGB", "CMYK", "1")}
    originals = []
    for kind in FORMATS:
        for mode in kinds.get(kind, ("RGB",)):
            originals.append(encode(photograph.convert("L").convert("I;16") if mode == "I;16" else photograph.convert(mode), kind))
    return originals


def mutate(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with a few of them changed, cut, doubled, or replaced by what often breaks a reader."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 2)):
        # Headers are where readers decide most.
        place = chance.randrange(min(len(changed), 64) if chance.random() < 0.25 else len(changed))
        kind = chance.randrange(5)
        if kind == 0:
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[place : place + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01"])
        elif kind == 2:
            del changed[place : place + chance.randint(1, 40)]
        elif kind == 3:
            changed[place:place] = changed[place : place + chance.randint(1, 40)]
        elif len(changed) > 16:
            del changed[max(16, place) :]
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damage before it decides.
def test_mutated_pictures_are_read_or_refused(photograph: Image.Image):
    chance = random.Random(SEED)
    originals = draw_originals(photograph)
    read = refused = 0
    for number in range(MUTANTS):
        data = mutate(chance.choice(originals), chance)
        start = time.monotonic()
        try:
            inputs = read_inputs(data, MAX_PIXELS, SIZES)
            assert [inputs.pixels[size].shape for size in SIZES] == [(3, size, size) for size in SIZES], number
            assert inputs.width * inputs.height <= MAX_PIXELS, number
            read += 1
        except RequestError as error:
            refused += bool(error.message)
        assert time.monotonic() - start < SECONDS, number
    # Both ways are taken often: neither are all mutants alike, nor are they all rubbish.
    assert min(read, refused) > MUTANTS // 10


@pytest.mark.slow
def test_api_does_what_its_document_says(address: str, tmp_path: Path):
    """Schemathesis with all of its checks and phases. L2D_FUZZ_EXAMPLES sets how many examples of every kind it tries."""
    words = ["--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run", f"{address}/openapi.json", "--checks", "all"]
    words += ["--max-examples", os.environ.get("L2D_FUZZ_EXAMPLES", "20"), "--seed", "1", "--no-color", "--request-timeout", "30"]
    done = subprocess.run([sys.executable, "-m", "schemathesis.cli", *words], cwd=tmp_path, capture_output=True, text=True)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
