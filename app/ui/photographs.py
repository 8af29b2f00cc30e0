"""Photographs that a page showed lately, by hash: the next question about one need not carry it again."""

import base64
import hashlib
import io
import threading

from cachetools import LRUCache
from PIL import Image

PREVIEW_SIDE = 720
THUMBNAIL_SIDE = 112
JPEG_QUALITY = 86


class Photographs:
    """Encoded photographs as they were uploaded, the latest ones. Safe to use from several threads.

    Args:
        limit: bytes to hold; the one that was not asked for the longest time goes first.
    """

    def __init__(self, limit: int):
        self._lock = threading.Lock()
        self._files: LRUCache[str, bytes] = LRUCache(limit, getsizeof=len)

    def keep(self, data: bytes) -> str:
        """Remember a photograph; gives its SHA-256. One larger than the limit is not kept."""
        sha256 = hashlib.sha256(data).hexdigest()
        with self._lock:
            if len(data) <= self._files.maxsize:
                self._files[sha256] = data
        return sha256

    def find(self, sha256: str) -> bytes | None:
        """The photograph, if it is still remembered."""
        with self._lock:
            return self._files.get(sha256)


def draw_preview(image: Image.Image, side: int) -> str:
    """A picture as the page shows it, a JPEG of at most `side` pixels in a data URL."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode(small)


def encode(image: Image.Image) -> str:
    """A picture as a JPEG in a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
