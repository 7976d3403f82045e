"""Facts about a language model's site that are stored with every run, under SAELens's names where it has one."""

from typing import Any

from unbraid.sources.in_process import Reference, is_reference
from unbraid.sources.language_model.loading import tokenizer_sha256, weights_facts
from unbraid.sources.text.windows import Reader


def site_facts(source: Any, hook: str, reader: Reader) -> dict[str, str | int | bool]:
    """Return the facts. source: a LanguageModel; hook: the path of its module in Hugging Face's names."""
    tokenizer = source.loaded_tokenizer
    given = Reference.parse(source.tokenizer).sha256 if is_reference(source.tokenizer) else ""
    return {
        "model_name": source.model,
        **weights_facts(source.model, source.revision),
        "hook_name": f"blocks.{source.layer}.hook_{source.site}",
        "hook_layer": source.layer,
        "hf_hook_name": hook,
        "context_size": source.context,
        # SAELens takes it for the tokenizer's bos_token, which a token that was named need not be.
        "prepend_bos": reader.prepend_bos and reader.bos == tokenizer.bos_token_id,
        "prepended_token": tokenizer.convert_ids_to_tokens(reader.bos) if reader.prepend_bos else "",
        "dataset_path": source.text,
        "tokenizer_sha256": given or tokenizer_sha256(source.tokenizer or source.model, source.revision, tokenizer),
    }
