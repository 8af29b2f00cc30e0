"""What holds for every test."""

import gc
from collections.abc import Iterator

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a browser come first: of all processes, only the one that begins there starts a server and a browser for them."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/browser/"))


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: no need to look through a million objects of libraries at every collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and wait for it at every layer while another program runs."""
    import torch  # for seconds, which the process that only hands out tests has no use for

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
