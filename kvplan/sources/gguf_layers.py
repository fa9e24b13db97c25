"""A GGUF header becomes layers and tensors: what llama.cpp would cache for this very file.

The caches follow llama.cpp 0c1e57098, which reads the same keys: ``src/llama-model.cpp``
(load_hparams, create_memory), ``src/llama-hparams.cpp`` (recurrent states) and ``src/models/*.cpp``
(windows and their patterns). The tensors are the file's own, named as Hugging Face does so that
another mix can be priced. An architecture that is not listed raises UnsupportedArchitecture.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kvplan.errors import InvalidSpec, UnsupportedArchitecture
from kvplan.layers import (
    Cache,
    ChunkedAttention,
    FullAttention,
    GatedDeltaState,
    KimiDeltaState,
    LatentAttention,
    Layer,
    Mamba1State,
    Mamba2State,
    RwkvState,
    SharedCache,
    ShortConvState,
    SlidingWindow,
    run_lengths,
)
from kvplan.model import StoredTensor, Structure
from kvplan.sources.gguf import Header
from kvplan.sources.gguf_archs import (
    GEMMA3N_LAYERS_WITH_CACHE,
    GLM_SPACED_CONTEXT,
    INDEXED,
    KNOWN,
    NO_CACHE,
    WINDOWS,
)
from kvplan.sources.gguf_keys import Keys
from kvplan.sources.gguf_tensors import block_index, is_loaded, tensor_of

# Rows of the token before that RWKV keeps where the header does not say (llama-hparams.h).
DEFAULT_TOKEN_SHIFTS = 2


def structure_of_header(header: Header, arch: str, origin: str, *, assume: bool = False) -> Structure:
    """Return the structure of a GGUF file.

    ``assume`` plans an unknown architecture as full attention. Raises UnsupportedArchitecture for
    one without it, InvalidSpec for keys that are missing or contradict the tensors.
    """
    if arch not in KNOWN and not assume:
        raise UnsupportedArchitecture(
            f"{origin}: GGUF architecture '{arch[:40]}' is not one that kvplan knows",
            why="its layers could cache anything, and a guess would be a silently wrong number",
            hint="go on with --assume full-attention: an upper bound, with every number marked assumed",
        )
    keys = Keys(header, arch, origin)
    if keys.count("num_loops", 1) > 1:
        raise UnsupportedArchitecture(
            f"{origin}: its layers run {keys.count('num_loops')} times over",
            why="each turn has a cache of its own, and how llama.cpp places them is not known here",
            hint="plan another model, or report this one",
        )
    num_blocks = keys.count("block_count")
    num_layers = num_blocks - keys.count("nextn_predict_layers", 0)
    if not 1 <= num_layers <= 10_000:
        raise keys.invalid("block_count", f"is {num_blocks}")
    by_block: dict[int, list[StoredTensor]] = defaultdict(list)
    for tensor in header.tensors:
        by_block[block_index(tensor.name)].append(tensor)
    missing = next((index for index in range(num_layers) if index not in by_block), None)
    if missing is not None:
        raise InvalidSpec(
            f"{origin}: no tensors of layer {missing}",
            why=f"{arch}.block_count says {num_blocks} layers",
            hint="a part of a split model is opened by its first file, with all parts beside it",
        )
    used = keys.count("expert_used_count", 0)
    caches = _caches(keys, num_layers, by_block)
    heads = max(keys.per_layer("attention.head_count", num_layers, 0))
    kv_heads = keys.per_layer("attention.head_count_kv", num_layers, heads)
    layers = [
        Layer(caches[index], tuple(tensor_of(stored, kv_heads[index], used) for stored in by_block[index]))
        for index in range(num_layers)
    ]
    extra = [stored for index in range(num_layers, num_blocks) for stored in by_block[index]]
    outside = tuple(tensor_of(stored, 0, used) for stored in by_block[-1])
    return Structure(
        layers=run_lengths(layers),
        tensors=outside,
        hidden_size=keys.count("embedding_length"),
        vocab_size=_vocabulary(header, keys),
        num_attention_heads=heads,
        context_limit_tokens=keys.count("context_length", 0),
        tie_word_embeddings=not any(tensor.role == "lm_head" for tensor in outside),
        mtp_tensors=tuple(tensor_of(stored, 0, used) for stored in extra),
        kind="encoder" if arch in NO_CACHE else "decoder",
    )


def loaded_tensors(header: Header, arch: str, origin: str) -> tuple[StoredTensor, ...]:
    """Return the tensors that llama.cpp loads: all but the layers for speculation."""
    keys = Keys(header, arch, origin)
    num_layers = keys.count("block_count") - keys.count("nextn_predict_layers", 0)
    return tuple(tensor for tensor in header.tensors if is_loaded(tensor.name, num_layers))


def _vocabulary(header: Header, keys: Keys) -> int:
    for tensor in header.tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) == 2:
            return tensor.shape[1]
    return header.lengths.get("tokenizer.ggml.tokens") or keys.count("vocab_size")


def _caches(
    keys: Keys, num_layers: int, by_block: Mapping[int, Iterable[StoredTensor]]
) -> tuple[tuple[Cache, ...], ...]:
    if keys.arch in NO_CACHE:
        return ((),) * num_layers
    windowed = _windowed(keys, num_layers)
    made: list[tuple[Cache, ...]] = []
    attention = _Attention(keys, num_layers)
    for index in range(num_layers):
        names = {tensor.name.split(".", 2)[2] for tensor in by_block[index]}
        recurrent = any(name.startswith(("ssm_", "shortconv.", "time_mix_")) for name in names)
        caches: list[Cache] = []
        if recurrent:
            caches.append(_state(keys))
        if not recurrent or keys.arch == "falcon-h1":
            caches += attention.of(index, windowed[index])
        made.append(tuple(caches))
    return tuple(made)


def _windowed(keys: Keys, num_layers: int) -> tuple[int, ...]:
    """Return the window of each layer, 0 where it attends to everything."""
    rule = WINDOWS.get(keys.arch)
    if rule is None or (rule.only_layers and num_layers != rule.only_layers):
        return (0,) * num_layers
    window = keys.count("attention.sliding_window", rule.absent)
    if not window:
        return (0,) * num_layers
    window = rule.fixed or window
    if rule.every:
        return (window,) * num_layers
    pattern = keys.raw("attention.sliding_window_pattern")
    if isinstance(pattern, tuple):
        flags = keys.per_layer("attention.sliding_window_pattern", num_layers, 0)
        return tuple(window if flag else 0 for flag in flags)
    period = keys.count("attention.sliding_window_pattern", rule.period)
    if not period:
        raise keys.invalid("attention.sliding_window_pattern", "is missing")
    full = 0 if rule.dense_first else period - 1
    return tuple(0 if index % period == full else window for index in range(num_layers))


class _Attention:
    """Head counts and sizes of a header's attention layers."""

    __slots__ = ("_heads", "_keys", "_kv_heads", "_owners", "_sizes")

    def __init__(self, keys: Keys, num_layers: int) -> None:
        self._keys = keys
        self._heads = keys.per_layer("attention.head_count", num_layers, 0)
        most = max(self._heads)
        self._kv_heads = keys.per_layer("attention.head_count_kv", num_layers, most)
        each = keys.count("embedding_length") // most if most else 0
        key, value = keys.count("attention.key_length", each), keys.count("attention.value_length", each)
        self._sizes = {
            False: (key, value),
            True: (
                keys.count("attention.key_length_swa", key),
                keys.count("attention.value_length_swa", value),
            ),
        }
        self._owners = num_layers
        if keys.arch == "gemma3n":
            self._owners = min(num_layers, GEMMA3N_LAYERS_WITH_CACHE)
        elif keys.arch == "gemma4":
            self._owners = num_layers - keys.count("attention.shared_kv_layers", 0)

    def of(self, index: int, window: int) -> tuple[Cache, ...]:
        """Return the attention caches of one layer."""
        heads, kv_heads = self._heads[index], self._kv_heads[index]
        if not kv_heads or not heads:
            return ()
        keys = self._keys
        if keys.raw("attention.key_length_mla") is not None:
            return (self._latent(heads, index),)
        head_dim, v_head_dim = self._sizes[bool(window)]
        if not head_dim or not v_head_dim:
            raise keys.invalid("attention.key_length", "is 0")
        if window:
            rule = WINDOWS[keys.arch]
            if rule.chunked:
                return (ChunkedAttention(heads, kv_heads, head_dim, v_head_dim, window),)
            sliding = SlidingWindow(heads, kv_heads, head_dim, v_head_dim, window)
            return (SharedCache(sliding) if index >= self._owners else sliding,)
        full = FullAttention(heads, kv_heads, head_dim, v_head_dim)
        return (SharedCache(full) if index >= self._owners else full,)

    def _latent(self, heads: int, index: int) -> LatentAttention:
        keys = self._keys
        rope = keys.count("rope.dimension_count")
        return LatentAttention(
            num_attention_heads=heads,
            kv_lora_rank=keys.count("attention.kv_lora_rank"),
            qk_rope_head_dim=rope,
            qk_nope_head_dim=max(0, keys.count("attention.key_length_mla") - rope),
            v_head_dim=keys.count("attention.value_length_mla"),
            index_head_dim=keys.count("attention.indexer.key_length") if self._indexes(index) else 0,
        )

    def _indexes(self, index: int) -> bool:
        """Tell whether a layer has an indexer; others see the cells that the last one chose."""
        keys = self._keys
        if keys.arch != "glm-dsa":
            return keys.arch in INDEXED
        kinds = keys.raw("attention.indexer.types")
        if isinstance(kinds, tuple):
            return bool(kinds[index]) if index < len(kinds) else True
        # src/models/glm-dsa.cpp: GLM 5.2's context says that every fourth layer has one, and the first two.
        is_spaced = kinds is None and keys.count("context_length", 0) >= GLM_SPACED_CONTEXT
        return not is_spaced or index < 2 or index % 4 == 2


