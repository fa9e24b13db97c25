"""Each form of quantization_config, and the bytes that a small Llama's matrices then take."""

import pytest

from kvplan.errors import UnsupportedArchitecture
from kvplan.sources.config_model import model_from_config
from kvplan.weights import weight_bytes

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
# (out, in) of a layer's matrices: q, k, v, o, gate, up, down.
MATRICES = [(256, 256), (128, 256), (128, 256), (256, 256), (512, 256), (512, 256), (256, 512)] * 2
ELEMENTS = sum(rows * columns for rows, columns in MATRICES)
ROWS = sum(rows for rows, _ in MATRICES)
COLUMNS = sum(columns for _, columns in MATRICES)
BLOCKS = sum(-(-rows // 128) * -(-columns // 128) for rows, columns in MATRICES)
EMBEDDING = 1000 * 256 * 2
# Embedding, head and five norms stay in bfloat16.
PLAIN = 2 * EMBEDDING + 5 * 256 * 2


def groups(size):
    return ELEMENTS // size


def compressed(**weights):
    return {
        "quant_method": "compressed-tensors",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


FORMS = {
    # Packed values; a scale and half a byte of zero point a group; the order of activations.
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        ELEMENTS // 2 + groups(128) * 5 // 2 + COLUMNS * 4,
    ),
    "gptq-8-bit": (
        {"quant_method": "gptq", "bits": 8, "group_size": 32},
        ELEMENTS + groups(32) * 3 + COLUMNS * 4,
    ),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, ELEMENTS // 2 + groups(128) * 5 // 2),
    # One fp32 maximum for 64 values.
    "bitsandbytes-nf4": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        ELEMENTS // 2 + groups(64) * 4,
    ),
    "bitsandbytes-int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, ELEMENTS + ROWS * 4),
    "fp8-blocks": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, ELEMENTS + BLOCKS * 4),
    "fp8-tensors": ({"quant_method": "fp8"}, ELEMENTS + len(MATRICES) * 4),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, ELEMENTS + ROWS * 4),
    "compressed-fp8": (compressed(num_bits=8, type="float", strategy="channel"), ELEMENTS + ROWS * 4),
    "compressed-int8": (compressed(num_bits=8, type="int", strategy="channel"), ELEMENTS + ROWS * 2),
    "compressed-w4a16": (
        compressed(num_bits=4, type="int", strategy="group", group_size=128),
        ELEMENTS // 2 + groups(128) * 2,
    ),
    # One fp8 scale for 16 values, two fp32 for a tensor.
    "compressed-nvfp4": (
        compressed(num_bits=4, type="float", strategy="tensor_group", group_size=16),
        ELEMENTS // 2 + groups(16) + len(MATRICES) * 8,
    ),
    "compressed-mxfp4": (
        compressed(num_bits=4, type="float", strategy="group", group_size=32),
        ELEMENTS // 2 + groups(32),
    ),
    "modelopt-nvfp4": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]},
        ELEMENTS // 2 + groups(16) + len(MATRICES) * 8,
    ),
    "modelopt-fp8": ({"quant_method": "modelopt", "quant_algo": "FP8"}, ELEMENTS + len(MATRICES) * 4),
    "quark-fp8": (
        {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}},
        ELEMENTS + len(MATRICES) * 4,
    ),
    "quark-mxfp4": (
        {
            "quant_method": "quark",
            "global_quant_config": {"weight": {"dtype": "fp4"}},
            "exclude": ["lm_head"],
        },
        ELEMENTS // 2 + groups(32),
    ),
    "torchao-int8": ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, ELEMENTS + ROWS * 2),
}


def model_with(quantization):
    return model_from_config({**CONFIG, "quantization_config": quantization}, name="tiny", source="test")


@pytest.mark.parametrize(("quantization", "expected"), FORMS.values(), ids=list(FORMS))
def test_the_bytes_of_each_form(quantization, expected):
    model = model_with(quantization)
    assert weight_bytes(model, model.weights_format).expected == PLAIN + expected


def test_modules_that_are_left_alone_keep_their_type():
    model = model_with(
        {"quant_method": "awq", "bits": 4, "group_size": 128, "modules_to_not_convert": ["self_attn"]}
    )
    attention = sum(rows * columns for rows, columns in MATRICES[:4]) * 2
    rest = ELEMENTS - attention
    packed = rest // 2 + rest // 128 * 5 // 2
    assert weight_bytes(model, model.weights_format).expected == PLAIN + attention * 2 + packed


def test_a_layer_may_be_left_alone():
    scheme = compressed(num_bits=8, type="int", strategy="channel")
    model = model_with({**scheme, "ignore": ["lm_head", "re:.*layers\\.0\\..*"]})
    expected = ELEMENTS // 2 * 2 + ELEMENTS // 2 + ROWS // 2 * 2
    assert weight_bytes(model, model.weights_format).expected == PLAIN + expected


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "magic"},
        {"quant_method": "gptq"},
        {"quant_method": "gptq", "bits": 3},
        {"quant_method": "awq", "bits": 4, "group_size": 0},
        {"quant_method": "fp8", "weight_block_size": [64, 64]},
        {"quant_method": "compressed-tensors"},
        {"quant_method": "modelopt", "quant_algo": "SECRET"},
        {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "int3"}}},
        {"quant_method": "torchao", "quant_type": "uint1"},
        {},
    ],
    ids=str,
)
def test_a_form_that_is_not_known_is_an_answer(quantization):
    with pytest.raises(UnsupportedArchitecture) as caught:
        model_with(quantization)
    assert caught.value.exit_code == 3
