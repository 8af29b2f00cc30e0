"""What serving costs, every figure beside the one that it is to be compared with: the bare networks, in the same minutes."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import torch

from l2d.bench import measure_in_turns
from l2d.bench_server import LARGE, Client, Server, encode_photograph, hammer, list_models, make_new, serve
from l2d.checkpoint import Network, load_checkpoint, read_card
from l2d.disk import find_cache
from l2d.environment import describe_program
from l2d.progress import Progress
from l2d.runtime import PRECISION, Whole, convert, draw_pixels, import_openvino, prepare

STUDENTS = 3
SHOWN = 8
BATCHES = {"cpu": (1, 2, 4, 8), "cuda": (1, 8, 32, 128)}
PICTURES = 48
# The first part of a load, in which buffers still grow.
WARM_SHARE = 0.25
# Two starts, single requests, the bare networks, the load, the bare networks again.
STAGES = 6

Pass = Callable[[], object]


class Bare(NamedTuple):
    """Complete networks without anything around them.

    Attributes:
        ways: name -> pass of every network over one picture, one network after another or side by side.
        batched: pictures -> pass of every network over so many.
    """

    ways: dict[str, Pass]
    batched: dict[int, Pass]


def bench_serve(
    checkpoints: Path,
    *,
    seconds: float,
    clients: int,
    rounds: int,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a server of its own, `python -m app`, against the bare networks, both on that device.

    Returns:
        `cold_start` (seconds from the start of the process until it is ready, after one start to fill the caches), `limit` (one client,
        three students, eight labels), `load` (many clients, the default models), and the `setting`.
    """
    advance = progress or (lambda done, total: None)
    with serve(checkpoints, find_cache(), device):
        pass
    advance(1, STAGES)
    with serve(checkpoints, find_cache(), device) as server:
        models = list_models(server.port)
        students = [str(model["name"]) for model in models if model["role"] == "student"][:STUDENTS]
        if not students:
            raise ValueError(f"{checkpoints} holds no student that can be used; the benchmark asks about up to {STUDENTS} of them.")
        defaults = [str(model["name"]) for model in models if model["default"]]
        advance(2, STAGES)
        report = {
            "setting": describe_program(device) | {"students": students, "defaults": defaults},
            "cold_start": {"seconds": server.ready_after},
            "limit": measure_limit(server.port, [checkpoints / name for name in students], rounds, device),
        }
        advance(3, STAGES)
        bare = build_bare([checkpoints / name for name in defaults], device, BATCHES[device.type])
        before = measure_throughput(bare, rounds, device)
        advance(4, STAGES)
        load = measure_load(server, clients, seconds)
        advance(5, STAGES)
        after = measure_throughput(bare, rounds, device)
    speeds = {name: (before[name] + after[name]) / 2 for name in before}
    best = max(speeds, key=lambda name: speeds[name])
    report["load"] = load | {
        "engine": {"best": best, "pictures_per_second": speeds},
        "ratio": load["requests_per_second"] / speeds[best],
    }
    return report


def measure_limit(port: int, students: Sequence[Path], rounds: int, device: torch.device) -> dict[str, Any]:
    """Time a request about three students and eight labels, in turns with the students' bare passes over one picture.

    Returns:
        `milliseconds` (medians of the request, of one with a picture as phones take them, and of the bare passes), `ratio` (median of the
        rounds' ratios of the request to each).
    """
    labels = read_card(students[0]).labels[:SHOWN]
    client, fields = Client(port), {"models": ",".join(folder.name for folder in students), "labels": ",".join(labels)}
    requests = {"request": partial(_ask, client, encode_photograph(0), fields)}
    requests["request, 12 megapixels"] = partial(_ask, client, encode_photograph(0, LARGE), fields)
    seconds = measure_in_turns(requests | build_bare(students, device).ways, rounds, device)
    client.close()
    return {
        "milliseconds": {name: 1000 * statistics.median(times) for name, times in seconds.items()},
        "ratio": {
            name: statistics.median(ours / other for ours, other in zip(seconds["request"], times, strict=True))
            for name, times in seconds.items()
            if name != "request"
        },
    }


