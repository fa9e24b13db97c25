"""What each kind of file comes to: engines, versions, models, GPUs, and the lines they stand on."""

import pytest
from deploy.shapes import SHAPES

from kvplan.deploy.carriers import read_file
from kvplan.deploy.files import SourceFile
from kvplan.deploy.planning import read_command
from kvplan.deploy.words import Word

# File -> (name, engine, version, model, line of the model, GPU names, count, indices), by hand.
EXPECTED = {
    "compose.yml": [
        ("chat", "vllm", "0.19.1", "meta-llama/Llama-3.1-8B-Instruct", 19, (), 1, (1,)),
        ("small", "vllm", "0.19.1", "Qwen/Qwen2.5-7B-Instruct", 31, (), 1, (1,)),
    ],
    "entrypoint.yml": [("wrapped", "vllm", "0.22.0", "/models/qwen3-8b-fp8", 20, (), None, ())],
    "deployment.yaml": [
        ("llm", "vllm", "0.22.1", "Qwen/Qwen2.5-7B-Instruct", 20, ("nvidia-l4",), 2, ()),
    ],
    "script-in-pod.yaml": [
        ("scripted", "sglang", "0.5.3", "Qwen/Qwen3-32B", 22, ("NVIDIA-A100-SXM4-80GB",), 1, ()),
    ],
    "mig.yaml": [
        (
            "sliced",
            "vllm",
            "0.20.0",
            "meta-llama/Llama-3.1-8B-Instruct",
            12,
            ("NVIDIA-A100-SXM4-80GB-mig-3g.40gb",),
            1,
            (),
        ),
    ],
    "lws.yaml": [
        ("big", "vllm", "0.20.0", "meta-llama/Llama-3.1-405B", 20, ("nvidia-h100-80gb",), 16, ()),
    ],
    "helmrelease.yaml": [("driver", "vllm", "0.25.1", "openai/gpt-oss-20b", 16, (), 1, ())],
    "production-stack.yaml": [
        ("llama", "vllm", "0.21.0", "meta-llama/Llama-3.1-8B-Instruct", 6, (), 1, ()),
        ("prefill", "vllm", "", "Qwen/Qwen2.5-7B-Instruct", 17, (), 1, (1,)),
    ],
    "llmisvc.yaml": [
        ("qwen", "vllm", "", "Qwen/Qwen2.5-7B-Instruct", 7, (), 2, ()),
        ("qwen-prefill", "vllm", "", "Qwen/Qwen2.5-7B-Instruct", 7, (), 1, ()),
    ],
    "isvc.yaml": [("hf", "vllm", "", "meta-llama/Llama-3.1-8B-Instruct", 11, (), 1, ())],
    "llm-d.yaml": [("decode", "vllm", "", "Qwen/Qwen3-8B", 3, (), 2, ())],
    "scenario.yaml": [
        ("wide-decode", "vllm", "", "Qwen/Qwen3-30B-A3B", 16, ("nvidia-h100-80gb",), 16, ()),
    ],
    "dynamo.yaml": [("Decode", "tensorrt-llm", "", "deepseek-ai/DeepSeek-R1", 34, (), 8, ())],
    "rayservice.yaml": [("qwen", "vllm", "", "Qwen/Qwen2.5-7B-Instruct", 14, ("A10G",), None, ())],
    "kubeai.yaml": [
        ("llama-l4", "vllm", "", "meta-llama/Llama-3.1-8B-Instruct", 4, ("l4",), 1, ()),
        ("tiny-cpu", "ollama", "", "gemma2:2b", 14, (), 0, ()),
    ],
    "sky.yaml": [("serve", "sglang", "", "deepseek-ai/DeepSeek-R1", 17, ("A100-80GB",), 16, ())],
    "llama-swap.yaml": [
        ("coder", "llama.cpp", "", "/models/Qwen2.5-Coder-7B-Instruct-Q4_K_M.gguf", 11, (), 1, (0,)),
        ("chat", "vllm", "0.20.0", "openai/gpt-oss-20b", 16, (), None, ()),
    ],
    "preset.ini": [
        ("coder", "llama.cpp", "", "/models/Qwen2.5-Coder-7B-Instruct-Q8_0.gguf", 7, (), None, ()),
        ("ggml-org/gpt-oss-20b-GGUF", "llama.cpp", "", "ggml-org/gpt-oss-20b-GGUF", 11, (), None, ()),
    ],
    "coder.Modelfile": [("coder.Modelfile", "ollama", "", "llama3.1:8b", 1, (), None, ())],
    "vllm-config.yaml": [
        ("vllm-config.yaml", "vllm", "", "meta-llama/Llama-3.1-8B-Instruct", 1, (), None, ()),
    ],
    "trtllm.yaml": [("trtllm.yaml", "tensorrt-llm", "", None, None, (), None, ())],
    "recipe.yaml": [
        ("default", "vllm", "", "meta-llama/Llama-3.1-8B-Instruct", 3, (), None, ()),
        ("fp8", "vllm", "", "nvidia/Llama-3.1-8B-Instruct-FP8", 8, (), None, ()),
    ],
    "serve.sh": [
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            "vllm",
            "0.23.0",
            "meta-llama/Llama-3.1-8B-Instruct",
            8,
            (),
            2,
            (0, 1),
        ),
        ("/models/a-Q4_K_M.gguf", "llama.cpp", "", "/models/a-Q4_K_M.gguf", 10, (), 1, (2,)),
        (
            "mistralai/Mistral-7B-Instruct-v0.2",
            "tgi",
            "",
            "mistralai/Mistral-7B-Instruct-v0.2",
            11,
            (),
            None,
            (),
        ),
    ],
    "README.md": [
        ("line 6", "vllm", "", "Qwen/Qwen3-8B", 7, (), None, ()),
        ("line 15", "sglang", "", "openai/gpt-oss-20b", 15, (), None, ()),
    ],
    "custom-resource.yaml": [
        ("workers", "vllm", "0.24.0", "Qwen/Qwen3-8B", 10, (), None, ()),
        ("spec", "llama.cpp", "", "ggml-org/gpt-oss-20b-GGUF", 12, (), None, ()),
    ],
    "nothing.yaml": [],
}


