"""llama.cpp's and Ollama's own flags and variables, as options."""

import pytest

from kvplan.deploy.flags import read_flags
from kvplan.deploy.flags.environment import options_of_environment
from kvplan.errors import InvalidValue


def test_memory_relevant_flags_are_known():
    words = [
        *("-m", "model.gguf", "-c", "32768", "-np", "4", "-b", "1024", "-ub", "256", "-ngl", "41"),
        *("-fa", "on", "-ctk", "q8_0", "-ctv", "q8_0", "-kvu", "--swa-full", "-ts", "3,1", "-sm", "layer"),
        *("-mg", "1", "-ncmoe", "8", "-ot", "exps=CPU", "-nkvo", "--fit", "off", "--fit-target", "512"),
        *("--mmproj", "m.gguf", "-md", "draft.gguf", "--lora", "a.gguf", "--cache-ram", "0", "--no-mmap"),
    ]
    flags = read_flags("llama.cpp", words)
    assert flags.unknown == ()
    options = dict(flags.options)
    assert options["ctx_size"] == 32_768
    assert options["n_gpu_layers"] == "41"
    assert options["kv_unified"] is True
    assert options["override_tensor"] == "exps=CPU"
    assert options["no_kv_offload"] is True


def test_variables_stand_for_flags():
    environment = {
        "LLAMA_ARG_CTX_SIZE": "16384",
        "LLAMA_ARG_N_GPU_LAYERS": "99",
        "LLAMA_ARG_FLASH_ATTN": "off",
        "LLAMA_ARG_CACHE_TYPE_K": "q8_0",
        "LLAMA_ARG_KV_UNIFIED": "1",
        "LLAMA_ARG_SWA_FULL": "0",
        "LLAMA_ARG_KV_OFFLOAD": "false",
        "LLAMA_ARG_SOMETHING_NEW": "1",
        "PATH": "/bin",
    }
    flags = options_of_environment("llama.cpp", environment)
    assert dict(flags.options) == {
        "ctx_size": 16_384,
        "n_gpu_layers": "99",
        "flash_attn": "off",
        "cache_type_k": "q8_0",
        "kv_unified": True,
        "no_kv_offload": True,
    }
    assert flags.unknown == ("LLAMA_ARG_SOMETHING_NEW",)


def test_ollama_has_variables_of_its_own():
    environment = {
        "OLLAMA_CONTEXT_LENGTH": "8192",
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_KV_CACHE_TYPE": "q4_0",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_GPU_OVERHEAD": "1073741824",
    }
    assert dict(options_of_environment("ollama", environment).options) == {
        "num_ctx": 8192,
        "num_parallel": 2,
        "kv_cache_type": "q4_0",
        "flash_attention": "1",
        "gpu_overhead": 2**30,
    }


@pytest.mark.parametrize(
    ("name", "value"), [("LLAMA_ARG_CTX_SIZE", "many"), ("LLAMA_ARG_KV_UNIFIED", "perhaps")]
)
def test_a_value_that_cannot_be_read_is_named(name, value):
    with pytest.raises(InvalidValue, match="cannot be read"):
        options_of_environment("llama.cpp", {name: value})


def test_engines_without_variables_have_none():
    assert options_of_environment("transformers", {"LLAMA_ARG_CTX_SIZE": "1"}).options == ()


def test_parameters_of_a_modelfile():
    flags = read_flags("ollama", ["--num_ctx", "8192", "--num-gpu", "20", "--num_batch", "1024"])
    assert dict(flags.options) == {"num_ctx": 8192, "num_gpu": 20, "num_batch": 1024}
