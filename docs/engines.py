"""Measures what may run the networks on this CPU: python docs/engines.py [CHECKPOINT...] prints the table of engines.md.

Needs onnxruntime and onnxscript beside the project's own packages. Every engine runs in a process of its own.
"""

import importlib.metadata
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from l2d.checkpoint import load_checkpoint
from l2d.runtime import PRECISION, Whole, convert, draw_pixels

PACKAGES = {"ONNX Runtime": ("onnxruntime", "onnx", "onnxscript", "onnx-ir"), "OpenVINO": ("openvino", "openvino-telemetry")}
ROUNDS, BATCH = 15, 8
HEADER = "| network | engine | cold start s | one picture ms | batch of 8, ms each | two at once, ms each | memory MB | off by |"


def run_torch(whole, images, threads):
    torch.set_num_threads(threads)
    return whole


def run_frozen(whole, images, threads):
    """Batch normalisation folded into the convolutions."""
    torch.set_num_threads(threads)
    return torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(whole, draw_pixels(images, whole.card.image_size))))


def run_compiled(whole, images, threads):
    torch.set_num_threads(threads)
    return torch.compile(whole, dynamic=False)


def run_onnx(whole, images, threads):
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(whole, (draw_pixels(images, whole.card.image_size),), f"{folder}/m.onnx", dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(f"{folder}/m.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels.numpy()})


def run_openvino(whole, images, threads, precision=PRECISION):
    import openvino

    options = precision | {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    compiled = openvino.compile_model(convert(openvino, whole, images), "CPU", options)
    return lambda pixels: list(compiled(pixels.numpy()).values())


def run_openvino_bf16(whole, images, threads):
    return run_openvino(whole, images, threads, {"INFERENCE_PRECISION_HINT": "bf16"})


ENGINES = {
    "torch": run_torch,
    "torch, frozen": run_frozen,
    "torch.compile": run_compiled,
    "ONNX Runtime": run_onnx,
    "OpenVINO": run_openvino,
    "OpenVINO, bfloat16": run_openvino_bf16,
}


def measure(name, folder):
    """One engine, one network: a row of the table."""
    network, card = load_checkpoint(folder)
    whole, cores = Whole(network, card).eval(), torch.get_num_threads()
    pixels, many = draw_pixels(1, card.image_size), draw_pixels(BATCH, card.image_size)
    with torch.no_grad():
        expected = whole(pixels)[-1]
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        run = ENGINES[name](whole, 1, cores)
        scores = run(pixels)[-1]
        cold = time.perf_counter() - start
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        row = {"cold": cold, "one": time_it(run, pixels), "memory": memory}
        row["batch"] = time_it(ENGINES[name](whole, BATCH, cores), many, 5) / BATCH
        row["aside"] = time_aside([ENGINES[name](whole, 1, 1) for _ in range(cores)], pixels)
        row["off"] = (torch.as_tensor(scores) - expected).abs().max().item()
    return row


def time_it(run, pixels, rounds=ROUNDS):
    run(pixels)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run(pixels)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def time_aside(runs, pixels):
    """Milliseconds per picture with one thread for each of several pictures at once."""

    def repeat(run):
        torch.set_num_threads(1)
        with torch.no_grad():
            for _ in range(ROUNDS):
                run(pixels)

    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(lambda run: run(pixels), runs))
        start = time.perf_counter()
        list(pool.map(repeat, runs))
        return 1000 * (time.perf_counter() - start) / (ROUNDS * len(runs))


def main(folders):
    print(HEADER + "\n|" + "---|" * 8, flush=True)
    for folder in folders:
        for name in ENGINES:
            words = [sys.executable, "-W", "ignore", __file__, "--one", name, folder]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                print(f"| {Path(folder).name} | {name} | fails: {done.stderr.strip().splitlines()[-1][:80]} |", flush=True)
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            numbers = (
                f"{row['cold']:.1f} | {row['one']:.1f} | {row['batch']:.1f} | {row['aside']:.1f} | {row['memory']:.0f} | {row['off']:.0e}"
            )
            print(f"| {Path(folder).name} | {name} | {numbers} |", flush=True)
    for name, packages in PACKAGES.items():
        size = sum(path.locate().stat().st_size for one in packages for path in importlib.metadata.files(one) if path.locate().is_file())
        print(f"{name}: {size / 1e6:.0f} MB ({', '.join(packages)})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2], Path(sys.argv[3]))))
    else:
        main(sys.argv[1:] or ["checkpoints/coco-mobilenetv2-l2d", "checkpoints/coco-edgetpu-teacher"])
