"""A model as the spec that kvplan bundles: its config's keys that decide memory, and their origin."""

import re
from collections.abc import Mapping

from kvplan.model import ModelSpec

# Keys that no family reads: text generation, training, tokens, numerics.
_IDLE = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "attention_dropout",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "final_logit_softcapping",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "hidden_act",
    "hidden_activation",
    "initializer_range",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "length_penalty",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "router_aux_loss_coef",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torchscript",
    "transformers_version",
    "typical_p",
    "use_bfloat16",
    "use_cache",
}


def spec_of(model: ModelSpec) -> Mapping[str, object] | None:
    """Return the model as a spec file's content; None where it came without a config."""
    if model.config is None:
        return None
    spec: dict[str, object] = {
        "id": _identifier(model.repo.rpartition("/")[2] if model.repo else model.name),
        "repo": model.repo,
        "revision": model.revision,
        "source": model.source,
        "source_kind": "full",
        "aliases": [],
        "published_total": model.published_total,
        "published_relation": model.published_relation or None,
        "config": _needed(model.config),
    }
    return {key: value for key, value in spec.items() if value is not None}


def _identifier(name: str) -> str:
    return re.sub(r"[^a-z0-9.\-]+", "-", name.casefold()).strip("-.")[:96] or "model"


def _needed(config: Mapping[str, object]) -> dict[str, object]:
    kept: dict[str, object] = {}
    for key, value in sorted(config.items()):
        if key in _IDLE or key.endswith(("_token_id", "_token_index")):
            continue
        if key in ("id2label", "label2id"):
            # Only how many there are matters: a classifier has one score each.
            continue
        kept[key] = _needed(value) if isinstance(value, Mapping) else value
    if isinstance(config.get("id2label"), Mapping) and "num_labels" not in kept:
        kept["num_labels"] = len(config["id2label"])  # type: ignore[arg-type]
    return kept
