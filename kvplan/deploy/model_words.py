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
# Engines without a row above: the spellings that most servers share.
OTHER_MODEL_FLAGS = ("--model", "--model-path", "--model-id", "--model-name")
NAME_FLAGS = ("--served-model-name", "--alias", "-a", "--served_model_name")


def split_model(
    engine: str, words: Sequence[Word], env: Mapping[str, Word]
) -> tuple[Word | None, tuple[Word, ...], tuple[str, ...]]:
    """Return (the model as written, the other words, other names of the deployment)."""
    words = tuple(words)
    names = _names(words)
    at, length, model = _by_flag(engine, words)
    if engine in POSITIONAL:
        position = next(iter(scan(engine, [word.text for word in words]).positional), None)
        # vLLM's positional model wins, but an unknown $ARGS may be anything.
        if position is not None and (at is None or (engine == "vllm" and words[position].known)):
            at, length, model = position, 1, words[position]
    if at is not None:
        rest = (*words[:at], *words[at + length :])
        return model, rest, names
    for variable in MODEL_VARIABLES.get(engine, ()):
        if variable in env:
            return env[variable], words, names
    return None, words, names


def _by_flag(engine: str, words: Sequence[Word]) -> tuple[int | None, int, Word | None]:
    flags = MODEL_FLAGS.get(engine, OTHER_MODEL_FLAGS)
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
