"""Drawn starts: the same draws as ever for few particles, uniform for many, a lattice where insertion jams."""

import hashlib

import numpy as np
import pytest
from scipy.spatial import KDTree
from scipy.stats import kstest

from simulators.placement import place_without_overlap

RNG = np.random.default_rng
VOLUME = {2: np.pi / 4, 3: np.pi / 6}  # of a particle of diameter 1


def cube(n, dim, packing):
    """Return the box in which n particles of diameter 1 have this packing fraction."""
    return (float((n * VOLUME[dim] / packing) ** (1 / dim)),) * dim


def smallest_gap(places, radii, box, periodic):
    """Return the smallest distance between surfaces of one system, walls included."""
    sides = np.array(box)
    period = np.where(periodic, sides, 2 * sides + 4 * radii.max())  # no image within reach of a wall
    tree = KDTree(places, boxsize=period)
    pairs = tree.query_pairs(2 * radii.max() + 1e-9, output_type="ndarray")
    r = places[pairs[:, 0]] - places[pairs[:, 1]]
    r -= period * np.round(r / period)
    between = np.sqrt((r**2).sum(axis=-1)) - radii[pairs].sum(axis=1)
    walls = np.minimum(places, sides - places)[:, ~periodic] - radii[:, None]
    return min(between.min(initial=np.inf), walls.min(initial=np.inf))


def test_few_particles_between_walls_are_drawn_as_ever():
    radii = 0.06 * (1 + 0.3 * RNG(1).uniform(-1, 1, (20, 10)))
    places = place_without_overlap(radii, (1.0, 1.0), rng=RNG(2))
    digest = hashlib.sha256(np.round(places, 9).tobytes()).hexdigest()
    assert digest.startswith("36c3aaf8bd2fdfb2")


@pytest.mark.parametrize("periodic", [(False, False, False), (True, True, True), (True, False, True)])
@pytest.mark.parametrize(
    ("n", "dim", "packing"),
    [(30, 2, 0.3), (30, 3, 0.2), (2000, 2, 0.42), (2000, 3, 0.25), (2000, 2, 0.72), (1500, 3, 0.55), (40, 2, 0.65)],
)
def test_nobody_overlaps_in_the_box(n, dim, packing, periodic):
    axes = np.array(periodic[-dim:])
    box = cube(n, dim, packing)
    radii = np.full((2, n), 0.5)
    places = place_without_overlap(radii, box, rng=RNG(3), periodic=axes)
    assert places.shape == (2, n, dim)
    assert not np.array_equal(places[0], places[1])
    for system in range(2):
        assert (places[system] >= 0).all()
        assert (places[system] < np.array(box)).all()
        assert smallest_gap(places[system], radii[system], box, axes) > 0


@pytest.mark.parametrize("n", [200, 2000])
def test_unequal_particles_find_room_in_an_oblong_box(n):
    radii = 0.5 * (1 + 0.9 * RNG(4).uniform(-1, 1, (1, n)))
    box = (4 * float(n) / 30, 30.0)
    axes = np.array([True, False])
    places = place_without_overlap(radii, box, rng=RNG(5), periodic=axes)
    assert smallest_gap(places[0], radii[0], box, axes) > 0


@pytest.mark.parametrize("periodic", [False, True])
def test_places_of_many_are_uniform(periodic):
    # dilute, so that nothing but the margin at the walls shapes the draw
    n = 4000
    box = (400.0, 800.0)
    places = place_without_overlap(np.full((1, n), 0.5), box, rng=RNG(6), periodic=np.full(2, periodic))[0]
    margin = 0.0 if periodic else 0.5
    for axis, side in enumerate(box):
        assert kstest((places[:, axis] - margin) / (side - 2 * margin), "uniform").pvalue > 0.05
    assert np.corrcoef(places[:, 0], places[:, 1])[0, 1] == pytest.approx(0, abs=0.04)


def test_many_are_placed_as_few_are(monkeypatch):
    # the same law through both routes: the mean distance to the nearest neighbour, 200 systems of 100 discs
    radii, box = np.full((200, 100), 0.5), cube(100, 2, 0.35)
    axes = np.ones(2, dtype=bool)

    def nearest(places):
        return np.array([KDTree(x, boxsize=box).query(x, k=2)[0][:, 1].mean() for x in places])

    few = nearest(place_without_overlap(radii, box, rng=RNG(7), periodic=axes))
    monkeypatch.setattr("simulators.placement._FEW", 1)
    many = nearest(place_without_overlap(radii, box, rng=RNG(8), periodic=axes))
    error = np.sqrt((few.var() + many.var()) / 200)
    assert error < 0.002
    assert abs(few.mean() - many.mean()) < 3 * error


def test_a_lattice_start_is_shaken():
    box = cube(500, 2, 0.7)
    places = place_without_overlap(np.full((1, 500), 0.5), box, rng=RNG(9), periodic=np.ones(2, dtype=bool))[0]
    distance = KDTree(places, boxsize=box).query(places, k=2)[0][:, 1]
    assert distance.std() > 0.005


@pytest.mark.parametrize(("n", "spread"), [(30, 0.0), (2000, 0.0), (30, 0.2), (2000, 0.2)])
def test_no_room_is_refused(n, spread):
    radii = 0.5 * (1 + spread * RNG(10).uniform(-1, 1, (1, n)))
    packing = 0.92 if spread == 0 else 0.62
    with pytest.raises(ValueError, match=rf"no overlap-free start found for 1 of 1 systems: {n} particles at packing"):
        place_without_overlap(radii, cube(n, 2, packing), rng=RNG(11))


@pytest.mark.slow
def test_a_hundred_thousand_are_placed_in_seconds():
    n = 100_000
    radii = np.full((1, n), 0.5)
    box = cube(n, 3, 0.25)
    places = place_without_overlap(radii, box, rng=RNG(12), periodic=np.ones(3, dtype=bool))[0]
    assert smallest_gap(places, radii[0], box, np.ones(3, dtype=bool)) > 0
