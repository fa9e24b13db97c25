"""Score the log readers: every field of a table of quoted logs against what is read from the quote.

    python tests/calibration/score_logs.py vllm TABLE.jsonl
    python tests/calibration/score_logs.py sglang TABLE.jsonl --failures

A row holds ``quote`` (a line, or a list of lines) and what it says as fields, null where it says
nothing. A field is compared only where a person can find it in the quote; the quotes are excerpts, so
a field that came from another part of the same file counts as ``absent``. The last line is the score.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from kvplan.errors import KvplanError
from kvplan.verify.logs import read_log
from kvplan.verify.readings import Readings

GIB = 2**30
MIB = 2**20

AMOUNTS = {
    "vllm": {
        "weights_gib": "weights",
        "available_kv_gib": "kv_cache_available",
        "activation_peak_gib": "activations",
        "non_torch_gib": "non_torch",
        "cudagraph_gib": "cuda_graphs",
        "cudagraph_estimated_gib": "cuda_graphs_estimated",
        "gpu_total_gib": "device_total",
        "init_free_gib": "free_at_start",
        "requested_gib": "requested",
        "total_non_kv_gib": "non_kv",
        "kv_needed_gib": "kv_cache_needed",
        "consumed_gib": "weights_and_non_torch",
    },
    "sglang": {
        "weights_mem_gb": "weights",
        "avail_mem_before_gb": "free_before_weights",
        "avail_mem_after_gb": "free_after_weights",
        "k_gb": "kv_cache_k",
        "v_gb": "kv_cache_v",
        "kv_gb": "kv_cache",
        "mamba_conv_gb": "state_conv",
        "mamba_ssm_gb": "state_ssm",
        "avail_after_pool_gb": "free_after_pool",
        "cuda_graph_gb": "cuda_graphs",
        "available_gpu_mem_gb": "free_at_end",
    },
    "llamacpp": {
        "kv_mib": "kv_cache",
        "rs_mib": "recurrent_state",
        "output_mib": "output",
        "mmproj_mib": "multimodal",
        "mtp_mib": "draft_model",
        "model_buffer_mib": "weights",
        "compute_mib": "activations",
        "kv_by_dev": "kv_cache_buffer",
        "total_mib": "device_total",
        "free_mib": "free_at_end",
        "context_mib": "context",
    },
}
COUNTS = {
    "vllm": {
        "kv_tokens": "kv_cache_tokens",
        "max_concurrency": "max_concurrency",
        "gpu_blocks": "num_blocks",
        "estimated_max_len": "estimated_max_model_len",
        "max_model_len": "max_model_len",
        "block_size": "block_size",
        "gpu_memory_utilization": "gpu_memory_utilization",
        "max_num_batched_tokens": "max_num_batched_tokens",
        "max_num_seqs": "max_num_seqs",
        "tp": "tensor_parallel_size",
        "pp": "pipeline_parallel_size",
    },
    "sglang": {
        "kv_tokens": "kv_cache_tokens",
        "full_tokens": "full_tokens",
        "swa_tokens": "swa_tokens",
        "mamba_slots": "state_slots",
        "max_total_num_tokens": "max_total_num_tokens",
        "max_running_requests": "max_running_requests",
        "context_length": "context_length",
        "chunked_prefill_size": "chunked_prefill_size",
        "mem_fraction_static": "mem_fraction_static",
        "tp": "tp_size",
        "dp": "dp_size",
    },
    "llamacpp": {
        "n_ctx": "n_ctx",
        "n_ubatch": "n_ubatch",
        "n_parallel": "n_parallel",
        "n_layer": "n_layer",
        "n_vocab": "n_vocab",
        "n_embd_k_gqa": "n_embd_k_gqa",
    },
}
SETTINGS = {
    "vllm": {
        "model": "model",
        "dtype": "dtype",
        "quantization": "quantization",
        "kv_cache_dtype": "kv_cache_dtype",
        "enforce_eager": "enforce_eager",
        "enable_prefix_caching": "enable_prefix_caching",
        "attention_backend": "attention_backend",
        "version": "version",
    },
    "sglang": {"kv_cache_dtype": "kv_cache_dtype", "model": "model", "version": "version"},
    "llamacpp": {
        "type_k": "type_k",
        "type_v": "type_v",
        "fa": "flash_attn",
        "ngl": "ngl",
        "version": "version",
        "model_size": "model_size",
        "model_params": "model_params",
    },
}

# Words that a quote must have before a short value (1, 0, auto) counts as standing in it.
WORDS = {
    "tp": r"tensor.parallel|tp.size|\btp[= ]",
    "pp": r"pipeline.parallel|pp.size|\bpp[= ]",
    "dp": r"data.parallel|dp.size|\bdp[= ]",
    "gpu_memory_utilization": r"utilization",
    "max_num_batched_tokens": r"batched",
    "max_num_seqs": r"num.seqs|dummy requests",
    "max_model_len": r"tokens per request|model.len|seq len|concurrency at",
    "kv_cache_dtype": r"kv.cache.dtype|allocated. dtype",
    "dtype": r"\bdtype",
    "quantization": r"quantization",
    "mem_fraction_static": r"mem.fraction.static",
    "fa": r"flash_attn",
    "ngl": r"offloaded",
    "n_parallel": r"seqs|n_seq_max|n_parallel",
    "n_layer": r"n_layer|layers",
    "n_ctx": r"n_ctx|cells",
    "n_ubatch": r"n_ubatch",
    "n_embd_k_gqa": r"n_embd_k_gqa",
    "type_k": r"\bK \(|c\^KV|type_k",
    "type_v": r"\bV \(|c\^KV|type_v",
    "output_mib": r"output buffer",
    "kv_by_dev": r"KV buffer",
    "version": r"version|build",
}


def quote_of(row: Mapping[str, object]) -> str:
    """Return the quoted lines as one text."""
    quote = row["quote"]
    return "\n".join(quote) if isinstance(quote, list) else str(quote)


def is_in(value: object, text: str) -> bool:
    """Tell whether a person can find a value in a quote."""
    plain = text.replace(",", "")
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        spellings = {str(value), f"{value:g}", f"{value:.2f}", f"{value:.1f}", str(int(value))}
        return any(re.search(rf"(?<![\d.]){re.escape(one)}(?![\d])", plain) for one in spellings)
    return str(value) in text


def same(value: float, reading_bytes: int, rounding: int, unit: int) -> bool:
    """Tell whether an amount lies within the rounding of its print."""
    return abs(value * unit - reading_bytes) <= max(rounding, unit // 200)


def failures(engine: str, row: Mapping[str, object], readings: Readings) -> dict[str, tuple[str, str]]:
    """Return field -> (``wrong`` or ``absent``, what was read) for every field that is not equal."""
    unit = MIB if engine == "llamacpp" else GIB
    text = quote_of(row)
    bad: dict[str, tuple[str, str]] = {}

    def note(field: str, value: object, read: object) -> None:
        column, _, device = field.partition(".")
        words = WORDS.get(column, "") if not device else rf"{device}\b[^/|;]*\b{re.escape(str(value))}"
        there = is_in(value, text) and re.search(words, text, re.IGNORECASE)
        bad[field] = ("wrong" if there else "absent", f"{value} read {read}")

    for field, name in AMOUNTS[engine].items():
        value = row.get(field)
        found = readings.of(name)
        if field == "kv_mib" and not found:
            # The memory table prints caches and states together.
            found = readings.of("context")
        if isinstance(value, dict):
            for device, number in value.items():
                if not any(
                    reading.device in (device, "")
                    and same(number, reading.num_bytes, reading.rounding_bytes, unit)
                    for reading in found
                ):
                    note(f"{field}.{device}", number, found)
        elif value is not None and isinstance(value, int | float):
            whole = sum(reading.num_bytes for reading in found)
            rounding = sum(reading.rounding_bytes for reading in found)
            if not any(same(value, r.num_bytes, r.rounding_bytes, unit) for r in found) and not (
                found and same(value, whole, rounding, unit)
            ):
                note(field, value, found)
    for field, name in COUNTS[engine].items():
        value = row.get(field)
        read = readings.counts.get(name, readings.settings.get(name))
        if value is not None and read != value:
            note(field, value, read)
    for field, name in SETTINGS[engine].items():
        value = row.get(field)
        read = readings.version if name == "version" else readings.settings.get(name)
        if name == "ngl" and "n_gpu_layers" in readings.settings:
            read = f"{readings.settings['n_gpu_layers']}/{readings.settings.get('n_gpu_layers_of')}"
        if field == "model":
            read = readings.model
        if value is not None and not _alike(value, read):
            note(field, value, read)
    if row.get("oom") and not readings.out_of_memory and not readings.refusal:
        bad["oom"] = ("wrong", "not seen")
    return bad


def _alike(value: object, read: object) -> bool:
    if read is None:
        return False
    if isinstance(value, bool):
        return value is read
    first, second = str(value).casefold().strip(), str(read).casefold().strip()
    return first == second or first.split(" ")[0] == second.split(" ")[0]


def fields_of(engine: str, row: Mapping[str, object]) -> int:
    """Count the fields of a row that are compared."""
    count = 0
    for table in (AMOUNTS, COUNTS, SETTINGS):
        for field in table[engine]:
            value = row.get(field)
            count += len(value) if isinstance(value, dict) else value is not None
    return count


def main() -> int:
    """Print what differs and the score; return 1 when a field that the quote holds is not read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=tuple(AMOUNTS))
    parser.add_argument("table", type=Path)
    parser.add_argument("--failures", action="store_true", help="print every wrong field with its quote")
    options = parser.parse_args()
    total = wrong = absent = unread = 0
    by_field: Counter[tuple[str, str]] = Counter()
    for line in options.table.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "quote" not in row:
            continue
        total += fields_of(options.engine, row)
        try:
            readings = read_log(
                quote_of(row), "llama.cpp" if options.engine == "llamacpp" else options.engine
            )
        except KvplanError as error:
            readings = Readings(options.engine)
            unread += 1
            print(f"unread: {error.message}: {quote_of(row)[:160]}")
        bad = failures(options.engine, row, readings)
        for field, (kind, detail) in bad.items():
            by_field[field.split(".")[0], kind] += 1
            if kind == "wrong" and options.failures:
                print(f"{field}: {detail}\n    {quote_of(row)[:1200]}")
        wrong += sum(kind == "wrong" for kind, _ in bad.values())
        absent += sum(kind == "absent" for kind, _ in bad.values())
    for (field, kind), number in sorted(by_field.items()):
        print(f"{number:5d} {kind:6s} {field}")
    print(
        f"{options.engine}: {total} fields; {total - wrong - absent} equal, {absent} not in the quote, "
        f"{wrong} wrong; {unread} logs unread"
    )
    return 1 if wrong or unread else 0


if __name__ == "__main__":
    sys.exit(main())
