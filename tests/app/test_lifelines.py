"""A process ends by itself as soon as nobody wants it, and not before."""

import os
import sys
import threading
from types import SimpleNamespace

import pytest

from app import lifelines
from app.errors import UnavailableError
from app.jobs import UnknownJobError
from app.lifelines import LEFT_ALONE, die_with_claim, watch_parent

RUNNING = SimpleNamespace(state="running", attempts=2)


class Answers:
    """A queue that gives these answers, one after the other."""

    def __init__(self, *answers: object):
        self.left = list(answers)

    def find(self, name: str) -> object:
        assert name == "a job"
        answer = self.left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "last",
    [
        SimpleNamespace(state="cancelled", attempts=2),
        SimpleNamespace(state="queued", attempts=2),
        SimpleNamespace(state="running", attempts=3),
        UnknownJobError("It was deleted."),
    ],
)
def test_a_training_ends_when_its_job_is_no_longer_its_own_not_while_the_queue_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, last: object
):
    ended, codes = threading.Event(), []
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), ended.set()))
    monkeypatch.setattr(lifelines, "CLAIM_SECONDS", 0.001)
    queue = Answers(RUNNING, UnavailableError("The queue cannot be used now."), RUNNING, last)
    die_with_claim(queue, "a job", 2)
    assert ended.wait(20)
    assert (codes, queue.left) == ([LEFT_ALONE], [])


def test_the_end_of_standard_input_is_told_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    gone = threading.Event()
    reader, writer = os.pipe()
    with os.fdopen(reader) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        watch_parent(gone.set)
        os.write(writer, b"not the end")
        assert not gone.wait(0.05)
        os.close(writer)
        assert gone.wait(20)