def _state(keys: Keys) -> Cache:
    arch = keys.arch
    if keys.raw("shortconv.l_cache") is not None:
        return ShortConvState(keys.count("embedding_length"), keys.count("shortconv.l_cache"))
    if keys.raw("wkv.head_size") is not None:
        hidden = keys.count("embedding_length")
        shifts = keys.count("token_shift_count", DEFAULT_TOKEN_SHIFTS)
        return RwkvState(hidden, shifts, hidden * keys.count("wkv.head_size"))
    kernel = keys.count("ssm.conv_kernel")
    if keys.raw("kda.head_dim") is not None:
        heads = keys.per_layer("attention.head_count", 1, 0)[0]
        return KimiDeltaState(heads, keys.count("kda.head_dim"), kernel)
    inner, size = keys.count("ssm.inner_size"), keys.count("ssm.state_size")
    if arch in ("mamba", "jamba"):
        return Mamba1State(inner, size, kernel)
    heads, groups = keys.count("ssm.time_step_rank"), keys.count("ssm.group_count")
    if not heads or inner % heads:
        raise keys.invalid("ssm.inner_size", f"is {inner}, which {heads} heads do not divide")
    if arch.startswith(("qwen3next", "qwen35")):
        return GatedDeltaState(groups, heads, size, inner // heads, kernel)
    return Mamba2State(heads, inner // heads, size, groups, kernel)
