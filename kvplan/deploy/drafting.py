"""Separate draft models in an engine's words: which option names one, and what ``--draft`` stands for.

vLLM 0.33 config/speculative.py (before 0.9 flags of its own), SGLang 0.5.23
srt/arg_groups/speculative_hook.py, llama.cpp common/arg.cpp, TensorRT-LLM llmapi/llm_args.py
(``speculative_model``, until 1.1 ``speculative_model_dir``), LMDeploy 0.18 cli/utils.py.
"""

from collections.abc import Iterable

from kvplan.errors import CannotTell, OptionClash

# vLLM wants the number of tokens named; its own examples draft five with a separate model.
VLLM_NUM_TOKENS = 5
# TensorRT-LLM's ``max_draft_len`` in its examples of EAGLE-3 and of draft models.
TENSORRT_LLM_NUM_TOKENS = 4
NAMING = ("speculative_model", "speculative_draft_model_path", "speculative_draft_model", "model_draft")
# Keys of ``speculative_config`` that name the draft: vLLM's, TensorRT-LLM's.
CONFIG_KEYS = ("model", "speculative_model", "speculative_model_dir")
LMDEPLOY_HEADS = ("eagle3", "dflash", "eagle")
# Engines whose draft is a model of its own beside the first, without an option that names it.
BESIDE = ("ideal", "transformers")


def draft_named(options: Iterable[tuple[str, object]]) -> str:
    """Return the draft model that an engine's options name, empty without one."""
    for name, value in options:
        draft = value if name in NAMING else None
        if name == "speculative_config" and isinstance(value, dict):
            draft = next((value[key] for key in CONFIG_KEYS if value.get(key)), None)
        if isinstance(draft, str) and draft.strip("[]").casefold() not in ("", "ngram"):
            return draft
    return ""


def draft_options(
    engine_name: str, draft: str, options: tuple[tuple[str, object], ...]
) -> tuple[tuple[str, object], ...]:
    """Return ``options`` with ``--draft`` said in the engine's own.

    Raises OptionClash where they name a draft already, CannotTell for an engine whose drafts are not
    planned.
    """
    named = draft_named(options)
    if named:
        raise OptionClash(
            f"--draft {draft} and the engine's own {named} are both given",
            why="one model drafts",
            hint="leave out --draft, or the draft model behind --",
        )
    head = draft.casefold().rpartition("/")[2]
    if engine_name == "vllm":
        given = dict(options)
        config = given.pop("speculative_config", None)
        config = {"num_speculative_tokens": VLLM_NUM_TOKENS, **(config if isinstance(config, dict) else {})}
        return (*given.items(), ("speculative_config", {**config, "model": draft}))
    if engine_name == "sglang":
        algorithm = "EAGLE3" if "eagle3" in head else "EAGLE" if "eagle" in head else "STANDALONE"
        if not any(name == "speculative_algorithm" for name, _ in options):
            options = (*options, ("speculative_algorithm", algorithm))
        return (*options, ("speculative_draft_model_path", draft))
    if engine_name == "tensorrt-llm":
        given = dict(options)
        config = given.pop("speculative_config", None)
        kind = "Eagle3" if "eagle3" in head else "Eagle" if "eagle" in head else "Draft_Target"
        usual = {"decoding_type": kind, "max_draft_len": TENSORRT_LLM_NUM_TOKENS}
        config = {**usual, **(config if isinstance(config, dict) else {}), "speculative_model": draft}
        return (*given.items(), ("speculative_config", config))
    if engine_name == "lmdeploy":
        if not any(name == "speculative_algorithm" for name, _ in options):
            algorithm = next((known for known in LMDEPLOY_HEADS if known in head), "")
            if not algorithm:
                raise CannotTell(
                    f"LMDeploy drafts with heads, and {draft} does not say of which kind it is",
                    why=f"it takes {', '.join(LMDEPLOY_HEADS)}, no whole models",
                    hint="say which: -- --speculative-algorithm eagle3",
                )
            options = (*options, ("speculative_algorithm", algorithm))
        return (*options, ("speculative_draft_model", draft))
    if engine_name in ("llama.cpp", "ollama"):
        return (*options, ("model_draft", draft))
    if engine_name in BESIDE:
        return options
    raise CannotTell(
        f"{engine_name} has no draft models",
        why="it drafts with n-grams (--speculate), or heads of the model's own repository",
        hint="leave out --draft, and leave room for it: --reserve SIZE",
    )
