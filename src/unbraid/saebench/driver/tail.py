"""Core's losses with a reconstruction spliced in, from one pass of the blocks after the hook.

SAEBench runs the whole model three times a batch, and compares distributions over the vocabulary. What it asks of the
clean and of the ablated model is the same for all runs. With p the clean and q the spliced distribution, h the states
that the vocabulary is read from, W the unembedding and m = E_p[W] (once a batch):

    KL(p | q) = m (h_p - h_q) - logsumexp(h_p W) + logsumexp(h_q W)

Equal to SAEBench's to rounding, which is tested; where a probability of it underflows, SAEBench's is NaN.
"""

# pyright: reportMissingImports=false
import torch
from sharing import Shared, key_of, start_of
from torch import Tensor


def install(shared: Shared) -> None:
    """Make core use `recons_loss`."""
    import sae_bench.evals.core.main as main

    main.get_recons_loss = recons_loss(shared, main.get_recons_loss)


def recons_loss(shared: Shared, own):
    """A function like SAEBench's `own` get_recons_loss that shares what does not depend on the SAE."""

    @torch.no_grad()
    def get_recons_loss(
        sae, model, batch_tokens, activation_store, compute_kl, compute_ce_loss, ignore_tokens=frozenset(),
        exclude_special_tokens_from_reconstruction=False, model_kwargs=None,
    ):  # fmt: skip
        hook = sae.cfg.hook_name
        if not replayable(model, sae) or model_kwargs or not (compute_kl and compute_ce_loss):
            return own(
                sae, model, batch_tokens, activation_store, compute_kl=compute_kl, compute_ce_loss=compute_ce_loss,
                ignore_tokens=ignore_tokens, model_kwargs=model_kwargs or {},
                exclude_special_tokens_from_reconstruction=exclude_special_tokens_from_reconstruction,
            )  # fmt: skip
        key = key_of(f"core {hook} {id(model)}", batch_tokens)
        if (clean := shared.kept.get(key)) is None:
            clean = of_all_runs(model, hook, batch_tokens)
            shared.kept.put(key, clean)
        spliced = sae.decode(sae.encode(clean["residual"].to(sae.device))).to(clean["residual"])
        if exclude_special_tokens_from_reconstruction:
            special = torch.isin(
                batch_tokens, torch.tensor([t for t in ignore_tokens if t is not None]).to(batch_tokens)
            )
            spliced = torch.where(special[..., None], clean["residual"], spliced)
        kl, loss = compared(model, final(model, spliced, hook), batch_tokens, clean)
        return {
            "kl_div_with_sae": kl, "kl_div_with_ablation": clean["ablated_kl"], "ce_loss_with_sae": loss,
            "ce_loss_without_sae": clean["loss"], "ce_loss_with_ablation": clean["ablated_loss"],
        }  # fmt: skip

    return get_recons_loss


def replayable(model, sae) -> bool:
    """True where the blocks after the hook read nothing else, and logits are linear in the last states."""
    cfg = model.cfg
    return (
        start_of(sae.cfg.hook_name) is not None and sae.cfg.hook_head_index is None and cfg.dtype == torch.float32
        and model.tokenizer.padding_side == "right"  # on the left, attention is masked
        and cfg.positional_embedding_type != "shortformer" and not (cfg.output_logits_soft_cap or 0) > 0
    )  # fmt: skip


def final(model, residual: Tensor, hook: str) -> Tensor:
    """The states from which the vocabulary is read, from the residual stream at the hook."""
    states = model(residual, start_at_layer=start_of(hook), stop_at_layer=model.cfg.n_layers)
    return states if model.cfg.normalization_type is None else model.ln_final(states)


def of_all_runs(model, hook: str, tokens: Tensor) -> dict[str, Tensor]:
    """Return what a batch gives without an SAE: activations, parts of the clean distribution, losses when ablated."""
    residual = model.run_with_cache(tokens, prepend_bos=False, names_filter=[hook])[1][hook]
    states = final(model, residual, hook)
    expected, total, chosen = torch.empty_like(states), states.new_empty(tokens.shape), states.new_empty(tokens.shape)
    for row in range(len(tokens)):  # a row of logits at a time: a batch of them would be hundreds of megabytes
        logits = model.unembed(states[row : row + 1])[0]
        total[row] = logits.logsumexp(-1)
        expected[row] = (logits - total[row, :, None]).exp() @ model.W_U.T
        chosen[row, :-1] = logits[:-1].gather(-1, tokens[row, 1:, None])[:, 0]
    clean = {"residual": residual, "states": states, "expected": expected, "total": total}
    ablated = final(model, torch.zeros_like(residual), hook)
    clean["ablated_kl"], clean["ablated_loss"] = compared(model, ablated, tokens, clean)
    return {**clean, "loss": (total - chosen)[:, :-1]}


def compared(model, states: Tensor, tokens: Tensor, clean: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """KL from the clean distribution, and the loss of each next token."""
    total, chosen = torch.empty_like(clean["total"]), torch.empty_like(clean["total"])
    for row in range(len(tokens)):
        logits = model.unembed(states[row : row + 1])[0]
        total[row] = logits.logsumexp(-1)
        chosen[row, :-1] = logits[:-1].gather(-1, tokens[row, 1:, None])[:, 0]
    moved = (clean["expected"] * (clean["states"] - states)).sum(-1)
    return moved - clean["total"] + total, (total - chosen)[:, :-1]