def read(name, text=None, variables=None):
    return read_file(SourceFile(name, SHAPES[name] if text is None else text), variables or {})


def flags(launch):
    return [word.text for word in launch.flags]


def test_every_shape_has_its_row():
    assert EXPECTED.keys() == SHAPES.keys()


@pytest.mark.parametrize("name", SHAPES)
def test_engines_models_and_gpus(name):
    found = [
        (
            item.name,
            item.engine,
            item.version,
            item.model.text if item.model else None,
            item.model.line if item.model else None,
            item.gpus.names,
            item.gpus.count,
            item.gpus.indices,
        )
        for item in read(name).launches
    ]
    assert found == EXPECTED[name]


def test_compose_variables_defaults_quotes_and_anchors():
    chat, small = read("compose.yml").launches
    assert flags(chat) == [
        "--max-model-len",
        "16384",
        "--host",
        "0.0.0.0",
        "--gpu-memory-utilization=0.5",
        "--speculative-config",
        '{"method":"ngram","num_speculative_tokens":3}',
    ]
    assert [word.line for word in chat.flags] == [20, 20, 20, 20, 21, 22, 22]
    assert chat.flags[1].defaulted
    assert not chat.flags[0].defaulted
    assert chat.groups == small.groups != ()


def test_compose_takes_the_users_variables():
    given = {"CTX": Word("2048"), "EXTRA": Word("yes"), "IMAGE": Word("lmsysorg/sglang:v0.5.1")}
    chat, small = read("compose.yml", variables=given).launches
    assert flags(chat)[1] == "2048"
    assert flags(chat)[-1] == "--enforce-eager"
    assert (small.engine, small.version) == ("sglang", "0.5.1")


