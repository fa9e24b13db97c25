"""Container images: which engine one starts by itself, and which version its tag names."""

import re

# (pattern in the image's name, engine). Forks come before what they are forks of.
_ENGINES: tuple[tuple[str, str], ...] = (
    (r"ik[-_]llama", "ik_llama.cpp"),
    (r"llama[-_]swap", ""),
    (r"text-generation-inference|(^|/)tgi\b", "tgi"),
    (r"text-embeddings-inference", "text-embeddings-inference"),
    (r"sglang", "sglang"),
    (r"llama[-_.]?cpp|llama-server", "llama.cpp"),
    (r"tensorrt[-_]?llm|trt-?llm", "tensorrt-llm"),
    (r"lmdeploy", "lmdeploy"),
    (r"ollama/ollama|(^|/)ollama\b", "ollama"),
    (r"vllm", "vllm"),
    (r"aphrodite", "aphrodite"),
    (r"tabbyapi|exllama", "tabbyapi"),
    (r"tabbyml/", "tabby"),
    (r"localai|local-ai", "localai"),
    (r"koboldcpp|koboldai", "koboldcpp"),
    (r"text-generation-webui", "text-generation-webui"),
    (r"nvcr\.io/nim/", "nim"),
    (r"xinference|xprobe/", "xinference"),
    (r"mistral\.?rs", "mistral.rs"),
    (r"ktransformers", "ktransformers"),
    (r"mlc-?(ai|llm|serve)", "mlc-llm"),
    (r"michaelf34/infinity", "infinity"),
)
# Servers of models that kvplan has no rules of: whatever they are given, they are a row that says so.
WITHOUT_RULES = frozenset(
    ("aphrodite", "tabbyapi", "tabby", "localai", "koboldcpp", "text-generation-webui", "nim", "xinference",
     "mistral.rs", "ktransformers", "mlc-llm", "infinity")
)  # fmt: skip
# Images of other products that carry an engine under their own version numbers.
_OWN_NUMBERS = re.compile(
    r"nvcr\.io(?!/nvidia/tensorrt-llm/)|-runtime|dynamo|ray-llm|huggingface-|lmcache|lmstack|djl"
)
_VERSIONS: dict[str, str] = {
    "vllm": r"v?(0\.\d+(?:\.\d+)?|1\.\d+(?:\.\d+)?)(?!\d)",
    "sglang": r"v?(0\.\d+(?:\.\d+)?)(?!\d)",
    "llama.cpp": r"(?:.*-)?(b\d{4,6})",
    "ollama": r"v?(0\.\d+(?:\.\d+)?)(?!\d)",
    "tensorrt-llm": r"v?(\d\.\d+(?:\.\d+)?)(?!\d)",
    "lmdeploy": r"v?(0\.\d+(?:\.\d+)?)(?!\d)",
    "tgi": r"v?(\d\.\d+(?:\.\d+)?)(?!\d)",
}
# Hugging Face's containers name TGI's version in the image: …-inference-cu124.2-3.ubuntu2204.py311.
_TGI_CONTAINER = re.compile(r"text-generation-inference-cu\d+\.(\d+)-(\d+)\b")
# What tells engines apart when only their flags are there.
_SIGNATURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("sglang", ("--mem-fraction-static", "--model-path", "--context-length", "--chunked-prefill-size")),
    (
        "vllm",
        (
            "--max-model-len",
            "--gpu-memory-utilization",
            "--tensor-parallel-size",
            "--max-num-seqs",
            "--max-num-batched-tokens",
            "--served-model-name",
            "--enforce-eager",
            "--kv-transfer-config",
        ),
    ),
    ("llama.cpp", ("-ngl", "--n-gpu-layers", "--ctx-size", "--cache-type-k", "--n-cpu-moe")),
    ("tgi", ("--num-shard", "--max-batch-prefill-tokens", "--max-input-tokens", "--max-input-length")),
)


def engine_of_image(image: str) -> str:
    """Return the engine that an image starts, empty for one that is none."""
    name = image.casefold()
    for pattern, engine in _ENGINES:
        if re.search(pattern, name):
            return engine
    return ""


def engine_of_flags(words: list[str]) -> str:
    """Return the engine that these flags belong to, empty where none is typical of one."""
    spelled = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("-")}
    best = max(_SIGNATURES, key=lambda row: len(spelled.intersection(row[1])))
    return best[0] if spelled.intersection(best[1]) else ""


def version_of_image(image: str, engine: str) -> str:
    """Return the engine's version that a tag names, empty where it names none."""
    name = image.split("@", maxsplit=1)[0].casefold()
    container = _TGI_CONTAINER.search(name) if engine == "tgi" else None
    if container is not None:
        return ".".join(container.groups())
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag or engine not in _VERSIONS or _OWN_NUMBERS.search(repository):
        return ""
    match = re.match(_VERSIONS[engine], tag)
    return match.group(1) if match else ""


def pinned_version(text: str, engine: str) -> str:
    """Return the version that a file installs (``pip install vllm==0.8.5``), empty for none or several."""
    if engine not in ("vllm", "sglang"):
        return ""
    found = set(re.findall(rf"(?<![\w.-]){engine}(?:\[[\w,-]+\])?(?:==|@)(0\.\d+(?:\.\d+)?)", text))
    return found.pop() if len(found) == 1 else ""
