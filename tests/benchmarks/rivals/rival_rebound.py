# pyright: reportMissingImports=false
"""REBOUND: gravity by direct summation with its leapfrog."""

import numpy as np
import rebound


class ReboundBodies:
    """One cluster of softened bodies in three dimensions."""

    def __init__(
        self,
        positions: np.ndarray,
        velocities: np.ndarray,
        masses: np.ndarray,
        *,
        G: float,
        softening: float,
        time_step: float,
    ) -> None:
        self.name = "REBOUND leapfrog, basic gravity"
        self.simulation = rebound.Simulation()
        self.simulation.G, self.simulation.softening, self.simulation.dt = G, softening, time_step
        self.simulation.integrator, self.simulation.gravity = "leapfrog", "basic"
        for m, place, velocity in zip(masses.tolist(), positions.tolist(), velocities.tolist(), strict=True):
            self.simulation.add(m=m, **dict(zip(("x", "y", "z", "vx", "vy", "vz"), place + velocity, strict=True)))

    def advance(self, steps: int) -> float:
        self.simulation.steps(steps)
        return float(steps * self.simulation.N)

    def positions(self) -> np.ndarray:
        """Return (system, particle, 3)."""
        return np.array([[body.xyz for body in self.simulation.particles]])

    def velocities(self) -> np.ndarray:
        return np.array([[body.vxyz for body in self.simulation.particles]])
