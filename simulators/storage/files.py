"""Filling buffers from many places of many files: what is in memory at once, the rest after a hint for all of it."""

import os
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

Place = tuple[int, memoryview]  # from which byte on to fill which buffer

_OPEN_FILES = 200  # well below the usual limit of 1024 a process
_HAS_PREADV = hasattr(os, "preadv")
_HAS_NOWAIT = _HAS_PREADV and hasattr(os, "RWF_NOWAIT")
_HAS_ADVICE = hasattr(os, "posix_fadvise")


class OpenFiles:
    """The files of a folder, opened when first read; the one not used for longest makes room. Safe among threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()  # nobody closes a file that another thread reads
        weakref.finalize(self, _close, self._descriptors)

    def fill(self, places: Mapping[str, Sequence[Place]]) -> None:
        """Fill each buffer with the bytes of a file from its place on.

        Bytes in the page cache are copied without a hint, whose call costs as much as a small read. The kernel is then
        told of all others before the first is read, so that the disk fetches them together.

        Args:
            places: for each file name, best in the order of the disk.

        Raises:
            OSError: the file cannot be read, or ends early.
        """
        with self._lock:
            late = {name: rest for name, reads in places.items() if (rest := _not_in_memory(self._open(name), reads))}
            if _HAS_ADVICE:
                for name, reads in late.items():
                    descriptor = self._open(name)
                    for start, buffer in reads:
                        os.posix_fadvise(descriptor, start, len(buffer), os.POSIX_FADV_WILLNEED)
            for name, reads in late.items():
                descriptor = self._open(name)
                for start, buffer in reads:
                    if _read_at(descriptor, buffer, start) != len(buffer):
                        raise OSError(f"{self._folder / name} ends early: it was truncated while open; simulate again")

    def _open(self, name: str) -> int:
        if name in self._descriptors:
            self._descriptors.move_to_end(name)
        else:
            if len(self._descriptors) >= _OPEN_FILES:
                os.close(self._descriptors.popitem(last=False)[1])
            self._descriptors[name] = os.open(self._folder / name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        return self._descriptors[name]


def _not_in_memory(descriptor: int, places: Sequence[Place]) -> Sequence[Place]:
    """Fill what needs no disk and return the rest; all, where the platform or the file system cannot tell."""
    if not _HAS_NOWAIT:
        return places
    rest, read, flag = [], os.preadv, os.RWF_NOWAIT
    for place in places:
        start, buffer = place
        try:
            done = read(descriptor, (buffer,), start, flag)
        except OSError:  # not there, or not supported; a real fault shows when the rest is read
            done = 0
        if done != len(buffer):
            rest.append(place)
    return rest


def _read_at(descriptor: int, buffer: memoryview, start: int) -> int:
    """Return how many bytes were read."""
    if _HAS_PREADV:
        return os.preadv(descriptor, (buffer,), start)
    os.lseek(descriptor, start, os.SEEK_SET)
    found = os.read(descriptor, len(buffer))
    buffer[: len(found)] = found
    return len(found)


def _close(descriptors: OrderedDict[str, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
