"""Every structure by its name."""

from __future__ import annotations

from ..settings import StructureName
from .low_rank import LowRankDiagonal
from .orthogonal import Orthogonal
from .patterns import Antisymmetric, BlockDiagonal, Circulant, Masked
from .shaping import Structure
from .spectral import Spectral

STRUCTURES: dict[str, Structure] = {
    "orthogonal": Orthogonal(),
    "spectral": Spectral(),
    "antisymmetric": Antisymmetric(),
    "low_rank_diagonal": LowRankDiagonal(),
    "block_diagonal": BlockDiagonal(),
    "circulant": Circulant(),
    "masked": Masked(),
}
"""The structures with their default settings. Which one the method uses is not known; this list is ours."""


def named_structure(structure: Structure | StructureName) -> Structure:
    """Accept a structure, or the name of one with its defaults.

    Raises:
        ValueError: unknown name.
        TypeError: neither a name nor a structure.
    """
    if isinstance(structure, str):
        if structure not in STRUCTURES:
            raise ValueError(f"structure must be one of {', '.join(STRUCTURES)} or settings, got {structure!r}")
        return STRUCTURES[structure]
    if not isinstance(structure, Structure):
        raise TypeError(f"structure must be a name or have a method shaping, got {type(structure).__name__}")
    return structure
