"""Files that start text-generation-inference and LMDeploy: flags, variables, versions, GPUs, verdicts."""

import pytest

from kvplan.deploy.carriers import read_file
from kvplan.deploy.checking import check_file
from kvplan.deploy.files import SourceFile
from kvplan.deploy.images import version_of_image
from kvplan.deploy.model_names import Models
from kvplan.deploy.planning import read_command
from kvplan.deploy.settings import Settings
from kvplan.sources import open_model

MODELS = Models(lambda reference, _: open_model(reference, offline=True))

TGI_POD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: llm}
spec:
  template:
    spec:
      nodeSelector: {cloud.google.com/gke-accelerator: nvidia-l4}
      containers:
      - name: llm
        image: us-docker.pkg.dev/x/huggingface-text-generation-inference-cu121.2-2.ubuntu2204.py310
        resources: {limits: {nvidia.com/gpu: "4"}}
        env:
        - {name: MODEL_ID, value: meta-llama/Llama-3.1-8B-Instruct}
        - {name: MAX_TOTAL_TOKENS, value: "6000"}
        - {name: MAX_INPUT_LENGTH, value: "5000"}
        - {name: QUANTIZE, value: eetq}
"""
TGI_COMPOSE = """\
services:
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:3.2.1
    command: --model-id Qwen/Qwen2.5-7B-Instruct --max-total-tokens ${MAX:-16384} --num-shard 2
    environment: [KV_CACHE_DTYPE=fp8_e4m3fn, HF_TOKEN=x]
"""
LMDEPLOY_COMPOSE = """\
services:
  api:
    image: openmmlab/lmdeploy:v0.9.2-cu12
    command: >-
      lmdeploy serve api_server Qwen/Qwen2.5-7B-Instruct --server-port 23333
      --session-len 16384 --quant_policy 4 --tp 1 --cache-max-entry-count 0.5
"""


def rows_of(text, name="compose.yml", gpu=None):
    settings = Settings(gpus=(gpu,) if gpu else ())
    return check_file(SourceFile(name, text), lambda _: settings, MODELS, {}).rows


def command_of(text, name="compose.yml"):
    (launch,) = read_file(SourceFile(name, text), {}).launches
    return read_command(launch)


def test_variables_are_tgis_flags_and_it_shards_over_all_its_gpus():
    command = command_of(TGI_POD, "pod.yaml")
    assert command.launch.version == "2.2"
    assert command.options["max_total_tokens"] == 6000
    assert command.options["max_input_length"] == 5000
    assert command.ranks() == (4, 4)
    (row,) = rows_of(TGI_POD, "pod.yaml")
    plan = row.plan
    assert (plan.engine_version, plan.context_tokens, plan.weights_format) == ("2.2", 6000, "int8")
    assert dict(plan.engine_options)["num_shard"] == 4
    alone = TGI_POD + '        - {name: SHARDED, value: "false"}\n'
    assert command_of(alone, "pod.yaml").ranks() == (1, 1)


def test_a_flag_wins_and_a_default_is_taken():
    (row,) = rows_of(TGI_COMPOSE, gpu="2xa100-80gb")
    assert (row.status, row.plan.context_tokens, row.plan.kv_dtype_k) == ("fits", 16384, "fp8_e4m3fn")
    shorter = TGI_COMPOSE.replace("--num-shard", "--max-input-tokens 20000 --num-shard")
    (refused,) = rows_of(shorter, gpu="2xa100-80gb")
    assert refused.status == "refused"
    assert "`max_input_tokens`(20000) must be < `max_total_tokens`(16384)" in refused.why


def test_a_length_that_is_left_open_is_what_the_pool_holds():
    left_open = TGI_COMPOSE.replace("--max-total-tokens ${MAX:-16384} --num-shard 2", "--num-shard 1")
    left_open = left_open.replace("Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct")
    (row,) = rows_of(left_open.replace("KV_CACHE_DTYPE=fp8_e4m3fn, ", ""), gpu="l4")
    assert row.status in ("fits", "tight")
    assert 4096 < row.plan.context_tokens < 131072
    (told,) = rows_of(LMDEPLOY_COMPOSE.replace("--session-len 16384", "--session-len 200000"), gpu="24GB")
    assert told.plan.context_tokens == 200000


def test_lmdeploys_command_in_its_image():
    (row,) = rows_of(LMDEPLOY_COMPOSE, gpu="a100-80gb")
    assert (row.status, row.plan.engine_name, row.plan.engine_version) == ("fits", "lmdeploy", "0.9.2")
    assert (row.plan.kv_dtype_k, row.plan.context_tokens) == ("int4", 16384)
    assert any("planned by 0.18's rules" in note for note in row.notes)
    assert not row.unknown_flags


@pytest.mark.parametrize(
    ("image", "engine", "version"),
    [
        ("nvcr.io/nvidia/tensorrt-llm/release:1.1.0rc3", "tensorrt-llm", "1.1.0"),
        ("nvcr.io/nvidia/tritonserver:25.03-trtllm-python-py3", "tensorrt-llm", ""),
        ("ghcr.io/huggingface/text-generation-inference:3.3.4", "tgi", "3.3.4"),
        ("ghcr.io/huggingface/text-generation-inference:latest", "tgi", ""),
        ("x.dkr.ecr/huggingface-pytorch-tgi-inference:2.4.0-tgi2.3.1-gpu", "tgi", ""),
        ("a/huggingface-text-generation-inference-cu124.2-4.ubuntu2204.py311", "tgi", "2.4"),
        ("openmmlab/lmdeploy:v0.18.0-cu12.8", "lmdeploy", "0.18.0"),
    ],
)
def test_versions_of_images(image, engine, version):
    assert version_of_image(image, engine) == version


TENSORRT_LLM_COMPOSE = """\
services:
  llm:
    image: nvcr.io/nvidia/tensorrt-llm/release:1.2.0
    command: trtllm-serve serve meta-llama/Llama-3.1-8B-Instruct
"""


def test_tensorrt_llm_shortens_a_length_that_is_left_open():
    (row,) = rows_of(TENSORRT_LLM_COMPOSE, gpu="24GB")
    assert 1024 < row.plan.context_tokens < 131072
    assert row.plan.context_tokens <= row.plan.kv_cache_tokens
    assert row.status != "does_not_fit"
    longer = TENSORRT_LLM_COMPOSE.replace("Instruct", "Instruct --max_seq_len 131072")
    (told,) = rows_of(longer, gpu="24GB")
    assert (told.status, told.plan.context_tokens) == ("does_not_fit", 131072)
