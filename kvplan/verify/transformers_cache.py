"""transformers' own cache classes, filled: what they keep of what a forward pass hands them.

The class is chosen by transformers from the model's real config (``DynamicCache(config=...)``,
``StaticCache``, ``QuantizedCache``); each layer gets keys and values of the whole prompt, or its
states, and decides itself what stays (a window is cut, a static layer reserved). ``forward`` goes
further: a random model with the config's own layers, fewer of them, runs real tokens.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from kvplan.engines.base import Plan
from kvplan.errors import CannotTell, MissingExtra
from kvplan.frozen import dataclass
from kvplan.layers import (
    RECURRENT_STATES,
    Cache,
    ChunkedAttention,
    FullAttention,
    LatentAttention,
    SharedCache,
    SlidingWindow,
    kind_name,
)
from kvplan.model import expand_layers
from kvplan.verify.allocate import Progress
from kvplan.verify.state_tensors import StateTypes, state_tensors
from kvplan.verify.transformers_layout import generation_for

MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Held:
    """What a cache holds: by kind of layer and in all; ``storage_bytes`` with what views keep alive."""

    by_kind: Mapping[str, int]
    held_bytes: int
    storage_bytes: int
    classes: Mapping[str, int]


def transformers_module() -> Any:
    """Return transformers. Raises MissingExtra with how to get it."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra(
            "transformers is not installed",
            why="its own cache classes are what is compared with",
            hint="pip install torch transformers, or leave out --against",
        ) from None
    transformers.logging.set_verbosity_error()
    return transformers


def fill(plan: Plan, device: str, progress: Progress) -> Held:
    """Build the class that the plan names and fill it. Raises CannotTell for what it cannot be fed.

    Everything is freed when the last reference goes; nothing is kept here.
    """
    import torch

    transformers = transformers_module()
    config = config_of(transformers, plan.model.config or {}, plan.model.model_type)
    options = dict(plan.engine_options)
    cache = _cache(transformers, config, options)
    dtype = getattr(torch, plan.kv_dtype_k)
    by_kind: dict[str, int] = {}
    classes: dict[str, int] = {}
    done = 0
    layers = expand_layers(plan.model)
    for index, layer in enumerate(layers):
        for part in layer.caches:
            if isinstance(part, SharedCache):
                by_kind.setdefault(kind_name(part), 0)
                continue
            if index >= len(cache.layers):
                raise CannotTell(
                    f"transformers gives this model {len(cache.layers)} cache layers, the plan {len(layers)}",
                    why=f"layer {index} would be {kind_name(part)}",
                    hint="run the model itself: add --forward",
                )
            before = sum_bytes(cache.layers[index])
            _feed(torch, cache, index, part, plan, device, dtype)
            grown = sum_bytes(cache.layers[index]) - before
            by_kind[kind_name(part)] = by_kind.get(kind_name(part), 0) + grown
            done += grown
        if index < len(cache.layers):
            name = type(cache.layers[index]).__name__
            classes[name] = classes.get(name, 0) + 1
        progress(done)
    return Held(by_kind, sum_bytes(cache), storage_bytes(cache), classes)


def random_model(config: Mapping[str, object], model_type: str, device: str) -> Any:
    """Return a model of that config with random weights.

    Raises CannotTell where transformers has no causal model of that type or cannot build it.
    """
    import torch

    transformers = transformers_module()
    built = config_of(transformers, config, model_type)
    try:
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(built).to(device).eval()
    except Exception as error:
        raise CannotTell(
            f"transformers {transformers.__version__} cannot build this {model_type} model",
            why=f"{type(error).__name__}: {str(error).splitlines()[0][:140] if str(error) else ''}",
            hint="leave out --forward",
        ) from None


def forward(model: Any, num_tokens: int, batch: int, device: str) -> Held:
    """Run random tokens through a model and return what it cached.

    Raises CannotTell where the model hands out no cache.
    """
    import torch

    vocabulary = int(getattr(model.config.get_text_config(decoder=True), "vocab_size", 1000))
    tokens = torch.randint(3, max(4, vocabulary - 1), (batch, num_tokens), device=device)
    with torch.no_grad():
        answer = model(input_ids=tokens, use_cache=True)
    cache = getattr(answer, "past_key_values", None)
    if cache is None:
        cache = getattr(answer, "cache_params", None)
    if cache is None:
        raise CannotTell(
            f"{type(model).__name__} hands out no cache",
            why="it keeps its states inside its modules",
            hint="leave out --forward",
        )
    classes: dict[str, int] = {}
    for layer in getattr(cache, "layers", ()):
        classes[type(layer).__name__] = classes.get(type(layer).__name__, 0) + 1
    # xLSTM's own cache counts its tokens in a tensor that its plan counts as well.
    counters = type(cache).__name__.startswith("xLSTM")
    return Held({}, sum_bytes(cache, counters=counters), storage_bytes(cache), classes)


