"""The particle transformer under the probes of conditioning: every layer by its TransformerLens name."""

from __future__ import annotations

import numpy as np
import torch
from cases import left_as_found
from torch import nn

from emergence import ParticleTransformer
from emergence.config import ModelConfig
from probes import (
    branch_ratio,
    gradient_conditioning,
    jacobian_spectrum,
    layer_robustness,
    perturbation_sensitivity,
)


def mean_square(model: nn.Module, scenes: torch.Tensor) -> torch.Tensor:
    return model(scenes).square().mean()


def test_the_particle_transformer_across_depth(rng, generator):
    model = ParticleTransformer(ModelConfig(2, 2, 8, 4, 8), 3, 2, generator).double()
    batches = [torch.randn(3, 4, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    layers = ["blocks.*.hook_resid_post", "hook_embed"]
    with left_as_found(model):
        gradients = gradient_conditioning(model, batches, loss_fn=mean_square, layers=layers, rng=rng)
        noise = layer_robustness(
            model, batches, loss_fn=mean_square, layers=layers, scales=[0.3], n_draws=3, generator=generator
        )
        whole = jacobian_spectrum(model, batches[0])
        mlps = jacobian_spectrum(model, batches[0], layers=["blocks.*.mlp"])
        moved = perturbation_sensitivity(model, batches[0], scales=[1e-4], n_draws=5, generator=generator)
        names = {f"block {i}": (f"blocks.{i}.hook_mlp_out", f"blocks.{i}.hook_resid_mid") for i in (0, 1)}
        ratio = branch_ratio(model, batches, branches=names)
    assert gradients.layers == noise.layers == ("hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    assert whole.shapes == ((8, 12),)  # four particles of two outputs, of three features
    assert mlps.shapes == ((32, 32), (32, 32))
    assert moved.per_input.max() <= 1.001 * whole.singular_values["model"].max()
    assert np.isfinite([*ratio.value, *ratio.standard_error]).all()
