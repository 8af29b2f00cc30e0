import base64
import hashlib
import io

from PIL import Image

from app.ui.photographs import Photographs, draw_preview


def test_the_latest_photographs_are_remembered_by_hash():
    photographs = Photographs(10)
    first, second, third = (photographs.keep(letter * 4) for letter in (b"a", b"b", b"c"))
    assert first == hashlib.sha256(b"aaaa").hexdigest()
    assert [photographs.find(each) for each in (first, second, third)] == [None, b"bbbb", b"cccc"]


def test_a_photograph_beyond_the_limit_is_not_kept():
    photographs = Photographs(3)
    assert photographs.find(photographs.keep(b"aaaa")) is None


def test_a_preview_is_a_small_jpeg_of_the_same_shape(photograph):
    kind, _, content = draw_preview(photograph, 60).partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (image.format, image.size) == ("JPEG", (60, 45))
