"""Files as people write them, of every carrier: who starts what, with which settings, on which line.

The rows are written by hand from the files in ``fixtures``.
"""

from pathlib import Path

import pytest

from kvplan.deploy.carriers import read_file
from kvplan.deploy.checking import check_file
from kvplan.deploy.files import SourceFile
from kvplan.deploy.model_names import Models
from kvplan.deploy.planning import read_command
from kvplan.deploy.settings import Settings
from kvplan.errors import UnreadableDeployment
from kvplan.sources import open_model

FOLDER = Path(__file__).parent / "fixtures"
FILES = {path.name: path for path in FOLDER.iterdir() if path.is_file() and not path.name.endswith(".env")}
MODELS = Models(lambda ref, _: open_model(ref, offline=True))
SETTINGS = Settings(offline=True, gpus=("h100",))
# File -> (name, engine, version, model, its line, GPU names, count, options).
EXPECTED = {
    "Dockerfile": [
        ("Dockerfile", "vllm", "0.10.0", "Qwen/Qwen3-8B", 7, (), None, {"max_model_len": 16384}),
    ],
    "Makefile": [
        ("serve", "vllm", "", "Qwen/Qwen3-8B", 6, (), None, {"max_model_len": 16384}),
        (
            "llama",
            "llama.cpp",
            "",
            "models/qwen3-8b-q4_k_m.gguf",
            9,
            (),
            None,
            {"ctx_size": 8192, "n_gpu_layers": "99"},
        ),
    ],
    "Modelfile": [
        (
            "Modelfile",
            "ollama",
            "",
            "qwen2.5:14b-instruct-q5_K_M",
            2,
            (),
            None,
            {"num_ctx": 32768, "num_gpu": 99},
        ),
    ],
    "Procfile": [
        ("Qwen/Qwen3-8B", "vllm", "", "Qwen/Qwen3-8B", 1, (), None, {}),
    ],
    "README.md": [
        (
            "line 6",
            "vllm",
            "",
            "Qwen/Qwen3-14B",
            8,
            (),
            2,
            {"tensor_parallel_size": 2, "max_model_len": 32768, "gpu_memory_utilization": 0.9},
        ),
        (
            "line 17",
            "vllm",
            "0.11.0",
            "meta-llama/Llama-3.1-8B-Instruct",
            19,
            (),
            None,
            {"max_model_len": 8192},
        ),
        ("a", "vllm", "0.11.0", "Qwen/Qwen3-8B", 28, (), None, {"max_model_len": 4096}),
        ("Qwen/Qwen3-4B", "vllm", "", "Qwen/Qwen3-4B", 34, (), None, {"max_model_len": 8192}),
        ("Qwen/Qwen2.5-7B-Instruct", "vllm", "", "Qwen/Qwen2.5-7B-Instruct", 41, (), None, {}),
    ],
    "Taskfile.yaml": [
        ("serve", "vllm", "", "Qwen/Qwen3-8B", 5, (), None, {"max_model_len": 8192}),
    ],
    "argo-app.yaml": [
        ("q", "vllm", "0.10.0", "Qwen/Qwen3-8B", 15, (), 1, {"max_model_len": 8192}),
    ],
    "arrays.sh": [
        ("Qwen/Qwen3-8B", "vllm", "", "Qwen/Qwen3-8B", 5, (), 1, {"max_model_len": 8192}),
        ("Qwen/Qwen3-14B", "vllm", "", "Qwen/Qwen3-14B", 5, (), 1, {"max_model_len": 8192}),
        ("Qwen/Qwen3-4B", "vllm", "", "Qwen/Qwen3-4B", 7, (), None, {"gpu_memory_utilization": 0.2}),
        ("Qwen/Qwen3-0.6B", "vllm", "", "Qwen/Qwen3-0.6B", 7, (), None, {"gpu_memory_utilization": 0.2}),
        ("Qwen/Qwen3-32B", "vllm", "", "Qwen/Qwen3-32B", 12, (), None, {}),
        (
            "ggml-org/gemma-3-12b-it-GGUF:Q4_K_M",
            "llama.cpp",
            "",
            "ggml-org/gemma-3-12b-it-GGUF:Q4_K_M",
            13,
            (),
            None,
            {"ctx_size": 0},
        ),
        ("Qwen/Qwen3-8B", "vllm", "", "Qwen/Qwen3-8B", 19, (), None, {"max_model_len": 4096}),
        ("Qwen/Qwen3-1.7B", "vllm", "", "Qwen/Qwen3-1.7B", 20, (), None, {"max_model_len": 4096}),
        ("Qwen/Qwen3-8B", "sglang", "", "Qwen/Qwen3-8B", 21, (), None, {}),
    ],
    "bjw-helmrelease.yaml": [
        (
            "llama-cpp",
            "llama.cpp",
            "b6800",
            "unsloth/gpt-oss-20b-GGUF:F16",
            12,
            (),
            1,
            {"parallel": 2, "ctx_size": 32768, "n_gpu_layers": "99"},
        ),
    ],
    "ci.yml": [
        ("Start", "vllm", "", "Qwen/Qwen3-8B", 14, (), None, {"max_model_len": 8192}),
    ],
    "compose-entry.yml": [
        (
            "sglang",
            "sglang",
            "0.5.3",
            "Qwen/Qwen3-8B",
            7,
            (),
            None,
            {"mem_fraction_static": 0.85, "context_length": 32768},
        ),
        (
            "llamacpp",
            "llama.cpp",
            "",
            "ggml-org/gemma-3-4b-it-GGUF",
            16,
            (),
            1,
            {"ctx_size": 8192, "parallel": 2, "n_gpu_layers": "99", "flash_attn": "on"},
        ),
    ],
    "compose-extends.yml": [
        (
            "base",
            "vllm",
            "",
            "meta-llama/Llama-3.1-8B-Instruct",
            9,
            (),
            None,
            {"max_model_len": 32768, "gpu_memory_utilization": 0.9},
        ),
        (
            "fp8",
            "vllm",
            "",
            "meta-llama/Llama-3.1-8B-Instruct",
            16,
            (),
            None,
            {"kv_cache_dtype": "fp8", "max_model_len": 131072},
        ),
        (
            "child",
            "vllm",
            "",
            "meta-llama/Llama-3.1-8B-Instruct",
            9,
            (),
            None,
            {"max_model_len": 32768, "gpu_memory_utilization": 0.9},
        ),
    ],
    "compose-merge.yml": [
        (
            "qwen",
            "vllm",
            "0.11.0",
            "Qwen/Qwen2.5-32B-Instruct",
            24,
            (),
            2,
            {
                "tensor_parallel_size": 2,
                "max_model_len": 16000,
                "gpu_memory_utilization": 0.9,
                "enable_prefix_caching": True,
            },
        ),
        ("tiny", "vllm", "0.11.0", "Qwen/Qwen2.5-0.5B-Instruct", 33, (), 1, {"gpu_memory_utilization": 0.15}),
    ],
    "compose-script.yml": [
        (
            "vllm",
            "vllm",
            "0.9.2",
            "mistralai/Mistral-7B-Instruct-v0.3",
            13,
            (),
            None,
            {"tensor_parallel_size": 1},
        ),
    ],
    "compose-str.yml": [
        ("vllm", "vllm", "0.10.1", "Qwen/Qwen3-30B-A3B", 4, (), 2, {"max_model_len": 40960}),
        ("ktransformers", "ktransformers", "", None, None, (), None, {}),
    ],
    "compose-tgi.yml": [
        (
            "tgi",
            "tgi",
            "3.0.1",
            "meta-llama/Llama-3.1-8B-Instruct",
            5,
            (),
            2,
            {"num_shard": 2, "max_input_tokens": 4096, "max_total_tokens": 8192, "quantize": "eetq"},
        ),
        (
            "lmdeploy",
            "lmdeploy",
            "0.6.4",
            "internlm/internlm2_5-7b-chat",
            13,
            (),
            None,
            {"cache_max_entry_count": 0.5, "tp": 1},
        ),
    ],
    "configmap-env.yaml": [
        (
            "qwen",
            "vllm",
            "0.10.0",
            "Qwen/Qwen3-32B",
            18,
            ("nvidia-a100-80gb",),
            2,
            {"max_model_len": 32768, "tensor_parallel_size": 2},
        ),
    ],
    "configmap.yaml": [
        (
            "vllm",
            "vllm",
            "0.19.0",
            "Qwen/Qwen2.5-14B-Instruct",
            8,
            (),
            1,
            {"max_model_len": 16384, "dtype": "bfloat16"},
        ),
    ],
    "deploy-init.yaml": [
        (
            "vllm-llama",
            "vllm",
            "0.8.5",
            "meta-llama/Llama-3.1-8B-Instruct",
            18,
            ("Tesla-T4",),
            1,
            {"max_model_len": 8192, "gpu_memory_utilization": 0.8},
        ),
    ],
    "deploy.json": [
        ("p", "vllm", "0.20.0", "Qwen/Qwen3-8B", 1, (), 1, {"max_model_len": 8192}),
    ],
    "deployments.yaml": [
        ("x", "vllm", "0.13.0", "Qwen/Qwen3-8B", 11, (), 1, {"max_model_len": 8192}),
        (
            "y",
            "vllm",
            "0.13.0",
            "Qwen/Qwen3-8B",
            26,
            (),
            2,
            {"max_model_len": 8192, "tensor_parallel_size": 2},
        ),
        (
            "z",
            "vllm",
            "0.13.0",
            "Qwen/Qwen3-8B",
            42,
            (),
            1,
            {"max_model_len": 8192, "gpu_memory_utilization": 0.5, "enforce_eager": True},
        ),
        ("oneline", "vllm", "0.13.0", None, None, (), None, {}),
    ],
    "dynamo-sglang.yaml": [
        (
            "decode",
            "sglang",
            "",
            "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
            15,
            ("NVIDIA-H100-80GB-HBM3",),
            8,
            {"tp_size": 8, "disaggregation_mode": "decode"},
        ),
    ],
    "dynamo.yaml": [
        ("VllmDecodeWorker", "vllm", "", "Qwen/Qwen3-0.6B", 18, (), 1, {"max_model_len": 8192}),
    ],
    "env-only.yml": [
        (
            "vllm",
            "vllm",
            "0.11.0",
            "Qwen/Qwen3-8B",
            5,
            (),
            None,
            {"max_model_len": 16384, "tensor_parallel_size": 1},
        ),
        ("text-gen", "tgi", "", "Qwen/Qwen2.5-7B-Instruct", 0, (), None, {"max_total_tokens": 8192}),
    ],
    "gguf-compose.yml": [
        (
            "llama",
            "llama.cpp",
            "b4719",
            "/models/Llama-3.3-70B-Instruct-Q4_K_M-00001-of-00002.gguf",
            4,
            (),
            2,
            {
                "ctx_size": 16384,
                "n_gpu_layers": "81",
                "tensor_split": "1,1",
                "flash_attn": "on",
                "cache_type_k": "q8_0",
                "cache_type_v": "q8_0",
                "parallel": 4,
            },
        ),
        ("lmstudio", "localai", "", None, None, (), None, {}),
        ("aphro", "aphrodite", "", "Qwen/Qwen2.5-7B-Instruct", 16, (), None, {}),
        ("tabby", "tabby", "", "StarCoder-1B", 19, (), None, {}),
    ],
    "gitlab-ci.yml": [
        ("serve", "vllm", "0.11.0", "${MODEL}", 8, (), None, {"max_model_len": 8192}),
    ],
    "job-list.yaml": [
        ("ollama", "ollama", "", "llama3.1:8b", 29, (), 1, {"num_parallel": 4}),
    ],
    "json-in-quotes.yml": [
        (
            "vllm",
            "vllm",
            "0.12.0",
            "openai/gpt-oss-20b",
            5,
            (),
            None,
            {
                "speculative_config": {"method": "ngram", "num_speculative_tokens": 4},
                "max_model_len": 32768,
                "limit_mm_per_prompt": {"image": 2},
            },
        ),
    ],
    "kserve.yaml": [
        (
            "huggingface-llama3",
            "vllm",
            "",
            "meta-llama/Meta-Llama-3-8B-Instruct",
            8,
            (),
            1,
            {"max_model_len": 8192, "dtype": "float16"},
        ),
        (
            "qwen3",
            "vllm",
            "",
            "Qwen/Qwen3-8B",
            16,
            (),
            2,
            {"tensor_parallel_size": 2, "max_model_len": 16384, "enforce_eager": True},
        ),
        (
            "granite",
            "vllm",
            "",
            "oci://quay.io/redhat-ai-services/modelcar-catalog:granite-3.1-8b-instruct",
            44,
            (),
            1,
            {"max_model_len": 4096},
        ),
    ],
    "kubeai-values.yaml": [
        ("qwen-8b", "vllm", "", "Qwen/Qwen3-8B", 5, ("a100-80gb",), 1, {"max_model_len": 8192}),
    ],
    "kubeai.yaml": [
        (
            "llama-3.1-8b-instruct-fp8-l4",
            "vllm",
            "",
            "meta-llama/Llama-3.1-8B-Instruct",
            7,
            ("l4",),
            1,
            {
                "max_model_len": 16384,
                "max_num_batched_tokens": 16384,
                "gpu_memory_utilization": 0.9,
                "kv_cache_dtype": "fp8",
            },
        ),
        ("qwen", "ollama", "", "qwen2.5:7b", 18, ("l4",), 1, {}),
    ],
    "kustomize.yaml": [
        ("sg", "sglang", "", "Qwen/Qwen3-8B", 21, (), 2, {"tp_size": 2}),
    ],
    "llama-swap.yaml": [
        (
            "qwen3-30b",
            "llama.cpp",
            "",
            "unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M",
            10,
            (),
            None,
            {
                "flash_attn": "on",
                "ctx_size": 32768,
                "cache_type_k": "q8_0",
                "cache_type_v": "q8_0",
                "n_gpu_layers": "99",
            },
        ),
        (
            "gemma",
            "llama.cpp",
            "",
            "/models/gemma-3-27b-it-Q4_K_M.gguf",
            18,
            (),
            None,
            {"flash_attn": "on", "ctx_size": 8192},
        ),
        (
            "vllm",
            "vllm",
            "0.9.0",
            "Qwen/Qwen2.5-7B-Instruct",
            25,
            (),
            2,
            {"max_model_len": 16384, "tensor_parallel_size": 2},
        ),
    ],
    "llmd.yaml": [
        (
            "decode",
            "vllm",
            "",
            "Qwen/Qwen3-32B",
            3,
            (),
            2,
            {"max_model_len": 32000, "gpu_memory_utilization": 0.95, "tensor_parallel_size": 2},
        ),
    ],
    "llmisvc-dp.yaml": [
        (
            "dp",
            "vllm",
            "",
            "deepseek-ai/DeepSeek-V3",
            5,
            (),
            16,
            {"tensor_parallel_size": 1, "data_parallel_size": 16, "enable_expert_parallel": True},
        ),
    ],
    "lws-trtllm.yaml": [
        (
            "trt",
            "tensorrt-llm",
            "1.1.0",
            "deepseek-ai/DeepSeek-R1",
            15,
            (),
            16,
            {
                "tp_size": 16,
                "ep_size": 16,
                "max_batch_size": 128,
                "max_seq_len": 8192,
                "free_gpu_memory_fraction": 0.85,
            },
        ),
    ],
    "lws-vllm.yaml": [
        (
            "vllm",
            "vllm",
            "",
            "meta-llama/Meta-Llama-3.1-405B-Instruct",
            20,
            (),
            16,
            {"tensor_parallel_size": 8, "pipeline_parallel_size": 2},
        ),
        ("sglang", "sglang", "", "deepseek-ai/DeepSeek-V3", 48, (), 16, {"tp_size": 16}),
    ],
    "mlx-llama-swap.yaml": [
        ("gpt", "llama.cpp", "", "/m/gpt-oss-20b-mxfp4.gguf", 3, (), None, {"ctx_size": 0}),
        ("mlx", "mlx_lm", "", "mlx-community/Qwen3-8B-4bit", 5, (), None, {}),
        ("py", "mlx_lm", "", "mlx-community/Qwen3-8B-4bit", 7, (), None, {}),
    ],
    "model-runner.yml": [
        ("llm", "vllm", "0.11.0", "Qwen/Qwen3-8B", 4, (), None, {"max_model_len": 8192, "max_num_seqs": 32}),
        ("llm", "docker-model-runner", "", "ai/qwen3", 9, (), None, {}),
    ],
    "mounts.yml": [
        (
            "a",
            "vllm",
            "0.11.0",
            "Qwen/Qwen3-8B",
            5,
            (),
            None,
            {"max_model_len": 12288, "gpu_memory_utilization": 0.8},
        ),
        ("b", "vllm", "0.11.0", "Qwen/Qwen3-14B", 11, (), None, {"max_model_len": 9000}),
        ("c", "vllm", "0.11.0", "Qwen/Qwen3-8B", 14, (), None, {}),
    ],
    "no-rules.yaml": [
        ("nim", "nim", "", None, None, (), 1, {}),
        ("tei", "text-embeddings-inference", "", "BAAI/bge-large-en-v1.5", 22, (), 1, {}),
    ],
    "ollama-pull.yml": [
        ("ollama", "ollama", "", "qwen3:8b", 5, (), None, {"num_ctx": 8192}),
    ],
    "pod-instance.yaml": [
        (
            "p",
            "vllm",
            "0.20.0",
            "Qwen/Qwen3-8B",
            10,
            ("a10g",),
            2,
            {"tensor_parallel_size": 4, "max_model_len": 8192},
        ),
    ],
    "preset.ini": [
        (
            "ggml-org/MY-MODEL-GGUF:Q8_0",
            "llama.cpp",
            "",
            "ggml-org/MY-MODEL-GGUF:Q8_0",
            7,
            (),
            None,
            {"ctx_size": 8192, "n_gpu_layers": "123", "flash_attn": "on"},
        ),
        (
            "qwen3-8b",
            "llama.cpp",
            "",
            "Qwen/Qwen3-8B-GGUF:Q4_K_M",
            12,
            (),
            None,
            {"ctx_size": 40960, "n_gpu_layers": "99", "flash_attn": "on", "cache_type_k": "q8_0"},
        ),
    ],
    "production-stack.yaml": [
        (
            "opt125m",
            "vllm",
            "0.10.2",
            "Qwen/Qwen2.5-7B-Instruct",
            8,
            ("NVIDIA-A10G",),
            1,
            {
                "enable_chunked_prefill": False,
                "enable_prefix_caching": True,
                "max_model_len": 16384,
                "gpu_memory_utilization": 0.85,
                "max_num_seqs": 64,
            },
        ),
        (
            "llama70b",
            "vllm",
            "",
            "meta-llama/Llama-3.1-70B-Instruct",
            27,
            (),
            4,
            {"tensor_parallel_size": 4, "max_model_len": 32768, "kv_cache_dtype": "fp8"},
        ),
    ],
    "ray.yaml": [
        (
            "qwen2.5-7b-instruct",
            "vllm",
            "",
            "Qwen/Qwen2.5-7B-Instruct",
            14,
            ("A10G",),
            None,
            {
                "dtype": "bfloat16",
                "max_model_len": 1024,
                "gpu_memory_utilization": 0.75,
                "tensor_parallel_size": 4,
            },
        ),
    ],
    "run.sh": [
        (
            "Qwen/Qwen3-14B",
            "vllm",
            "",
            "Qwen/Qwen3-14B",
            5,
            (),
            None,
            {"tensor_parallel_size": 2, "max_model_len": 8192},
        ),
        ("Qwen/Qwen3-4B", "vllm", "", "Qwen/Qwen3-4B", 6, (), None, {"gpu_memory_utilization": 0.3}),
        ("Qwen/Qwen3-8B", "sglang", "", "Qwen/Qwen3-8B", 7, (), 1, {}),
        ("Qwen/Qwen2.5-7B-Instruct", "tgi", "2.4.0", "Qwen/Qwen2.5-7B-Instruct", 8, (), 1, {}),
        ("Qwen/Qwen3-8B", "sglang", "0.5.0", "Qwen/Qwen3-8B", 9, (), None, {}),
        ("Qwen/Qwen3-8B", "vllm", "0.10.0", "Qwen/Qwen3-8B", 10, (), None, {}),
        (
            "meta-llama/Llama-3.3-70B-Instruct",
            "vllm",
            "",
            "meta-llama/Llama-3.3-70B-Instruct",
            11,
            (),
            None,
            {"tensor_parallel_size": 4},
        ),
    ],
    "serve-config.yaml": [
        (
            "meta-llama/Llama-3.1-70B-Instruct",
            "vllm",
            "",
            "meta-llama/Llama-3.1-70B-Instruct",
            7,
            ("H100",),
            None,
            {"tensor_parallel_size": 4, "max_model_len": 32768},
        ),
    ],
    "serve.ps1": [
        (
            "./models/Qwen3-8B-Q4_K_M.gguf",
            "llama.cpp",
            "",
            "./models/Qwen3-8B-Q4_K_M.gguf",
            2,
            (),
            1,
            {"ctx_size": 16384, "n_gpu_layers": "99"},
        ),
    ],
    "sky.yaml": [
        (
            "task on 8 GPUs",
            "vllm",
            "0.4.2",
            "meta-llama/Meta-Llama-3-70B-Instruct",
            16,
            ("L4", "A10g"),
            8,
            {"tensor_parallel_size": 8, "gpu_memory_utilization": 0.95, "max_num_seqs": 64},
        ),
        (
            "task on 4 GPUs",
            "vllm",
            "0.4.2",
            "meta-llama/Meta-Llama-3-70B-Instruct",
            16,
            ("a100-40gb",),
            4,
            {"tensor_parallel_size": 4, "gpu_memory_utilization": 0.95, "max_num_seqs": 64},
        ),
        (
            "task on 2 GPUs",
            "vllm",
            "0.4.2",
            "meta-llama/Meta-Llama-3-70B-Instruct",
            16,
            ("A100-80GB",),
            2,
            {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.95, "max_num_seqs": 64},
        ),
    ],
    "slurm.sbatch": [
        (
            "meta-llama/Llama-3.3-70B-Instruct",
            "vllm",
            "",
            "meta-llama/Llama-3.3-70B-Instruct",
            7,
            ("a100",),
            4,
            {"tensor_parallel_size": 4, "max_model_len": 16384},
        ),
    ],
    "start.bat": [
        (
            "models/Qwen3-8B-Q4_K_M.gguf",
            "llama.cpp",
            "",
            "models/Qwen3-8B-Q4_K_M.gguf",
            3,
            (),
            None,
            {"ctx_size": 16384, "n_gpu_layers": "99"},
        ),
    ],
    "trtllm.yaml": [
        (
            "trtllm.yaml",
            "tensorrt-llm",
            "",
            None,
            None,
            (),
            None,
            {
                "tp_size": 4,
                "max_batch_size": 64,
                "max_num_tokens": 8192,
                "cuda_graph_config": {"enable_padding": True},
                "free_gpu_memory_fraction": 0.85,
            },
        ),
    ],
    "vllm-chart.yaml": [
        ("image", "vllm", "", "/data/", 4, (), None, {}),
    ],
    "vllm-config.yaml": [
        (
            "vllm-config.yaml",
            "vllm",
            "",
            "meta-llama/Llama-3.1-8B-Instruct",
            1,
            (),
            None,
            {"max_model_len": 16384, "gpu_memory_utilization": 0.85, "tensor_parallel_size": 2},
        ),
    ],
    "vllm.Dockerfile": [
        ("vllm.Dockerfile", "sglang", "0.5.2", "Qwen/Qwen3-8B", 3, (), None, {"tp_size": 2}),
    ],
    "vllm.container": [
        ("vllm", "vllm", "0.11.0", "Qwen/Qwen3-8B", 4, (), None, {"max_model_len": 16384}),
    ],
    "vllm.service": [
        (
            "vllm",
            "vllm",
            "",
            "Qwen/Qwen3-8B",
            8,
            (),
            1,
            {"max_model_len": 32768, "gpu_memory_utilization": 0.9},
        ),
    ],
}
# What is passed over, and why.
NOTES = {
    "compose-tgi.yml": [(14, "ollama: Ollama loads what it is asked for; no model is named here")],
    "env-only.yml": [(4, "env_file model.env was not read: it is not among the files given")],
    "job-list.yaml": [(16, "bench asks for GPUs but starts no engine that kvplan knows")],
    "kserve.yaml": [(25, "ServingRuntime names no model of its own")],
    "kustomize.yaml": [(1, "Kustomize: what it builds counts: kustomize build … | kvplan check -")],
    "llama-swap.yaml": [(20, "whisper: its command starts no engine that kvplan knows")],
}