def build_bare(folders: Sequence[Path], device: torch.device, batches: Sequence[int] = ()) -> Bare:
    """Networks ready to run alone, in every way that may be the fastest."""
    loaded = [load_checkpoint(folder) for folder in folders]
    return _build_on_cpu(loaded, batches) if device.type == "cpu" else _build_on_gpu(loaded, device, batches)


def _build_on_cpu(loaded: Sequence[Network], batches: Sequence[int]) -> Bare:
    cores, openvino = torch.get_num_threads(), import_openvino()
    runs = [partial(prepare(*one, torch.device("cpu"), find_cache()), draw_pixels(1, one.card.image_size)) for one in loaded]
    pool = ThreadPoolExecutor(cores)
    ways: dict[str, Pass] = {
        "one by one": lambda: [run() for run in runs],
        "side by side": lambda: list(pool.map(lambda run: run(), runs)),
    }
    if openvino is None:
        return Bare(ways, {1: ways["one by one"]})
    wide = {count: [_compile(openvino, Whole(*one).eval(), count, cores) for one in loaded] for count in {1, *batches}}
    ways[f"one by one, {cores} thread{'s' * (cores > 1)} each"] = partial(_run_each, wide[1])
    return Bare(ways, {count: partial(_run_each, wide[count]) for count in batches})


def _build_on_gpu(loaded: Sequence[Network], device: torch.device, batches: Sequence[int]) -> Bare:
    runners = [(prepare(network.to(device), card, device), card.image_size) for network, card in loaded]
    passes = {count: partial(_run_each, [partial(run, draw_pixels(count, size)) for run, size in runners]) for count in {1, *batches}}
    return Bare({"one by one": passes[1]}, {count: passes[count] for count in batches})


def measure_throughput(bare: Bare, rounds: int, device: torch.device) -> dict[str, float]:
    """Pictures per second that all networks of a kind of run have seen."""
    seconds = measure_in_turns(bare.ways | {f"batches of {n}": run for n, run in bare.batched.items()}, max(3, rounds // 4), device)
    counts = dict.fromkeys(bare.ways, 1) | {f"batches of {n}": n for n in bare.batched}
    return {name: counts[name] / statistics.median(times) for name, times in seconds.items()}


def measure_load(server: Server, clients: int, seconds: float) -> dict[str, Any]:
    """Let clients ask for the default comparison as fast as they are answered.

    Returns:
        `requests_per_second`, `p50` and `p99` (milliseconds), `p99_to_p50`, `statuses`, and `memory` (bytes in RAM after a quarter of
        the time, at the end, and the ratio).
    """
    pictures = [encode_photograph(seed) for seed in range(PICTURES)]
    hammer(server.port, clients, WARM_SHARE * seconds, pictures, {})
    warm = server.measure_memory()
    start = time.perf_counter()
    answers = hammer(server.port, clients, (1 - WARM_SHARE) * seconds, pictures, {})
    spent = time.perf_counter() - start
    end = server.measure_memory()
    good = [answer for answer in answers if answer.status == HTTPStatus.OK]
    percentiles = statistics.quantiles((answer.seconds for answer in good), n=100, method="inclusive")
    p50, p99 = 1000 * percentiles[49], 1000 * percentiles[98]
    return {
        "clients": clients,
        "seconds": spent,
        "requests_per_second": len(good) / spent,
        "p50": p50,
        "p99": p99,
        "p99_to_p50": p99 / p50,
        "statuses": {str(status): sum(answer.status == status for answer in answers) for status in {answer.status for answer in answers}},
        "memory": {"warm": warm, "end": end, "ratio": end / warm if warm and end else None},
    }


def _ask(client: Client, picture: bytes, fields: dict[str, str]) -> None:
    answer = client.compare(make_new(picture), fields)
    if answer.status != HTTPStatus.OK:
        raise RuntimeError(f"The server answered {answer.status}: {answer.body.decode()[:500]}")


def _compile(openvino: Any, whole: Whole, images: int, threads: int) -> Pass:
    """One pass over so many pictures, on so many threads."""
    compiled = openvino.compile_model(
        convert(openvino, whole, images), "CPU", PRECISION | {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    )
    return partial(compiled, draw_pixels(images, whole.card.image_size).numpy())


def _run_each(passes: Sequence[Pass]) -> None:
    for run in passes:
        run()
