"""What every system offers, and the checks that their specifications share."""

import math
import operator
from collections.abc import Iterable
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64

from simulators.state import ParticleState

BOUNDARIES = ("walls", "periodic", "open")


@runtime_checkable
class Boxed(Protocol):
    """Anything in a box: what the geometry needs to know of a system."""

    @property
    def dim(self) -> int: ...  # noqa: D102 (read-only: the dataclasses are frozen)

    @property
    def box(self) -> tuple[float, ...]: ...  # noqa: D102

    @property
    def boundary(self) -> str | tuple[str, ...]: ...  # noqa: D102


@runtime_checkable
class System(Boxed, Protocol):
    """A law of motion with everything that is fixed about it. A frozen dataclass; a new one takes one file.

    Attributes:
        engines: names of the engines that can run it, see ``simulate``.
        n_particles: particles a system.
        dim: 2 or 3.
        box: side lengths; for open axes the size of the region in which particles start.
        boundary: ``"walls"``, ``"periodic"`` or ``"open"``, for all axes or one for each. Positions along periodic axes
            are stored in [0, length).
    """

    engines: ClassVar[tuple[str, ...]]

    @property
    def n_particles(self) -> int: ...  # noqa: D102

    @property
    def preferred_engine(self) -> str:
        """The engine that ``engine="auto"`` takes."""
        ...

    @property
    def conserved(self) -> tuple[str, ...]:
        """Which of ``energy``, ``momentum`` and ``angular_momentum`` the dynamics keep, with the present settings."""
        ...

    def draw_state(self, n_systems: int, *, rng: np.random.Generator) -> ParticleState:
        """Draw start states."""
        ...

    def check_state(self, state: ParticleState) -> None:
        """Raise ValueError for a given start state that the system cannot have."""
        ...

    def potential_energy(self, state: ParticleState) -> Float64[np.ndarray, " system"]:
        """Return the potential energy of each system."""
        ...


def kinetic_energy(state: ParticleState) -> Float64[np.ndarray, " system"]:
    """Return the kinetic energy of each system, of flight and, where discs turn, of rotation (solid bodies)."""
    energy = 0.5 * (state.masses[..., None] * state.velocities**2).sum(axis=(1, 2))
    if state.angular_velocities is not None:
        inertia = moment_of_inertia(state.radii, state.masses, state.positions.shape[-1])
        energy = energy + 0.5 * (inertia[..., None] * state.angular_velocities**2).sum(axis=(1, 2))
    return energy


def moment_of_inertia(
    radii: Float64[np.ndarray, "system particle"], masses: Float64[np.ndarray, "system particle"], dim: int
) -> Float64[np.ndarray, "system particle"]:
    """Return the moment of a solid disc, m r^2 / 2, or of a solid sphere, 2 m r^2 / 5."""
    return (0.5 if dim == 2 else 0.4) * masses * radii**2


def volume(radius: Any, dim: int) -> Any:
    """Return the area of a disc or the volume of a sphere; ``radius`` is a number or an array."""
    return math.pi * radius**2 if dim == 2 else 4 / 3 * math.pi * radius**3


def boundaries(system: Boxed) -> tuple[str, ...]:
    """Return the boundary of each axis."""
    return (system.boundary,) * system.dim if isinstance(system.boundary, str) else tuple(system.boundary)


def periodic_axes(system: Boxed) -> Bool[np.ndarray, " dim"]:
    """Tell which axes are periodic."""
    return np.array([kind == "periodic" for kind in boundaries(system)])


def minimum_image(separation: Float64[np.ndarray, "... dim"], system: Boxed) -> Float64[np.ndarray, "... dim"]:
    """Return separations between nearest images: along periodic axes, in [-length / 2, length / 2]."""
    lengths = np.where(periodic_axes(system), np.array(system.box), np.inf)
    whole = np.round(separation / lengths)  # zero along the other axes
    return separation - whole * np.where(np.isfinite(lengths), lengths, 0.0)


def take_numbers(
    system: Any,
    *,
    integers: Iterable[str] = (),
    floats: Iterable[str] = (),
    vectors: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> None:
    """Replace fields of a specification under construction by plain int, float and tuples of float.

    ``optional`` are floats that may be None.

    Raises:
        TypeError: a field is no number (a bool or a string is none), or a vector is not a sequence of numbers.
    """
    for name in integers:
        object.__setattr__(system, name, _integer(name, getattr(system, name)))
    for name in (*floats, *(name for name in optional if getattr(system, name) is not None)):
        object.__setattr__(system, name, _number(name, getattr(system, name)))
    for name in vectors:
        value = getattr(system, name)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(f"{name} must be a sequence of numbers, one an axis, got {value!r}")
        object.__setattr__(system, name, tuple(_number(f"{name}[{k}]", entry) for k, entry in enumerate(value)))


def require(system: Any, *conditions: tuple[str, str, bool]) -> None:
    """Raise ValueError for the first (field, what is expected, whether it holds) that does not hold."""
    for name, expected, holds in conditions:
        if not holds:
            raise ValueError(f"{name} must be {expected}, got {getattr(system, name)!r}")


def require_box(system: Any, *, allowed: tuple[str, ...] = BOUNDARIES, vectors: tuple[str, ...] = ("box",)) -> None:
    """Check ``dim``, the vectors with one entry an axis, and ``boundary``; a list of boundaries becomes a tuple."""
    require(system, ("dim", "2 or 3", system.dim in (2, 3)))
    for name in vectors:
        if len(getattr(system, name)) != system.dim:
            raise ValueError(
                f"{name} must have {system.dim} entries for dim={system.dim}, got {getattr(system, name)!r}"
            )
    require(system, ("box", "positive and finite in every entry", all(0 < side < math.inf for side in system.box)))
    choices = " or ".join(repr(kind) for kind in allowed)
    given = system.boundary
    if not isinstance(given, str):
        if not isinstance(given, Iterable):
            raise TypeError(f"boundary must be {choices}, or one of them for each axis, got {given!r}")
        object.__setattr__(system, "boundary", tuple(given))
    if isinstance(given, str) and given not in allowed:
        raise ValueError(f"boundary must be {choices}, or one of them for each axis, got {given!r}")
    kinds = boundaries(system)
    if len(kinds) != system.dim or any(kind not in allowed for kind in kinds):
        raise ValueError(f"boundary must be {choices}, or one of them for each of {system.dim} axes, got {given!r}")


def require_shape(system: System, state: ParticleState) -> None:
    """Refuse a state of another number of particles or dimensions."""
    if state.positions.shape[1:] != (system.n_particles, system.dim):
        raise ValueError(
            f"initial must have n_particles={system.n_particles} and dim={system.dim}, got positions of shape "
            f"{state.positions.shape} (system, particle, dim)"
        )


def refuse_outside(system: Boxed, state: ParticleState, outside: Bool[np.ndarray, "system particle"]) -> None:
    """Refuse the first particle that is outside the box, whatever the caller means by that."""
    if outside.any():
        which, i = (int(index) for index in np.argwhere(outside)[0])
        raise ValueError(
            f"initial: system {which}, particle {i} is outside the box {system.box}: centre "
            f"{state.positions[which, i].tolist()}, radius {state.radii[which, i]:.6g}; move it inside"
        )


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
