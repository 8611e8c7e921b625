"""What every Warp engine needs of its host: a device, and the log brought home in the order of ``CollisionLog``."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, no_type_check

import numpy as np

try:
    import warp as wp
except ImportError as error:
    raise ImportError(
        f"Warp engines need NVIDIA Warp ({error}); install it with: pip install 'emergence-lab[gpu]'"
    ) from error

ROWS_AT_ONCE = 1 << 22  # log rows buffered a round, shared by the systems: 300 MB
_MOST_ROWS = 4096  # a system and round: bounds how long a launch takes where systems are few
_DEVICE_BYTES = 1 << 31  # of frames and state on the device at once, beside the log
_MOST_KEPT = 1 << 26  # log rows that stay on the device: 4 GB
_MOST_SYSTEMS = 1 << 17  # more threads than any present GPU runs at once
THREADS_A_BLOCK = 32  # one warp, so that a few thousand systems already spread over all multiprocessors

wp.set_module_options({"enable_backward": False})


def systems_at_once(bytes_a_system: int) -> int:
    """Return how many systems to hold on the device together."""
    return max(1, min(_MOST_SYSTEMS, _DEVICE_BYTES // bytes_a_system))


def row_capacity(rows_at_once: int, n_active: int) -> int:
    """Return how many log rows each active system gets a round."""
    return max(1, min(rows_at_once // n_active, _MOST_ROWS))


def empty_columns(rows: Any, columns: dict[str, Any], capacity: int, n_active: int) -> Any:
    """Fill a record of log buffers with columns of these types, (row, active), none of whose rows is filled."""
    for name, kind in columns.items():
        setattr(rows, name, wp.empty((capacity, n_active), dtype=kind))
    rows.filled = wp.zeros(n_active, dtype=wp.int32)
    return rows


def empty_frames(n_systems: int, n_frames: int, n_particles: int, width: int) -> Any:
    """Return room for ``width`` numbers of each particle in each frame."""
    number: Any = wp.float64  # the stub of ``empty`` lacks it
    return wp.empty((n_systems, n_frames, n_particles, width), dtype=number)


def three(values: Iterable[float]) -> tuple[float, ...]:
    """Return a vector with a third component, zero in two dimensions."""
    return (*map(float, values), 0.0)[:3]


def flags(values: Iterable[Any]) -> Any:
    """Return three flags, the third False in two dimensions."""
    return wp.vec3i(*(*map(int, values), 0)[:3])


def on_device(array: np.ndarray) -> Any:
    """Return (system, particle) numbers or (system, particle, dim) vectors as a device array (particle, system)."""
    if array.ndim == 2:
        return wp.array(np.ascontiguousarray(array.T), dtype=wp.float64)
    vectors = np.zeros((array.shape[1], array.shape[0], 3))
    vectors[..., : array.shape[2]] = array.swapaxes(0, 1)
    return wp.array(vectors, dtype=wp.vec3d)


@contextmanager
def quiet_device(name: str) -> Iterator[Any]:
    """Give the Warp device, with Warp's banner and compile messages silenced and its log level as it was afterwards.

    Raises:
        ValueError: ``"cuda"`` where Warp finds no CUDA device.
    """
    with wp.ScopedLogLevel(wp.LOG_WARNING):
        _start()
        if name == "cuda" and not wp.is_cuda_available():
            raise ValueError(
                "device='cuda' but Warp finds no CUDA device or driver on this machine (see nvidia-smi); "
                "use device='cpu'"
            )
        with wp.ScopedDevice(name) as device:
            yield device


@cache
def _start() -> None:
    """Start Warp, without the line that its native part writes to the error stream where there is no GPU."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        wp.init()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@wp.kernel
@no_type_check
def _pack(
    column: wp.array2d[Any],
    filled: wp.array[wp.int32],
    first: wp.array[wp.int32],
    flat: wp.array[Any],
):
    """Copy the filled rows of one column to their places in the whole log."""
    row, a = wp.tid()
    if row < filled[a]:
        flat[first[a] + row] = column[row, a]


@dataclass
class DeviceLog:
    """The log of some systems while they run: buffers of the last rounds on the device, of earlier ones brought home.

    Attributes:
        names: the columns, fields of the buffers.
        n_systems: how many systems.
        rounds: the active systems of each round and their buffers.
        parts: columns brought home.
    """

    names: tuple[str, ...]
    n_systems: int
    rounds: list[tuple[np.ndarray, Any]] = field(default_factory=list)
    parts: list[dict[str, np.ndarray]] = field(default_factory=list)

    def add(self, active: np.ndarray, rows: Any) -> None:
        """Keep the buffers of a round, which may fill until the next one comes."""
        if sum(kept.filled.size * kept.time.shape[0] for _, kept in self.rounds) > _MOST_KEPT:
            self._bring_home()
        self.rounds.append((active, rows))

    def columns(self) -> dict[str, np.ndarray]:
        """Return each column as one flat array, ordered by system and then as it was logged."""
        self._bring_home()
        if len(self.parts) == 1:
            return self.parts[0]
        whole = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        order = np.argsort(whole["system"], kind="stable")
        return {name: column[order] for name, column in whole.items()}

    def _bring_home(self) -> None:
        """Put the rows of all rounds in order on the device, to spare the host a sort, and copy them to it."""
        total = np.zeros(self.n_systems, dtype=np.int64)
        for active, rows in self.rounds:
            total[active] += rows.filled.numpy()
        place = np.cumsum(total) - total
        n_rows = int(total.sum())
        flat = {name: wp.empty(n_rows, dtype=getattr(self.rounds[0][1], name).dtype) for name in self.names}
        for active, rows in self.rounds:
            first = wp.array(place[active], dtype=wp.int32)
            place[active] += rows.filled.numpy()
            for name, whole in flat.items():
                column = getattr(rows, name)
                wp.launch(_pack, dim=column.shape, inputs=[column, rows.filled, first], outputs=[whole])
        self.rounds.clear()
        system = np.repeat(np.arange(self.n_systems, dtype=np.int32), total)
        self.parts.append({"system": system, **{name: whole.numpy() for name, whole in flat.items()}})
