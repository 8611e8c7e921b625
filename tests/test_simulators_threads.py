"""Blocks of systems on threads: each system once, results in order, errors not lost, memory apart."""

import threading

import numpy as np
import pytest

from simulators.engines import threads


@pytest.fixture
def n_threads(monkeypatch, request):
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: request.param)
    return request.param


@pytest.mark.parametrize("n_threads", [1, 2, 7], indirect=True)
@pytest.mark.parametrize("n_systems", [1, 5, 1000])
def test_every_system_is_in_one_block_of_bounded_size(n_systems, n_threads):
    blocks = threads.blocks_of(n_systems, at_once=100)
    assert [s for block in blocks for s in range(block.start, block.stop)] == list(range(n_systems))
    assert n_threads * max(block.stop - block.start for block in blocks) <= max(100, n_threads)


@pytest.mark.parametrize("n_threads", [1, 2, 7], indirect=True)
def test_results_come_in_the_order_of_the_items(n_threads):
    assert threads.on_threads(lambda item: item**2, range(20)) == [item**2 for item in range(20)]


@pytest.mark.parametrize("n_threads", [2], indirect=True)
def test_two_threads_work_at_once_and_an_error_reaches_the_caller(n_threads):
    meet = threading.Barrier(2, timeout=10)
    threads.on_threads(lambda item: meet.wait(), range(2))

    def fail(item):
        if item == 1:
            raise ValueError("item 1")

    with pytest.raises(ValueError, match="item 1"):
        threads.on_threads(fail, range(2))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
def test_memory_apart_is_a_contiguous_copy_two_cache_lines_from_its_ends(dtype):
    values = np.arange(6, dtype=dtype).reshape(2, 3).T
    copy = threads.apart(values)
    assert copy.flags.c_contiguous
    assert copy.dtype == dtype
    np.testing.assert_array_equal(copy, values)
    owner = copy.base
    assert isinstance(owner, np.ndarray)
    before = copy.ctypes.data - owner.ctypes.data
    after = owner.nbytes - before - copy.nbytes
    assert min(before, after) >= 128
