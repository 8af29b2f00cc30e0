"""Example photographs, free to use, read at run time from files inside the wheels of matplotlib and scikit-image: nothing is downloaded."""

from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple


class Example(NamedTuple):
    """A photograph that the page offers.

    Attributes:
        name: what the browser calls it.
        title: what is to be seen.
        credit: who made it, and under which terms.
        package: whose wheel it lies in.
        file: its file there; none that the package would fetch.
    """

    name: str
    title: str
    credit: str
    package: str
    file: str


# The first one is compared when the page opens.
EXAMPLES = (
    Example("officer", "Grace Hopper", "U.S. Navy (public domain)", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    Example("coffee", "A cup of coffee", "Rachel Michetti, Pikolo Espresso Bar (CC0)", "skimage", "data/coffee.png"),
    Example("astronaut", "An astronaut", "NASA (public domain)", "skimage", "data/astronaut.png"),
    Example("cat", "A cat", "Stefan van der Walt (CC0)", "skimage", "data/chelsea.png"),
    Example("rocket", "A rocket launch", "SpaceX (public domain)", "skimage", "data/rocket.jpg"),
)


def read_example(name: str) -> bytes:
    """The file of an example photograph, as it would be uploaded.

    Raises:
        ValueError: for a name that is unknown, or whose file the installed version of its package no longer ships; it lists the others.
    """
    known = list_examples()
    for example in known:
        if example.name == name:
            return _find(example).read_bytes()
    raise ValueError(f"Unknown example {name!r}; known are {', '.join(example.name for example in known)}.")


def list_examples() -> tuple[Example, ...]:
    """The examples whose files are really there."""
    return tuple(example for example in EXAMPLES if _find(example).is_file())


def _find(example: Example) -> Traversable:
    return resources.files(example.package) / example.file
