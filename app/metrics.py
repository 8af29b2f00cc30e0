"""What the server counts and times, as Prometheus reads it from /metrics. Nothing in it tells of a picture or a person."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.errors import UnavailableError

# Seconds; from a hit in the cache to the longest wait that the settings allow by default.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Labels; the last one is all of MS-COCO's.
LABELS = (1, 2, 4, 8, 16, 32, 80)


class Metrics:
    """The counters of one app, in a registry of their own. Safe to use from several threads.

    Attributes:
        requests: answers by method, route and status.
        request_seconds: from a request's head to the start of its answer, by route.
        stage_seconds: what the stages `decode`, `network`, `maps` and `figure` took, each time one ran; and `wait`, each time one of them,
            or other work for a request, had to wait for its thread.
        batch_size: how many labels' maps one pass made. Pictures are not batched: a network looks at one at a time (docs/engines.md).
        looks: whether what a model saw in a picture was there already (`hit`), or had to be made (`miss`).
        queue_depth: requests that hold a place: waiting or running.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("l2d_requests", "Answers given.", ["method", "route", "status"], registry=registry)
        self.request_seconds = Histogram("l2d_request_seconds", "Until the answer began.", ["route"], buckets=SECONDS, registry=registry)
        self.stage_seconds = Histogram("l2d_stage_seconds", "What a stage took.", ["stage"], buckets=SECONDS, registry=registry)
        self.batch_size = Histogram("l2d_batch_size", "Labels whose maps one pass made.", buckets=LABELS, registry=registry)
        self.looks = Counter("l2d_looks", "Model and picture pairs, by whether they were in the cache.", ["cache"], registry=registry)
        self.queue_depth = Gauge("l2d_queue_depth", "Requests that wait for the networks or use them.", registry=registry)
        # Of this process: memory, open files, processor time.
        ProcessCollector(registry=registry)

    def watch_jobs(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Ask for the number of jobs in every state whenever somebody reads the metrics."""
        self.registry.register(_Jobs(count))

    def export(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


class _Jobs(Collector):
    def __init__(self, count: Callable[[], Mapping[str, int]]):
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One number per state; none while the queue cannot be read, which spoils nothing else."""
        with contextlib.suppress(UnavailableError):
            family = GaugeMetricFamily("l2d_jobs", "Jobs by state.", labels=["state"])
            for state, number in self._count().items():
                family.add_metric([state], number)
            yield family
