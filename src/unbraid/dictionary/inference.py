"""The form of a dictionary that a run folder keeps: as other libraries load it."""

import torch

from unbraid.dictionary.activation import BatchTopK, JumpReLU, calibrate
from unbraid.dictionary.dictionary import Dictionary
from unbraid.dictionary.gated import Gated, thresholded


@torch.no_grad()
def inference_form(dictionary: Dictionary, sample: torch.Tensor) -> Dictionary:
    """The dictionary as it is used after training: BatchTopK becomes JumpReLU with one calibrated threshold, Gated
    JumpReLU with the same codes.

    `sample`: normalised activations [batch, d_in] to calibrate on.
    """
    if isinstance(dictionary.activation, Gated):
        return without_gate(dictionary)
    if not isinstance(dictionary.activation, BatchTopK):
        return dictionary
    threshold = calibrate(dictionary.activation.k, dictionary.chunks(sample))
    thresholded = Dictionary(dictionary.d_in, dictionary.d_sae, JumpReLU(bandwidth=0.0)).to(sample.device)
    thresholded.load_state_dict(dictionary.state_dict())
    # JumpReLU keeps what is strictly above its threshold, and the calibrated value is the smallest kept.
    thresholded.threshold.fill_(torch.nextafter(torch.tensor(threshold), torch.tensor(0.0)))
    return thresholded


def without_gate(dictionary: Dictionary) -> Dictionary:
    """A gated dictionary as JumpReLU."""
    made = Dictionary(dictionary.d_in, dictionary.d_sae, JumpReLU(bandwidth=0.0)).to(dictionary.W_dec)
    made.W_dec.copy_(dictionary.W_dec)
    made.b_dec.copy_(dictionary.b_dec)
    own = dict(dictionary.named_parameters())
    for name, value in thresholded(own["W_enc"], own["b_enc"], own["r_mag"], own["b_mag"])._asdict().items():
        getattr(made, name).copy_(value)
    return made
