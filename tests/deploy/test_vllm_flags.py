"""vLLM's command line: every spelling that its parser takes, and what each does to memory."""

import pytest
from oracle_tables import oracle

from kvplan.deploy.flags import read_flags
from kvplan.deploy.flags.environment import options_of_environment
from kvplan.deploy.flags.vllm import FLAGS
from kvplan.deploy.flags.without_effect import WITHOUT_EFFECT
from kvplan.engines import engine_named
from kvplan.errors import InvalidValue
from kvplan.hardware.parse import parse_gpus
from kvplan.plan import plan
from kvplan.sources import catalog
from kvplan.workload import Workload


def options(line):
    return dict(read_flags("vllm", line.split()).options)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--max-model-len 32k", "max_model_len", 32_000),
        ("--max-model-len=32K", "max_model_len", 32_768),
        ("--max_model_len 25.6k", "max_model_len", 25_600),
        ("--max-model-len auto", "max_model_len", -1),
        ("--gpu_memory_utilization=0.85", "gpu_memory_utilization", 0.85),
        ("-tp 4", "tensor_parallel_size", 4),
        ("-q awq", "quantization", "awq"),
        ("--max-num-batched-token=2048", "max_num_batched_tokens", 2048),
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("--enable-hybrid-kv-cache-manager", "disable_hybrid_kv_cache_manager", False),
        ("--no-enforce-eager", "enforce_eager", False),
        ("-O 3", "compilation_config", {"level": 3}),
        ("-O0", "uncompiled", True),
        ("--compilation_config.cudagraph_mode=NONE", "compilation_config", {"cudagraph_mode": "NONE"}),
        ("--kv-cache-memory 8G", "kv_cache_memory_bytes", 8 * 2**30),
        ("--num-gpu-blocks-override 100", "num_gpu_blocks_override", 100),
        ('--limit-mm-per-prompt {"image":0}', "limit_mm_per_prompt", {"image": 0}),
        ("--speculative-model [ngram]", "speculative_model", "[ngram]"),
    ],
)
def test_a_flag_in_every_spelling(line, name, value):
    assert options(line)[name] == value


def test_dotted_keys_make_one_object():
    line = "--speculative-config.method mtp --speculative-config.num_speculative_tokens 2"
    assert options(line) == {"speculative_config": {"method": "mtp", "num_speculative_tokens": 2}}


def test_unknown_flags_are_listed_and_unreadable_ones_refused():
    assert read_flags("vllm", ["--max-num-seqs", "8", "--warp-drive", "on"]).unknown == ("--warp-drive",)
    with pytest.raises(InvalidValue):
        read_flags("vllm", ["--max-num-seqs", "many"])


@pytest.mark.parametrize(
    ("flags", "smaller"),
    [
        (["--max-num-seqs", "64"], "activations"),
        (["--max-cudagraph-capture-size", "16"], "cuda_graphs"),
        (["--quantization", "fp8"], "weights"),
        (["--kv-cache-dtype", "fp8"], "kv_cache"),
    ],
)
def test_a_flag_changes_its_part(answer, flags, smaller):
    _, plain = answer("fit", "qwen3-8b", "--gpu", "h100", "--ctx", "8192")
    _, changed = answer("fit", "qwen3-8b", "--gpu", "h100", "--ctx", "8192", "--", *flags)

    def part(data):
        parts = data["devices"][0]["components"]
        return next(each["bytes"]["expected"] for each in parts if each["name"] == smaller)

    assert part(changed) < part(plain)


def test_what_is_not_planned_is_said(answer):
    _, data = answer("fit", "qwen3-8b", "--gpu", "h100", "--", "--enable-eplb")
    assert "flag-not-planned" in {warning["code"] for warning in data["warnings"]}


# Left to the list of unread flags: rare, and what they do to memory is not known here.
LISTED_AS_UNREAD = {
    *("--aux-output-config", "--cp-kv-cache-interleave-size", "--dcp-kv-cache-interleave-size"),
    *("--dcp-q-replicate", "--default-mm-loras", "--diffusion-config", "--ec-manager-config"),
    *("--ec-transfer-config", "--elastic-ep-max-dp-size", "--enable-batch-sharded-sampling"),
    *("--enable-elastic-ep", "--enable-hc-sp", "--enable-mixed-moe-lora-format", "--enable-moe-shared-loras"),
    *("--engram-config", "--fault-tolerance-config", "--help", "--ir-op-priority"),
    *("--long-prefill-token-threshold-adaptive", "--lora-target-modules", "--max-num-scheduled-tokens"),
    *("--mm-encoder-attn-dtype", "--mm-encoder-fp8-scale-path", "--mm-encoder-fp8-scale-save-margin"),
    *("--mm-encoder-fp8-scale-save-path", "--monokernel", "--offload-params"),
    *("--prefix-cache-retention-interval", "--prefix-match-unit", "--replayssm-buffer-len"),
    "--swa-bounded-replay",
}


