"""Upgrade of cfg.json as SAELens wrote it before version 6, which most published SAEs have.

The site stood at the top level, top-k was an activation function of the standard architecture, normalisation a yes or
no. SAELens reads such files the same way, without saying so.
"""

from typing import Any

from unbraid.formats.said import Said, is_off
from unbraid.formats.tensors import quoted, shown

RENAMED = {
    "hook_point": "hook_name", "hook_point_layer": "hook_layer", "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}  # fmt: skip
SITE = (
    "model_name", "hook_name", "hook_layer", "hook_head_index", "context_size", "prepend_bos", "dataset_path",
    "sae_lens_training_version", "sae_lens_version", "neuronpedia_id", "seqpos_slice", "model_from_pretrained_kwargs",
)  # fmt: skip
"""Settings about the site and the training."""
TRAINING = frozenset({
    "act_store_device", "adam_beta1", "adam_beta2", "autocast", "autocast_dtype", "autocast_lm", "b_dec_init_method",
    "begin_batch_token", "begin_sequence_token", "buffer_size_gb", "cached_activations_path", "checkpoint_path",
    "column_name", "compile_llm", "compile_sae", "data_dir", "data_files", "dataset_name",
    "dataset_trust_remote_code", "dead_feature_estimation_method", "dead_feature_threshold", "dead_feature_window",
    "decoder_heuristic_init", "decoder_heuristic_init_norm", "decoder_init_norm", "decoder_orthogonal_init",
    "disable_concat_sequences", "eval_batch_size_prompts", "eval_every_n_wandb_logs", "exclude_bos_between_sequences",
    "exclude_special_tokens", "expansion_factor", "feature_reinit_scale", "feature_sampling_method",
    "feature_sampling_window", "finetuning_method", "finetuning_tokens", "from_pretrained_path", "hf_is_private_repo",
    "hf_num_shards", "hf_repo_id", "hf_revision", "hook_eval", "hook_point_eval", "include_final_checkpoint",
    "init_encoder_as_decoder_transpose", "is_dataset_tokenized", "jumprelu_bandwidth", "jumprelu_init_threshold",
    "l0_warm_up_steps", "l1_coefficient", "l1_normalization_fn", "l1_warm_up_steps", "l1_warmup_steps",
    "llm_compilation_mode", "log_activations_store_to_wandb", "log_optimizer_state_to_wandb", "log_to_wandb",
    "lp_norm", "lr", "lr_decay_steps", "lr_end", "lr_scheduler_name", "lr_warm_up_steps", "model_batch_size",
    "model_class_name", "model_kwargs", "mse_loss_normalization", "n_batches_in_buffer", "n_checkpoints",
    "n_eval_batches", "n_eval_seqs", "n_restart_cycles", "n_shuffles_final", "n_shuffles_in_entire_dir",
    "n_shuffles_with_last_section", "new_cached_activations_hub_repo", "new_cached_activations_path", "noise_scale",
    "normalize_sae_decoder", "num_proc", "pretokenize_batch_size", "resample_batches", "resume",
    "resume_from_checkpoint", "run_name", "sae_compilation_mode", "save_final_checkpoint", "save_path",
    "scale_sparsity_penalty_by_decoder_norm", "seed", "sequence_separator_token", "shuffle",
    "shuffle_every_n_buffers", "split", "store_batch_size", "store_batch_size_prompts", "streaming", "tokenizer_name",
    "total_training_samples", "total_training_steps", "total_training_tokens", "train_batch_size",
    "train_batch_size_samples", "train_batch_size_tokens", "training_tokens", "use_cached_activations",
    "use_ghost_grads", "verbose", "wandb_entity", "wandb_id", "wandb_log_frequency", "wandb_project",
})  # fmt: skip
"""Settings of training, which old files hold at the top level. Noise was added in training only."""
FUNCTION = ("activation_fn", "activation_fn_kwargs")
ALLOWED_KWARGS = ("k", "signed")
"""Arguments of the activation function that can be read; the second must be false."""


def is_old(said: Said) -> bool:
    """True if SAELens before version 6 wrote the file."""
    version = said.fields.get("sae_lens_version") or said.part("metadata").fields.get("sae_lens_version")
    major = str(version or "0").partition(".")[0]
    return not major.isascii() or not major.isdigit() or int(major[:9]) < 6


def upgrade_config(said: Said) -> Said:
    """Return an old cfg.json as version 6 would write it. Raises ValueError for settings that version 6 lacks."""
    old = {RENAMED.get(key, key): value for key, value in said.fields.items() if key not in TRAINING}
    if not is_off(old.get("finetuning_scaling_factor")):
        raise ValueError(
            f"{said.file.parent} scales its latents after training (finetuning_scaling_factor), which SAELens 6 does "
            "not do any more; fold the factor into W_dec, set it to false and save again"
        )
    moved = (*SITE, *FUNCTION, "finetuning_scaling_factor")
    today = {key: value for key, value in old.items() if key not in moved}
    normalised = old.get("normalize_activations") or "none"
    reshaped = "hook_z" if "hook_z" in str(old.get("hook_name", "")) else "none"
    today |= {
        **architecture(Said(old, said.file)),
        "normalize_activations": "expected_average_only_in" if normalised is True else normalised,
        "reshape_activations": old.get("reshape_activations") or reshaped,
        "metadata": old.get("metadata") or {key: old[key] for key in SITE if key in old},
    }
    return Said(today, said.file)


def check_architecture(stored: Said) -> None:
    """Raise ValueError when the activation function is not stated, as the weights of TopK and ReLU look alike.

    An L1 coefficient implies a ReLU, as in the oldest files.
    """
    words = ("architecture", "activation_fn", "activation_fn_str", "l1_coefficient")
    if all(stored.fields.get(word) is None for word in words):
        raise ValueError(
            f"{stored.file} says neither architecture nor activation_fn, and a TopK's weights look like a ReLU's; add "
            'what it was trained with, as "architecture": "standard" or "activation_fn": "topk" with its k'
        )


def architecture(old: Said) -> dict[str, Any]:
    """Return the architecture, and k for TopK."""
    function, settings = old.text("activation_fn", "relu"), old.part("activation_fn_kwargs").fields
    name = old.text("architecture", "standard")
    unknown = [key for key, value in settings.items() if key not in ALLOWED_KWARGS and not is_off(value)]
    if unknown or not is_off(settings.get("signed")):
        raise ValueError(
            f"{old.file}: activation_fn_kwargs is {shown(dict(settings))}; of an activation function only k can be read"
        )
    said: dict[str, Any] = {"architecture": name}
    if function == "topk":
        said = {"architecture": "topk", "k": settings.get("k")}
    elif function != "relu":
        raise ValueError(
            f"{old.file.parent}: activation function {quoted(function)} cannot be read, only 'relu' and 'topk'"
        )
    elif not is_off(settings.get("k")):
        raise ValueError(f"{old.file}: activation_fn is 'relu', and its kwargs say k; which of them is meant?")
    return said
