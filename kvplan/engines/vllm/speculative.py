"""vLLM: what ``--speculative-config`` adds: layers that draft, their weights, columns in states.

vLLM 0.33 config/speculative.py (methods), config/vllm.py (``num_speculative_tokens`` counts for every
method), v1/core/kv_cache_planning.py (draft layers are planned with the model's own).
"""

from kvplan.engines.base import Notice
from kvplan.frozen import dataclass
from kvplan.layers import AttentionCache, FullAttention, LatentAttention, Layer, LayerGroup, SlidingWindow
from kvplan.model import ModelSpec, cache_kinds
from kvplan.workload import Workload


@dataclass(frozen=True, slots=True)
class Speculation:
    """The drafting that a server does.

    ``num_tokens`` per step; ``method`` as vLLM resolves it.
    """

    num_tokens: int = 0
    method: str = ""

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
    """Return the drafting asked for, and what of it cannot be counted."""
    config = workload.option("speculative_config")
    if not isinstance(config, dict):
        # Before 0.9 the draft had flags of its own.
        named = workload.option("speculative_model")
        if not named:
            return NONE, ()
        config = {"model": named, "num_speculative_tokens": workload.option("num_speculative_tokens")}
    tokens = config.get("num_speculative_tokens")
    named = str(config.get("model") or "")
    method = str(config.get("method") or _method_of(named)).casefold()
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        tokens = 1
    found = Speculation(max(0, tokens), method)
    if found.uses_mtp and not model.structure.mtp_layers:
        return found, (
            Notice("draft-not-counted", f"{model.name} has no MTP layers: the draft's memory is not counted"),
        )
    if found.uses_eagle:
        return found, (
            Notice(
                "draft-assumed",
                "the EAGLE head is taken as one layer like the model's last, with its own output rows",
            ),
        )
    if method == "draft_model":
        return found, (
            Notice(
                "draft-not-counted", f"the draft model {named or '(unnamed)'} is not counted: add its own"
            ),
        )
    return found, ()


def _method_of(named: str) -> str:
    """Return the method vLLM reads from the draft's name where none is given."""
    folded = named.casefold()
    if folded in ("[ngram]", "ngram"):
        return "ngram"
    if "eagle3" in folded:
        return "eagle3"
    if "eagle" in folded:
        return "eagle"
    return "draft_model" if named else "mtp"


def draft_layers(model: ModelSpec, speculation: Speculation) -> tuple[LayerGroup, ...]:
    """Return the layers that draft, planned after the model's last one."""
    if speculation.uses_mtp:
        return model.structure.mtp_layers
    if not speculation.uses_eagle:
        return ()
    cache = _head_cache(model)
    return (LayerGroup(Layer((cache,)), 1),) if cache else ()


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
