"""Read the wiring of a stack of layers off its modules: linear, recurrent, embedding, norm and encoder layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from probes.hooking import named_submodule

from .wiring import Axis, Connection, Population, Wiring

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d)
_KNOWN = (nn.Linear, nn.Embedding, nn.TransformerEncoderLayer, *_RECURRENT, *_NORMS)


def read_stack(model: nn.Module, layers: Sequence[str] | None = None) -> Wiring:
    """Follow the layers in the order they are defined; each reads what the one before wrote.

    Args:
        model: its activations in between must act on each neuron alone.
        layers: names of layers, in order; None takes every module with parameters.

    Raises:
        ValueError: no such layer, a kind of layer that cannot be placed, sizes that disagree, or a parameter outside
            the layers when ``layers`` is None.
    """
    if layers is None:
        found = list(_layers_of(model))
        _refuse_strays(model, [name for name, _ in found])
    else:
        found = [(name, named_submodule(model, name)) for name in layers]
    if not found:
        raise ValueError(f"{type(model).__name__} has no layer to place; name linear, recurrent or encoder layers")
    reader = _Reader()
    for name, module in found:
        reader.read(name, module)
    return reader.wiring()


def _layers_of(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules we know, outermost first, and others that hold parameters themselves (to be refused by name)."""
    if isinstance(model, _KNOWN) or model._parameters:
        yield prefix, model
    else:
        for name, child in model.named_children():
            yield from _layers_of(child, f"{prefix}.{name}" if prefix else name)


def _refuse_strays(model: nn.Module, names: list[str]) -> None:
    """A parameter of a module that also has submodules would be left out unnoticed."""
    for name, _ in model.named_parameters():
        if not any(not layer or name == layer or name.startswith(f"{layer}.") for layer in names):
            raise ValueError(f"parameter {name} belongs to no layer that can be placed; name the layers to place")


