"""What text-generation-inference prints while it starts: its arguments, blocks, tokens of the pool.

Source: text-generation-inference launcher/src/main.rs (Args, the defaults it fills in), router/src/main.rs
and backends/v3/src/lib.rs ("Setting max batch total tokens"), server/text_generation_server/models/
flash_causal_lm.py ("KV-cache blocks", since 2.3). It prints no amount of memory: tokens stand for it.
"""

import re
from collections.abc import Iterator, Sequence

from kvplan.verify.command_line import options_in
from kvplan.verify.log_text import Line
from kvplan.verify.printed import NUMBER, last_said, printed, table
from kvplan.verify.readings import Readings

ROWS = table(
    amounts=(),
    counts=(
        (rf"KV-cache blocks: {NUMBER}, size: {NUMBER}", ("num_blocks", "block_size")),
        (rf"Setting max batch total tokens to {NUMBER}", ("kv_cache_tokens",)),
        (rf"Default `max_batch_prefill_tokens` to {NUMBER}", ("max_batch_prefill_tokens",)),
        (rf"Default `max_input_tokens` to {NUMBER}", ("max_input_tokens",)),
        (rf"Default `max_total_tokens` to {NUMBER}", ("max_total_tokens",)),
        (rf"Maximum total tokens defaulted to {NUMBER}", ("context",)),
        (rf"Sharding model on {NUMBER} processes", ("num_shard",)),
    ),
    settings=((r"Using attention (?:= )?(flashinfer|flashdecoding|paged)", ("attention",)),),
)
# The launcher prints its arguments as Rust does: `num_shard: Some(\n 2,\n ),`, None left out here.
_ARGUMENT = re.compile(r'\b([a-z_]+): (?:Some\(\s*)?(?:"([^"]*)"|([\w.]+))')
_ARGUMENTS = frozenset((
    "model_id", "num_shard", "quantize", "speculate", "kv_cache_dtype", "max_concurrent_requests",
    "max_input_tokens", "max_input_length", "max_total_tokens", "max_batch_prefill_tokens",
    "max_batch_total_tokens", "max_batch_size", "cuda_memory_fraction", "enable_prefill_logprobs",
    "lora_adapters",
))  # fmt: skip
_QUANTIZE: dict[str, str] = {"bitsandbytesnf4": "bitsandbytes-nf4", "bitsandbytesfp4": "bitsandbytes-fp4"}
_KV_DTYPE: dict[str, str] = {"fp8e4m3fn": "fp8_e4m3fn", "fp8e5m2": "fp8_e5m2"}
MAX_ARGUMENT_LINES = 120
_OOM = re.compile(r"(?:CUDA|HIP) out of memory|OutOfMemoryError", re.IGNORECASE)
_REFUSED = re.compile(r"Not enough memory to handle", re.IGNORECASE)
_VERSION = re.compile(r"text-generation-inference:v?(\d+\.\d+(?:\.\d+)?)")
MARKS = re.compile(
    r"text_generation_(?:launcher|router)|KV-cache blocks: \d|Setting max batch total tokens to"
)


def read(lines: Sequence[Line]) -> Readings:
    """Read TGI's lines; what is not there is left out."""
    said = printed(lines, ROWS)
    given, _ = options_in("tgi", lines)
    arguments = dict(_arguments(lines))
    model = str(arguments.pop("model_id", "") or "")
    counts = dict(said.counts)
    for name, value in arguments.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            counts[name] = float(value)
    if "num_blocks" in counts and "kv_cache_tokens" not in counts:
        counts["kv_cache_tokens"] = counts["num_blocks"] * counts["block_size"]
    words = {name: value for name, value in arguments.items() if isinstance(value, str | bool)}
    versions = [found.group(1) for line in lines if (found := _VERSION.search(line.text))]
    return Readings(
        "tgi",
        versions[-1] if versions else "",
        model,
        (),
        counts,
        said.settings | words | given,
        any(_OOM.search(line.text) for line in lines),
        last_said(_REFUSED, lines),
    )


def _arguments(lines: Sequence[Line]) -> Iterator[tuple[str, object]]:
    """Yield what the launcher was given, from the struct it prints first; on one line to 1.x."""
    start = next((index for index, line in enumerate(lines) if "Args {" in line.text), None)
    if start is None:
        return
    text = " ".join(line.text for line in lines[start : start + MAX_ARGUMENT_LINES]).partition("Args {")[2]
    depth, end = 1, len(text)
    for index, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if not depth:
            end = index
            break
    for found in _ARGUMENT.finditer(text[:end]):
        name, quoted, bare = found.groups()
        if name not in _ARGUMENTS or bare == "None":
            continue
        yield name, quoted if quoted is not None else _value(name, bare)


def _value(name: str, text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        folded = text.casefold()
        return _QUANTIZE.get(folded, folded) if name == "quantize" else _KV_DTYPE.get(folded, folded)
