"""Read the wiring of a transformer whose weights carry TransformerLens' names, such as the particle transformer."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from .wiring import Axis, Connection, Population, Wiring

STREAM = "resid"
"""The residual stream: one population that all layers read from and write to, so it is ordered once."""


def is_transformer(model: nn.Module) -> bool:
    """Whether attention weights have TransformerLens' names and shapes."""
    return "blocks.0.attn.W_Q" in dict(model.named_parameters())


def read_transformer(model: nn.Module) -> Wiring:
    """Populations: input, residual stream, and for each layer queries with keys, values, MLP neurons; then output.

    A query neuron and the key neuron it is multiplied with are one unit, and so are a value neuron and its row of
    W_O. Units stay in their head; heads move whole, with queries, keys and values together.
    """
    shapes = dict(model.named_parameters())
    reader = _Reader(shapes)
    n_features, d_model = shapes["W_E"].shape
    reader.add(Population("input", n_features, (), is_terminal=True))
    reader.add(Population(STREAM, d_model, ()))
    reader.connect("W_E", "input", (0,), STREAM, (1,))
    reader.bias("b_E", STREAM)
    layer = 0
    while f"blocks.{layer}.attn.W_Q" in shapes:
        reader.block(f"blocks.{layer}")
        layer += 1
    reader.norm("ln_final")
    reader.add(Population("output", shapes["W_U"].shape[1], (), is_terminal=True))
    reader.connect("W_U", STREAM, (0,), "output", (1,))
    reader.bias("b_U", "output")
    return Wiring(reader.populations, tuple(reader.connections), tuple(reader.biases))


class _Reader:
    def __init__(self, shapes: dict[str, nn.Parameter]) -> None:
        self.shapes = shapes
        self.populations: dict[str, Population] = {}
        self.connections: list[Connection] = []
        self.biases: list[tuple[str, Axis]] = []

    def block(self, name: str) -> None:
        """One layer: attention, then the MLP."""
        n_heads, _, d_head = self.shapes[f"{name}.attn.W_Q"].shape
        for kind in ("qk", "v"):
            self.add(Population(f"{name}.attn.{kind}", n_heads * d_head, (), n_heads, f"{name}.attn"))
        for letter, kind in (("Q", "qk"), ("K", "qk"), ("V", "v")):
            self.connect(f"{name}.attn.W_{letter}", STREAM, (1,), f"{name}.attn.{kind}", (0, 2))
            self.bias(f"{name}.attn.b_{letter}", f"{name}.attn.{kind}", (0, 1))
        self.connect(f"{name}.attn.W_O", f"{name}.attn.v", (0, 1), STREAM, (2,))
        self.bias(f"{name}.attn.b_O", STREAM)
        self.add(Population(f"{name}.mlp", self.shapes[f"{name}.mlp.W_in"].shape[1], ()))
        self.connect(f"{name}.mlp.W_in", STREAM, (0,), f"{name}.mlp", (1,))
        self.bias(f"{name}.mlp.b_in", f"{name}.mlp")
        self.connect(f"{name}.mlp.W_out", f"{name}.mlp", (0,), STREAM, (1,))
        self.bias(f"{name}.mlp.b_out", STREAM)
        for norm in ("ln1", "ln2"):
            self.norm(f"{name}.{norm}")

    def add(self, population: Population) -> None:
        self.populations[population.name] = population

    def connect(
        self, tensor: str, source: str, source_dims: tuple[int, ...], target: str, dims: tuple[int, ...]
    ) -> None:
        ends = Axis(tensor, source_dims), Axis(tensor, dims)
        for population, axis in zip((source, target), ends, strict=True):
            self._extend(population, axis)
        self.connections.append(Connection(source, target, *ends))

    def bias(self, tensor: str, population: str, dims: tuple[int, ...] = (0,)) -> None:
        if tensor in self.shapes:
            self._extend(population, Axis(tensor, dims))
            self.biases.append((population, Axis(tensor, dims)))

    def norm(self, name: str) -> None:
        for tensor in (f"{name}.weight", f"{name}.bias"):
            if tensor in self.shapes:
                self._extend(STREAM, Axis(tensor, (0,)))

    def _extend(self, population: str, axis: Axis) -> None:
        there = self.populations[population]
        self.populations[population] = replace(there, axes=(*there.axes, axis))
