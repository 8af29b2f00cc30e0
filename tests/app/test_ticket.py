"""Who waits, until when, and what happens once nobody does."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from app.errors import DeadlineError, LeftError, UnavailableError
from app.ticket import Ticket


def test_result_comes_through_and_so_does_an_error():
    done: Future[int] = Future()
    done.set_result(3)
    assert Ticket(1).wait(done) == 3
    failed: Future[int] = Future()
    failed.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        Ticket(1).wait(failed)


def test_late_result_is_a_sentence():
    ticket = Ticket(0.01)
    with pytest.raises(DeadlineError, match="not ready in time"):
        ticket.wait(Future())
    with pytest.raises(DeadlineError):
        ticket.check()


def test_who_leaves_waits_no_longer():
    ticket = Ticket(60)
    ticket.check()
    threading.Timer(0.05, ticket.leave).start()
    start = time.monotonic()
    with pytest.raises(LeftError):
        ticket.wait(Future())
    assert time.monotonic() - start < 10
    ticket.leave()
    with pytest.raises(LeftError):
        ticket.check()


def test_work_that_a_closing_pool_cancels_is_waited_for_no_longer():
    begun, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as other, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: begun.set() or go_on.wait(60))
        assert begun.wait(60)
        waiting = other.submit(Ticket(60).wait, pool.submit(int))
        start = time.monotonic()
        while not waiting.running():
            time.sleep(0.01)
        pool.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(UnavailableError, match="shutting down"):
            waiting.result()
        assert time.monotonic() - start < 10
        go_on.set()


def test_many_may_wait_for_one_result():
    shared: Future[int] = Future()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(Ticket(20).wait, shared) for _ in range(4)]
        shared.set_result(5)
        assert [answer.result() for answer in waiting] == [5] * 4
