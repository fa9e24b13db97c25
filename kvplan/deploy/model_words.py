"""Which of an engine's words name the model, and what else names the deployment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kvplan.deploy.flags import scan
from kvplan.deploy.words import Word

# Flags that name the model, the first that is there counts; by engine.
MODEL_FLAGS: dict[str, tuple[str, ...]] = {
    "vllm": ("--model",),
    "sglang": ("--model-path", "--model"),
    "llama.cpp": ("-m", "--model", "-hf", "-hfr", "--hf-repo", "-mu", "--model-url"),
    "ik_llama.cpp": ("-m", "--model", "-hf", "-hfr", "--hf-repo"),
    "tgi": ("--model-id",),
    "lmdeploy": ("--model-path",),
    "mlx_lm": ("--model",),
    "tensorrt-llm": ("--model-path", "--model", "--model_path"),
    "llama-cpp-python": ("--model", "--hf_model_repo_id"),
}
MODEL_VARIABLES: dict[str, tuple[str, ...]] = {
    "tgi": ("MODEL_ID",),
    "llama.cpp": ("LLAMA_ARG_MODEL", "LLAMA_ARG_HF_REPO"),
}
POSITIONAL = ("vllm", "sglang", "tensorrt-llm", "lmdeploy", "ollama")
NAME_FLAGS = ("--served-model-name", "--alias", "-a", "--served_model_name")
# llama.cpp takes every flag from the environment as well: LLAMA_ARG_CTX_SIZE is --ctx-size.
LLAMA_VARIABLES: dict[str, str] = {
    "LLAMA_ARG_CTX_SIZE": "--ctx-size",
    "LLAMA_ARG_N_PARALLEL": "--parallel",
    "LLAMA_ARG_BATCH": "--batch-size",
    "LLAMA_ARG_UBATCH": "--ubatch-size",
    "LLAMA_ARG_N_GPU_LAYERS": "--n-gpu-layers",
    "LLAMA_ARG_FLASH_ATTN": "--flash-attn",
    "LLAMA_ARG_CACHE_TYPE_K": "--cache-type-k",
    "LLAMA_ARG_CACHE_TYPE_V": "--cache-type-v",
    "LLAMA_ARG_KV_UNIFIED": "--kv-unified",
    "LLAMA_ARG_SWA_FULL": "--swa-full",
    "LLAMA_ARG_TENSOR_SPLIT": "--tensor-split",
    "LLAMA_ARG_SPLIT_MODE": "--split-mode",
    "LLAMA_ARG_MAIN_GPU": "--main-gpu",
    "LLAMA_ARG_CPU_MOE": "--cpu-moe",
    "LLAMA_ARG_N_CPU_MOE": "--n-cpu-moe",
    "LLAMA_ARG_NO_KV_OFFLOAD": "--no-kv-offload",
    "LLAMA_ARG_FIT": "--fit",
    "LLAMA_ARG_FIT_CTX": "--fit-ctx",
    "LLAMA_ARG_FIT_TARGET": "--fit-target",
    "LLAMA_ARG_MMPROJ": "--mmproj",
    "LLAMA_ARG_MODEL_DRAFT": "--model-draft",
}
SWITCH_VARIABLES = ("--kv-unified", "--swa-full", "--cpu-moe", "--no-kv-offload")


def split_model(
    engine: str, words: Sequence[Word], env: Mapping[str, Word]
) -> tuple[Word | None, tuple[Word, ...], tuple[str, ...]]:
    """Return (the model as written, the other words, other names of the deployment)."""
    words = tuple(words)
    names = _names(words)
    if engine == "llama.cpp":
        words = (*_from_environment(env), *words)
    at, length, model = _by_flag(engine, words)
    if engine in POSITIONAL:
        position = next(iter(scan(engine, [word.text for word in words]).positional), None)
        if position is not None and (at is None or engine == "vllm"):
            at, length, model = position, 1, words[position]
    if at is not None:
        rest = (*words[:at], *words[at + length :])
        return model, rest, names
    for variable in MODEL_VARIABLES.get(engine, ()):
        if variable in env:
            return env[variable], words, names
    return None, words, names


def _by_flag(engine: str, words: Sequence[Word]) -> tuple[int | None, int, Word | None]:
    flags = MODEL_FLAGS.get(engine, ())
    for index, word in enumerate(words):
        spelling, joined, value = word.text.partition("=")
        if spelling.startswith("--") and engine in ("vllm", "sglang", "tensorrt-llm"):
            spelling = "--" + spelling[2:].replace("_", "-")
        if spelling not in flags:
            continue
        if joined:
            return index, 1, replace(word, text=value)
        if index + 1 < len(words):
            return index, 2, words[index + 1]
    return None, 0, None


def _names(words: Sequence[Word]) -> tuple[str, ...]:
    for index, word in enumerate(words):
        spelling, joined, value = word.text.partition("=")
        if spelling in NAME_FLAGS:
            if joined:
                return (value,)
            found = []
            for following in words[index + 1 :]:
                if following.text.startswith("-"):
                    break
                found.append(following.text)
            return tuple(found)
    return ()


def _from_environment(env: Mapping[str, Word]) -> tuple[Word, ...]:
    found: list[Word] = []
    for variable, flag in LLAMA_VARIABLES.items():
        word = env.get(variable)
        if word is None or word.text == "":
            continue
        if flag in SWITCH_VARIABLES:
            if word.text.casefold() in ("1", "true", "on", "enabled"):
                found.append(Word(flag, word.line))
            continue
        found += [Word(flag, word.line), word]
    return tuple(found)
