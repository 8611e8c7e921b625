"""Every structure by its name."""

from __future__ import annotations

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
