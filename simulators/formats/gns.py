"""Graph network simulators: one .npz of pickled (positions, particle_type) a split, and metadata.json."""

import json
import os
import pickle
from pathlib import Path

import numpy as np

from simulators.state import Trajectories
from simulators.systems.system import boundaries

from .exchange import Boundary, Values, imported, written_aside

_RIGID = 0  # the particle type that the published data sets give to solids


def export_gns(
    trajectories: Trajectories,
    folder: str | os.PathLike[str],
    *,
    split: str = "train",
    connectivity_radius: float,
    with_radii: bool = False,
) -> None:
    """Write a split as the graph network simulators read it.

    Each trajectory is an object array: positions (frame, particle, dim) in float32, particle types (particle,), all 0.
    ``metadata.json`` has exactly the keys of the published sets. Its ``vel`` and ``acc`` are first and second
    differences of the stored positions, not divided by ``dt``, over all frames, particles and trajectories of this
    split, so export ``train`` last, or alone.

    Args:
        trajectories: the run; its velocities, masses and log are not part of this format.
        folder: where to; ``{split}.npz`` and ``metadata.json`` are replaced.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        connectivity_radius: the distance up to which particles are neighbours in the graph.
        with_radii: store radii as the third entry of each trajectory, which the loader takes as material property and
            feeds to the model.

    Raises:
        ValueError: fewer than three frames (there is no acceleration), or a periodic axis, which this format lacks.

    References:
        Sanchez-Gonzalez and others 2020, "Learning to simulate complex physics with graph networks", arXiv:2002.09405;
        the .npz layout is that of the geoelements/gns loader. ``sequence_length`` is the number of frames, as its
        rollout expects; the older TFRecord sets count one less.
    """
    positions = trajectories.positions.astype(np.float32)
    if positions.shape[1] < 3:
        raise ValueError(f"GNS needs at least 3 frames for an acceleration, got {positions.shape[1]}")
    if "periodic" in boundaries(trajectories.system):
        raise ValueError("GNS has no periodic boundary: positions would seem to jump; export a run with walls")
    particle_type = np.full(positions.shape[2], _RIGID, dtype=np.int64)
    entries = {}
    for number, frames in enumerate(positions):
        parts = [frames, particle_type] + ([trajectories.radii[number].astype(np.float32)] if with_radii else [])
        entry = np.empty(len(parts), dtype=object)
        entry[:] = parts
        entries[f"simulation_{number:06d}"] = entry
    folder = Path(folder)
    with written_aside(folder / f"{split}.npz") as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **entries)
    with written_aside(folder / "metadata.json") as aside:
        aside.write_text(json.dumps(_metadata(trajectories, positions, connectivity_radius)), encoding="utf-8")


def import_gns(
    folder: str | os.PathLike[str],
    *,
    split: str = "train",
    radii: Values | None = None,
    masses: Values = 1.0,
    boundary: Boundary = "walls",
    allow_pickle: bool = False,
) -> Trajectories:
    """Read a split of a graph network simulator data set; velocities are central differences.

    Args:
        folder: with ``{split}.npz`` and ``metadata.json``.
        split: which.
        radii: what the format lacks; None to take the material property that ``export_gns`` wrote.
        masses: likewise; equal where nothing is known.
        boundary: of ``bounds``, whose lower corner becomes the origin.
        allow_pickle: the format pickles its arrays, and unpickling runs whatever code the file holds. True only for
            a file that you trust.

    Returns:
        Trajectories with a recovered log.

    Raises:
        ValueError: ``allow_pickle`` not given, trajectories of different size, no radii.
    """
    if not allow_pickle:
        raise ValueError(
            "GNS files hold pickled arrays, and reading them runs whatever code is inside; pass allow_pickle=True if "
            "you trust the file"
        )
    folder = Path(folder)
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    try:
        with np.load(folder / f"{split}.npz", allow_pickle=True) as file:
            entries = list(file["gns_data"]) if "gns_data" in file else [file[name] for name in file.files]
    except pickle.UnpicklingError as error:
        raise ValueError(f"{folder / split}.npz cannot be read: {error}") from error
    shapes = {np.shape(entry[0]) for entry in entries}
    if len(shapes) != 1:
        raise ValueError(f"all trajectories must have one shape, got {sorted(shapes)}; import them one by one")
    if radii is None:
        if any(len(entry) < 3 for entry in entries):
            raise ValueError("the file has no radii; pass radii=")
        radii = np.array([np.broadcast_to(np.ravel(entry[2]), shapes.copy().pop()[1]) for entry in entries])
    low, high = np.array(metadata["bounds"], dtype=np.float64).T
    return imported(
        np.array([entry[0] for entry in entries], dtype=np.float64) - low,
        None,
        format="gns",
        frame_interval=metadata["dt"],
        radii=radii,
        masses=masses,
        box=(high - low).tolist(),
        boundary=boundary,
    )


def _metadata(run: Trajectories, positions: np.ndarray, connectivity_radius: float) -> dict[str, object]:
    """Return the metadata; statistics in float64."""
    velocities = np.diff(positions.astype(np.float64), axis=1)
    accelerations = np.diff(velocities, axis=1)
    over = (0, 1, 2)
    walled = [kind == "walls" for kind in boundaries(run.system)]
    low = np.where(walled, 0.0, positions.min(axis=over))
    high = np.where(walled, run.system.box, positions.max(axis=over))
    return {
        "bounds": np.stack([low, high], axis=1).tolist(),
        "sequence_length": positions.shape[1],
        "default_connectivity_radius": connectivity_radius,
        "dim": positions.shape[3],
        "dt": run.frame_interval,
        "vel_mean": velocities.mean(axis=over).tolist(),
        "vel_std": velocities.std(axis=over).tolist(),
        "acc_mean": accelerations.mean(axis=over).tolist(),
        "acc_std": accelerations.std(axis=over).tolist(),
    }
