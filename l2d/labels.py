"""Labels as people write them."""

import difflib
from collections.abc import Collection, Sequence


def split_labels(texts: Sequence[str], known: Collection[str]) -> list[str]:
    """The labels that texts name, each once: a text that is a known label is that one, any other names several between commas."""
    parts = [[text] if text in known else text.split(",") for text in texts]
    return list(dict.fromkeys(part.strip() for split in parts for part in split if part.strip()))


def check_known(labels: Sequence[str], known: Sequence[str]) -> None:
    """Refuse labels that no network knows.

    Raises:
        ValueError: naming them, those that are spelled most alike, and all that are known.
    """
    listed = f"Known are {', '.join(known)}."
    if not labels:
        raise ValueError(f"No label to show; leave the option out to see what the networks predict. {listed}")
    unknown = [label for label in labels if label not in known]
    if unknown:
        close = [name for label in unknown for name in difflib.get_close_matches(label, known)]
        hint = f"; close are {', '.join(close)}" if close else ""
        raise ValueError(f"No network knows the label {' or '.join(repr(label) for label in unknown)}{hint}. {listed}")