def read(name):
    return read_file(SourceFile(name, FILES[name].read_text(), FILES[name], FOLDER), {})


def test_every_file_has_its_rows():
    assert EXPECTED.keys() == FILES.keys()


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_it_starts(name):
    reading = read(name)
    assert [
        (
            item.name,
            item.engine,
            item.version,
            item.model.text if item.model else None,
            item.model.line if item.model else None,
            item.gpus.names,
            item.gpus.count,
            dict(read_command(item).options),
        )
        for item in reading.launches
    ] == EXPECTED[name]
    assert list(reading.notes) == NOTES.get(name, [])


def test_a_file_of_settings_that_is_not_there_leaves_the_row_open():
    rows = check_file(
        SourceFile("mounts.yml", FILES["mounts.yml"].read_text(), FILES["mounts.yml"], FOLDER),
        lambda _: SETTINGS,
        MODELS,
        {},
    ).rows
    assert [row.status for row in rows] == ["fits", "fits", "unknown"]
    assert rows[2].why == "/nowhere.yaml: its settings are not in the files given"
    outside = SourceFile("mounts.yml", FILES["mounts.yml"].read_text())
    assert {row.status for row in check_file(outside, lambda _: SETTINGS, MODELS, {}).rows} == {"unknown"}


@pytest.mark.parametrize("name", sorted(FILES))
def test_mutilated(name):
    """Cut off anywhere, or with any line gone: a row, a note or a refusal with its place."""
    text = FILES[name].read_text()
    lines = text.splitlines(keepends=True)
    versions = [text[:end] for end in range(0, len(text), 17)]
    versions += ["".join(lines[:gone] + lines[gone + 1 :]) for gone in range(0, len(lines), 2)]
    for version in versions:
        try:
            result = check_file(SourceFile(name, version), lambda _: SETTINGS, MODELS, {})
        except UnreadableDeployment as error:
            assert error.message.startswith(name)
            continue
        for row in result.rows:
            assert 0 <= row.at.line <= version.count("\n") + 1
            assert row.exit_code in (0, 1, 3)
