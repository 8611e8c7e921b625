"""What an attention head attends to, in the terms of the physics: contacts, distances, approach, any other quantity.

Every function takes plain arrays, so patterns may come from any model: ``pattern[scene, head, query, key]`` with rows
that sum to one over the keys. Attention of a particle to itself is left out throughout. Scenes cut from one
simulated box are not independent, so errors treat whole ``groups`` of scenes as the independent units.
"""

from .approach import ApproachPreference, approach_preference
from .contact import AveragePrecision, PermutationNull, contact_average_precision, permutation_null
from .distance import (
    DistanceCorrelation,
    RadialAttention,
    RadiusScore,
    distance_correlation,
    radial_attention,
    radius_score,
)
from .tracking import Association, HeadTracking, what_heads_track

__all__ = [
    "ApproachPreference",
    "Association",
    "AveragePrecision",
    "DistanceCorrelation",
    "HeadTracking",
    "PermutationNull",
    "RadialAttention",
    "RadiusScore",
    "approach_preference",
    "contact_average_precision",
    "distance_correlation",
    "permutation_null",
    "radial_attention",
    "radius_score",
    "what_heads_track",
]
