# %% [markdown]
# # Does it work on my model?
#
# The probes take any torch module. Four that know nothing of this library, fifteen lines each: a TransformerLens model,
# a Hugging Face GPT-2, a plain MLP and a ConvNet. All weights are drawn here; nothing is downloaded.

# %%
import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from probes import (
    Site,
    attention_patterns,
    estimate_llc,
    hessian_trace,
    patch_activation,
    spectral_density,
    top_eigenvalues,
    what_heads_track,
)

small = os.environ.get("EMERGENCE_SMALL") == "1"
n = 32 if small else 128
generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
tokens = torch.randint(0, 50, (n, 12), generator=generator)

# %% [markdown]
# ## TransformerLens
# `HookedTransformer` left TransformerLens with 4.0; a bridge takes its place. What does each head look at, and does the
# embedding of token 3 reach the last prediction?

# %%
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

bridge = TransformerBridge.boot_native(
    TransformerBridgeConfig(
        n_layers=2, n_heads=4, d_model=32, d_head=8, n_ctx=12, d_vocab=50, act_fn="gelu", seed=0,
        architecture="TransformerLensNative",
    )
)  # fmt: skip
seen = np.tril(np.ones((12, 12), dtype=bool), -1)  # a quantity is undefined where the mask hides the key
alike = (tokens[:, :, None] == tokens[:, None]).numpy()
apart = np.broadcast_to(np.abs(np.subtract.outer(range(12), range(12))), alike.shape)
quantities = {"same token": np.where(seen, alike, np.nan), "positions apart": np.where(seen, apart, np.nan)}
layout = np.zeros(n, dtype=int)  # positions lie alike in all scenes: one independent unit, so no interval either
tracked = what_heads_track(
    attention_patterns(bridge, [tokens])[0], quantities, rng=rng, groups=layout, n_permutations=99
)
for head in range(4):
    print(f"head 0.{head}: r = {tracked.rank_correlation.value[:, head].round(2)}, tracks {tracked.ranking(head)}")
assert not any(tracked.ranking(head) for head in range(4))  # untrained: nothing, and the null says so

# %%
corrupted = tokens.clone()
corrupted[:, 3] = (corrupted[:, 3] + 25) % 50
patched = patch_activation(
    bridge, tokens, corrupted, [Site("embed.hook_out", (3,)), Site("embed.hook_out", (4,))],
    metric=lambda logits: logits[:, -1, 0],
)  # fmt: skip
print("recovered by the embedding of token 3 and of token 4:", patched.recovered.round(6))
assert np.allclose(patched.recovered, [1, 0], atol=1e-4)

# %% [markdown]
# ## Hugging Face
# Attention is switched to the eager kind for the call, and back. Second derivatives need it too.

# %%
from transformers import GPT2Config, GPT2LMHeadModel

gpt2 = GPT2LMHeadModel(
    GPT2Config(
        n_layer=2, n_head=4, n_embd=32, n_positions=12, vocab_size=50, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="eager",
    )
)  # fmt: skip
patterns = attention_patterns(gpt2, [{"input_ids": half} for half in tokens.split(n // 2)])
print(f"{len(patterns)} layers of {patterns[0].shape}")
assert np.allclose(patterns[0].sum(-1), 1, atol=1e-5)


def next_token_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


top = top_eigenvalues(gpt2, [tokens[:16]], loss_fn=next_token_loss, k=3, generator=generator, max_matvecs=60)
print("largest Hessian eigenvalues:", top.values.round(4), "converged:", top.converged)
trace = hessian_trace(
    gpt2, [tokens[:16]], loss_fn=next_token_loss, n_probes=4, parameters="transformer.h.0.attn.*", generator=generator
)
print(f"trace of the first attention layer: {trace.value:.3f} ± {trace.standard_error:.3f}")

# %% [markdown]
# ## A plain MLP: learning coefficient
# A regular model with d parameters, fully trained, has d/2; overparametrised ones have less.

# %%
x = torch.randn(512, 2, generator=generator)
noise = 0.1
y = torch.tanh(x[:, :1]) + noise * torch.randn(512, 1, generator=generator)
mlp = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
for p in mlp.parameters():
    nn.init.normal_(p, std=0.5, generator=generator)


def negative_log_likelihood(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return (model(batch[0]) - batch[1]).square().mean() / (2 * noise**2)


optimizer = torch.optim.Adam(mlp.parameters(), lr=0.01)
for _ in range(1000):
    optimizer.zero_grad()
    negative_log_likelihood(mlp, (x, y)).backward()
    optimizer.step()
batches = list(zip(x.split(128), y.split(128), strict=True))
llc = estimate_llc(
    mlp, batches, loss_fn=negative_log_likelihood, nbeta=512 / np.log(512), step_size=2e-5, localization=10.0,
    n_chains=4, n_draws=300, n_burnin=300, generator=generator,
)  # fmt: skip
n_parameters = sum(p.numel() for p in mlp.parameters())
print(f"learning coefficient {llc.value:.1f} ± {llc.standard_error:.1f}; half the parameters: {n_parameters / 2}")
assert llc.n_diverged == 0
assert 0 < llc.value < n_parameters / 2

# %% [markdown]
# ## A ConvNet: the spectrum of its loss

# %%
images = torch.randn(n, 1, 8, 8, generator=generator)
labels = (images.mean((1, 2, 3)) > 0).long()
convnet = nn.Sequential(
    nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)
)
running_mean = convnet[1].running_mean.clone()


def classification_loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


density = spectral_density(
    convnet, [(images, labels)], loss_fn=classification_loss, n_probes=3, n_steps=30, generator=generator
)
kernel = hessian_trace(
    convnet, [(images, labels)], loss_fn=classification_loss, n_probes=10, parameters="0.*", generator=generator
)
print(f"trace of the kernel's block: {kernel.value:.3f} ± {kernel.standard_error:.3f}")
print(type(density).__name__, "of", sum(p.numel() for p in convnet.parameters()), "parameters")
assert torch.equal(convnet[1].running_mean, running_mean)  # batch norm did not learn from being measured
assert convnet.training  # and the model is in the mode it was in

# %% [markdown]
# **Answer.** Yes: heads, patches, curvature and learning coefficients of all four, none of them changed. A model whose
# attention is hidden in a fused kernel gets one line that says so.
