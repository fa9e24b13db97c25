"""What a prefix that sessions have in common saves, on the layers that can share it.

Blocks of full and latent attention are found again by their tokens and held once for all (vLLM's
automatic prefix caching, SGLang's radix cache). A window keeps only its last tokens, so sessions
share it only while they are inside it; a recurrent state is one running sum per sequence and is
never shared. Only whole blocks are shared.
"""

from kvplan.engines.base import Plan
from kvplan.frozen import dataclass

SHARES_PREFIXES: dict[str, str] = {
    "vllm": "automatic prefix caching, on by default",
    "sglang": "radix cache, on by default",
    "tensorrt-llm": "block reuse, on by default",
    "tgi": "prefix caching, on by default",
}
SHAREABLE = ("full_attention", "latent_attention")


@dataclass(frozen=True, slots=True)
class Sharing:
    """What sharing saves: bytes held once instead of by every session that has the prefix.

    ``shared_bytes_per_token`` counts the layers that can share, ``kinds`` names them, ``not_shared``
    the others. ``engine_support`` is empty where the engine cannot.
    """

    prefix_tokens: int
    num_sharing: int
    shared_bytes_per_token: int
    saved_bytes: int
    kinds: tuple[str, ...]
    not_shared: tuple[str, ...]
    engine_support: str


def sharing(result: Plan, num_sessions: int, prefix_tokens: int, fraction: float) -> Sharing:
    """Return what ``fraction`` of the sessions save by a common prefix of ``prefix_tokens``."""
    block_size = result.cache.block_size or 1
    whole = min(prefix_tokens, result.context_tokens) // block_size * block_size
    num_sharing = int(num_sessions * fraction)
    groups = result.cache.groups
    each = sum(group.bytes_per_token for group in groups if group.kind in SHAREABLE)
    support = SHARES_PREFIXES.get(result.engine_name, "")
    if result.engine_name == "vllm" and result.workload.option("enable_prefix_caching", True) is False:
        support = ""
    if result.engine_name == "sglang" and result.workload.option("disable_radix_cache"):
        support = ""
    if result.engine_name == "tgi" and dict(result.engine_options).get("attention") == "paged":
        support = ""
    saved = each * whole * max(0, num_sharing - 1) if support else 0
    return Sharing(
        whole,
        num_sharing,
        each,
        saved,
        tuple(group.kind for group in groups if group.kind in SHAREABLE),
        tuple(group.kind for group in groups if group.kind not in SHAREABLE and group.bytes_per_sequence),
        support,
    )
