"""The single changes that could make it fit, each with what it loses and what it costs.

Formats of the KV cache and of weights, the engine's share of the card, what it makes room for at
once, its graphs, and the number of GPUs. ``loss`` is quality (kvplan.quality's ranks); ``cost`` orders
what loses none: a GPU costs money, graphs and room speed.
"""

from collections.abc import Iterator, Sequence

from kvplan.changes.attempt import Option, Situation
from kvplan.engines.base import Plan
from kvplan.errors import KvplanError
from kvplan.model import ModelSpec
from kvplan.quality import KV, weight_loss
from kvplan.solve import fewest_gpus
from kvplan.weight_formats import weight_format
from kvplan.weights import least_bits, weight_bytes

# Weights that nothing has packed.
FULL_BITS = 16
# Weights that are published in fewer bits than this are not published in other packings.
PACKED_BITS = 8
# Beyond this a server has no room for what its allocator and libraries take later.
MAX_SHARE = 0.97

# Formats of weights that are proposed: those that people publish and engines run.
WEIGHTS: tuple[str, ...] = (
    "q8_0",
    "fp8",
    "q6_k",
    "q5_k_m",
    "q4_k_m",
    "awq",
    "iq4_xs",
    "q3_k_m",
    "iq3_xxs",
    "iq2_m",
)
# What each engine calls its share of the card and its switch for running without graphs.
SHARE_OPTION = {"vllm": "gpu_memory_utilization", "sglang": "mem_fraction_static"}
EAGER_OPTION = {"vllm": "enforce_eager", "sglang": "disable_cuda_graph"}
# What a server makes room for at once: a step of a prompt (vLLM's default on small cards) and the rows it
# samples (half of that default), or the sequences that it sets states aside for.
ROOM_OPTIONS: dict[str, tuple[tuple[str, int], ...]] = {
    "vllm": (("max_num_batched_tokens", 2048), ("max_num_seqs", 128)),
    "tensorrt-llm": (("max_num_tokens", 2048), ("max_batch_size", 64)),
    "lmdeploy": (("max_prefill_token_num", 2048), ("max_batch_size", 64)),
    "tgi": (("max_batch_prefill_tokens", 2048),),
}

GPU_COST = 10
EAGER_COST = 2
ROOM_COST = 2


def singles(base: Plan, situation: Situation) -> Iterator[Option]:
    """Yield every change that could make ``base`` fit alone, each sort in order of its loss."""
    current_kv = {base.kv_dtype_k, base.kv_dtype_v}
    if situation.workload.kv_cache_dtype_k == "auto":
        for name, loss in KV.get(base.engine_name, {}).items():
            if name not in current_kv and base.cache.total.expected:
                yield Option("kv", name, loss.rank)
    now = base.weights.expected
    for name in WEIGHTS:
        other = name != base.weights_format and _can_load(situation, name)
        other = other and not _packs_again(situation.model, name)
        if other and _smaller(situation.model, name, base.weights_format, now):
            yield Option("weights", name, weight_loss(name).rank)
    yield from _engine_options(base, situation)
    yield from _gpu_options(situation)


def _can_load(situation: Situation, name: str) -> bool:
    """Tell whether the engine, or the one that the weights would call for, loads a format."""
    if weight_format(name).family in situation.engine.weight_families:
        return True
    # Another engine would not understand the flags that were given.
    return not situation.engine_chosen and not situation.workload.engine_options


def _packs_again(model: ModelSpec, name: str) -> bool:
    """Tell whether a format would pack anew what is published packed: GGUF files are, others are not."""
    return least_bits(model.weights_format) < PACKED_BITS and weight_format(name).family != "gguf"


def _smaller(model: ModelSpec, name: str, now: str, than_bytes: int) -> bool:
    if least_bits(now) >= FULL_BITS > least_bits(name):
        return True
    try:
        return weight_bytes(model, name).expected < than_bytes
    except KvplanError:
        return False


def _engine_options(base: Plan, situation: Situation) -> Iterator[Option]:
    options = dict(base.engine_options)
    share_name = SHARE_OPTION.get(base.engine_name)
    share = options.get(share_name) if share_name else None
    if share_name and isinstance(share, float) and situation.workload.option("kv_cache_memory_bytes") is None:
        step = int(share * 100) + 1
        while step / 100 <= MAX_SHARE:
            yield Option(share_name, f"{step / 100:g}", cost=1)
            step += 1
    for name, least in ROOM_OPTIONS.get(base.engine_name, ()):
        now = options.get(name)
        if isinstance(now, int) and now > least >= situation.workload.num_sequences:
            yield Option(name, str(least), cost=ROOM_COST)
    eager = EAGER_OPTION.get(base.engine_name)
    if eager and not situation.workload.option(eager):
        yield Option(eager, "true", cost=EAGER_COST)


def _gpu_options(situation: Situation) -> Iterator[Option]:
    workload = situation.workload
    if workload.tensor_parallel or workload.pipeline_parallel or len(set(situation.devices)) != 1:
        return
    have = len(situation.devices)
    needed = fewest_gpus(situation.model, workload, situation.devices[0], situation.engine, situation.rules)
    for count in sorted({have * 2, have * 4, needed} - {0}):
        if count > have and (not needed or count <= needed):
            yield Option("gpu", str(count), cost=GPU_COST * (count.bit_length() - have.bit_length()))


def widest(options: Sequence[Option]) -> list[Option]:
    """Return the options with only the largest share of the card: where it fails, less will."""
    last = {option.key: option for option in options if option.key in SHARE_OPTION.values()}
    return [option for option in options if last.get(option.key, option) is option]
