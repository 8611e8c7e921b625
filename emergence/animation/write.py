"""The file an animation goes to: its suffix tells the kind."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from simulators import Trajectories

from ..files import write_aside, write_text
from .film import Film, make_film

KINDS = (".gif", ".mp4", ".html")
PICTURES_PER_SECOND = 25


def animate(trajectories: Trajectories, path: str | os.PathLike[str], *, which: int = 0, seconds: float = 12.0) -> None:
    """Write an animation of one system with its collisions marked.

    Args:
        trajectories: a run.
        path: where to. ``.gif`` and ``.mp4`` play by themselves; ``.html`` is one page, without network, to pause, step
            from collision to collision, and turn in three dimensions.
        which: the system to show.
        seconds: how long it plays, at 25 pictures a second.

    Raises:
        ValueError: another suffix, no such system, ``seconds`` not positive.
        RuntimeError: an MP4 was asked for and there is no ffmpeg.

    Cost:
        One simulation of one system, and some 80 milliseconds a picture for GIF and MP4.
    """
    path = Path(path)
    check_path(path)
    if not 0 < seconds <= 600:
        raise ValueError(f"seconds must be in (0, 600], got {seconds}")
    film = make_film(trajectories, which=which, n_pictures=max(2, round(seconds * PICTURES_PER_SECOND)))
    if path.suffix == ".html":
        write_text(path, page(film))
    else:
        write_aside(path, lambda aside: _movie(film, aside))


def check_path(path: Path) -> None:
    """Refuse a file that cannot be written as an animation here.

    Raises:
        ValueError: another suffix.
        RuntimeError: an MP4 without ffmpeg.
    """
    if path.suffix not in KINDS:
        raise ValueError(f"an animation must end in {', '.join(KINDS)}, got {path.name!r}")
    if path.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise RuntimeError("an MP4 needs the program ffmpeg on the path; install it, or write .gif or .html")


def _movie(film: Film, path: Path) -> None:
    """Draw every picture with matplotlib; Pillow writes a GIF, ffmpeg an MP4."""
    from matplotlib.animation import FFMpegWriter, FuncAnimation, PillowWriter

    from .draw import Stage

    stage = Stage(film)
    writer = (PillowWriter if path.suffix == ".gif" else FFMpegWriter)(fps=PICTURES_PER_SECOND)
    FuncAnimation(stage.figure, stage.show, frames=len(film.times)).save(path, writer=writer, dpi=90)


def page(film: Film) -> str:
    """Return the page: positions as base64 float32, collisions as JSON."""
    environment = Environment(
        loader=PackageLoader("emergence.animation", "templates"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("trajectory.html.j2").render(title=film.title, film=_as_json(film))


def _as_json(film: Film) -> str:
    """Plain data for the page. Digits below a ten-thousandth of the box are no use to the eye."""

    def rounded(array: np.ndarray) -> Any:
        return np.round(array, 5).tolist()

    positions = base64.b64encode(film.positions.astype("<f4").tobytes()).decode()
    data = {
        "box": film.box,
        "periodic": film.periodic.tolist(),
        "shape": film.positions.shape,
        "picturesPerSecond": PICTURES_PER_SECOND,
        "positions": positions,
        "times": rounded(film.times),
        "radii": rounded(film.radii),
        "charges": rounded(film.charges),
        "edges": film.edges.tolist(),
        "hits": {
            "times": rounded(film.hit_times),
            "points": rounded(film.hit_points),
            "particles": film.hit_particles.tolist(),
            "strengths": rounded(film.hit_strengths),
        },
    }
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")
