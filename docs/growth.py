"""Measures how the cost of an answer grows, and draws docs/growth.png: python docs/growth.py, on a machine with nothing else to do."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from matplotlib.figure import Figure

from l2d.bench_explain import ask_ours, ask_torchcam, count_streams, load_subject
from l2d.bench_server import encode_photograph, hammer, serve
from l2d.disk import find_cache

ROOT = Path(__file__).parents[1]
CHECKPOINTS = ROOT / "checkpoints"
STUDENT = CHECKPOINTS / "coco-mobilenetv2-l2d"
CPU = torch.device("cpu")
LABELS, SIZES, CLIENTS = (1, 2, 4, 8, 16, 32, 56, 80), (160, 224, 288, 352, 448), (1, 2, 4, 8, 16, 32, 64)
SHOWN, ROUNDS, SECONDS, PICTURES = 8, 7, 6.0, 24


def time_it(ask, *arguments, rounds=ROUNDS):
    """Milliseconds, the median after one run to warm up."""
    ask(*arguments)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        ask(*arguments)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measure(pool):
    student = load_subject(STUDENT, CPU)
    everyone = [load_subject(card.parent, CPU) for card in sorted(CHECKPOINTS.glob("*/card.json"))]
    sizes = [load_subject(STUDENT, CPU, size) for size in SIZES]
    return {
        "labels": {
            "ours": [time_it(ask_ours, [student], count, pool) for count in LABELS],
            "torchcam": [time_it(ask_torchcam, student, count, rounds=3) for count in LABELS],
        },
        "models": {"ours": [time_it(ask_ours, everyone[-count:], SHOWN, pool) for count in range(1, len(everyone) + 1)]},
        "sizes": {"ours": [time_it(ask_ours, [subject], SHOWN, pool) for subject in sizes]},
    }


def measure_clients():
    """Answers per second, and the median of the seconds that one waits."""
    pictures, rates, waits = [encode_photograph(seed) for seed in range(PICTURES)], [], []
    with serve(CHECKPOINTS, find_cache(), CPU) as server:
        hammer(server.port, CLIENTS[0], SECONDS / 2, pictures, {})
        for clients in CLIENTS:
            start = time.perf_counter()
            answers = [answer for answer in hammer(server.port, clients, SECONDS, pictures, {}) if answer.status == 200]
            rates.append(len(answers) / (time.perf_counter() - start))
            waits.append(statistics.median(answer.seconds for answer in answers))
    return {"answers per second": rates, "seconds waited, median": waits}


def draw(measured, clients, path):
    figure = Figure((10, 6), layout="constrained")
    axes = list(figure.subplots(2, 2).flat)
    panels = (
        ("labels", LABELS, "labels (one student, 224 pixels)"),
        ("models", range(1, 1 + len(measured["models"]["ours"])), "models (8 labels; the fourth is the teacher, at 288 pixels)"),
        ("sizes", SIZES, "pixels a side (one student, 8 labels)"),
    )
    for axis, (name, places, title) in zip(axes, panels, strict=False):
        for way, numbers in measured[name].items():
            axis.plot(list(places), numbers, "o-", label=way)
        axis.set(
            xlabel=title, ylabel="milliseconds", ylim=(0, None), xticks=[place for place in places if not 1 < place < 8 or name == "models"]
        )
        axis.legend(frameon=False)
    for name, numbers in clients.items():
        axes[-1].plot(CLIENTS, numbers, "o-", label=name)
    axes[-1].set(xlabel="clients (four models, always new pictures)", xscale="log", xticks=CLIENTS, xticklabels=CLIENTS, ylim=(0, None))
    axes[-1].minorticks_off()
    axes[-1].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    with ThreadPoolExecutor(count_streams(CPU), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        measured = measure(pool)
    clients = measure_clients()
    print(measured, clients, sep="\n")
    draw(measured, clients, ROOT / "docs/growth.png")
