"""Which GGUF architectures are known, and how their layers attend.

llama.cpp 0c1e57098: src/llama-arch.cpp has the names, src/models/*.cpp the windows, and
src/llama-model.cpp create_memory says which architectures keep no cache at all.
"""

from kvplan.frozen import dataclass

_FULL_ATTENTION = """
    llama deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bloom stablelm qwen qwen2
    qwen2moe qwen2vl qwen3 qwen3moe qwen3vl qwen3vlmoe phi2 phi3 phimoe plamo codeshell orion internlm2
    minicpm minicpm3 gemma starcoder2 xverse command-r dbrx olmo olmoe openelm arctic deepseek deepseek2
    chatglm glm4 glm4moe bitnet jais nemotron exaone granite granitemoe bailingmoe bailingmoe2 dots1
    arcee ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense smollm3 seed_oss apertus minimax-m2 mistral3
    mistral4 grovemoe pangu-embedded llama-embed plm hunyuan_vl paddleocr maincoder nanbeige jais2 hy_v3
"""
_RECURRENT = """
    mamba mamba2 jamba falcon-h1 granitehybrid nemotron_h nemotron_h_moe qwen3next qwen35 qwen35moe
    lfm2 lfm2moe kimi-linear rwkv6 rwkv6qwen2 rwkv7 arwkv7
    plamo2
"""
_NO_CACHE = """
    bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert
    gemma-embedding dream llada llada-moe rnd1
"""


@dataclass(frozen=True, slots=True)
class Windows:
    """How an architecture's windows lie: of every ``period`` layers one attends to everything.

    ``dense_first`` makes it the first of them, otherwise the last; ``every`` windows all of them. A
    file's own ``sliding_window_pattern`` wins, and must be there where ``period`` is 0. ``absent``
    is the window where the file names none, ``fixed`` replaces what it names. ``only_layers`` limits
    the rule to models of that depth.
    """

    period: int = 0
    dense_first: bool = False
    every: bool = False
    absent: int = 0
    fixed: int = 0
    chunked: bool = False
    only_layers: int = 0


WINDOWS: dict[str, Windows] = {
    "gemma2": Windows(2, absent=4096),
    "gemma3": Windows(6),
    "gemma3n": Windows(5),
    "gemma4": Windows(),
    "cohere2": Windows(4),
    "gpt-oss": Windows(2),
    "llama4": Windows(4, absent=8192, fixed=8192, chunked=True),
    "exaone4": Windows(4, absent=4096, only_layers=64),
    "exaone-moe": Windows(4, absent=128),
    "olmo2": Windows(4),
    "afmoe": Windows(4),
    "laguna": Windows(4, dense_first=True),
    "mimo2": Windows(),
    "smallthinker": Windows(4, dense_first=True, fixed=4096),
    "step35": Windows(),
    "lfm2": Windows(every=True),
    "plamo3": Windows(8),
    "granite_swa": Windows(),
    "mellum": Windows(4),
}
# Layers from here on read an earlier one's cache (src/models/gemma3n.cpp n_layer_kv_from_start).
GEMMA3N_LAYERS_WITH_CACHE = 20
GLM_SPACED_CONTEXT = 1_048_576
INDEXED = frozenset(("deepseek32", "glm-dsa"))
NO_CACHE = frozenset(_NO_CACHE.split())
KNOWN = frozenset((*_FULL_ATTENTION.split(), *_RECURRENT.split(), *NO_CACHE, *INDEXED, *WINDOWS))