@dataclass
class _Reader:
    """Grows the wiring layer by layer; ``stream`` names the population that the next layer reads."""

    populations: dict[str, Population] = field(default_factory=dict)
    connections: list[Connection] = field(default_factory=list)
    biases: list[tuple[str, Axis]] = field(default_factory=list)
    stream: str | None = None
    is_embedding: bool = False

    def read(self, name: str, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            self._embedding(name, module)
            return
        if isinstance(module, _NORMS):
            self._norm(name, module)
        elif isinstance(module, nn.Linear):
            self._linear(name, module)
        elif isinstance(module, _RECURRENT):
            self._recurrent(name, module)
        elif isinstance(module, nn.TransformerEncoderLayer):
            self._encoder(name, module)
        else:
            raise ValueError(
                f"layer {name or 'model'!r} ({type(module).__name__}) cannot be placed; "
                "place linear, recurrent, embedding, norm and encoder layers, or hand in a wiring of your own"
            )
        self.is_embedding = False

    def wiring(self) -> Wiring:
        """The last population is the output: the world outside fixes its order."""
        assert self.stream is not None  # every first layer sets it
        last = self.populations[self.stream]
        self.populations[self.stream] = replace(last, is_terminal=True)
        return Wiring(self.populations, tuple(self.connections), tuple(self.biases))

    def _embedding(self, name: str, module: nn.Embedding) -> None:
        if self.stream is not None:
            raise ValueError(f"embedding {name!r} must be the first layer")
        axis = Axis(f"{name}.weight", (1,))
        self._add(name, module.embedding_dim, axis)
        self.connections.append(Connection(None, name, None, axis))
        self.stream, self.is_embedding = name, True

    def _norm(self, name: str, module: nn.Module) -> None:
        width = getattr(module, "normalized_shape", None) or (getattr(module, "num_features", 0),)
        source = self._source(name, width[-1], may_fold=False)
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            if getattr(module, tensor, None) is not None:
                self._extend(source, Axis(f"{name}.{tensor}", (0,)))

    def _linear(self, name: str, module: nn.Linear) -> None:
        source = self._source(name, module.in_features, may_fold=True)
        weight = f"{name}.weight" if name else "weight"
        target = Axis(weight, (0,))
        self._add(name, module.out_features, target)
        size = self.populations[source].size
        for start in range(0, module.in_features, size):
            self._connect(source, name, Axis(weight, (1,), start), target)
        if module.bias is not None:
            self._bias(name, Axis(f"{name}.bias" if name else "bias", (0,)))
        self.stream = name

    def _recurrent(self, name: str, module: nn.RNNBase | nn.RNNCellBase) -> None:
        if getattr(module, "bidirectional", False) or getattr(module, "proj_size", 0):
            raise ValueError(f"recurrent layer {name!r} must run one way and have no projection")
        one_step = isinstance(module, nn.RNNCellBase)
        for layer in range(1 if one_step else module.num_layers):  # type: ignore[arg-type]
            suffix = "" if one_step else f"_l{layer}"
            n, inputs = int(module.hidden_size), int(module.input_size) if layer == 0 else int(module.hidden_size)
            source = self._source(name, inputs, may_fold=layer == 0)
            target = name if layer == 0 else f"{name}{suffix}"
            n_gates = module._parameters[f"weight_hh{suffix}"].shape[0] // n  # type: ignore[union-attr]
            self._add(target, n)
            for gate in range(n_gates):
                to = {kind: Axis(f"{name}.weight_{kind}{suffix}", (0,), gate * n) for kind in ("ih", "hh")}
                for axis in to.values():
                    self._extend(target, axis)
                self._connect(source, target, Axis(to["ih"].tensor, (1,)), to["ih"], extend=gate == 0)
                self._connect(target, target, Axis(to["hh"].tensor, (1,)), to["hh"], extend=gate == 0)
                if module.bias:
                    for kind in ("ih", "hh"):
                        self._bias(target, Axis(f"{name}.bias_{kind}{suffix}", (0,), gate * n))
            self.stream = target

    def _encoder(self, name: str, module: nn.TransformerEncoderLayer) -> None:
        """The residual stream runs through; queries and keys, values, and the MLP are populations beside it."""
        attention, n = module.self_attn, module.self_attn.embed_dim
        stream = self._source(name, n, may_fold=False)
        qkv, out = f"{name}.self_attn.in_proj_weight", f"{name}.self_attn.out_proj"
        for population, starts in ((f"{name}.qk", (0, n)), (f"{name}.v", (2 * n,))):
            self._add(population, n, n_blocks=attention.num_heads, layer=name)
            for start in starts:
                self._extend(population, Axis(qkv, (0,), start))
                self._connect(stream, population, Axis(qkv, (1,)), Axis(qkv, (0,), start), extend=start == 0)
                if attention.in_proj_bias is not None:
                    self._bias(population, Axis(f"{name}.self_attn.in_proj_bias", (0,), start))
        self._into_stream(f"{name}.v", stream, out, attention.out_proj.bias is not None)
        self._add(f"{name}.mlp", module.linear1.out_features, Axis(f"{name}.linear1.weight", (0,)))
        first = f"{name}.linear1.weight"
        self._connect(stream, f"{name}.mlp", Axis(first, (1,)), Axis(first, (0,)))
        if module.linear1.bias is not None:
            self._bias(f"{name}.mlp", Axis(f"{name}.linear1.bias", (0,)))
        self._into_stream(f"{name}.mlp", stream, f"{name}.linear2", module.linear2.bias is not None)
        for norm in ("norm1", "norm2"):
            self._norm(f"{name}.{norm}", getattr(module, norm))

    def _into_stream(self, source: str, stream: str, layer: str, has_bias: bool) -> None:
        target = Axis(f"{layer}.weight", (0,))
        self._extend(stream, target)
        self._connect(source, stream, Axis(f"{layer}.weight", (1,)), target)
        if has_bias:
            self._bias(stream, Axis(f"{layer}.bias", (0,)))

    def _source(self, name: str, width: int, *, may_fold: bool) -> str:
        """Population that a layer reads ``width`` numbers from; several embedded tokens may lie side by side."""
        if self.stream is None:
            self.stream = "input"
            self.populations["input"] = Population("input", width, (), is_terminal=True)
        source = self.populations[self.stream]
        folds = may_fold and self.is_embedding and width % source.size == 0
        if width != source.size and not folds:
            raise ValueError(
                f"layer {name!r} reads {width} numbers, but the layer before ({source.name!r}) writes {source.size}; "
                "name the layers of one stack in order"
            )
        return self.stream

    def _add(self, name: str, size: int, *axes: Axis, n_blocks: int = 1, layer: str = "") -> None:
        if name in self.populations:
            raise ValueError(f"layer {name!r} is named twice")
        self.populations[name] = Population(name, size, axes, n_blocks, layer)

    def _extend(self, population: str, axis: Axis) -> None:
        there = self.populations[population]
        self.populations[population] = replace(there, axes=(*there.axes, axis))

    def _connect(self, source: str, target: str, source_axis: Axis, target_axis: Axis, *, extend: bool = True) -> None:
        """``extend`` notes the source's axis, once for weights whose gates share it."""
        if extend:
            self._extend(source, source_axis)
        self.connections.append(Connection(source, target, source_axis, target_axis))

    def _bias(self, population: str, axis: Axis) -> None:
        self._extend(population, axis)
        self.biases.append((population, axis))
