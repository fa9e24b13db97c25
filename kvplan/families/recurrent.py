"""Models without attention, or with little: RecurrentGemma (Griffin), RWKV-4 and 5, xLSTM.

Source: transformers 5.23 models/recurrent_gemma, rwkv, xlstm; RWKV modeling_rwkv5.py.
"""

from kvplan.blocks.attention_pattern import unknown_layer_type
from kvplan.blocks.decoder import by_index, finish, shape_of
from kvplan.blocks.transformer import attention, gated_mlp
from kvplan.config import Config
from kvplan.layers import Layer, LayerGroup, RgLruState, RwkvState, SlidingWindow, XlstmState
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, lm_head, norm
from kvplan.units import round_up


def recurrent_gemma(config: Config) -> Structure:
    """Read RecurrentGemma: RG-LRU blocks and, every third, attention over a window (arXiv 2402.19427)."""
    shape = shape_of(config)
    hidden = shape.hidden_size
    width = config.positive("lru_width", hidden)
    kernel, heads = config.positive("conv1d_width", 4), shape.num_attention_heads
    if width % heads:
        raise config.invalid("lru_width", f"is {width}, which {heads} heads do not divide")
    size = width // heads
    kinds = config.texts("block_types") or ("recurrent", "recurrent", "attention")
    unknown = next((kind for kind in kinds if kind not in ("recurrent", "attention")), None)
    if unknown is not None or not kinds:
        raise unknown_layer_type(config, unknown or "none")
    rest = (
        *gated_mlp(hidden, max(1, config.positive("intermediate_size") // 2), bias=True, name="mlp_block"),
        *norm("temporal_pre_norm", hidden),
        *norm("channel_pre_norm", hidden),
    )
    recurrent = (
        *linear("temporal_block.linear_y", width, hidden, "recurrent", bias=True, split="out"),
        *linear("temporal_block.linear_x", width, hidden, "recurrent", bias=True, split="out"),
        *linear("temporal_block.linear_out", hidden, width, "recurrent", bias=True, split="in"),
        Tensor("temporal_block.conv_1d.weight", (width, 1, kernel), "recurrent", split="out"),
        Tensor("temporal_block.conv_1d.bias", (width,), "recurrent", split="out"),
        Tensor("temporal_block.rg_lru.recurrent_param", (width,), "recurrent", split="out"),
        *(
            tensor
            for name in ("input_gate", "recurrent_gate")
            for tensor in (
                Tensor(f"temporal_block.rg_lru.{name}_weight", (heads, size, size), "recurrent", split="out"),
                Tensor(f"temporal_block.rg_lru.{name}_bias", (heads, size), "recurrent", split="out"),
            )
        ),
    )
    bias = config.flag("attention_bias", False)
    attending = attention(
        hidden, heads, shape.num_key_value_heads, shape.head_dim, qkv_bias=bias, o_bias=True
    )
    window = config.positive("attention_window_size", 2048)
    made = {
        "recurrent": Layer((RgLruState(width, kernel),), (*recurrent, *rest)),
        "attention": Layer(
            (SlidingWindow(heads, shape.num_key_value_heads, shape.head_dim, shape.head_dim, window),),
            (*attending, *rest),
        ),
    }
    groups = by_index(shape.num_layers, lambda index: made[kinds[index % len(kinds)]])
    return finish(config, shape, groups, tied=True, norm_name="model.final_norm")


def rwkv(config: Config) -> Structure:
    """Read RWKV-4: time mixing and channel mixing, five rows of state a layer (arXiv 2305.13048)."""
    hidden, vocab = config.positive("hidden_size"), config.positive("vocab_size")
    inner = config.positive("attention_hidden_size", hidden)
    width, layers = config.positive("intermediate_size", 4 * hidden), config.layers()
    tied = config.flag("tie_word_embeddings", False)
    tensors = (
        *norm("ln1", hidden, bias=True),
        *norm("ln2", hidden, bias=True),
        Tensor("attention.time_decay", (inner,), "recurrent"),
        Tensor("attention.time_first", (inner,), "recurrent"),
        *(
            Tensor(f"attention.time_mix_{name}", (1, 1, hidden), "recurrent")
            for name in ("key", "value", "receptance")
        ),
        *(
            tensor
            for name in ("key", "value", "receptance")
            for tensor in linear(f"attention.{name}", inner, hidden, "recurrent", split="out")
        ),
        *linear("attention.output", hidden, inner, "recurrent", split="in"),
        *(Tensor(f"feed_forward.time_mix_{name}", (1, 1, hidden), "mlp") for name in ("key", "receptance")),
        *linear("feed_forward.key", width, hidden, "mlp", split="out"),
        *linear("feed_forward.receptance", hidden, hidden, "mlp", split="out"),
        *linear("feed_forward.value", hidden, width, "mlp", split="in"),
    )
    return Structure(
        layers=(LayerGroup(Layer((RwkvState(hidden, 2, 3 * hidden),), tensors), layers),),
        tensors=(
            embedding("embeddings", vocab, hidden),
            *norm("blocks.0.pre_ln", hidden, bias=True),
            *norm("ln_out", hidden, bias=True),
            *(() if tied else lm_head(vocab, hidden, name="head")),
        ),
        hidden_size=hidden,
        vocab_size=vocab,
        num_attention_heads=1,
        context_limit_tokens=config.integer("context_length", 1024),
        tie_word_embeddings=tied,
    )


def rwkv5(config: Config) -> Structure:
    """Read RWKV-5 World (RWKV modeling_rwkv5.py): a matrix of state a head, four mixes, a gate.

    The state is fp32; the inputs of the last token, one row a mixing, are in the model's dtype.
    """
    hidden, vocab = config.positive("hidden_size"), config.positive("vocab_size")
    inner, head_dim = config.positive("attention_hidden_size", hidden), config.positive("head_size", 64)
    if inner % head_dim:
        raise config.invalid("head_size", f"is {head_dim}, which does not divide {inner}")
    heads = inner // head_dim
    # modeling_rwkv5.py: 3.5 times the width, rounded down to a multiple of 32.
    width = config.positive("intermediate_size", int(hidden * 3.5) // 32 * 32 or None)
    tied = config.flag("tie_word_embeddings", False)
    tensors = (
        *norm("ln1", hidden, bias=True),
        *norm("ln2", hidden, bias=True),
        Tensor("attention.time_decay", (heads, head_dim), "recurrent"),
        Tensor("attention.time_faaaa", (heads, head_dim), "recurrent"),
        *(
            Tensor(f"attention.time_mix_{name}", (1, 1, hidden), "recurrent")
            for name in ("key", "value", "receptance", "gate")
        ),
        *(
            tensor
            for name in ("key", "value", "receptance", "gate")
            for tensor in linear(f"attention.{name}", inner, hidden, "recurrent", split="out")
        ),
        *linear("attention.output", hidden, inner, "recurrent", split="in"),
        *norm("attention.ln_x", inner, bias=True),
        *(Tensor(f"feed_forward.time_mix_{name}", (1, 1, hidden), "mlp") for name in ("key", "receptance")),
        *linear("feed_forward.key", width, hidden, "mlp", split="out"),
        *linear("feed_forward.receptance", hidden, hidden, "mlp", split="out"),
        *linear("feed_forward.value", hidden, width, "mlp", split="in"),
    )
    state = RwkvState(hidden, 2, heads * head_dim * head_dim)
    return Structure(
        layers=(LayerGroup(Layer((state,), tensors), config.layers()),),
        tensors=(
            embedding("embeddings", vocab, hidden),
            *norm("blocks.0.pre_ln", hidden, bias=True),
            *norm("ln_out", hidden, bias=True),
            *(() if tied else lm_head(vocab, hidden, name="head")),
        ),
        hidden_size=hidden,
        vocab_size=vocab,
        num_attention_heads=heads,
        context_limit_tokens=config.integer("context_length", 4096),
        tie_word_embeddings=tied,
    )


def xlstm(config: Config) -> Structure:
    """Read xLSTM 7B's blocks: a matrix memory a head and a gated MLP (arXiv 2503.13427)."""
    hidden, vocab = (
        config.positive("hidden_size", config.integer("embedding_dim", 4096) or None),
        config.positive("vocab_size"),
    )
    if config.integer("embedding_dim", hidden) != hidden:
        raise config.invalid(
            "embedding_dim", f"is {config.integer('embedding_dim')}, but hidden_size is {hidden}"
        )
    layers = config.layers("num_blocks") if config.has("num_blocks") else config.layers()
    heads = config.positive("num_attention_heads", 8)
    keys = int(hidden * config.number("qk_dim_factor", 0.5))
    values = int(hidden * config.number("v_dim_factor", 1.0))
    multiple = config.positive("ffn_round_up_to_multiple_of", 64)
    width = round_up(int(config.number("ffn_proj_factor", 2.667) * hidden), multiple)
    if min(keys, values, width) < 1 or keys % heads or values % heads:
        raise config.invalid("num_heads", f"is {heads}, which does not divide {keys} and {values}")
    if config.flag("tie_word_embeddings", False):
        raise config.invalid("tie_word_embeddings", "is true: xLSTM's class has a head of its own")
    bias = config.flag("use_bias", False)
    tensors = (
        *norm("norm_mlstm", hidden, bias=bias),
        *linear("mlstm_layer.q", keys, hidden, "recurrent", bias=bias, split="out"),
        *linear("mlstm_layer.k", keys, hidden, "recurrent", bias=bias, split="out"),
        *linear("mlstm_layer.v", values, hidden, "recurrent", bias=bias, split="out"),
        *linear("mlstm_layer.ogate_preact", values, hidden, "recurrent", bias=bias, split="out"),
        *linear("mlstm_layer.igate_preact", heads, hidden, "recurrent", bias=True, split="out"),
        *linear("mlstm_layer.fgate_preact", heads, hidden, "recurrent", bias=True, split="out"),
        *norm("mlstm_layer.multihead_norm", values, bias=bias),
        *linear("mlstm_layer.out_proj", hidden, values, "recurrent", bias=bias, split="in"),
        *norm("norm_ffn", hidden, bias=bias),
        *linear("ffn.proj_up_gate", width, hidden, "mlp", bias=bias, split="out"),
        *linear("ffn.proj_up", width, hidden, "mlp", bias=bias, split="out"),
        *linear("ffn.proj_down", hidden, width, "mlp", bias=bias, split="in"),
    )
    return Structure(
        layers=(LayerGroup(Layer((XlstmState(heads, keys // heads, values // heads),), tensors), layers),),
        tensors=(
            embedding("embeddings", vocab, hidden),
            # The class norms its output whatever add_out_norm says.
            *norm("out_norm", hidden),
            *lm_head(vocab, hidden),
        ),
        hidden_size=hidden,
        vocab_size=vocab,
        num_attention_heads=heads,
        context_limit_tokens=0,
        tie_word_embeddings=False,
    )
