import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageSequence

from emergence.animation import animate, make_film
from emergence.animation.write import page
from simulators import HardSpheres, simulate


@pytest.fixture(scope="module")
def run():
    return simulate(
        HardSpheres(n_particles=4), n_systems=2, n_frames=6, frame_interval=0.2, rng=np.random.default_rng(1)
    )


def test_a_film_passes_through_the_frames_of_its_run(run):
    film = make_film(run, which=1, n_pictures=101)
    assert film.times[-1] == pytest.approx(1.0)
    np.testing.assert_allclose(film.positions[::20], run.positions[1], rtol=0, atol=1e-9)
    log = run.collisions.of_system(1)
    np.testing.assert_allclose(film.hit_times, log.time, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(film.hit_particles[:, 1], log.j)


def test_collisions_are_marked_where_surfaces_meet(run):
    film = make_film(run, which=0, n_pictures=2001)
    wall = film.hit_particles[:, 1] < 0
    axis, far = (-film.hit_particles[wall, 1] - 1) // 2, (-film.hit_particles[wall, 1] - 1) % 2
    np.testing.assert_allclose(film.hit_points[wall, axis], far.astype(float), rtol=0, atol=2e-3)
    i, j = film.hit_particles[~wall].T
    picture = np.rint(film.hit_times[~wall] / film.times[1]).astype(int)
    for particle in (i, j):
        distance = np.linalg.norm(film.positions[picture, particle] - film.hit_points[~wall], axis=1)
        np.testing.assert_allclose(distance, film.radii[particle], rtol=0, atol=4e-3)


def test_a_gif_has_every_picture_and_shows_motion(run, tmp_path):
    animate(run, tmp_path / "film.gif", seconds=0.4)
    with Image.open(tmp_path / "film.gif") as film:
        pictures = [np.asarray(picture.convert("L"), dtype=float) for picture in ImageSequence.Iterator(film)]
    assert len(pictures) == 10
    assert all(np.abs(a - b).max() > 50 for a, b in pairwise(pictures))


def test_a_page_needs_no_network_and_holds_the_film(run, tmp_path):
    animate(run, tmp_path / "film.html", seconds=0.4)
    text = (tmp_path / "film.html").read_text()
    assert not re.findall(r"(?:src|href)\s*=", text)
    film = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    assert film["shape"] == [10, 4, 2]
    assert len(film["hits"]["times"]) == len(run.collisions.of_system(0))


def test_a_title_cannot_leave_its_place(run):
    film = make_film(run, n_pictures=2)
    assert "<b>" not in page(film.__class__(**{**vars(film), "title": "<b>"}))


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("film.avi", {}, ValueError, r"must end in \.gif, \.mp4, \.html, got 'film.avi'"),
        ("film.gif", {"which": 2}, ValueError, r"which must be a system in \[0, 2\), got 2"),
        ("film.gif", {"seconds": 0.0}, ValueError, r"seconds must be in \(0, 600\], got 0.0"),
    ],
)
def test_impossible_films(run, tmp_path, name, settings, error, message):
    with pytest.raises(error, match=message):
        animate(run, tmp_path / name, **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("ffmpeg") is not None, reason="there is an ffmpeg")
def test_an_mp4_without_ffmpeg_is_refused(run, tmp_path):
    with pytest.raises(RuntimeError, match="needs the program ffmpeg"):
        animate(run, tmp_path / "film.mp4")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg")
def test_an_mp4_is_one(run, tmp_path):
    animate(run, tmp_path / "film.mp4", seconds=0.4)
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"
