"""Example photographs, read at run time from files that lie inside scikit-image's wheel: nothing is downloaded."""

from importlib import resources
from typing import NamedTuple


class Example(NamedTuple):
    """A photograph that the page offers.

    Attributes:
        name: what the browser calls it.
        title: what is to be seen.
        credit: who made it, and under which terms.
        file: its file in `skimage.data`; only files of the wheel itself, none that scikit-image would fetch.
    """

    name: str
    title: str
    credit: str
    file: str


# The first one is compared when the page opens.
EXAMPLES = (
    Example("motorcycle", "A motorcycle", "Middlebury stereo data 2014, D. Scharstein et al. (no licence stated)", "motorcycle_left.png"),
    Example("coffee", "A cup of coffee", "Rachel Michetti, Pikolo Espresso Bar (CC0)", "coffee.png"),
    Example("astronaut", "An astronaut", "NASA (public domain)", "astronaut.png"),
    Example("cat", "A cat", "Stefan van der Walt (CC0)", "chelsea.png"),
    Example("rocket", "A rocket launch", "SpaceX (public domain)", "rocket.jpg"),
)


def read_example(name: str) -> bytes:
    """The file of an example photograph, as it would be uploaded.

    Raises:
        ValueError: for an unknown name; it lists the known ones.
        FileNotFoundError: if this version of scikit-image no longer ships the file.
    """
    for example in EXAMPLES:
        if example.name == name:
            return (resources.files("skimage") / "data" / example.file).read_bytes()
    raise ValueError(f"Unknown example {name!r}; known are {', '.join(example.name for example in EXAMPLES)}.")


def list_examples() -> tuple[Example, ...]:
    """The examples whose files are really there."""
    folder = resources.files("skimage") / "data"
    return tuple(example for example in EXAMPLES if (folder / example.file).is_file())
