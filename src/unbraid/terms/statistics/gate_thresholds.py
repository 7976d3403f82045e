"""Where gates open: the pre-activation above which a latent is active, whatever the activation."""

from jaxtyping import Float, Int
from torch import Tensor

from unbraid.dictionary.activation import BatchTopK, JumpReLU, TopK
from unbraid.objective.objective import Step


def thresholds(step: Step, rows: Int[Tensor, " pair"], latents: Int[Tensor, " pair"]) -> Float[Tensor, " pair"]:
    """Where the gates of these rows and latents open: learned, or the smallest active pre-activation, or 0."""
    activation = step.dictionary.activation
    if isinstance(activation, JumpReLU):
        return step.dictionary.threshold[latents]
    values, at, _ = step.z.entries()
    least = values.new_zeros(step.z.batch)
    if isinstance(activation, BatchTopK) and values.numel():
        least = least + values.detach().min()
    elif isinstance(activation, TopK):
        least = least.scatter_reduce(0, at, values.detach(), "amin", include_self=False)
    return least[rows]
