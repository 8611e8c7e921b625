# pyright: reportMissingImports=false
"""pymunk: one space of circles, stepped from Python."""

import numpy as np
import pymunk

from .gas import GRAVITY, RADIUS, TIME_STEP, box_side


class PymunkGas:
    """Elastic circles without friction between static segments; impulses instead of springs."""

    def __init__(self, positions: np.ndarray, velocities: np.ndarray, *, spatial_hash: bool) -> None:
        self.name = "pymunk, spatial hash" if spatial_hash else "pymunk, bounding boxes"
        self.space = pymunk.Space()
        self.space.gravity = (0.0, -GRAVITY)
        if spatial_hash:
            self.space.use_spatial_hash(2 * RADIUS, 10 * len(positions))
        self.bodies = []
        for position, velocity in zip(positions.tolist(), velocities.tolist(), strict=True):
            body = pymunk.Body(1.0, pymunk.moment_for_circle(1.0, 0.0, RADIUS))
            body.position, body.velocity = tuple(position), tuple(velocity)
            circle = pymunk.Circle(body, RADIUS)
            circle.elasticity, circle.friction, circle.collision_type = 1.0, 0.0, 1
            self.space.add(body, circle)
            self.bodies.append(body)
        side = box_side(len(positions))
        corners = [(0.0, 0.0), (side, 0.0), (side, side), (0.0, side)]
        for begin, end in zip(corners, corners[1:] + corners[:1], strict=True):
            wall = pymunk.Segment(self.space.static_body, begin, end, 0.0)
            wall.elasticity, wall.friction = 1.0, 0.0
            self.space.add(wall)

    def advance(self, steps: int) -> float:
        step = self.space.step
        for _ in range(steps):
            step(TIME_STEP)
        return float(steps * len(self.bodies))

    def count_contacts(self, n_steps: int) -> int:
        """Advance and count the pairs that begin to touch; the callback stays."""
        count = 0

        def begin(*_) -> None:
            nonlocal count
            count += 1

        self.space.on_collision(1, 1, begin=begin)
        self.advance(n_steps)
        return count

    def positions(self) -> np.ndarray:
        return np.array([[tuple(body.position) for body in self.bodies]])

    def velocities(self) -> np.ndarray:
        return np.array([[tuple(body.velocity) for body in self.bodies]])
