"""Runs a trained network as fast as the machine allows: OpenVINO on the CPU, half precision on a GPU, else plain torch."""

import contextlib
import dataclasses
import functools
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from l2d.checkpoint import ModelCard
from l2d.data.images import normalise
from l2d.disk import ABANDONED_SECONDS
from l2d.graphs import Replay
from l2d.head import Memory
from l2d.model import LabelNet

logger = logging.getLogger(__name__)

# A conversion whose probabilities differ by more from torch's is not used.
TOLERANCE = 1e-3
# Not bfloat16, which OpenVINO chooses by itself where the processor has it: maps are to be those of the network that was trained.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
# Only with these is a call carried out by its own thread. Threads of OpenVINO's, to which it would be handed, are often woken on one
# processor together while another is idle; pinned ones would all be on the first.
OWN_THREAD = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
# Of what `Whole` takes and gives; another one leaves converted networks of before unread.
LAYOUT = 1
# Converted networks that are kept, each as large as its weights; the one that was not read for the longest time goes first.
KEPT = 64


class Reading(NamedTuple):
    """What a network makes of a picture: all that predictions and maps are made from.

    Attributes:
        last_map: (1, D, h, w).
        memory: what the head's queries read.
        scores: probability of every label, (1, C).
    """

    last_map: Tensor
    memory: Memory
    scores: Tensor


# One picture as bytes, (1, 3, S, S) -> Reading; may be called from several threads at once.
Runner = Callable[[Tensor], Reading]


def prepare(network: LabelNet, card: ModelCard, device: torch.device, cache: Path | None = None) -> Runner:
    """Make a network ready to read pictures on a device.

    On the CPU, OpenVINO runs each call in the thread that makes it, and calls side by side: the threads of one call would wait for
    each other at every layer. Where OpenVINO is missing or cannot run this network, torch does, and the log says so.

    Args:
        network: in evaluation mode, on that device.
        card: its size of input and scaling of pixels.
        cache: folder that keeps converted networks; they are converted anew each time without one.
    """
    whole = Whole(network, card).eval()
    if device.type != "cpu":
        return HalfPrecision(whole.to(device), device)
    if (openvino := import_openvino()) is not None:
        try:
            return OpenVino(openvino, _find_converted(openvino, whole, card, cache))
        except Exception as error:  # its converter meets unknown operations with almost any exception
            logger.warning("%s runs in plain torch, several times slower: OpenVINO cannot run it (%s).", card.name, error)
    return functools.partial(_run_in_torch, whole)


def find_prepared(card: ModelCard, device: torch.device, cache: Path | None) -> Runner | None:
    """What `prepare` gives for the network of a card, without that network: where it is converted and kept; None where it is not."""
    if device.type != "cpu" or cache is None or (openvino := import_openvino()) is None:
        return None
    kept = _read_kept(openvino, card, cache)
    try:
        return OpenVino(openvino, kept) if kept is not None else None
    except RuntimeError:  # `prepare` says so in the log
        return None


@functools.cache
def import_openvino() -> Any:
    """The module, or None, with one line in the log, where it is not installed."""
    # It reports its use to its makers, from processes that it forks off a server full of threads. It has no switch for that, but does
    # without where the reporter is not installed.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        logger.warning("OpenVINO is not there (%s): networks run in plain torch, several times slower. Install it: openvino.", error)
        return None
    return openvino


class Whole(nn.Module):
    """From bytes (N, 3, S, S) to everything in a `Reading`, in its order."""

    def __init__(self, network: LabelNet, card: ModelCard):
        super().__init__()
        self.network, self.card = network, card

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """The last map, what the head reads in it, and probabilities."""
        return self.read(normalise(pixels.float() / 255, self.card.mean, self.card.std))

    def read(self, images: Tensor) -> tuple[Tensor, ...]:
        """The same of pixels that are normalised already."""
        head = self.network.head
        last_map = self.network.features(images)
        memory = head.memory(last_map.float())
        return last_map, *memory, head.decode(memory)[1].float().sigmoid()


