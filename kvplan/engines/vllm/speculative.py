"""vLLM: what ``--speculative-config`` adds: layers that draft, columns in states.

vLLM 0.33 config/speculative.py (methods), config/vllm.py (``num_speculative_tokens`` counts for every
method), v1/core/kv_cache_planning.py (draft layers are planned with the model's own).
"""

from dataclasses import replace

from kvplan.engines.base import Notice, Refusal
from kvplan.frozen import dataclass
from kvplan.layers import AttentionCache, FullAttention, LatentAttention, Layer, LayerGroup, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds
from kvplan.workload import Workload

FLAGS_OF_THEIR_OWN = (
    ("method", "speculative_method"),
    ("model", "speculative_model"),
    ("num_speculative_tokens", "num_speculative_tokens"),
)
# Methods that take no weights and no cache of their own.
WITHOUT_MODEL = ("ngram", "ngram_gpu", "suffix", "extract_hidden_states", "custom_class")
# Heads without attention: nothing of them is cached.
WITHOUT_CACHE = ("medusa", "mlp_speculator")
# Whose checkpoints have one MTP layer though their configs may be silent (``num_nextn_predict_layers``).
ONE_MTP_LAYER = ("qwen3_next", "glm4_moe")
# What a separate model that was not read may keep a token: one layer's latent, 32 layers of 8 heads.
UNKNOWN_TOKEN_BYTES = (1024, 128 * 1024)


@dataclass(frozen=True, slots=True)
class Speculation:
    """The drafting that a server does.

    ``num_tokens`` per step; ``method`` as vLLM resolves it. ``is_unknown`` says that a separate model
    drafts which was not read.
    """

    num_tokens: int = 0
    method: str = ""
    is_unknown: bool = False

    @property
    def uses_mtp(self) -> bool:
        """Tell whether the checkpoint's own MTP layers draft."""
        return self.method.endswith("mtp") or self.method == "nextn"

    @property
    def uses_eagle(self) -> bool:
        """Tell whether a head of one decoder layer drafts."""
        return self.method.startswith("eagle")


NONE = Speculation()


def speculation_of(model: ModelSpec, workload: Workload) -> tuple[Speculation, tuple[Notice, ...]]:
    """Return the drafting asked for, and what of it is assumed."""
    asked = workload.option("speculative_config")
    config: dict[str, object] = dict(asked) if isinstance(asked, dict) else {}
    # Flags of their own: --speculative-model before 0.9, --spec-model and others again in 0.33.
    own = {
        key: workload.option(name) for key, name in FLAGS_OF_THEIR_OWN if workload.option(name) is not None
    }
    if not isinstance(asked, dict) and not {"method", "model"} & set(own):
        return NONE, ()
    config = own | config
    tokens = config.get("num_speculative_tokens")
    named = str(config.get("model") or "")
    method = str(config.get("method") or _method_of(named, model.draft)).casefold().strip("[]")
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        tokens = 1
    found = Speculation(max(0, tokens), method)
    if method in WITHOUT_MODEL or separate_draft(model, found) is not None:
        return found, ()
    if found.uses_mtp and (model.structure.mtp_layers or not named):
        if model.structure.mtp_layers:
            return found, ()
        text = f"{model.name} has no MTP layers: the draft's memory is not counted"
        if model.model_type in ONE_MTP_LAYER:
            text = f"{model.name}'s config names no MTP layer: one is cached, its weights are not counted"
        return found, (Notice("draft-not-counted", text),)
    if found.uses_eagle:
        return found, (
            Notice(
                "draft-assumed",
                "the EAGLE head is taken as one layer like the model's last, with its own output rows",
            ),
        )
    return replace(found, is_unknown=True), (
        Notice(
            "draft-assumed",
            f"the draft {named or '(unnamed)'} was not read: its weights and cache are wide intervals; "
            "--draft MODEL reads it",
        ),
    )


def _method_of(named: str, draft: ModelSpec | None) -> str:
    """Return the method vLLM reads from the draft's name or config where none is given."""
    folded = named.casefold()
    if folded in ("[ngram]", "ngram"):
        return "ngram"
    architecture = draft.architecture.casefold() if draft else ""
    for method in ("eagle3", "eagle", "dflash", "dspark", "medusa"):
        if method in folded or method in architecture:
            return method
    if draft is not None and draft.model_type.endswith("_mtp"):
        return "mtp"
    return "draft_model" if named else "mtp"


def separate_draft(model: ModelSpec, speculation: Speculation) -> ModelSpec | None:
    """Return the model that drafts beside this one; None where its own layers do, or nothing is known."""
    if model.draft is None or not speculation.method or speculation.method in WITHOUT_MODEL:
        return None
    return None if speculation.uses_mtp and model.structure.mtp_layers else model.draft


def draft_layers(model: ModelSpec, speculation: Speculation) -> tuple[LayerGroup, ...]:
    """Return the layers that draft, planned after the model's last one."""
    draft = separate_draft(model, speculation)
    if draft is not None:
        # Gemma-4's assistants have queries alone: they read the model's own cache
        # (v1/spec_decode/gemma4.py).
        reads_target = speculation.uses_mtp and draft.model_type.startswith("gemma4")
        return () if reads_target or speculation.method in WITHOUT_CACHE else draft.layers
    if speculation.uses_mtp and (model.structure.mtp_layers or model.model_type not in ONE_MTP_LAYER):
        return model.structure.mtp_layers
    if not (speculation.uses_eagle or speculation.uses_mtp):
        return ()
    cache = _head_cache(model)
    return (LayerGroup(Layer((cache,)), 1),) if cache else ()


def draft_refusals(
    model: ModelSpec, speculation: Speculation, workload: Workload, tensor: int
) -> tuple[Refusal, ...]:
    """Return why vLLM would not start with a draft model.

    Source: vLLM 0.33 config/speculative.py and v1/spec_decode/draft_model.py.
    """
    draft = separate_draft(model, speculation)
    if draft is None or speculation.method != "draft_model":
        return ()
    config = workload.option("speculative_config")
    config = config if isinstance(config, dict) else {}
    own, other = model.structure.vocab_size, draft.structure.vocab_size
    if own != other and not config.get("use_heterogeneous_vocab"):
        message = (
            "Target and draft model should have the same vocabulary size. "
            f"Target model vocab_size={own}. Draft model vocab_size={other}."
        )
        return (Refusal("draft-vocabulary", message),)
    asked = config.get("draft_tensor_parallel_size")
    if isinstance(asked, int) and asked != tensor:
        message = (
            "Currently, 'draft_tensor_parallel_size' and 'tensor_parallel_size' must be the same. "
            f"Got {asked} and {tensor}."
        )
        return (Refusal("draft-parallel", message, f"--tp {asked}"),)
    return ()


def _head_cache(model: ModelSpec) -> AttentionCache | None:
    """Return the cache of an EAGLE head: full attention shaped like the model's own."""
    for cache, _ in reversed(cache_kinds(model)):
        if isinstance(cache, FullAttention | SlidingWindow):
            return FullAttention(
                cache.num_attention_heads, cache.num_key_value_heads, cache.head_dim, cache.v_head_dim
            )
        if isinstance(cache, LatentAttention):
            return cache
    return None
