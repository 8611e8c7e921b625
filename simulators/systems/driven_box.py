"""Soft spheres in a box that shakes or turns, described in the frame of the box."""

import math
from dataclasses import dataclass
from typing import ClassVar

from .soft_spheres import Drive, SoftSpheres
from .system import boundaries, require, take_numbers


@dataclass(frozen=True)
class VibratedBox(SoftSpheres):
    """Soft spheres in a box that moves up and down by ``amplitude * sin(2 pi frequency t)`` along the last axis.

    Positions and velocities are those an observer in the box sees: the walls stay, and every particle feels
    ``gravity + amplitude * w^2 sin(w t)`` upwards, ``w = 2 pi frequency``. At time 0 the box passes its middle
    upwards at speed ``amplitude * w``, so a start velocity v is ``v + amplitude * w`` in the laboratory.

    Attributes:
        amplitude: a length, zero or more. Default: with the default frequency the box accelerates at 4 times the
            default gravity, and throws what lies on its floor.
        frequency: full swings a time unit, above zero.

    Other fields as in ``SoftSpheres``. ``potential_energy`` leaves out the shaking, which does work.

    Raises:
        TypeError, ValueError: as ``SoftSpheres``, or a value outside the ranges above.

    Example:
        >>> round(VibratedBox().peak_acceleration, 2)
        3.95
    """

    amplitude: float = 0.025
    frequency: float = 2.0

    engines: ClassVar[tuple[str, ...]] = ("soft_contact", "soft_contact_warp")

    def __post_init__(self) -> None:
        super().__post_init__()
        take_numbers(self, floats=("amplitude", "frequency"))
        require(
            self,
            ("amplitude", "zero or more, and finite", 0 <= self.amplitude < math.inf),
            ("frequency", "positive and finite", 0 < self.frequency < math.inf),
        )

    @property
    def peak_acceleration(self) -> float:
        """Largest acceleration of the box."""
        return self.amplitude * (2 * math.pi * self.frequency) ** 2

    @property
    def drive(self) -> Drive:
        """How the box moves."""
        return Drive(amplitude=self.amplitude, angular_frequency=2 * math.pi * self.frequency)

    @property
    def conserved(self) -> tuple[str, ...]:
        """Nothing, unless the box stands still."""
        return super().conserved if self.amplitude == 0 else ()


@dataclass(frozen=True)
class RotatingBox(SoftSpheres):
    """Soft spheres in a box that turns about its centre at a constant rate, in the plane of the first two axes.

    Positions and velocities are those an observer in the box sees: the walls stay, gravity turns the other way, and
    every particle feels the centrifugal and Coriolis accelerations ``w^2 r - 2 w x v``, r from the axis through the
    centre. Gravity points as given at time 0. Spins are relative to the box as well.

    Attributes:
        rotation_rate: w in radians a time unit, positive from the first axis to the second. Default: a turn takes
            about six time units, so that the default grains slide and tumble.

    Other fields as in ``SoftSpheres``; no axis may be periodic within the plane of rotation. ``potential_energy`` is
    that of gravity as at time 0 and of the springs: not conserved.

    Raises:
        TypeError, ValueError: as ``SoftSpheres``, a rate that is not finite, or a periodic axis in the plane.

    References:
        The step solves Coriolis' force for the mean velocity of the step before and after, as Boris 1970 does for
        charges in a magnetic field; second order and reversible.

    Example:
        >>> RotatingBox().conserved
        ()
    """

    rotation_rate: float = 1.0

    engines: ClassVar[tuple[str, ...]] = ("soft_contact", "soft_contact_warp")

    def __post_init__(self) -> None:
        super().__post_init__()
        take_numbers(self, floats=("rotation_rate",))
        require(self, ("rotation_rate", "finite", math.isfinite(self.rotation_rate)))
        if "periodic" in boundaries(self)[:2]:
            raise ValueError(
                f"boundary must be 'walls' or 'open' along the first two axes, which turn, got {self.boundary!r}"
            )

    @property
    def drive(self) -> Drive:
        """How the box moves."""
        return Drive(rotation=self.rotation_rate)

    @property
    def conserved(self) -> tuple[str, ...]:
        """Nothing, unless the box stands still."""
        return super().conserved if self.rotation_rate == 0 else ()
