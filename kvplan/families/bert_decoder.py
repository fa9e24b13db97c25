"""ModernBERT's layer as a decoder (Ettin): windows on two layers of three.

Source: transformers 5.23 models/modernbert_decoder. Its window is half of ``local_attention``.
"""

from kvplan.blocks.attention_pattern import FULL, SLIDING, layer_types
from kvplan.blocks.decoder import attention_cache, by_index, fixed_head_dim, num_labels, shape_of
from kvplan.blocks.encoder import task_of
from kvplan.blocks.transformer import attention
from kvplan.config import Config
from kvplan.layers import Layer
from kvplan.model import Structure
from kvplan.tensors import Tensor, embedding, linear, norm


def modernbert_decoder(config: Config) -> Structure:
    """Read ModernBERT's decoder: no norm before the first attention, a transform before the tied head."""
    shape = fixed_head_dim(config, shape_of(config))
    hidden, width = shape.hidden_size, config.positive("intermediate_size")
    norm_bias = config.flag("norm_bias", False)
    bias, mlp_bias = config.flag("attention_bias", False), config.flag("mlp_bias", False)
    step = config.positive("global_attn_every_n_layers", 3)
    usual = tuple(SLIDING if index % step else FULL for index in range(shape.num_layers))
    kinds = layer_types(config, shape.num_layers) or usual
    window = _window(config) if SLIDING in kinds else 0
    common = (
        *attention(
            hidden,
            shape.num_attention_heads,
            shape.num_attention_heads,
            shape.head_dim,
            qkv_bias=bias,
            o_bias=bias,
            name="attn",
        ),
        *norm("mlp_norm", hidden, bias=norm_bias),
        *linear("mlp.Wi", 2 * width, hidden, "mlp", bias=mlp_bias, split="out"),
        *linear("mlp.Wo", hidden, width, "mlp", bias=mlp_bias, split="in"),
    )

    def make(index: int) -> Layer:
        before = norm("attn_norm", hidden, bias=norm_bias) if index else ()
        return Layer((attention_cache(shape, kinds[index], window),), (*common, *before))

    tied = config.flag("tie_word_embeddings", True)
    transform = (
        *linear("lm_head.dense", hidden, hidden, "lm_head", bias=config.flag("classifier_bias", False)),
        *norm("lm_head.norm", hidden, bias=norm_bias),
    )
    decoder: tuple[Tensor, ...] = () if tied else (embedding("decoder", shape.vocab_size, hidden),)
    if config.flag("decoder_bias", True):
        decoder += (Tensor("decoder.bias", (shape.vocab_size,), "lm_head", split="vocab"),)
    head = task_of(
        config,
        {
            "Model": (),
            "ForCausalLM": (*transform, *decoder),
            "ForSequenceClassification": (
                *transform,
                *linear("classifier", num_labels(config), hidden, "other", bias=True),
            ),
        },
    )
    return Structure(
        layers=by_index(shape.num_layers, make),
        tensors=(
            embedding("embeddings.tok_embeddings", shape.vocab_size, hidden),
            *norm("embeddings.norm", hidden, bias=norm_bias),
            *norm("final_norm", hidden, bias=norm_bias),
            *head,
        ),
        hidden_size=hidden,
        vocab_size=shape.vocab_size,
        num_attention_heads=shape.num_attention_heads,
        context_limit_tokens=config.positive("max_position_embeddings"),
        tie_word_embeddings=tied,
    )


def _window(config: Config) -> int:
    # A file that states sliding_window overrules what the class makes of local_attention.
    if config.has("sliding_window"):
        return config.positive("sliding_window")
    window = config.positive("local_attention", 128) // 2
    if window < 1:
        raise config.invalid("local_attention", "leaves no window")
    return window
