"""Loss and gradient of many copies as one compiled function, which other models of the same form use again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

_KEPT = 16
"""Compiled functions kept; our choice: a sweep needs one for each set of tensors it moves."""


class NotCompilable(RuntimeError):
    """What was asked for cannot be compiled here; the message says why."""


def compile_step(step: Callable[..., list[Tensor]], arguments: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
    """Return ``step`` compiled for arguments of these shapes.

    The step is written out as a graph of torch's elementary operators, in which all tensors are arguments: those of a
    model that ``step`` knows by itself too. So two steps with the same graph share one compiled function, whatever
    models they came from.

    Raises:
        NotCompilable: the step depends on values in a way no graph can hold, or there is no C++ compiler.

    Cost: the first time tens of seconds, then writing out the graph: about a second.
    """
    from torch._dynamo.exc import TorchDynamoException  # takes a second to import

    try:
        graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)  # twice as fast as "real"
    except RuntimeError as error:
        raise NotCompilable(f"the loss cannot be written as a graph ({_first_line(error)})") from error
    constants = _lift_constants(graph)
    compiled = _compiled(_Graph(graph.code, tuple(map(_kind, [*arguments, *constants])), graph))

    def call(*arguments: Tensor) -> list[Tensor]:
        return compiled(*arguments, *constants)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch's own modules
            call(*arguments)
    except TorchDynamoException as error:
        reason = getattr(error, "inner_exception", error)
        raise NotCompilable(f"torch.compile failed ({_first_line(reason)})") from error
    return call


@dataclass(frozen=True)
class _Graph:
    """What tells one compiled function from another, and the graph it is made of."""

    code: str
    kinds: tuple
    graph: fx.GraphModule = field(compare=False, repr=False)


@lru_cache(maxsize=_KEPT)
def _compiled(key: _Graph) -> Callable[..., list[Tensor]]:
    return torch.compile(key.graph, dynamic=False, fullgraph=True)


def _lift_constants(graph: fx.GraphModule) -> list[Tensor]:
    """Turn the tensors that a graph holds into further arguments; return them."""
    held = [node for node in graph.graph.nodes if node.op == "get_attr"]
    names = list(dict.fromkeys(node.target for node in held))
    constants = [getattr(graph, name) for name in names]
    with graph.graph.inserting_before(next(node for node in graph.graph.nodes if node.op != "placeholder")):
        places = {name: graph.graph.placeholder(name) for name in names}
    for node in held:
        node.replace_all_uses_with(places[node.target])
        graph.graph.erase_node(node)
    for name in names:
        delattr(graph, name)  # the graph is kept, the model's tensors are not
    graph.recompile()
    return constants


def _kind(t: Tensor) -> tuple:
    return t.shape, t.stride(), t.dtype, t.device


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