def test_a_wrapped_entrypoint_is_followed():
    (wrapped,) = read("entrypoint.yml").launches
    assert flags(wrapped) == [
        "--tensor-parallel-size",
        "2",
        "--speculative-config",
        '{"method":"mtp","num_speculative_tokens":2}',
    ]
    (off,) = read("entrypoint.yml", variables={"SPEC": Word("0")}).launches
    assert flags(off) == ["--tensor-parallel-size", "2"]


def test_kubernetes_variables():
    (launch,) = read("deployment.yaml").launches
    assert launch.model.known
    text = SHAPES["deployment.yaml"].replace("$(MODEL_ID)", "${MODEL_ID}").replace("MODEL_ID\n", "OTHER\n")
    (unresolved,) = read("deployment.yaml", text).launches
    assert unresolved.model.undefined == ("MODEL_ID",)
    (given,) = read("deployment.yaml", text, {"MODEL_ID": Word("openai/gpt-oss-20b")}).launches
    assert given.model.text == "openai/gpt-oss-20b"


def test_settings_as_keys_become_flags():
    llama, prefill = read("production-stack.yaml").launches
    assert flags(llama) == [
        "--max-model-len",
        "4096",
        "--max-num-seqs",
        "32",
        "--gpu-memory-utilization",
        "0.8",
        "--no-enable-prefix-caching",
        "--enforce-eager",
    ]
    assert [word.line for word in llama.flags] == [9, 9, 10, 10, 11, 11, 12, 13]
    assert "--enable-lora" in flags(prefill)
    (ray,) = read("rayservice.yaml").launches
    assert [(word.text, word.line) for word in ray.flags][:2] == [("--max-model-len", 17), ("1024", 17)]
    (config,) = read("vllm-config.yaml").launches
    assert flags(config)[-4:] == [
        "--async-scheduling",
        "--no-enable-prefix-caching",
        "--compilation-config",
        '{"mode": 3}',
    ]


def test_a_mounted_config_map_belongs_to_the_engine_that_mounts_it():
    (decode,) = read("dynamo.yaml").launches
    words = dict(zip(flags(decode)[::2], flags(decode)[1::2], strict=True))
    assert words["--tp_size"] == "8"
    assert words["--kv_cache_free_gpu_memory_fraction"] == "0.8"
    unmounted = SHAPES["dynamo.yaml"].replace("{name: engine-config}", "{name: another}")
    (missing,) = read("dynamo.yaml", unmounted).launches
    assert "not in the files given" in missing.missing[0]


def test_llama_swap_knows_what_runs_together():
    coder, chat = read("llama-swap.yaml").launches
    assert coder.groups == chat.groups == ("group pair",)
    alone = SHAPES["llama-swap.yaml"].split("groups:")[0]
    assert [item.groups for item in read("llama-swap.yaml", alone).launches] == [(), ()]
    matrix = alone + 'matrix:\n  vars: {a: coder, b: chat, c: odd}\n  sets: {both: "(a | c) & b"}\n'
    coder, chat = read("llama-swap.yaml", matrix).launches
    assert coder.groups == ("set both.1",)
    assert chat.groups == ("set both.1", "set both.2")


def test_what_is_passed_over_is_said():
    assert read("nothing.yaml").notes == ((0, "no engine found"),)
    assert "starts no engine" in read("llama-swap.yaml").notes[0][1]
    assert read("kubeai.yaml").notes[0][0] == 19
    template = "spec:\n  args:\n{{- range .Values.args }}\n  - {{ . }}\n{{- end }}\n"
    assert "helm template" in read("x.yaml", template).notes[0][1]
    idle = SHAPES["deployment.yaml"].replace("vllm/vllm-openai:v0.22.1", "registry/own:1")
    idle = idle.replace("--max-model-len", "--steps").replace("--tensor-parallel-size", "--ranks")
    assert "asks for GPUs" in read("x.yaml", idle).notes[0][1]


