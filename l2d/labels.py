"""Labels as people write them, and those worth showing where nobody names any."""

import difflib
import unicodedata
from collections.abc import Collection, Mapping, Sequence

# Labels that are shown: at most so many that are predicted; so many of the most probable where none is.
MOST_PREDICTED, MOST_PROBABLE = 8, 3


def split_labels(texts: Sequence[str], known: Collection[str]) -> list[str]:
    """The labels that texts name, each once: a text that is a known label is that one, any other names several between commas.

    Blanks around a name do not count, but where they are a known label's own. Nor does the coding of its accents: Macs name folders, and
    so labels that are made of these, with a letter and its accent as two signs.
    """
    parts = [[text] if text in known else map(str.strip, text.split(",")) for text in texts]
    spelled = {unicodedata.normalize("NFC", label): label for label in known}
    named = (part if part in known else spelled.get(unicodedata.normalize("NFC", part), part) for split in parts for part in split)
    return list(dict.fromkeys(filter(None, named)))


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


def choose_labels(predictions: Sequence[Mapping[str, float]], threshold: float) -> list[str]:
    """The labels worth showing: what any network predicts, by its best probability and at most 8; if there is none, the 3 most probable.

    Args:
        predictions: label -> probability, of each network.
        threshold: a label is predicted from this probability on.
    """
    best: dict[str, float] = {}
    for probabilities in predictions:
        for label, probability in probabilities.items():
            best[label] = max(probability, best.get(label, 0.0))
    ranked = sorted(best, key=lambda label: -best[label])
    return [label for label in ranked if best[label] >= threshold][:MOST_PREDICTED] or ranked[:MOST_PROBABLE]
