"""Soft discs and spheres: overlaps push back with a spring and a dashpot, with or without friction."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from simulators.state import ParticleState

from .spheres import draw_spheres, packing_fraction, refuse_overlaps, require_room
from .system import (
    boundaries,
    minimum_image,
    refuse_outside,
    require,
    require_box,
    require_shape,
    take_numbers,
    volume,
)

_STEPS, _FEWEST_STEPS = 50, 20  # in a contact of two mean-size particles; the lightest pair gets half as many
_DEEPEST_START = 0.5  # share of the smaller radius by which particles may overlap in a given start
# duration of an elastic Hertz contact, t_c (k^2 v / mu^2)^(1/5) = 3.218: Hertz's integral in closed form
_HERTZ_TIME = 0.8 * math.sqrt(math.pi) * math.gamma(0.4) / math.gamma(0.9) * 1.25**0.4


class Drive(NamedTuple):
    """How the box moves, as its own frame feels it; all zero at rest."""

    amplitude: float = 0.0  # of a vertical oscillation, a length
    angular_frequency: float = 0.0  # of that oscillation
    rotation: float = 0.0  # radians a time unit, in the plane of the first two axes


@dataclass(frozen=True)
class SoftSpheres:
    """Discs (dim 2) or spheres (dim 3) that overlap a little and push each other apart, under uniform gravity.

    Two particles with overlap ``d = r_i + r_j - |x_i - x_j| > 0`` and speed of approach ``d'`` feel along the line of
    centres ``F = K d + 2 z sqrt(mu K) d'``, ``mu = m_i m_j / (m_i + m_j)`` (``mu = m_i`` at a wall), with ``K = k``
    (linear) or ``K = k sqrt(d)`` (Hertz). The damping ratio z follows from the restitution e alone, so every pair
    has the same e at every speed:

        linear: z = -ln e / sqrt(pi^2 + ln^2 e);   Hertz: z = sqrt(5) / 2 times that.

    The relation takes a contact to end where the overlap ends. Just before, the dashpot pulls. ``tension=False``
    cuts that pull, as grains do not stick; they then part faster than e says (0.55 for 0.5, 0.902 for 0.9, linear).

    With ``friction`` > 0 particles turn, and a tangential spring begins to stretch with each contact: the force is
    ``K_t s + 2 z sqrt(mu_t K_t) s'`` against the slip s of the surfaces, up to ``friction`` times the normal force,
    beyond which the spring slides along. ``K_t / K = mu_t / mu`` = 1/3 for solid discs, 2/7 for solid spheres, so
    that slip and overlap swing in step. There is no rolling friction: a body that rolls on a level floor rolls on.

    Attributes:
        n_particles: particles a system.
        dim: 2 or 3; box and gravity need as many entries.
        radius: mean radius.
        radius_spread: radii are uniform in ``radius * (1 ± radius_spread)``, in [0, 1).
        density: mass over area (dim 2) or volume (dim 3); masses follow from radii.
        gravity: acceleration, length over time squared.
        restitution: e in (0, 1], 1 is elastic; walls have the same.
        box: side lengths; walls at 0 and at each length.
        boundary: ``"walls"``, ``"periodic"`` or ``"open"``, for all axes or one for each.
        velocity_scale: standard deviation of each component of a drawn velocity.
        interacting: False gives ghosts, which pass through each other but feel the walls: the control. Their log
            holds every overlap with the impulse ``(1 + e) mu v_n`` that hard particles would exchange at its begin.
        contact: ``"linear"`` or ``"hertz"``.
        contact_time: how long two mean-size particles touch: linear, at any speed; Hertz, elastic and meeting at
            ``reference_speed``. Sets the stiffness. The deepest overlap is about ``speed * contact_time / pi``; our
            default makes it 4 % of the default radius at the default ``reference_speed``.
        friction: Coulomb's coefficient, 0 for none.
        tension: whether the dashpot may pull, see above.
        time_step: largest step; None takes ``contact_time / 50``. At most ``contact_time / 20``. The lightest pair
            that can be drawn gets at least half as many steps a contact.

    Raises:
        TypeError: a field that is no number.
        ValueError: a value outside the ranges above, or particles that cannot fit into the box.

    References:
        Cundall and Strack 1979, doi:10.1680/geot.1979.29.1.47 (tangential spring); Tsuji, Tanaka and Ishida 1992,
        doi:10.1016/0032-5910(92)88030-L (Hertz damping); Antypov and Elliott 2011, doi:10.1209/0295-5075/94/50004
        (its closed form); Silbert et al. 2001, doi:10.1103/PhysRevE.64.051302 (2/7).

    Example:
        >>> round(SoftSpheres().step, 6)
        8e-05
    """

    n_particles: int = 10
    dim: int = 2
    radius: float = 0.06
    radius_spread: float = 0.3
    density: float = 1.0
    gravity: tuple[float, ...] = (0.0, -1.0)
    restitution: float = 1.0
    box: tuple[float, ...] = (1.0, 1.0)
    boundary: str | tuple[str, ...] = "walls"
    velocity_scale: float = 0.7
    interacting: bool = True
    contact: Literal["linear", "hertz"] = "linear"
    contact_time: float = 4e-3
    friction: float = 0.0
    tension: bool = True
    time_step: float | None = None

    engines: ClassVar[tuple[str, ...]] = ("soft_contact", "soft_contact_warp")

    def __post_init__(self) -> None:
        floats = ("radius", "radius_spread", "density", "restitution", "velocity_scale", "contact_time", "friction")
        take_numbers(
            self, integers=("n_particles", "dim"), floats=floats, vectors=("gravity", "box"), optional=("time_step",)
        )
        require(
            self,
            ("n_particles", "at least 1", self.n_particles >= 1),
            ("radius", "positive and finite", 0 < self.radius < math.inf),
            ("radius_spread", "in [0, 1)", 0 <= self.radius_spread < 1),
            ("density", "positive and finite", 0 < self.density < math.inf),
            ("restitution", "in (0, 1]", 0 < self.restitution <= 1),
            ("velocity_scale", "zero or more, and finite", 0 <= self.velocity_scale < math.inf),
            ("contact_time", "positive and finite", 0 < self.contact_time < math.inf),
            ("friction", "zero or more, and finite", 0 <= self.friction < math.inf),
            ("gravity", "finite", all(math.isfinite(g) for g in self.gravity)),
            ("interacting", "True or False", isinstance(self.interacting, bool)),
            ("tension", "True or False", isinstance(self.tension, bool)),
            ("contact", "'linear' or 'hertz'", self.contact in ("linear", "hertz")),
        )
        require_box(self, vectors=("gravity", "box"))
        require_room(self)
        self._check_step()

    def _check_step(self) -> None:
        """Refuse a law whose stiffness is not defined, and a step too long for it."""
        if self.contact == "hertz" and self.reference_speed == 0:
            raise ValueError(
                "contact='hertz' needs velocity_scale or gravity above 0: contact_time holds at the speed they give"
            )
        largest = self._longest_step(_FEWEST_STEPS)
        if self.time_step is not None and not 0 < self.time_step <= largest * (1 + 1e-12):
            raise ValueError(
                f"time_step must be above 0 and at most {largest:.6g} ({_FEWEST_STEPS} steps in a contact_time of "
                f"{self.contact_time:g}, half as many for the lightest pair), got {self.time_step!r}"
            )

    def _longest_step(self, steps: int) -> float:
        """Return the step that gives a mean contact this many, and the contact of the lightest pair half as many."""
        lightest = (1 - self.radius_spread) ** (self.dim / 2)  # t_c goes with the root of the mass
        return self.contact_time / steps * min(1.0, 2 * lightest)

    @property
    def step(self) -> float:
        """The largest time step that a run takes."""
        return self._longest_step(_STEPS) if self.time_step is None else self.time_step

    @property
    def reference_speed(self) -> float:
        """Speed of a typical hard meeting: the mean of a gas at ``velocity_scale``, plus a fall through the box."""
        fall = 2 * sum(abs(g) * side for g, side in zip(self.gravity, self.box, strict=True))
        return math.sqrt(math.pi * self.velocity_scale**2 + fall)

    @property
    def damping_ratio(self) -> float:
        """Share z of critical damping that gives ``restitution``."""
        log = math.log(self.restitution)
        ratio = -log / math.sqrt(math.pi**2 + log**2)
        return ratio if self.contact == "linear" else math.sqrt(5) / 2 * ratio

    @property
    def stiffness(self) -> float:
        """Spring constant k: force over overlap (linear), or over overlap to the power 3/2 (Hertz)."""
        mu = self._mean_mass / 2
        if self.contact == "linear":
            return mu * (math.pi / self.contact_time) ** 2 / (1 - self.damping_ratio**2)
        return mu * math.sqrt((_HERTZ_TIME / self.contact_time) ** 5 / self.reference_speed)

    @property
    def damping(self) -> float:
        """Force over speed in the contact of two mean-size particles (Hertz: over speed and overlap^(1/4))."""
        return 2 * self.damping_ratio * math.sqrt(self.stiffness * self._mean_mass / 2)

    @property
    def _mean_mass(self) -> float:
        """Mass of a particle of the mean radius."""
        return float(self.density * volume(self.radius, self.dim))

    @property
    def drive(self) -> Drive:
        """How the box moves: not at all."""
        return Drive()

    @property
    def packing_fraction(self) -> float:
        """Expected share of the box that particles fill."""
        return packing_fraction(self)

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes."""
        return "soft_contact"

    @property
    def conserved(self) -> tuple[str, ...]:
        """Energy where nothing damps or slips, momentum and angular momentum where nothing from outside acts."""
        kinds = boundaries(self)
        uphill = any(g != 0 and kind == "periodic" for g, kind in zip(self.gravity, kinds, strict=True))
        weightless = not any(self.gravity)
        holds = {
            "energy": self.restitution == 1 and self.friction == 0 and not uphill,
            "momentum": weightless and "walls" not in kinds,
            "angular_momentum": weightless and set(kinds) == {"open"},
        }
        return tuple(name for name, held in holds.items() if held)

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return the energy in the field of gravity, zero at the origin, and in the springs along the normals.

        What friction stores in tangential springs is no function of the state and left out.
        """
        energy = -(state.masses * (state.positions @ np.array(self.gravity))).sum(axis=1)
        for axis in np.flatnonzero([kind == "walls" for kind in boundaries(self)]):
            x = state.positions[..., axis]
            energy += self._spring_energy(state.radii - x) + self._spring_energy(state.radii - (self.box[axis] - x))
        if self.interacting:
            for i in range(state.positions.shape[1] - 1):
                energy += self._spring_energy(self._overlaps(state, i))
        return energy

    def _spring_energy(self, overlap: Float64[np.ndarray, "system particle"]) -> Float64[np.ndarray, " system"]:
        """Return the energy of normal springs, summed over the particles of each system."""
        d = np.maximum(overlap, 0.0)
        energy = d**2 / 2 if self.contact == "linear" else d**2.5 * 0.4
        return self.stiffness * energy.sum(axis=1)

    def _overlaps(self, state: ParticleState, i: int) -> Float64[np.ndarray, "system others"]:
        """Return the overlaps of particle i with those after it; negative where they are apart."""
        separation = minimum_image(state.positions[:, i + 1 :] - state.positions[:, i : i + 1], self)
        return state.radii[:, i + 1 :] + state.radii[:, i : i + 1] - np.sqrt((separation**2).sum(axis=-1))

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Draw start states: radii, then places without overlaps, then normal velocities; nothing turns.

        The draws are those of ``HardSpheres``, so that equal generators give equal starts.

        Args:
            n_systems: how many, at least 1.
            rng: the source of all draws.

        Returns:
            States of ``n_systems`` systems.

        Raises:
            ValueError: no overlap-free placement was found; the text names the packing fraction.
        """
        start = draw_spheres(self, n_systems, rng=rng)
        if self.friction == 0:
            return start
        return replace(start, angular_velocities=np.zeros((*start.radii.shape, 1 if self.dim == 2 else 3)))

    def check_state(self, state: ParticleState) -> None:
        """Refuse a given start state that this system cannot have.

        Overlaps up to half of the smaller radius pass; ghosts may overlap as they like. Without
        ``angular_velocities`` nothing turns at the start.

        Args:
            state: start states of any number of systems.

        Raises:
            ValueError: another number of particles or dimensions, a particle outside the box, an overlap that is too
                deep, turning particles without friction, particles so light that a contact lasts less than 10 steps.

        Cost:
            All pairs up to 64 particles a system, beyond that a tree of neighbours.
        """
        require_shape(self, state)
        if state.angular_velocities is not None and self.friction == 0:
            raise ValueError("initial has angular_velocities, which need friction above 0; leave them out")
        walled = np.array([kind == "walls" for kind in boundaries(self)])
        depth = np.maximum(-state.positions, state.positions - np.array(self.box)) + state.radii[..., None]
        too_deep = (depth > _DEEPEST_START * state.radii[..., None]) & walled
        refuse_outside(self, state, np.any(too_deep, axis=-1))
        self._check_masses(state)
        if self.interacting:
            refuse_overlaps(state, self, lambda r_i, r_j: _DEEPEST_START * np.minimum(r_i, r_j))

    def _check_masses(self, state: ParticleState) -> None:
        """Refuse masses so light that the step does not resolve their contacts."""
        shortest = self.contact_time * np.sqrt(state.masses / self._mean_mass)
        if (shortest * (1 + 1e-9) < _FEWEST_STEPS / 2 * self.step).any():
            system, i = (int(index) for index in np.argwhere(shortest == shortest.min())[0])
            raise ValueError(
                f"initial: system {system}, particle {i} of mass {state.masses[system, i]:.6g} is too light: contacts "
                f"of {shortest[system, i]:.3g} need time_step at most {shortest[system, i] / (_FEWEST_STEPS / 2):.3g}, "
                f"got {self.step:.3g}; lower time_step or raise contact_time"
            )
