"""An engine's own settings file: vLLM's and SGLang's ``--config`` YAML, TensorRT-LLM's options."""

from kvplan.deploy.carriers.context import Context, launches_of
from kvplan.deploy.carriers.option_keys import flag_words
from kvplan.deploy.carriers.trtllm_options import is_options, option_words
from kvplan.deploy.flags import table_of
from kvplan.deploy.flags.without_effect import WITHOUT_EFFECT
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.yaml_values import Table

SHARE_KNOWN = 0.6


def engine_of(document: Table) -> str:
    """Return the engine whose settings these are, empty for none: most keys must be its flags."""
    if is_options(document):
        return "tensorrt-llm"
    best, most = "", 0.0
    keys = [str(key).replace("_", "-").removeprefix("no-") for key in document]
    for engine in ("vllm", "sglang"):
        known = {spelling for flag in table_of(engine) for spelling in flag[0]}
        told = sum(1 for key in keys if f"--{key}" in known)
        all_known = sum(1 for key in keys if f"--{key}" in known or f"--{key}" in WITHOUT_EFFECT[engine])
        share = all_known / len(keys) if keys else 0.0
        if told and share >= SHARE_KNOWN and share + told > most:
            best, most = engine, share + told
    return best


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the launch that these settings belong to; their command may name the model."""
    engine = engine_of(document)
    words = option_words(document) if engine == "tensorrt-llm" else flag_words(document)
    if engine == "vllm" and "model-tag" in document:
        words = [word for word in words if word.text != "--model-tag"]
    started = Started(engine, tuple(words), document.line)
    return launches_of([started], context, context.file.name.rsplit("/", 1)[-1], GpuHint())
