"""What tests do on the Compare tab, and what they read from it."""

import io

from PIL import Image
from playwright.sync_api import expect

PAINTED = "[...document.querySelectorAll('.grid .frame canvas')].filter((canvas) => canvas.width > 0)"


def count_requests(page):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    return requests


def read_pixels(page):
    """What the painted cells of the grid hold, as one text."""
    return page.evaluate(f"{PAINTED}.map((canvas) => canvas.toDataURL()).join()")


def list_rows(page):
    return page.locator(".grid .row").evaluate_all("(rows) => rows.map((row) => row.dataset.label)")


def draw_photograph(width=320, height=200):
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    image.paste((200, 60, 40), (width // 8, height // 4, width // 2, height * 3 // 4))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upload(page, content, name="photograph.png"):
    page.set_input_files("#l2d-file", {"name": name, "mimeType": "image/png", "buffer": content})
    expect(page.locator(".photo-name")).to_have_text(name)
    page.wait_for_selector(".desk[data-busy=false]")


def set_slider(page, name, value):
    page.get_by_role("slider", name=name).fill(str(value))
