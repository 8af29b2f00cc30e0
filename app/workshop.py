"""Everything that page and API do with jobs: order, look, cancel, stop, resume, delete."""

import hashlib
import json
import threading
from http import HTTPStatus
from typing import Any

from app.catalog import Catalog
from app.datasets import DatasetError, DatasetFacts, Datasets
from app.errors import ParameterError, RequestError
from app.jobs import Job
from app.orders import Order
from app.places import Places
from app.publication import find_models
from app.queue import Queue
from app.records import JobFolder, Line, remove_folder
from app.seats import find_marked
from app.stages import plan_stages, write_commands
from l2d.recipe import count_held_out

NO_WORKER = "No worker is seen that would take it: start one with python -m app worker, or the server without L2D_WORKERS=0."


class ShippedModelError(RequestError):
    """A model that no job made."""

    status = HTTPStatus.FORBIDDEN
    code = "shipped_model"


class Workshop:
    """The jobs of one folder. Safe to use from several threads, and from several servers.

    Args:
        catalog: the models that may teach.
    """

    def __init__(self, places: Places, catalog: Catalog):
        self.places, self.catalog = places, catalog
        self.datasets = Datasets(places.data, places.findings)
        self._lock = threading.Lock()
        self._queue: Queue | None = None

    @property
    def queue(self) -> Queue:
        """The queue, opened when first needed: a folder that cannot be written spoils jobs, and nothing else.

        Raises:
            UnavailableError: if it cannot be opened.
        """
        with self._lock:
            self._queue = self._queue or Queue(self.places.state)
            return self._queue

    def submit(self, order: Order, key: str | None = None) -> Job:
        """Look through the data set and queue a job; the same key gives the same one.

        Raises:
            ParameterError: if the job would fail: a data set that is broken, a teacher that is unknown or has other labels.
            KeyReuseError: if the idempotency key came with another order before.
        """
        self._check(order, self.datasets.check(order.data))
        return self.queue.submit(order.model_dump(), key)

    def preview(self, order: Order) -> list[str]:
        """The commands of an order that would be accepted, by what was found when its data set was last looked through.

        Costs little: no picture is opened, and nobody looks whether one changed since.

        Raises:
            ParameterError: if it would be refused.
        """
        facts = self.datasets.recall(order.data)
        if facts.problem:
            raise DatasetError(f"When {facts.name!r} was last looked through: {facts.problem}")
        self._check(order, facts)
        return self.describe_command(order.model_dump())

    def delete(self, job: str) -> None:
        """Forget a job that has ended, with its folder and its models.

        Raises:
            UnknownJobError, JobStateError: if there is none, or it has not ended.
        """
        gone = self.queue.delete(job)
        for model in find_models(self.places, gone.id):
            remove_folder(model)
        remove_folder(self.places.jobs / gone.id)

    def delete_model(self, name: str) -> None:
        """Take a model that a job made out of the catalogue; the job's record stays.

        Raises:
            UnknownModelError: if there is none of that name.
            ShippedModelError: if it is one that no job made.
        """
        entry = self.catalog.find(name)
        # Where the list found it, not whether it is still there: somebody else may be deleting it, too.
        if entry.detail.job is None or entry.place != self.places.models:
            raise ShippedModelError(f"The model {name!r} came with the app; only models that jobs made can be deleted.")
        remove_folder(self.places.models / name)

    def folder(self, job: str) -> JobFolder:
        """The folder of a job.

        Raises:
            UnknownJobError: if there is none.
        """
        return JobFolder(self.places.jobs / self.queue.find(job).id)

    def read(self, job: str, start: int = 0) -> list[Line]:
        """What a job's training reported from some place on."""
        return self.folder(job).read(start)

    def explain_wait(self, job: Job) -> str:
        """Why a waiting job may wait for ever, as a sentence; empty if it need not, or does not wait."""
        return NO_WORKER if job.state == "queued" and not find_marked(self.places.state, everywhere=True) else ""

    def describe_command(self, order: dict[str, Any]) -> list[str]:
        """The commands that do the same by hand; none if they cannot be told any more, for want of the data set or teacher.

        What they write lies in the folder of jobs, which the repository ignores, and apart from what those of other orders write.
        """
        folder = self.places.state / "by-hand" / hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()[:8]
        try:
            stages = plan_stages(order, self.datasets.find(order["data"]).spec, self.places.find_model, folder)
        except ValueError:
            return []
        # With the defaults of the settings, so that they run as they are in the repository's folder.
        named = {
            "${L2D_DATA:-data}": self.places.data,
            "${L2D_CHECKPOINTS:-checkpoints}": self.places.checkpoints,
            "${L2D_STATE:-runs}": self.places.state,
        }
        return write_commands(stages, named, order.get("processes", 1))

    def _check(self, order: Order, facts: DatasetFacts) -> None:
        """Refuse what would fail, as far as it is known."""
        if facts.train is not None:
            _check_pictures(order, facts.train, facts.name)
        if order.teacher is not None:
            self._check_teacher(order.teacher, facts)
        self._check_start("start_from", order.start_from, order.student)
        self._check_start("teacher_start_from", order.teacher_start_from, order.teacher_backbone)

    def _check_teacher(self, name: str, facts: DatasetFacts) -> None:
        known = {entry.name: entry for entry in self.catalog.entries()}
        if name not in known:
            raise ParameterError(f"Unknown teacher {name!r}. Known are: {', '.join(known) or 'none'}.")
        labels = known[name].card.labels
        if facts.labels and list(labels) != facts.labels:
            fitting = [entry.name for entry in known.values() if list(entry.card.labels) == facts.labels]
            raise ParameterError(
                f"The teacher {name!r} knows {len(labels)} label{'s' * (len(labels) > 1)}, and the data set {facts.name!r} has "
                f"{len(facts.labels)} other{'s' * (len(facts.labels) > 1)}. "
                f"Fitting are: {', '.join(fitting) or 'none; give teacher_backbone, and one is trained first'}."
            )

    def _check_start(self, field: str, name: str | None, backbone: str | None) -> None:
        if name is None:
            return
        fitting = [entry.name for entry in self.catalog.entries() if entry.card.backbone == backbone]
        if name not in fitting:
            raise ParameterError(f"{field}: {name!r} is no model with the backbone {backbone}. Such are: {', '.join(fitting) or 'none'}.")


def _check_pictures(order: Order, pictures: int, name: str) -> None:
    """Refuse a job that would have nothing to train on: fewer pictures than processes, or than two."""
    least = max(2, order.processes)
    left = pictures - count_held_out(pictures, order.holdout)
    if left < least:
        raise ParameterError(
            f"Of the {pictures} training picture{'s' * (pictures != 1)} of {name!r} {left} {'is' if left == 1 else 'are'} left "
            f"to train on, with a holdout of {order.holdout:g}; "
            f"{order.processes} {'process needs' if order.processes == 1 else 'processes need'} {least} at least."
        )
