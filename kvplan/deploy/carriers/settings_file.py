"""Settings that a command leaves to a file: vLLM's and SGLang's ``--config``, TensorRT-LLM's options.

vLLM and SGLang let their command line win over the file, TensorRT-LLM the file over its command line
(vllm/utils/argparse_utils.py, sglang/srt/server_args_config_parser.py, tensorrt_llm/commands/serve.py).
A file that is not among those given leaves the launch open: what it says is not the engine's default.
"""

from collections.abc import Callable
from dataclasses import replace

from kvplan.deploy.carriers.option_keys import flag_words
from kvplan.deploy.carriers.trtllm_options import option_words
from kvplan.deploy.launch import Launch
from kvplan.deploy.model_words import split_model
from kvplan.deploy.words import Word, at_line
from kvplan.deploy.yaml_values import Value, table

FLAGS: dict[str, tuple[str, ...]] = {
    "vllm": ("--config",),
    "sglang": ("--config",),
    "tensorrt-llm": (
        "--config",
        "--extra-engine-args",
        "--extra_engine_args",
        "--extra-llm-api-options",
        "--extra_llm_api_options",
    ),
}
# A path -> the documents of the file there, None where it is not among the files given.
Find = Callable[[str], list[Value] | None]


def with_settings(launch: Launch, find: Find, *, elsewhere: bool = False) -> Launch:
    """Return a launch with the settings of the file it names, unchanged where that is not found.

    What stands ``elsewhere``, in a file of its own, is traced back to the line that names that file.
    """
    named = _named(launch)
    if named is None:
        return launch
    at, length, path = named
    documents = find(path.text) if path.known else None
    if documents is None:
        return launch
    rest = (*launch.flags[:at], *launch.flags[at + length :])
    added: list[Word] = []
    for document in documents:
        values = table(document)
        added += option_words(values) if launch.engine == "tensorrt-llm" else flag_words(values)
    if elsewhere:
        added = [at_line(word, path.line) for word in added]
    model, words, aliases = split_model(launch.engine, added, {})
    flags = (*rest, *words) if launch.engine == "tensorrt-llm" else (*words, *rest)
    return replace(launch, model=launch.model or model, flags=flags, aliases=launch.aliases or aliases)


def left_open(launch: Launch) -> Launch:
    """Return a launch that says which file of settings is missing, where one is."""
    named = _named(launch)
    if named is None:
        return launch
    at, length, path = named
    rest = (*launch.flags[:at], *launch.flags[at + length :])
    missing = f"{path.text}: its settings are not in the files given"
    return replace(launch, flags=rest, missing=(*launch.missing, missing))


def _named(launch: Launch) -> tuple[int, int, Word] | None:
    """Return (index of the flag, how many words it takes, the path) of a settings file."""
    for index, word in enumerate(launch.flags):
        spelling, joined, value = word.text.partition("=")
        if spelling not in FLAGS.get(launch.engine, ()):
            continue
        if joined:
            return index, 1, replace(word, text=value)
        if index + 1 < len(launch.flags):
            return index, 2, launch.flags[index + 1]
    return None
