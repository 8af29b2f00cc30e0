"""Commands that score a trained network, or two beside each other: evaluate, localize."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from l2d.arguments import PATH
from l2d.terminal import AsJson, Data, Device, print_report, progress, sentences

if TYPE_CHECKING:  # the commands import torch themselves, so that --help answers at once
    from l2d.data.images import Index

Checkpoint = Annotated[Path, typer.Argument(**PATH, help="folder of the network: its card and weights")]
Split = Annotated[str, typer.Option(help="train or test")]
Against = Annotated[Path | None, typer.Option(**PATH, help="another checkpoint: also print what this one scores more, with 95% intervals")]
Tune = Annotated[bool, typer.Option("--tune", help="also F1 with a threshold for each label, found on the training pictures")]
Save = Annotated[bool, typer.Option("--save", help="also write the scores into the checkpoint's card")]


def evaluate(
    checkpoint: Checkpoint,
    data: Data,
    split: Split = "test",
    tune: Tune = False,
    against: Against = None,
    device: Device = "auto",
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Score a network on labelled pictures: mAP, and F1 in every protocol.

    OP, OR and OF1 are precision, recall and F1 over all decisions; CP, CR and CF1 are means over the labels.

    oracle_k predicts as many labels of a picture as it truly has, as the paper does; threshold those of probability 0.5 or more; top3
    the three most probable; top3_threshold those of the three from 0.5 on; threshold_tuned (--tune) takes a threshold for each label.

    What it scores more than another network (--against) is told in mAP and in the paper's OF1 and CF1, those of the protocol oracle_k,
    with the middle 95% of the differences on 1,000 draws of the pictures (a paired bootstrap, the same draws at every call).
    """
    from l2d.checkpoint import add_scores
    from l2d.data import read_index
    from l2d.evaluate import compare, predict
    from l2d.metrics import score_report, tune_thresholds

    with sentences():
        _check_save(save, split)
        if tune and split == "train":
            raise ValueError("--tune finds thresholds on the training pictures, which can then not be scored with them; leave one out.")
        index = read_index(data, split)
        training = read_index(data, "train") if tune else None
        scores = _judge(predict, [checkpoint, against], index, device, "evaluate")
        thresholds = tune_thresholds(_judge(predict, [checkpoint], training, device, "tune")[0], training.targets) if training else None
        report = score_report(scores[0], index.targets, index.labels, thresholds)
        differences = {"against": _differ(against, compare, *scores, index.targets)} if against else {}
        print_report(_name(checkpoint, data, split) | report | differences, as_json)
        if save:
            add_scores(checkpoint, report | {"checksum": index.checksum})


def localize(
    checkpoint: Checkpoint,
    data: Data,
    split: Split = "test",
    against: Against = None,
    device: Device = "auto",
    as_json: AsJson = False,
    save: Save = False,
) -> None:
    """Measure whether the maps lie on the objects: pointing game and energy in the boxes.

    Pointing game: how often the strongest point of a map lies in a box of its label. Energy in box: the share of its evidence that does.
    Both over all pairs of a picture and a label that it shows; "predicted" over those that the network gives a probability of 0.5 or more.

    What it scores more than another network (--against) is told with the middle 95% of the differences on 1,000 draws of the pictures (a
    paired bootstrap, the same draws at every call).
    """
    from l2d.checkpoint import add_scores
    from l2d.data import read_index
    from l2d.localization import compare, judge_pictures, report_pairs

    with sentences():
        _check_save(save, split)
        index = read_index(data, split)
        judged = _judge(judge_pictures, [checkpoint, against], index, device, "localize")
        report = report_pairs(judged[0])
        differences = {"against": _differ(against, compare, *judged)} if against else {}
        print_report(_name(checkpoint, data, split) | report | differences, as_json)
        if save:
            add_scores(checkpoint, {"localization": report})


def _judge(judge: Callable[..., Any], checkpoints: list[Path | None], index: "Index", device: str, description: str) -> list[Any]:
    """What `judge` finds of each given checkpoint's network on a data set's pictures."""
    from l2d.evaluate import check_labels
    from l2d.runs import choose_device, load_network

    # Both at first: whatever is wrong with the second one is not told after hours with the first.
    networks = [load_network(folder, choose_device(device)) for folder in filter(None, checkpoints)]
    for _, card in networks:
        check_labels(card, index)
    found = []
    for model, card in networks:
        with progress(description) as advance:
            found.append(judge(model, card, index, progress=advance))
    return found


def _check_save(wanted: bool, split: str) -> None:
    if wanted and split != "test":
        raise ValueError("--save keeps scores on the test pictures, which is what a card tells; leave it out, or --split.")


def _name(checkpoint: Path, data: str, split: str) -> dict[str, str]:
    """What was scored: a file of scores alone would not tell."""
    return {"name": checkpoint.resolve().name, "data": data, "split": split}


def _differ(against: Path, compare: Callable[..., Any], *found: Any) -> dict[str, Any]:
    """What the first network scores more than the one in `against`, by what was found of both."""
    with progress("compare") as advance:
        return {"name": against.resolve().name, **compare(*found, progress=advance)}