def config_of(transformers: Any, data: Mapping[str, object], model_type: str) -> Any:
    """Return transformers' config object. Raises CannotTell for a type it does not have."""
    if not data or not model_type:
        raise CannotTell(
            "this model comes without a config.json",
            why="transformers builds its caches from one",
            hint="name the model by its bundled id, repository or folder",
        )
    rest = {
        key: value for key, value in data.items() if key not in ("model_type", "architectures", "auto_map")
    }
    rest.pop("quantization_config", None)
    try:
        return transformers.AutoConfig.for_model(model_type, **rest)
    except Exception as error:
        raise CannotTell(
            f"transformers {transformers.__version__} cannot read this {model_type} config",
            why=f"{type(error).__name__}: {str(error).splitlines()[0][:140] if str(error) else ''}",
            hint="leave out --against to allocate kvplan's own shapes",
        ) from None


def _cache(transformers: Any, config: Any, options: Mapping[str, object]) -> Any:
    try:
        match options.get("cache_implementation"):
            case "static":
                return transformers.StaticCache(config=config, max_cache_len=options["max_cache_len"])
            case "quantized":
                names = ("nbits", "q_group_size", "residual_length")
                given = {name: options[name] for name in names if name in options}
                return transformers.QuantizedCache(backend=options["backend"], config=config, **given)
            case _:
                return transformers.DynamicCache(config=config)
    except (ImportError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise CannotTell(
            f"transformers {transformers.__version__} builds no such cache by itself",
            why=f"{type(error).__name__}: {str(error)[:140]}",
            hint="run the model itself: add --forward",
        ) from None


def _feed(torch: Any, cache: Any, index: int, part: Cache, plan: Plan, device: str, dtype: Any) -> None:
    """Hand one layer what a forward pass over the whole prompt would."""
    batch, tokens = plan.num_sequences, plan.context_tokens
    match part:
        case FullAttention() | SlidingWindow() | ChunkedAttention():
            heads = part.num_key_value_heads
            if isinstance(part, FullAttention) and generation_for(plan).kind.broadcasts_heads:
                heads = part.num_attention_heads
            shapes = ((heads, part.head_dim), (heads, part.v_head_dim))
        case LatentAttention():
            shapes = ((1, part.kv_lora_rank), (1, part.qk_rope_head_dim))
        case _ if isinstance(part, RECURRENT_STATES):
            types = StateTypes(plan.kv_dtype_k, "float32", "float32", plan.kv_dtype_k, extra_columns=1)
            _feed_states(torch, cache.layers[index], part, batch, types, device)
            return
        case _:
            raise CannotTell(
                f"{kind_name(part)} cannot be fed by hand",
                why="its layers compute what they keep",
                hint="run the model itself: add --forward",
            )
    key, value = (
        torch.ones((batch, heads, tokens, width), dtype=dtype, device=device) for heads, width in shapes
    )
    cache.update(key, value, index)
    index_head_dim = part.index_head_dim if isinstance(part, FullAttention | LatentAttention) else 0
    if index_head_dim:
        update = getattr(cache.layers[index], "update_indexer", None)
        if update is None:
            raise CannotTell(
                f"transformers' {type(cache.layers[index]).__name__} has no place for index keys",
                why="the plan has an indexer in this layer",
                hint="run the model itself: add --forward",
            )
        update(torch.ones((batch, tokens, index_head_dim), dtype=dtype, device=device))


def _feed_states(torch: Any, layer: Any, part: Cache, batch: int, types: StateTypes, device: str) -> None:
    shapes = state_tensors(part, batch, types)
    states = [shape for shape in shapes if "conv" not in shape.name]
    columns = [shape for shape in shapes if "conv" in shape.name]
    if not hasattr(layer, "update_conv_state") or len(states) > 1:
        raise CannotTell(
            f"{kind_name(part)} cannot be fed by hand",
            why=f"transformers keeps it in {type(layer).__name__}",
            hint="run the model itself: add --forward",
        )
    if columns:
        # Convolutions over queries, keys and values are one tensor here.
        channels = sum(shape.shape[1] for shape in columns)
        whole = (batch, channels, columns[0].shape[2])
        layer.update_conv_state(torch.ones(whole, dtype=getattr(torch, columns[0].dtype), device=device))
    for shape in states:
        layer.update_recurrent_state(
            torch.ones(shape.shape, dtype=getattr(torch, shape.dtype), device=device)
        )


def tensors_in(
    value: object, seen: set[int] | None = None, depth: int = 0, *, counters: bool = False
) -> Iterator[Any]:
    """Yield every tensor that an object reaches, once; counters and positions only if asked for."""
    import torch

    seen = set() if seen is None else seen
    if id(value) in seen or depth > MAX_DEPTH:
        return
    if isinstance(value, torch.Tensor):
        seen.add(id(value))
        if counters or value.is_floating_point() or value.dim() > 1:
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item, seen, depth + 1, counters=counters)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item, seen, depth + 1, counters=counters)
    elif hasattr(value, "__dict__") and not isinstance(value, type | torch.nn.Module):
        if type(value).__name__.endswith("Config"):
            return
        seen.add(id(value))
        for item in vars(value).values():
            yield from tensors_in(item, seen, depth + 1, counters=counters)


def sum_bytes(value: object, *, counters: bool = False) -> int:
    """Return what the tensors of an object hold."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(value, counters=counters))


def storage_bytes(value: object) -> int:
    """Return what their storages keep alive, each counted once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors_in(value)
    }
    return sum(storages.values())