class OpenVino:
    """A converted network that runs in the thread that calls it. Of calls side by side each has a compiled one of its own."""

    def __init__(self, openvino: Any, model: Any):
        self._compile = functools.partial(openvino.compile_model, model, "CPU", PRECISION | OWN_THREAD)
        self._idle = deque([self._compile().create_infer_request()])

    def __call__(self, pixels: Tensor) -> Reading:
        """Read a picture's bytes, (1, 3, S, S)."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compile().create_infer_request()
        try:
            request.infer([pixels.numpy()], share_inputs=True, share_outputs=True)
            # Copies: the next call writes into the same memory.
            return _to_reading([torch.tensor(request.get_output_tensor(place).data) for place in range(5)])
        finally:
            self._idle.append(request)


class HalfPrecision:
    """A network on a GPU, recorded once as a CUDA graph and replayed: to order its operations one by one takes longer than they do."""

    def __init__(self, whole: Whole, device: torch.device):
        self._whole, self._device = whole, device
        self._replay: Replay | None = None
        try:
            self._replay = Replay(self._read, torch.zeros(1, 3, whole.card.image_size, whole.card.image_size, device=device))
        except RuntimeError as error:
            logger.warning("%s runs without a CUDA graph, more slowly: it cannot be recorded (%s).", whole.card.name, error)

    def __call__(self, pixels: Tensor) -> Reading:
        """Read as many pictures' bytes (N, 3, S, S); only a single one is replayed."""
        images = normalise(pixels.to(self._device, non_blocking=True).float() / 255, self._whole.card.mean, self._whole.card.std)
        if self._replay is None or len(images) > 1:
            return _to_reading([part.float() for part in self._read(images)])
        return _to_reading(self._replay(images))

    def _read(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad(), torch.autocast(self._device.type, torch.float16, cache_enabled=False):
            return self._whole.read(images)


def _run_in_torch(whole: Whole, pixels: Tensor) -> Reading:
    with torch.inference_mode():
        return _to_reading(whole(pixels))


def _to_reading(parts: Any) -> Reading:
    last_map, tokens, keys, values, scores = parts
    return Reading(last_map, Memory(tokens, keys, values), scores)


def _find_converted(openvino: Any, whole: Whole, card: ModelCard, cache: Path | None) -> Any:
    """The converted network: from the cache, or made now and kept there."""
    if cache is None:
        return _convert_checked(openvino, whole)
    if (kept := _read_kept(openvino, card, cache)) is not None:
        return kept
    model, path = _convert_checked(openvino, whole), _name_kept(openvino, card, cache)
    try:
        _keep(openvino, model, path)
    # OpenVINO's writer says RuntimeError for a full disk.
    except (OSError, RuntimeError) as error:
        logger.warning("A converted network cannot be kept in %s, so the next start takes longer (%s).", path.parent, error)
    return model


def _read_kept(openvino: Any, card: ModelCard, cache: Path) -> Any:
    """The converted network of a card that the cache holds, or None."""
    path = _name_kept(openvino, card, cache)
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError:
        return None
    # Where nothing can be written, nothing is removed.
    with contextlib.suppress(OSError):
        os.utime(path)
    return model


def _name_kept(openvino: Any, card: ModelCard, cache: Path) -> Path:
    """Another file for whatever makes another network of it: the card tells of its weights, too."""
    fed = dataclasses.replace(card, name="", title="", scores={})
    key = repr((LAYOUT, openvino.__version__, torch.__version__, fed))
    return cache / "openvino" / f"{hashlib.sha256(key.encode()).hexdigest()}.xml"


def convert(openvino: Any, whole: Whole, images: int = 1) -> Any:
    """Convert a network for so many pictures at once.

    Not for any number: a fixed shape is faster, batches are not (docs/engines.md), and OpenVINO 2026.4 adds the labels' biases to the
    wrong places where there are more pictures than one (its issue 23616).
    """
    example = draw_pixels(images, whole.card.image_size)
    with warnings.catch_warnings(), torch.no_grad():
        # torch calls its tracer deprecated, and OpenVINO's converter still builds on it.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(whole, example, check_trace=False)
        return openvino.convert_model(traced, example_input=example, input=list(example.shape))


def draw_pixels(images: int, size: int, seed: int = 0) -> Tensor:
    """Noise, as bytes (N, 3, S, S)."""
    return torch.randint(256, (images, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def _convert_checked(openvino: Any, whole: Whole) -> Any:
    """Convert a network, and refuse (RuntimeError) a conversion whose probabilities are not torch's."""
    model, example = convert(openvino, whole), draw_pixels(1, whole.card.image_size, seed=1)
    expected, got = _run_in_torch(whole, example).scores, openvino.compile_model(model, "CPU", PRECISION)(example.numpy())[4]
    difference = (expected - torch.from_numpy(got)).abs().max().item()
    if not difference <= TOLERANCE:
        raise RuntimeError(f"its probabilities differ by {difference:.2g}")
    return model


def _keep(openvino: Any, model: Any, path: Path) -> None:
    """Write both files beside their places, and the one that is looked for last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        openvino.save_model(model, Path(folder) / path.name, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            os.replace((Path(folder) / path.name).with_suffix(suffix), path.with_suffix(suffix))
    _sweep(path.parent)


def _sweep(folder: Path) -> None:
    """Remove the converted networks beyond those that are kept, and what writers left that were killed."""
    # Other servers may be sweeping, too.
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("*.xml"), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
            for suffix in (".xml", ".bin"):
                path.with_suffix(suffix).unlink(missing_ok=True)
        for left in folder.glob("tmp*"):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)
