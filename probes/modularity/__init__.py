"""Functional and anatomical modules of a network: which units work together, and whether they lie together."""

from .ablation import ClusterAblation, cluster_ablation
from .agreement import Agreement, PartitionAgreement, partition_agreement
from .anatomy import cluster_spread, isolated_fraction
from .clusters import FunctionalClusters, functional_clusters
from .forgetting import Interference, interference
from .graph import GraphModularity, graph_modularity, newman_q
from .shuffle_test import ShuffleTest
from .variance import task_variance
from .wiring import WiringLength, wiring_length

__all__ = [
    "Agreement",
    "ClusterAblation",
    "FunctionalClusters",
    "GraphModularity",
    "Interference",
    "PartitionAgreement",
    "ShuffleTest",
    "WiringLength",
    "cluster_ablation",
    "cluster_spread",
    "functional_clusters",
    "graph_modularity",
    "interference",
    "isolated_fraction",
    "newman_q",
    "partition_agreement",
    "task_variance",
    "wiring_length",
]
