"""One job trained by several processes, on whichever machines of a Ray cluster have room: `python -m app group ID`, run as a Ray job."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.places import Places

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

logger = logging.getLogger(__name__)

# Exit code when the group was lost: sysexits.h calls it a temporary failure.
LOST = 75


def main(job: str, places: Places, processes: int, cpus: float, gpus: float) -> int:
    """Let Ray Train find room for all processes of a job, start them, join them, and end them all when one is lost.

    Args:
        cpus, gpus: what each process asks of the cluster.

    Returns:
        0, or `LOST`: then the job's metrics say why, or a machine or process of it went down.
    """
    from ray.train import TrainingFailedError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s group: %(message)s", stream=sys.stderr)
    try:
        create_trainer(job, places, processes, cpus, gpus).fit()
    except TrainingFailedError as error:
        logger.error("%s", error)
        return LOST
    return 0


def create_trainer(job: str, places: Places, processes: int, cpus: float, gpus: float) -> "TorchTrainer":
    """Ray Train's part: it keeps its own books in a folder that is swept away as other temporary ones are."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    return TorchTrainer(
        train_share,
        train_loop_config={"job": job, "places": [str(place) for place in places]},
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus, "GPU": gpus}),
        run_config=RunConfig(name=f".group.{os.getpid()}", storage_path=str(places.jobs / job)),
        # As torchrun's: what lies on the host travels by Gloo also where there are GPUs.
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
    )


def train_share(config: dict[str, Any]) -> None:
    """What each of the processes does: the same as a training that is alone, which finds the others joined already.

    Raises:
        RuntimeError: if the training failed.
    """
    from app.training import main as train

    # Ray's own handlers tell no time; the training sets up its own.
    logging.getLogger().handlers.clear()
    if train(config["job"], Places(*map(Path, config["places"])), attached=False):
        raise RuntimeError("The training failed; the log above says why.")