def test_every_flag_of_the_parser_is_read_or_known_to_be_harmless_or_listed():
    flags = {row["flag"] for row in oracle("vllm_engine_args.jsonl")}
    read = {spelling for spellings, _, _ in FLAGS for spelling in spellings}
    assert flags - read - set(WITHOUT_EFFECT["vllm"]) == LISTED_AS_UNREAD


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--cudagraph-capture-sizes 1 2 4 --max-num-seqs 4", "cudagraph_capture_sizes", (1, 2, 4)),
        ("--cuda-graph-sizes=8", "cudagraph_capture_sizes", (8,)),
        (
            "--kv-cache-dtype-skip-layers 0 sliding_window",
            "kv_cache_dtype_skip_layers",
            ("0", "sliding_window"),
        ),
        ("--limit-mm-per-prompt image=2,video=0", "limit_mm_per_prompt", {"image": 2, "video": 0}),
        ("--device-memory-utilization 0.8", "gpu_memory_utilization", 0.8),
        ("--spec-model m --spec-tokens 4", "num_speculative_tokens", 4),
        ("--optimization-level 0", "compilation_config", {"level": 0}),
    ],
)
def test_lists_and_newer_spellings(line, name, value):
    assert options(line)[name] == value
    assert not read_flags("vllm", line.split()).unknown


def test_switches_without_effect_may_be_negated():
    assert not read_flags("vllm", ["--no-trust-remote-code", "--no-enable-sleep-mode"]).unknown


def amount_of(answer, name, *words):
    _, data = answer("fit", *words)
    parts = data["devices"][0]["components"]
    return next((part["bytes"]["expected"] for part in parts if part["name"] == name), 0)


def test_capture_sizes_say_which_graphs_are_kept(answer):
    asked = ("qwen3-8b", "--gpu", "h100", "--ctx", "8192", "--engine", "vllm", "--")
    few = amount_of(answer, "cuda_graphs", *asked, "--cudagraph-capture-sizes", "1", "2", "4")
    assert few < amount_of(answer, "cuda_graphs", *asked, "--enable-prefix-caching")


def test_layers_kept_wide_lie_between_the_two_types(answer):
    asked = ("fit", "qwen3-8b", "--gpu", "h100", "--ctx", "16384", "--engine", "vllm")

    def cache(*words):
        parts = answer(*asked, *words)[1]["devices"][0]["components"]
        return next(part["bytes"] for part in parts if part["name"] == "kv_cache")

    narrow, wide = cache("--kv", "fp8"), cache()
    mixed = cache("--kv", "fp8", "--", "--kv-cache-dtype-skip-layers", "0", "35")
    # Two layers of 8 heads x 128, keys and values: a byte more each.
    assert mixed["low"] == narrow["expected"]
    assert mixed["high"] == narrow["expected"] + 16_384 * 2 * 2 * 8 * 128
    assert mixed["high"] < wide["expected"]


def test_whole_towers_and_frames_take_their_memory(answer):
    asked = ("qwen2.5-vl-7b", "--gpu", "4xh100", "--tp", "4", "--ctx", "8192", "--engine", "vllm")
    split = amount_of(answer, "weights", *asked)
    whole = amount_of(answer, "weights", *asked, "--", "--mm-encoder-tp-mode", "data")
    assert whole > split + 2**29
    assert whole == amount_of(answer, "weights", *asked, "--", "--load-format", "mistral")
    assert amount_of(answer, "multimodal", *asked, "--", "--mm-ipc-gpu-memory-gb", "2") == 2 * 2**30


def test_fully_sharded_adapters_are_smaller(answer):
    asked = ("llama-3.1-8b", "--gpu", "4xh100", "--tp", "4", "--ctx", "8192", "--engine", "vllm", "--")
    half = amount_of(answer, "adapters", *asked, "--enable-lora")
    assert 0 < amount_of(answer, "adapters", *asked, "--enable-lora", "--fully-sharded-loras") < half


def test_a_variable_takes_graphs_out_of_the_pool():
    given = options_of_environment(
        "vllm", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "0", "VLLM_PORT": "1"}
    )
    assert given.options == (("estimate_cudagraphs", False),)
    assert given.unknown == ()
    workload = Workload(context_tokens=8192, context_source="flag", engine_options=given.options)
    result = plan(catalog.find("qwen3-8b"), workload, parse_gpus(["h100"]), engine_named("vllm"))
    assert "cuda_graphs" not in [part.name for part in result.devices[0].components]
    with pytest.raises(InvalidValue, match="ESTIMATE_CUDAGRAPHS=maybe"):
        options_of_environment("vllm", {"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS": "maybe"})
