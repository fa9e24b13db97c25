"""The options that commands share, as Typer reads them."""

from typing import Annotated

import typer

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A bundled id or alias, org/repo[@revision], a folder, config.json, .gguf, .safetensors, or -.",
    ),
]
ModelsArgument = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Models: bundled ids, org/repo, folders or files."),
]
GpuOption = Annotated[
    list[str] | None,
    typer.Option(
        "--gpu",
        metavar="GPU",
        help="A GPU (h100, 2xa100-80gb), a size (48GB, 48GiB), local, or none. Repeat for unequal cards.",
    ),
]
CtxOption = Annotated[
    str | None,
    typer.Option("--ctx", metavar="TOKENS", help="Context length: 32k is 32,768. Default: the engine's own."),
]
BatchOption = Annotated[
    str | None, typer.Option("--batch", metavar="N", help="Concurrent sequences, each at full context.")
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights", metavar="FORMAT", help="Weight format (bf16, fp8, awq, q4_k_m). Default: as published."
    ),
]
KvOption = Annotated[
    str | None, typer.Option("--kv", metavar="FORMAT", help="KV cache format (auto, bf16, fp8, int8, q8_0).")
]
KvKeyOption = Annotated[str | None, typer.Option("--kv-k", metavar="FORMAT", help="Format of keys alone.")]
KvValueOption = Annotated[
    str | None, typer.Option("--kv-v", metavar="FORMAT", help="Format of values alone.")
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME[@VERSION]",
        help="vllm, sglang, tensorrt-llm, lmdeploy, tgi, llama.cpp, ollama, transformers, ideal.",
    ),
]
TensorOption = Annotated[
    int | None, typer.Option("--tp", metavar="N", min=1, max=4096, help="Tensor-parallel ranks.")
]
PipelineOption = Annotated[
    int | None, typer.Option("--pp", metavar="N", min=1, max=4096, help="Pipeline-parallel ranks.")
]
ReserveOption = Annotated[
    str | None, typer.Option("--reserve", metavar="SIZE", help="Memory that others hold on each device.")
]
CpuMemoryOption = Annotated[
    str | None, typer.Option("--cpu-memory", metavar="SIZE", help="System memory of the machine.")
]
OverheadOption = Annotated[
    str | None, typer.Option("--overhead", metavar="SIZE", help="Use this instead of the runtime estimate.")
]
MinHeadroomOption = Annotated[
    str | None, typer.Option("--min-headroom", metavar="SIZE", help="Room that must be left.")
]
EncoderCtxOption = Annotated[
    str | None, typer.Option("--encoder-ctx", metavar="TOKENS", help="Length of the encoder's input.")
]
DraftOption = Annotated[
    str | None, typer.Option("--draft", metavar="MODEL", help="A model that drafts: speculative decoding.")
]
LoraOption = Annotated[
    str | None,
    typer.Option("--lora", metavar="[Nx]RANK", help="LoRA adapters loaded at once: 16, or 4x16 for four."),
]
PriceOption = Annotated[
    bool, typer.Option("--price", help="Show what cloud instances cost, with source and date.")
]
_STRICT = typer.Option("--strict/--no-strict", help="Exit 1 on 'tight' as well.")
StrictOption = Annotated[bool, _STRICT]
StrictChoice = Annotated[bool | None, _STRICT]
_ALLOW_OFFLOAD = typer.Option("--allow-offload/--no-allow-offload", help="Exit 0 when it runs by spilling.")
AllowOffloadOption = Annotated[bool, _ALLOW_OFFLOAD]
AllowOffloadChoice = Annotated[bool | None, _ALLOW_OFFLOAD]
_ALLOW_UNKNOWN = typer.Option("--allow-unknown/--no-allow-unknown", help="Exit 0 when it cannot tell.")
AllowUnknownOption = Annotated[bool, _ALLOW_UNKNOWN]
AllowUnknownChoice = Annotated[bool | None, _ALLOW_UNKNOWN]
_OFFLINE = typer.Option("--offline/--no-offline", help="Never ask the Hub.")
OfflineOption = Annotated[bool, _OFFLINE]
OfflineChoice = Annotated[bool | None, _OFFLINE]
AssumeOption = Annotated[
    str | None,
    typer.Option(
        "--assume", metavar="WHAT", help="full-attention: an upper bound for an unknown architecture."
    ),
]
FormatOption = Annotated[str, typer.Option("--format", metavar="FORMAT", help="auto, table, plain, json.")]
SheetFormatOption = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="auto, table, plain, json, markdown, csv.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
OutputOption = Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file.")]
ExportOption = Annotated[
    list[str] | None, typer.Option("--export", metavar="FORMAT=FILE", help="Write another format as well.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing; the exit code answers.")]
