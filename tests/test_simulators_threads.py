"""Compiled work shared out over threads: each piece once, errors not lost."""

import threading

import pytest

from simulators.engines import threads


@pytest.mark.parametrize("n_threads", [1, 2, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 1000])
def test_every_piece_is_worked_on_once(monkeypatch, n, n_threads):
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: n_threads)
    done, lock = [], threading.Lock()

    def work(begin, end):
        with lock:
            done.extend(range(begin, end))

    threads.share_out(n, work)
    assert sorted(done) == list(range(n))


def test_two_threads_work_at_once_and_an_error_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: 2)
    meet = threading.Barrier(2, timeout=10)
    threads.share_out(2, lambda begin, end: meet.wait())

    def fail(begin, end):
        if begin == 1:
            raise ValueError("piece 1")

    with pytest.raises(ValueError, match="piece 1"):
        threads.share_out(2, fail)
