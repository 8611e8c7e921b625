"""Neural relational inference: loc, vel and edges, one .npy each a split."""

import os
from pathlib import Path

import numpy as np

from simulators.state import Trajectories

from .exchange import Boundary, Box, Values, imported, written_aside


def export_nri(
    trajectories: Trajectories, folder: str | os.PathLike[str], *, split: str = "train", suffix: str = ""
) -> None:
    """Write ``loc_``, ``vel_`` and ``edges_{split}{suffix}.npy`` as the NRI loader reads them.

    Axes are (sample, time, dim, particle). Edges are the springs, else the products of charges, else zeros.

    Args:
        trajectories: the run; radii, masses, units and log are not part of this format.
        folder: where to; files of the same names are replaced.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        suffix: what the loader calls the data, such as ``"_springs5"``.

    References:
        Kipf and others 2018, "Neural relational inference for interacting systems", arXiv:1802.04687; layout of the
        ethanfetaya/NRI generator. Its loader expects edges 0 or 1 for springs, -1 or 1 for charges.
    """
    n_systems, _, n_particles, _ = trajectories.positions.shape
    if trajectories.edges is not None:
        edges = trajectories.edges
    elif trajectories.charges is not None:
        edges = trajectories.charges[:, :, None] * trajectories.charges[:, None, :]
    else:
        edges = np.zeros((n_systems, n_particles, n_particles))
    arrays = {
        "loc": trajectories.positions.swapaxes(2, 3),
        "vel": trajectories.velocities.swapaxes(2, 3),
        "edges": edges,
    }
    for name, array in arrays.items():
        with written_aside(Path(folder) / f"{name}_{split}{suffix}.npy") as aside, open(aside, "wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def import_nri(
    folder: str | os.PathLike[str],
    *,
    split: str = "train",
    suffix: str = "",
    frame_interval: float,
    radii: Values,
    masses: Values = 1.0,
    box: Box = None,
    boundary: Boundary = "open",
) -> Trajectories:
    """Read a split of an NRI data set.

    Edges with a diagonal are products of charges and become charges, of which only the common sign is lost; others
    become springs.

    Args:
        folder: with the three files.
        split: which.
        suffix: as the files are named.
        frame_interval: what the format lacks: time between frames.
        radii: likewise.
        masses: likewise.
        box: side lengths, None for the range of the positions.
        boundary: of the box.

    Returns:
        Trajectories with a recovered log.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: arrays that disagree.
    """
    loc, vel, edges = (
        np.load(Path(folder) / f"{name}_{split}{suffix}.npy", allow_pickle=False) for name in ("loc", "vel", "edges")
    )
    edges = np.array(edges, dtype=np.float64)
    own = np.diagonal(edges, axis1=1, axis2=2)
    are_charges = bool((own > 0).any())
    first = np.argmax(own, axis=1)  # a charge that is not zero
    rows = np.arange(len(edges))
    charges = edges[rows, first] / np.sqrt(np.where(own[rows, first] > 0, own[rows, first], 1.0))[:, None]
    return imported(
        np.swapaxes(loc, 2, 3),
        np.swapaxes(vel, 2, 3),
        format="nri",
        frame_interval=frame_interval,
        radii=radii,
        masses=masses,
        box=box,
        boundary=boundary,
        charges=charges if are_charges else None,
        edges=None if are_charges or not edges.any() else edges,
    )
