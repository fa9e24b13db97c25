"""``--lora``: adapters by number and rank, and what that is among an engine's own options.

vLLM 0.33 config/lora.py (``max_lora_rank`` takes these ranks only), SGLang 0.5.23 srt/server_args.py,
TensorRT-LLM llmapi/llm_args.py (LoraConfig). Engines without slots load each adapter as it is.
"""

import re
from dataclasses import replace

from kvplan.errors import InvalidValue
from kvplan.workload import Workload

MAX_ADAPTERS, MAX_RANK = 1024, 4096
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
LOADED_AS_THEY_ARE = ("llama.cpp", "ollama", "transformers", "ideal", "lmdeploy", "tgi")
WRITTEN = re.compile(r"(?:(\d+)x)?(\d+)", re.IGNORECASE)


def ranks_of(text: str) -> tuple[int, ...]:
    """Read ``16`` (one adapter of rank 16) or ``4x16`` (four). Raises InvalidValue for anything else."""
    match = WRITTEN.fullmatch(text.strip())
    count, rank = (int(match.group(1) or 1), int(match.group(2))) if match else (0, 0)
    if not 1 <= count <= MAX_ADAPTERS or not 1 <= rank <= MAX_RANK:
        raise InvalidValue(
            f"--lora {text} is not a number of adapters and their rank",
            why=f"it takes a rank of at most {MAX_RANK:,}, or a count of at most {MAX_ADAPTERS:,} and a rank",
            hint="write it like --lora 16, or --lora 4x16",
        )
    return (rank,) * count


def with_adapters(workload: Workload, engine_name: str, ranks: tuple[int, ...]) -> Workload:
    """Return the workload with adapters as the engine keeps them: slots of its own, or as they are.

    Options that are given already stand. Raises InvalidValue for a rank above vLLM's.
    """
    if engine_name in LOADED_AS_THEY_ARE:
        return replace(workload, adapters=ranks)
    rank, count = max(ranks), len(ranks)
    added: dict[str, object]
    if engine_name == "vllm":
        slots = next((allowed for allowed in VLLM_RANKS if allowed >= rank), 0)
        if not slots:
            raise InvalidValue(
                f"vLLM has no slots for adapters of rank {rank}",
                why=f"max_lora_rank is one of {', '.join(map(str, VLLM_RANKS))}",
                hint=f"write it like --lora {count}x{VLLM_RANKS[-1]}",
            )
        added = {"enable_lora": True, "max_loras": count, "max_lora_rank": slots}
    elif engine_name == "sglang":
        added = {"enable_lora": True, "max_loras_per_batch": count, "max_lora_rank": rank}
    else:
        slots_of = {"max_loras": count, "max_lora_rank": rank}
        said = workload.option("lora_config")
        config = {**slots_of, **said} if isinstance(said, dict) else slots_of
        options = {**dict(workload.engine_options), "lora_config": config}
        return replace(workload, engine_options=tuple(options.items()))
    given = dict(workload.engine_options)
    return replace(workload, engine_options=tuple({**added, **given}.items()))
