"""From a plain model to one that learns by the rule, and back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from probes.isolation import check_values

from ..layers import check_own_weights, matching_layers
from .attention import NeuronAttention, check_attention
from .broadcast import Broadcast
from .feedback import DirectFeedbackAlignment, Feedback, FromAttention, named_feedback, to_outputs
from .layers import NextLayer, buffer_name, next_layer_class
from .rule import Route

_KINDS = "nn.Linear, nn.Conv1d to 3d, or attention, MLP and W_U of the particle transformer"


def convert(
    model: nn.Module,
    layers: str | Iterable[str],
    attention: str | NeuronAttention | Feedback | Callable[[Tensor], Tensor] = "squared",
    *,
    match_norm: bool = True,
    drop: float = 0.0,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Let neurons learn what earns them the attention of the next layer: ``d_i = phi'(z_i) sum_j F'(w_ij) d_j``.

    Soltani Moakhar et al. 2023 (arXiv 2310.09952), of which the abstract is known to us; the formula is our reading. A
    listener j moves its weight by ``-rate d_j a_i``, so the attention ``A_i = sum_j F(w_ij)`` that neuron i receives
    changes, to first order, by ``-rate a_i sum_j F'(w_ij) d_j``: its best move is against that sum, its own error. For
    ``F = w^2 / 2`` this is backpropagation. In code, each converted layer gives its input the gradient ``d F'(W)`` in
    the place of ``d W``; the gradient of its own weights, and everything between converted layers, is as ever. So
    converting the first layer alone changes nothing.

    Args:
        model: any torch module; it is left as it is.
        layers: names or glob patterns of ``nn.Linear``, ``nn.Conv1d`` to ``3d``, and ``"blocks.*.attn"``,
            ``"blocks.*.mlp"`` and ``"W_U"`` of our particle transformer.
        attention: F, a name from ``ATTENTIONS``, settings such as ``Power(p=1.2)``, or a function of a weight; or one
            of the ``FEEDBACKS`` it is compared with.
        match_norm: bring each ``F'(W)`` to the Frobenius norm of W. Its scale is otherwise one of its own, and signals
            grow or vanish by it at every layer, so that no one learning rate serves a deep network: ``|w|`` multiplies
            them by one over the root mean square of the weights, in all by 2e6 over 8 orthogonal layers of 64 neurons
            and by 9e27 over 32, against 1.1 and 0.9 when matched (``tests/benchmarks/bench_next_layer_attention.py``).
        drop: chance that a message is lost, each listener's ``d_j`` on each example for itself, at every backward pass
            anew and in evaluation mode too. Those that arrive are multiplied by ``1 / (1 - drop)``: on average signals
            are what they would have been. A neuron's own weights know its own ``d_j`` always.
        generator: draws random feedback now, and with ``drop`` what is lost later; needed for these alone.

    Returns:
        A copy with the same names, the same outputs bit for bit, and buffers ``feedback_...`` for random matrices. Its
        ``backward`` follows the rule, which is no gradient of a loss: second derivatives are refused.

    Raises:
        TypeError: wrong kinds of arguments, or a function that torch cannot differentiate.
        ValueError: no such layer or attention, a layer that is converted already, shares its weight, or has weights
            that are not finite or where F has no finite derivative; no generator; ``drop`` outside [0, 1).

    Cost: a training step, 1.0 to 1.3 plain ones in layers of 128 neurons and more; in the narrowest of these 1.4 where
    attention is a function, 1.5 with ``drop``. See the benchmark above. Narrower layers cost more.
    """
    check_values(model)
    feedback = named_feedback(attention, match_norm)
    _check_drop(drop, feedback, generator)
    modules = _convertible(model)
    names = matching_layers(layers, list(modules), _KINDS)
    if isinstance(feedback, DirectFeedbackAlignment):
        feedback = to_outputs(feedback, _n_outputs(model, modules))
    for name in names:
        _check_layer(model, name, modules[name], feedback)
    copied = copy.deepcopy(model)
    broadcast = Broadcast(feedback.n_outputs or 0) if isinstance(feedback, DirectFeedbackAlignment) else None
    for name in names:
        module = copied.get_submodule(modules[name])
        cls = _class_for(module)
        module.__class__ = cast(Any, cls)
        prefix = f"{modules[name]}." if modules[name] else ""
        module.routes = cast(Any, {w: Route(prefix + w, feedback, drop, generator, broadcast) for w in cls.weights})
        if feedback.is_random:
            assert generator is not None
            for w in cls.weights:
                matrix = feedback.drawn(cls.listeners(module, w).detach(), cls.n_sources(module, w), generator)
                module.register_buffer(buffer_name(w), matrix)
    if broadcast is not None:
        copied.register_forward_hook(broadcast)
    return copied


