"""Deployment files of every shape that kvplan reads, written for these tests, by file name."""

SHAPES = {
    "compose.yml": """\
x-gpu: &gpu
  deploy:
    resources:
      reservations:
        devices:
          - driver: nvidia
            count: all
            capabilities: [gpu]
services:
  web:
    image: nginx
  chat:
    <<: *gpu
    image: vllm/vllm-openai:v0.19.1
    environment:
      - CUDA_VISIBLE_DEVICES=1
      - HF_TOKEN=${HF_TOKEN}
    command: >
      --model meta-llama/Llama-3.1-8B-Instruct
      --max-model-len ${LEN:-${CTX:-16384}} --host 0.0.0.0
      --gpu-memory-utilization=0.5
      --speculative-config '{"method":"ngram","num_speculative_tokens":${N:-3}}'
      ${EXTRA:+--enforce-eager}
  small:
    <<: *gpu
    image: ${IMAGE:-vllm/vllm-openai:v0.19.1}
    environment:
      CUDA_VISIBLE_DEVICES: "1"
    command:
      - --model
      - Qwen/Qwen2.5-7B-Instruct
      - -tp
      - "1"
      - --gpu_memory_utilization
      - "0.4"
      - --max-model-len
      - 8k
""",
    "entrypoint.yml": """\
services:
  wrapped:
    image: vllm/vllm-openai:v0.22.0
    environment:
      - SPEC=${SPEC:-}
    entrypoint:
      - /bin/bash
      - -c
      - |
        n="$${SPEC:-2}"
        case "$$n" in ""|*[!0-9]*) exit 1 ;; esac
        ARGS=()
        if [ "$$n" -gt 0 ]; then
          ARGS=(--speculative-config "{\\"method\\":\\"mtp\\",\\"num_speculative_tokens\\":$$n}")
        fi
        exec vllm serve "$$@" "$${ARGS[@]}"
      - --
    command:
      - --model
      - /models/qwen3-8b-fp8
      - --tensor-parallel-size
      - "${TP:-2}"
""",
    "deployment.yaml": """\
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nvidia}
handler: nvidia
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: llm
spec:
  replicas: 1
  template:
    spec:
      nodeSelector:
        cloud.google.com/gke-accelerator: nvidia-l4
      containers:
        - name: server
          image: vllm/vllm-openai:v0.22.1
          args:
            - --model=$(MODEL_ID)
            - --max-model-len=8192
            - --tensor-parallel-size=2
          env:
            - name: MODEL_ID
              value: Qwen/Qwen2.5-7B-Instruct
            - name: HF_TOKEN
              valueFrom: {secretKeyRef: {name: hf, key: token}}
          resources:
            limits:
              nvidia.com/gpu: "2"
""",
    "script-in-pod.yaml": """\
apiVersion: v1
kind: Pod
metadata:
  name: scripted
spec:
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions:
              - key: nvidia.com/gpu.product
                operator: In
                values: [NVIDIA-A100-SXM4-80GB]
  containers:
    - name: engine
      image: lmsysorg/sglang:v0.5.3
      command: ["/bin/sh", "-c"]
      args:
        - |
          echo starting
          python3 -m sglang.launch_server \\
            --model-path Qwen/Qwen3-32B \\
            --context-length 32768 --tp 1
      resources:
        limits:
          nvidia.com/gpu: 1
""",
    "mig.yaml": """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sliced}
spec:
  template:
    spec:
      nodeSelector:
        nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB
      containers:
        - name: vllm
          image: vllm/vllm-openai:v0.20.0
          args: ["--model", "meta-llama/Llama-3.1-8B-Instruct", "--max-model-len", "4096"]
          resources:
            limits:
              nvidia.com/mig-3g.40gb: 1
""",
    "lws.yaml": """\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata:
  name: big
spec:
  replicas: 1
  leaderWorkerTemplate:
    size: 2
    leaderTemplate:
      spec:
        nodeSelector:
          cloud.google.com/gke-accelerator: nvidia-h100-80gb
        containers:
          - name: leader
            image: vllm/vllm-openai:v0.20.0
            command:
              - sh
              - -c
              - "bash multi-node.sh leader --ray_cluster_size=$(LWS_GROUP_SIZE);
                python3 -m vllm.entrypoints.openai.api_server --model meta-llama/Llama-3.1-405B
                --tensor-parallel-size 8 --pipeline-parallel-size 2 --max-model-len 16384"
            resources:
              limits: {nvidia.com/gpu: "8"}
    workerTemplate:
      spec:
        containers:
          - name: worker
            image: vllm/vllm-openai:v0.20.0
            command: ["sh", "-c", "bash multi-node.sh worker"]
            resources:
              limits: {nvidia.com/gpu: "8"}
""",
    "helmrelease.yaml": """\
apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata:
  name: driver
spec:
  values:
    controllers:
      main:
        containers:
          app:
            image:
              repository: ghcr.io/someone/vllm-gb10
              tag: v0.25.1-cu13
            command: ["vllm", "serve"]
            args:
              - openai/gpt-oss-20b
              - --max-model-len
              - "65536"
            env:
              HF_HOME: /data
            resources:
              limits:
                nvidia.com/gpu: 1
""",
    "production-stack.yaml": """\
servingEngineSpec:
  modelSpec:
    - name: "llama"
      repository: "vllm/vllm-openai"
      tag: "v0.21.0"
      modelURL: "meta-llama/Llama-3.1-8B-Instruct"
      requestGPU: 1
      vllmConfig:
        maxModelLen: 4096
        maxNumSeqs: 32
        gpuMemoryUtilization: 0.8
        enablePrefixCaching: false
        extraArgs: ["--enforce-eager"]
    - name: "prefill"
      repository: "lmcache/vllm-openai"
      tag: "2025-05-27-v1"
      modelURL: "Qwen/Qwen2.5-7B-Instruct"
      enableLoRA: true
      vllmConfig:
        maxModelLen: 32000
      lmcacheConfig:
        cudaVisibleDevices: "1"
""",
    "llmisvc.yaml": """\
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata:
  name: qwen
spec:
  model:
    uri: hf://Qwen/Qwen2.5-7B-Instruct
    name: Qwen/Qwen2.5-7B-Instruct
  parallelism:
    tensor: 2
  template:
    containers:
      - name: main
        env:
          - name: VLLM_ADDITIONAL_ARGS
            value: "--max-model-len 4096 --kv_transfer_config '{\\"kv_connector\\":\\"NixlConnector\\"}'"
        resources:
          limits:
            nvidia.com/gpu: "2"
  prefill:
    parallelism: {tensor: 1}
    template:
      containers:
        - name: main
          resources:
            limits:
              nvidia.com/gpu: "1"
""",
    "isvc.yaml": """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: hf
spec:
  predictor:
    model:
      modelFormat: {name: huggingface}
      args:
        - --model_name=llama
        - --model_id=meta-llama/Llama-3.1-8B-Instruct
        - --max-model-len=8192
      resources:
        limits: {nvidia.com/gpu: "1"}
""",
    "llm-d.yaml": """\
modelArtifacts:
  name: Qwen/Qwen3-8B
  uri: hf://{{ .Values.modelArtifacts.name }}
decode:
  create: true
  parallelism: {tensor: 2}
  containers:
    - name: vllm
      image: ghcr.io/llm-d/llm-d-cuda:latest
      modelCommand: vllmServe
      args: ["--enforce-eager"]
      resources:
        limits: {nvidia.com/gpu: "2"}
prefill:
  create: false
  containers: []
""",
    "scenario.yaml": """\
scenario:
  - name: wide
    common:
      affinity:
        nodeSelector: {cloud.google.com/gke-accelerator: nvidia-h100-80gb}
      model:
        huggingfaceId: Qwen/Qwen3-30B-A3B
        maxModelLen: 4000
        gpuMemoryUtilization: 0.75
    decode:
      replicas: 1
      parallelism: {tensor: 1, dataLocal: 8, workers: 2}
      vllm:
        customCommand: |
          . /shared/env.sh
          vllm serve /model-cache/$MODEL_PATH \\
            --gpu-memory-utilization $VLLM_ACCELERATOR_MEM_UTIL \\
            --max-model-len $VLLM_MAX_MODEL_LEN \\
            --data-parallel-size $((LWS_GROUP_SIZE * DP_SIZE_LOCAL)) \\
            --max-num-seq $VLLM_MAX_NUM_SEQ
""",
    "dynamo.yaml": """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: engine-config
data:
  config.yaml: |
    tensor_parallel_size: 8
    max_num_tokens: 8192
    max_batch_size: 256
    kv_cache_config:
      dtype: fp8
      free_gpu_memory_fraction: 0.8
    moe_config: {backend: CUTLASS}
---
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata:
  name: graph
spec:
  services:
    Frontend:
      extraPodSpec:
        mainContainer: {image: "nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.7.0"}
    Decode:
      resources:
        limits: {gpu: "8"}
      extraPodSpec:
        mainContainer:
          image: nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:1.1.1
          command: ["/bin/sh", "-c"]
          args:
            - >-
              python3 -m dynamo.trtllm
              --model-path deepseek-ai/DeepSeek-R1
              --extra-engine-args /config/config.yaml
          volumeMounts:
            - {name: config, mountPath: /config}
        volumes:
          - name: config
            configMap: {name: engine-config}
""",
    "rayservice.yaml": """\
apiVersion: ray.io/v1
kind: RayService
metadata:
  name: ray
spec:
  serveConfigV2: |
    applications:
    - name: llms
      import_path: ray.serve.llm:build_openai_app
      args:
        llm_configs:
        - model_loading_config:
            model_id: qwen
            model_source: Qwen/Qwen2.5-7B-Instruct
          accelerator_type: A10G
          engine_kwargs:
            max_model_len: 1024
            gpu_memory_utilization: 0.75
            enforce_eager: true
  rayClusterConfig:
    rayVersion: "2.52.0"
""",
    "kubeai.yaml": """\
catalog:
  llama-l4:
    enabled: true
    url: hf://meta-llama/Llama-3.1-8B-Instruct
    engine: VLLM
    env: {VLLM_USE_V1: "1"}
    args:
      - --max-model-len=8192
      - --max-num-batched-token=8192
      - --quantization=fp8
    resourceProfile: nvidia-gpu-l4:1
  tiny-cpu:
    enabled: false
    url: "ollama://gemma2:2b"
    engine: OLlama
    resourceProfile: cpu:2
  speech:
    url: hf://Systran/whisper
    engine: FasterWhisper
    resourceProfile: cpu:1
""",
    "sky.yaml": """\
name: serve
resources:
  accelerators: {A100-80GB:8}
  any_of:
    - use_spot: true
num_nodes: 2
envs:
  MODEL: deepseek-ai/DeepSeek-R1
run: |
  TP=$(($SKYPILOT_NUM_GPUS_PER_NODE * $SKYPILOT_NUM_NODES))
  if [ "$SKYPILOT_NODE_RANK" -eq 0 ]; then
    HEAD="--host 0.0.0.0"
  else
    HEAD=""
  fi
  python -m sglang.launch_server \\
    --model-path $MODEL \\
    --tp $TP $HEAD
""",
    "llama-swap.yaml": """\
macros:
  "server": >
    /opt/llama.cpp/llama-server --port ${PORT}
  "ctx": 4096
models:
  "coder":
    macros: {"ctx": 16384}
    cmd: |
      ${server}
      # the model
      --model /models/Qwen2.5-Coder-7B-Instruct-Q4_K_M.gguf
      --ctx-size ${ctx}
      -ngl 99
    env: ["CUDA_VISIBLE_DEVICES=0"]
  "chat":
    cmd: docker run --rm --gpus all -p ${PORT}:8000 vllm/vllm-openai:v0.20.0 --model openai/gpt-oss-20b
  "odd":
    cmd: some-other-server
groups:
  "pair":
    swap: false
    members: ["coder", "chat"]
""",
    "preset.ini": """\
version = 1
[*]
n-gpu-layers = 99
flash-attn = on

[coder]
model = /models/Qwen2.5-Coder-7B-Instruct-Q8_0.gguf
ctx-size = 32768
jinja = true

[ggml-org/gpt-oss-20b-GGUF]
c = 8192
""",
    "coder.Modelfile": """\
from llama3.1:8b
parameter num_ctx 32768
PARAMETER temperature 0.2
SYSTEM \"\"\"
FROM here on you are a coder.
\"\"\"
""",
    "vllm-config.yaml": """\
model: meta-llama/Llama-3.1-8B-Instruct
max-model-len: 8192
kv-cache-dtype: fp8
async-scheduling: true
no-enable-prefix-caching: true
compilation-config: '{"mode": 3}'
""",
    "trtllm.yaml": """\
max_batch_size: 720
max_num_tokens: 16384
tensor_parallel_size: 2
enable_attention_dp: true
cuda_graph_config:
  enable_padding: true
kv_cache_config:
  free_gpu_memory_fraction: 0.85
""",
    "recipe.yaml": """\
meta: {title: Llama}
model:
  model_id: meta-llama/Llama-3.1-8B-Instruct
  base_args: ["--enforce-eager"]
variants:
  default: {precision: bf16, vram_minimum_gb: 20}
  fp8:
    model_id: nvidia/Llama-3.1-8B-Instruct-FP8
    extra_args: ["--kv-cache-dtype", "fp8"]
""",
    "serve.sh": """\
#!/usr/bin/env bash
set -euo pipefail
MODEL=${1:-meta-llama/Llama-3.1-8B-Instruct}
export VLLM_ALLOW_LONG_MAX_MODEL_LEN=1
docker run --rm -it --gpus '"device=0,1"' --ipc=host \\
  -e HF_TOKEN="$HF_TOKEN" -v ~/.cache:/root/.cache \\
  vllm/vllm-openai:v0.23.0 \\
  --model "$MODEL" --tensor-parallel-size 2 \\
  --max-model-len 32k
CUDA_VISIBLE_DEVICES=2 nohup llama-server -m /models/a-Q4_K_M.gguf -c 4096 > log 2>&1 &
text-generation-launcher --model-id mistralai/Mistral-7B-Instruct-v0.2
""",
    "README.md": """\
# How to serve

We use `vllm serve`.

```bash
pip install vllm
vllm serve Qwen/Qwen3-8B --max-model-len 16384 # fits
```

```python
llm = "vllm serve not-this"
```

~~~console
$ sglang serve --model-path openai/gpt-oss-20b \\
    --tp 1
serving on port 30000
~~~
""",
    "custom-resource.yaml": """\
apiVersion: example.com/v1
kind: Server
metadata:
  name: mine
spec:
  description: run vllm serve by hand
  workers:
    main:
      image: vllm/vllm-openai:v0.24.0
      args: ["--model", "Qwen/Qwen3-8B", "--max-model-len", "8192"]
  script: |
    llama-server -hf ggml-org/gpt-oss-20b-GGUF -c 8192
""",
    "nothing.yaml": """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
""",
}
