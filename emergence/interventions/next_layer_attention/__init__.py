"""Neurons that seek the attention of the next layer: ``d_i = phi'(z_i) sum over j of F'(w_ij) d_j``.

On a model of your own, in its own training loop::

    m = next_layer_attention.convert(model, "linear*", "absolute")  # F = |w|; "squared" is backpropagation
    optimizer = torch.optim.Adam(m.parameters())
    for x, y in loader:
        loss = loss_fn(m(x), y)
        optimizer.zero_grad()
        loss.backward()  # follows the rule
        optimizer.step()
    cosines = next_layer_attention.alignment(m, (x, y), lambda m, batch: loss_fn(m(batch[0]), batch[1]))
    plain = next_layer_attention.export(m)

Soltani Moakhar et al. 2023 (arXiv 2310.09952), of which the abstract is known to us: neurons that maximise the
attention of next-layer neurons, and that this can equal backpropagation. The formula, the attentions offered, their
scale and the feedbacks they are compared with are ours.
"""

from .attention import (
    ATTENTIONS,
    Absolute,
    Competitive,
    Elementwise,
    NeuronAttention,
    Normalised,
    Power,
    Squared,
)
from .convert import convert, export, is_converted
from .feedback import (
    FEEDBACKS,
    Backpropagation,
    DirectFeedbackAlignment,
    Feedback,
    FeedbackAlignment,
    SignSymmetric,
)
from .local import attention_received, local_signal
from .measures import LayerMessages, alignment, messages
from .training import NextLayerTraining

__all__ = [
    "ATTENTIONS",
    "FEEDBACKS",
    "Absolute",
    "Backpropagation",
    "Competitive",
    "DirectFeedbackAlignment",
    "Elementwise",
    "Feedback",
    "FeedbackAlignment",
    "LayerMessages",
    "NeuronAttention",
    "NextLayerTraining",
    "Normalised",
    "Power",
    "SignSymmetric",
    "Squared",
    "alignment",
    "attention_received",
    "convert",
    "export",
    "is_converted",
    "local_signal",
    "messages",
]