def export(m: nn.Module) -> nn.Module:
    """The plain model again: its gradients are the true ones, so that every probe runs on it.

    Args:
        m: from ``convert``; it is left as it is.

    Raises:
        ValueError: nothing in the model was converted.
    """
    check_converted(m)
    plain = copy.deepcopy(m)
    for module in plain.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, Broadcast):
                del module._forward_hooks[key]
        if isinstance(module, NextLayer):
            for name in module.weights:
                module._buffers.pop(buffer_name(name), None)
            del module.routes
            module.__class__ = cast(Any, module.plain)
    return plain


def is_converted(model: nn.Module) -> bool:
    """Whether some layer of the model learns by the rule."""
    return any(isinstance(module, NextLayer) for module in model.modules())


def check_converted(m: nn.Module) -> None:
    """Refuse what is no converted model."""
    check_values(m)
    if not is_converted(m):
        raise ValueError(f"m must be a model from convert, got a plain {type(m).__name__}")


def _convertible(model: nn.Module) -> dict[str, str]:
    """Names that may be asked for, to names of modules; the particle transformer stands for its W_U, the last."""
    found: dict[str, str] = {}
    last: dict[str, str] = {}
    for name, module in model.named_modules():
        cls = type(module) if isinstance(module, NextLayer) else next_layer_class(module)
        if cls is not None and "W_U" in cast(type[NextLayer], cls).weights:
            last[f"{name}.W_U" if name else "W_U"] = name
        elif cls is not None:
            found[name] = name
    return found | last


def _class_for(module: nn.Module) -> type[NextLayer]:
    cls = next_layer_class(module)
    assert cls is not None
    return cls


def _n_outputs(model: nn.Module, modules: dict[str, str]) -> int:
    """Listeners of the last map of the last layer."""
    module = model.get_submodule(list(modules.values())[-1])
    cls = type(module) if isinstance(module, NextLayer) else _class_for(module)
    return cls.listeners(module, cls.weights[-1]).shape[0]


def _check_layer(model: nn.Module, name: str, module_name: str, feedback: Feedback) -> None:
    module = model.get_submodule(module_name)
    if isinstance(module, NextLayer):
        raise ValueError(f"layer {name!r} is converted already; convert the plain model, or export it first")
    cls = _class_for(module)
    check_own_weights(model, [module_name], lambda each: [getattr(each, w) for w in cls.weights])
    if isinstance(feedback, DirectFeedbackAlignment) and getattr(module, "padding_mode", "zeros") != "zeros":
        raise ValueError(f"layer {name!r} has padding_mode={module.padding_mode!r}; direct feedback needs 'zeros'")
    if isinstance(feedback, FromAttention):
        for w in cls.weights:
            check_attention(feedback.attention, cls.listeners(module, w), name)


def _check_drop(drop: float, feedback: Feedback, generator: torch.Generator | None) -> None:
    if isinstance(drop, bool) or not isinstance(drop, int | float):
        raise TypeError(f"drop must be a number, got {type(drop).__name__}")
    if not 0 <= drop < 1:
        raise ValueError(f"drop must be at least 0 and below 1, got {drop}")
    if generator is None and (drop or feedback.is_random):
        why = type(feedback).__name__ if feedback.is_random else f"drop={drop}"
        raise ValueError(f"generator is missing: {why} draws random numbers; give generator=torch.Generator()")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
