"""Programs by name: which start an engine, which start the program behind them, which are shells."""

import re

# Programs that run the program behind them; their own options are skipped.
WRAPPERS = frozenset(
    [
        "exec",
        "nohup",
        "time",
        "sudo",
        "doas",
        "command",
        "stdbuf",
        "tini",
        "dumb-init",
        "caffeinate",
        "numactl",
        "ionice",
        "nice",
        "taskset",
        "timeout",
        "setsid",
        "env",
        "uv",
        "uvx",
        "pipx",
        "poetry",
        "pdm",
        "conda",
        "mamba",
        "micromamba",
        "pixi",
        "mpirun",
        "mpiexec",
        "srun",
        "torchrun",
        "accelerate",
        "trtllm-llmapi-launch",
        "nsys",
        "nvidia-entrypoint.sh",
        "catchsegv",
        "chrt",
        "opentelemetry-instrument",
        "ray",
        "ssh",
        "tmux",
        "screen",
        "su",
        "runuser",
        "gosu",
        "singularity",
        "apptainer",
        "enroot",
    ]
)
SHELLS = frozenset(("sh", "bash", "zsh", "dash", "ash"))
CONTAINERS = frozenset(("docker", "podman", "nerdctl"))
# Program -> (engine, words that follow its name before its own).
PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vllm": ("vllm", ("serve",)),
    "sglang": ("sglang", ("serve", "launch_server")),
    "trtllm-serve": ("tensorrt-llm", ()),
    "text-generation-launcher": ("tgi", ()),
    "lmdeploy": ("lmdeploy", ("serve",)),
    "mlx_lm.server": ("mlx_lm", ()),
    "ds4-server": ("ds4-server", ()),
    "koboldcpp": ("koboldcpp", ()),
}
MODULES: dict[str, str] = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.api_server": "vllm",
    "vllm.entrypoints.cli.main": "vllm",
    "vllm": "vllm",
    "dynamo.vllm": "vllm",
    "sglang.launch_server": "sglang",
    "sglang": "sglang",
    "dynamo.sglang": "sglang",
    "dynamo.sglang.worker": "sglang",
    "dynamo.trtllm": "tensorrt-llm",
    "tensorrt_llm.commands.serve": "tensorrt-llm",
    "lmdeploy": "lmdeploy",
    "mlx_lm.server": "mlx_lm",
    "mlx_lm": "mlx_lm",
    "llama_cpp.server": "llama-cpp-python",
}
LLAMA_SERVER = re.compile(r"llama-(server|cli)([-.].*)?$")
MENTIONS = re.compile(
    r"vllm|sglang|llama-server|llama-cli|trtllm|text-generation-launcher|lmdeploy|ollama|mlx_lm|"
    r"text-generation-inference|llama\.cpp|ds4-server|koboldcpp|tensorrt_llm|tensorrt-llm",
    re.IGNORECASE,
)
