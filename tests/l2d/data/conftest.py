"""Tiny pictures and files for trees in the layouts of the official data sets."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def save_picture() -> Callable[..., Path]:
    """Write a small JPEG or PNG, by the name's ending, with its folders."""

    def save(path: Path, size: tuple[int, int] = (12, 8)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 40)).save(path)
        return path

    return save


@pytest.fixture
def write() -> Callable[[Path, str], Path]:
    """Write a text file with its folders."""

    def save(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return save
