"""The pictures of a GIF or MP4: particles, and a ring that spreads from each collision."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from probes.plots.axes import GRAY

from ..report.style import CONTACT, FREE, WALL
from .film import Film

_AFTERGLOW = 10
"""Pictures for which a collision stays visible."""


class Stage:
    """One figure whose artists move. Spatial systems are seen from the front and a little from above."""

    def __init__(self, film: Film) -> None:
        self.film = film
        self.view = np.eye(2) if len(film.box) == 2 else _VIEW
        self.figure = Figure(figsize=(5.2, 5.6))
        self.ax: Any = self.figure.add_axes((0.02, 0.02, 0.96, 0.88))
        corners = _corners(film.box) @ self.view.T
        pad = 0.02 * max(film.box)
        self.ax.set_xlim(corners[:, 0].min() - pad, corners[:, 0].max() + pad)
        self.ax.set_ylim(corners[:, 1].min() - pad, corners[:, 1].max() + pad)
        self.ax.set_aspect("equal")
        self.ax.axis("off")
        self.ax.add_collection(LineCollection(_frame(film, corners), colors=GRAY, linewidths=1.0))
        sizes = 2 * film.radii
        self.springs = self.ax.add_collection(LineCollection([], colors=GRAY, linewidths=0.8))
        self.discs = self.ax.add_collection(
            EllipseCollection(
                sizes, sizes, np.zeros_like(sizes), units="xy", offsets=np.zeros((len(sizes), 2)),
                transOffset=self.ax.transData, edgecolors="#6b7280", linewidths=0.6,
            )
        )  # fmt: skip
        self.rings = self.ax.scatter([], [], s=[], facecolors="none", linewidths=1.6, zorder=3)

    def show(self, picture: int) -> list[Any]:
        """Move everything to a picture."""
        film = self.film
        x = film.positions[picture]
        order = np.arange(len(x)) if x.shape[1] == 2 else np.argsort(-x[:, 1])  # what is far is drawn first
        glow = self._glow(picture)
        base = np.where(film.charges[:, None] > 0, to_rgb("#fecaca"), to_rgb("#e5e7eb"))
        base = np.where(film.charges[:, None] < 0, to_rgb("#bfdbfe"), base)
        color = base + glow[:, None] * (np.array(to_rgb("#ea783c")) - base)
        flat = x @ self.view.T
        self.discs.set(offsets=flat[order], facecolors=color[order])
        sizes = 2 * film.radii[order]
        self.discs.set(widths=sizes, heights=sizes)
        self.springs.set_segments(list(flat[film.edges]))
        self._spread_rings(picture)
        n_hits = int((film.hit_times <= film.times[picture]).sum())
        self.ax.set_title(f"{film.title}\ntime {film.times[picture]:.2f}, {n_hits} collisions", fontsize=10)
        return [self.discs, self.rings, self.springs]

    def _age(self, picture: int) -> np.ndarray:
        """Pictures since each collision, as a share of the afterglow; outside [0, 1) it is not to be seen."""
        interval = self.film.times[1] - self.film.times[0]
        return (self.film.times[picture] - self.film.hit_times) / (interval * _AFTERGLOW)

    def _glow(self, picture: int) -> np.ndarray:
        """How much each particle still shines from its last collision with another."""
        age, glow = self._age(picture), np.zeros(len(self.film.radii))
        fresh = (age >= 0) & (age < 1) & (self.film.hit_particles[:, 1] >= 0)
        for column in (0, 1):
            np.maximum.at(glow, self.film.hit_particles[fresh, column], 1 - age[fresh])
        return glow

    def _spread_rings(self, picture: int) -> None:
        age = self._age(picture)
        fresh = (age >= 0) & (age < 1)
        size = (6 + 26 * age[fresh] * (0.3 + 0.7 * self.film.hit_strengths[fresh])) ** 2
        wall = self.film.hit_particles[fresh, 1] < 0
        color = np.where(wall[:, None], to_rgb(WALL), to_rgb(CONTACT if not self.film.charges.any() else FREE))
        self.rings.set_offsets(self.film.hit_points[fresh] @ self.view.T)
        self.rings.set_sizes(size)
        self.rings.set_edgecolors(np.concatenate([color, 1 - age[fresh, None]], axis=1))


_TILT = np.radians(20)
_TURN = np.radians(25)
_VIEW = np.array(
    [
        [np.cos(_TURN), np.sin(_TURN), 0.0],
        [-np.sin(_TURN) * np.sin(_TILT), np.cos(_TURN) * np.sin(_TILT), np.cos(_TILT)],
    ]
)
"""Orthographic: the third axis up, the second away from the eye."""


def _corners(box: tuple[float, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*([0.0, side] for side in box), indexing="ij"), axis=-1).reshape(-1, len(box))


def _frame(film: Film, corners: np.ndarray) -> list[np.ndarray]:
    """Edges of the box: pairs of corners that differ in one coordinate."""
    where = _corners(film.box)
    n = len(where)
    return [corners[[a, b]] for a in range(n) for b in range(a) if (where[a] != where[b]).sum() == 1]
