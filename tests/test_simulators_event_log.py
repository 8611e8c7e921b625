"""The memory of the event log: shared by blocks, outgrown by some, closed up in place."""

import numpy as np
import pytest

from simulators import HardSpheres, ParticleState
from simulators.engines import event_driven, event_log, event_rounds

COLUMNS = ("system", "time", "i", "j", "impulse", "normal", "forced")


def columns_of(stretches: list[slice], n_rows: int = 100) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    whole = np.arange(2.0 * n_rows).reshape(n_rows, 2).copy()
    return whole, [whole[stretch] for stretch in stretches], np.concatenate([whole[stretch] for stretch in stretches])


@pytest.mark.parametrize(
    "stretches",
    [
        [slice(0, 25), slice(30, 55), slice(60, 60), slice(61, 99)],
        [slice(0, 20), slice(50, 70)],
        [slice(0, 3)],
        [slice(0, 100)],
    ],
)
def test_stretches_are_closed_up_in_place_and_the_rest_given_back(stretches):
    whole, parts, expected = columns_of(stretches)
    closed = event_log.closed_up(parts)
    assert closed is whole
    np.testing.assert_array_equal(closed, expected)


def test_parts_that_have_memory_of_their_own_are_joined():
    _, parts, expected = columns_of([slice(0, 40), slice(50, 99)])
    np.testing.assert_array_equal(event_log.closed_up([parts[0], parts[1].copy()]), expected)


@pytest.mark.parametrize("hot", [0, 3])
def test_a_block_that_outgrows_its_stretch_loses_no_row(monkeypatch, hot):
    """One system of six is ten times as fast as the others; in one block of all nothing is shared."""
    system = HardSpheres(n_particles=8)
    start = system.draw_state(6, rng=np.random.default_rng(0))
    faster = np.where(np.arange(6) == hot, 10.0, 1.0)[:, None, None]
    start = ParticleState(start.positions, start.velocities * faster, start.radii, start.masses)
    whole = event_driven.run(system, start, n_frames=2, frame_interval=200.0)
    monkeypatch.setattr(event_log, "_FIRST_ROWS", 100)
    monkeypatch.setattr(event_rounds, "blocks_of", lambda n, at_once: [slice(s, s + 1) for s in range(n)])
    apart = event_driven.run(system, start, n_frames=2, frame_interval=200.0)
    for name in COLUMNS:
        assert getattr(whole.collisions, name).tobytes() == getattr(apart.collisions, name).tobytes(), name
    counts = np.bincount(whole.collisions.system)
    assert counts[hot] > 3 * np.delete(counts, hot).max()
