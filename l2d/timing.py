"""The command that measures what all of this costs: bench."""

from pathlib import Path
from typing import Annotated

import typer

from l2d.arguments import PATH
from l2d.terminal import AsJson, Device, print_report, progress, sentences


def bench(
    what: Annotated[str, typer.Argument(help="loss, train, explain or serve")],
    data: Annotated[str, typer.Option(help="train: pictures to read, as for the other commands")] = "shapes",
    teacher: Annotated[str, typer.Option(help="train: timm name")] = "resnet50",
    student: Annotated[str, typer.Option(help="train: timm name")] = "mobilenetv2_100",
    method: Annotated[str, typer.Option(help="train: a distillation method")] = "l2d",
    image_size: Annotated[int, typer.Option(help="train: side of the input in pixels", min=1)] = 224,
    labels: Annotated[int, typer.Option(help="loss: number of labels", min=1)] = 80,
    width: Annotated[int, typer.Option(help="loss: width of the label-wise embeddings", min=1)] = 768,
    batch_size: Annotated[int, typer.Option(help="loss, train: pictures per step", min=1)] = 64,
    checkpoints: Annotated[Path, typer.Option(**PATH, help="explain, serve: folder of trained networks")] = Path("checkpoints"),
    clients: Annotated[int, typer.Option(help="serve: clients that ask at the same time", min=1)] = 32,
    seconds: Annotated[float, typer.Option(help="serve: how long they ask", min=1)] = 60,
    rounds: Annotated[int, typer.Option(help="measurements of which the median is taken", min=1)] = 5,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Time the losses, a training step, predictions with maps, or a server that gives them: each beside other ways to do the same."""
    from l2d.bench import bench_training
    from l2d.bench_explain import bench_explain
    from l2d.bench_losses import bench_losses
    from l2d.bench_serve import bench_serve
    from l2d.runs import choose_device

    with sentences():
        with progress(f"bench {what}", still=True) as advance:
            place = choose_device(device)
            if what == "loss":
                report = bench_losses(images=batch_size, labels=labels, width=width, rounds=rounds, device=place, progress=advance)
            elif what == "train":
                sizes = {"image_size": image_size, "batch_size": batch_size, "rounds": rounds}
                report = bench_training(data, teacher=teacher, student=student, method=method, device=place, progress=advance, **sizes)
            elif what == "explain":
                report = bench_explain(_list_networks(checkpoints), rounds=rounds, device=place, progress=advance)
            elif what == "serve":
                _list_networks(checkpoints)
                report = bench_serve(checkpoints, seconds=seconds, clients=clients, rounds=rounds, device=place, progress=advance)
            else:
                raise ValueError(f"Unknown benchmark {what!r}; the known ones are loss, train, explain and serve.")
        print_report(report, as_json)


def _list_networks(folder: Path) -> list[Path]:
    found = sorted(card.parent for card in folder.glob("*/card.json"))
    if not found:
        raise ValueError(f"{folder} holds no trained network; give the folder that holds their folders (--checkpoints).")
    return found
