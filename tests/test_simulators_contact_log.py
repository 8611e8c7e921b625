"""The log of contacts: rows become columns, and columns a log in order."""

import numpy as np
import pytest

from simulators.engines import contact_log
from simulators.engines.grains import BEGAN, DEEPEST, DURATION, LOGGED, MOMENTUM, NORMAL


@pytest.mark.parametrize("dim", [2, 3])
def test_filled_rows_become_columns_and_momentum_impulse_and_direction(dim):
    rng = np.random.default_rng(dim)
    filled, systems = np.array([3, 0, 2]), np.array([7, 8, 10])
    values = rng.standard_normal((3, 4, LOGGED))
    if dim == 2:
        values[..., [MOMENTUM + 2, NORMAL + 2]] = 0.0
    values[2, 1, MOMENTUM : MOMENTUM + 3] = 0.0
    who = rng.integers(0, 100, (3, 4, 2), dtype=np.int32)
    system, time, i, j, impulse, normal, forced, duration, overlap = contact_log.drained(
        values, who, filled, systems, dim
    )
    rows, pairs = np.concatenate([values[0, :3], values[2, :2]]), np.concatenate([who[0, :3], who[2, :2]])
    assert system.tolist() == [7, 7, 7, 10, 10]
    for column, expected in ((time, BEGAN), (duration, DURATION), (overlap, DEEPEST)):
        np.testing.assert_array_equal(column, rows[:, expected])
    np.testing.assert_array_equal(np.stack([i, j], axis=1), pairs)
    np.testing.assert_allclose(impulse[:, None] * normal, rows[:, MOMENTUM : MOMENTUM + dim], rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(normal[:4], axis=1), 1.0, rtol=1e-15)
    assert impulse[4] == 0.0
    np.testing.assert_array_equal(normal[4], rows[4, NORMAL : NORMAL + dim])  # no momentum: where the two lie
    assert not forced.any()


def test_parts_are_sorted_by_system_time_particle_and_partner():
    rng = np.random.default_rng(0)
    n_rows = 3000
    keys = [rng.integers(0, 4, n_rows).astype(np.int32), rng.integers(0, 9, n_rows) / 8]  # many at the same time
    keys += list(rng.integers(0, 30, (2, n_rows)).astype(np.int32))
    columns = [*keys, np.arange(float(n_rows))]
    order = np.lexsort(keys[::-1])
    parts = [[column[:1000] for column in columns], [column[1000:] for column in columns]]
    for column, expected in zip(contact_log.in_order(parts), columns, strict=True):
        np.testing.assert_array_equal(column, expected[order])
