"""NUS-WIDE: 81 concepts on photographs of Flickr, many of which are no longer there."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l2d.data.files import find_missing, name_some, read_lines, require_annotations, require_labels, require_split
from l2d.data.images import Index

SETS = {"train": "Train", "test": "Test"}


def read_nuswide(root: Path, split: str) -> Index:
    """Read ImageList/, TrainTestLabels/ and Concepts81.txt; the pictures lie in Flickr/ (or images/) as the lists name them.

    The official archives put the labels into Groundtruth/ and the concepts into ConceptsList/: found there too. The lists separate
    folders in the way of Windows. Pictures that are not on disk (deleted on Flickr) are left out, with a warning that counts them;
    scores on what is left are not quite those of the papers. Pictures without any concept are kept, as in the published code. No
    picture is opened, and there are no boxes.

    Source: Chua et al., "NUS-WIDE: A Real-World Web Image Database" (CIVR 2009).

    Args:
        root: the folder that holds ImageList.
        split: "train" or "test".

    Raises:
        FileNotFoundError: if a list is missing, or every picture.
        ValueError: for an unknown split, labels other than 0 and 1, or lists of different lengths.
    """
    require_split(split, "NUS-WIDE")
    source = root / "ImageList" / f"{SETS[split]}Imagelist.txt"
    require_annotations(source, "NUS-WIDE's layout: ImageList/, TrainTestLabels/, Concepts81.txt and the pictures in Flickr/")
    concepts = _find(root, "Concepts81.txt", "ConceptsList/Concepts81.txt")
    require_annotations(concepts, "NUS-WIDE's list of concepts, also found in ConceptsList/")
    labels = require_labels(read_lines(concepts), concepts)
    names = [line.replace("\\", "/") for line in read_lines(source)]
    folder = _find(root, "TrainTestLabels", "Groundtruth/TrainTestLabels")
    targets = torch.stack([_read_column(folder / f"Labels_{label}_{SETS[split]}.txt", len(names)) for label in labels], 1)
    pictures = _find(root, "Flickr", "images")
    return _keep_present(Index([pictures / name for name in names], targets, labels), source)


def _find(root: Path, *places: str) -> Path:
    """The first of these places that is there, or the first."""
    return next((root / place for place in places if (root / place).exists()), root / places[0])


def _read_column(path: Path, count: int) -> Tensor:
    require_annotations(path, "a file of labels for every concept, in TrainTestLabels/ or Groundtruth/TrainTestLabels/")
    values = np.array(path.read_bytes().split(), dtype=np.bytes_)
    if len(values) != count:
        raise ValueError(f"{path} has {len(values)} label{'s' * (len(values) != 1)} for {count} picture{'s' * (count != 1)}.")
    if not np.isin(values, [b"0", b"1"]).all():
        raise ValueError(f"{path} must hold 0 or 1 in every line; it also holds {values[~np.isin(values, [b'0', b'1'])][0].decode()!r}.")
    return torch.from_numpy((values == b"1").astype(np.float32))


def _keep_present(index: Index, source: Path) -> Index:
    missing = set(find_missing(index.paths))
    if not missing:
        return index
    if len(missing) == len(set(index.paths)):
        raise FileNotFoundError(f"No picture named in {source} is there, of {len(index.paths)} in all, for example {index.paths[0]}.")
    gone = f"{len(missing)} of {len(index.paths)}: {name_some(sorted(missing))}"
    warnings.warn(f"Pictures named in {source} are missing and left out, {gone}.", stacklevel=3)
    return index.select([row for row, path in enumerate(index.paths) if path not in missing])