@pytest.mark.parametrize(
    ("image", "engine", "version"),
    [
        ("vllm/vllm-openai:v0.19.1", "vllm", "0.19.1"),
        ("vllm/vllm-openai:latest", "vllm", ""),
        ("nvcr.io/nvidia/vllm:25.09-py3", "vllm", ""),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b10236", "llama.cpp", "b10236"),
        ("registry:5000/team/vllm-openai:v0.20.0@sha256:00", "vllm", "0.20.0"),
    ],
)
def test_versions_come_from_tags_that_name_one(image, engine, version):
    text = f"services:\n  a:\n    image: {image}\n    command: --model x/y -m x/y\n"
    (launch,) = read("a.yml", text).launches
    assert (launch.engine, launch.version) == (engine, version)


@pytest.mark.parametrize(
    ("command", "engine", "model"),
    [
        ("vllm serve a/b --max-model-len 4096", "vllm", "a/b"),
        ("vllm serve --trust-remote-code a/b", "vllm", "a/b"),
        ("vllm serve --served-model-name x y --model a/b", "vllm", "a/b"),
        ("exec env A=1 nohup python3 -m vllm.entrypoints.openai.api_server --model=a/b", "vllm", "a/b"),
        ("cd /srv && uv run vllm serve a/b &", "vllm", "a/b"),
        ("bash -lc 'source x; vllm serve a/b'", "vllm", "a/b"),
        ("mpirun -n 2 trtllm-llmapi-launch trtllm-serve a/b --tp_size 2", "tensorrt-llm", "a/b"),
        ("trtllm-serve serve a/b", "tensorrt-llm", "a/b"),
        ("python -m sglang.launch_server --model a/b --tp 2", "sglang", "a/b"),
        ("/opt/llama/llama-server -hf a/b:Q4_K_M -c 8192", "llama.cpp", "a/b:Q4_K_M"),
        ("LLAMA_ARG_MODEL=/m.gguf llama-server -c 4096", "llama.cpp", "/m.gguf"),
        ("ollama run llama3.1:8b", "ollama", "llama3.1:8b"),
        ("lmdeploy serve api_server a/b --tp 2", "lmdeploy", "a/b"),
        ("podman run --rm --gpus=all ghcr.io/ggml-org/llama.cpp:server -m /m.gguf", "llama.cpp", "/m.gguf"),
        ("docker run -p 80:80 ghcr.io/huggingface/text-generation-inference:3 --model-id a/b", "tgi", "a/b"),
    ],
)
def test_command_lines(command, engine, model):
    (launch,) = read("serve.sh", command + "\n").launches
    assert (launch.engine, launch.model.text) == (engine, model)


@pytest.mark.parametrize(
    "command", ["pip install vllm", "vllm --help", "echo vllm serve a/b", "llama-swap -c x"]
)
def test_commands_that_start_nothing(command):
    assert read("serve.sh", command + "\n").launches == ()


def test_llama_arg_variables_are_flags():
    text = "services:\n  a:\n    image: ghcr.io/ggml-org/llama.cpp:server\n    environment:\n" + "".join(
        f"      {name}: '{value}'\n"
        for name, value in {
            "LLAMA_ARG_MODEL": "/m.gguf",
            "LLAMA_ARG_CTX_SIZE": "8192",
            "LLAMA_ARG_KV_UNIFIED": "true",
        }.items()
    )
    (launch,) = read("a.yml", text).launches
    assert launch.model.text == "/m.gguf"
    options = read_command(launch).options
    assert (options["ctx_size"], options["kv_unified"]) == (8192, True)


def test_replicas_of_a_service_are_said():
    text = "services:\n  a:\n    image: vllm/vllm-openai:v0.20.0\n    command: --model qwen3-8b\n"
    (alone,) = read("a.yml", text).launches
    (several,) = read("a.yml", text + "    deploy: {replicas: 2}\n").launches
    assert alone.notes == ()
    assert several.notes[0].startswith("2 replicas: those on one machine share its GPUs")
