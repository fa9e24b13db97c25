"""Flags that change nothing in memory, so that the list of unread flags stays worth reading.

By engine: how many values each takes; 0 for a switch, -1 for any number up to the next flag. Sources:
vLLM 0.33 engine/arg_utils.py and entrypoints/openai/cli_args.py, SGLang 0.5.23 srt/server_args.py,
llama.cpp common/arg.cpp, TensorRT-LLM commands/serve.py, LMDeploy 0.18 cli/serve.py, TGI 3.0
launcher/src/main.rs.
"""

from kvplan.deploy.flags.sglang_rest import MANY_VALUES, ONE_VALUE, SWITCHES

Harmless = dict[str, int]


def _flags(switches: str, one: str, many: str = "", *, negated: bool = False) -> Harmless:
    negations = (f"--no-{switch[2:]}" for switch in switches.split() if switch.startswith("--"))
    return {
        **dict.fromkeys(negations if negated else (), 0),
        **dict.fromkeys(switches.split(), 0),
        **dict.fromkeys(one.split(), 1),
        **dict.fromkeys(many.split(), -1),
    }


WITHOUT_EFFECT: dict[str, Harmless] = {
    "vllm": _flags(
        "--trust-remote-code --enable-auto-tool-choice --disable-log-requests --no-enable-log-requests "
        "--enable-log-requests --disable-log-stats --disable-uvicorn-access-log --disable-fastapi-docs "
        "--disable-custom-all-reduce --enable-reasoning --return-tokens-as-token-ids --headless "
        "--enable-prompt-tokens-details --enable-force-include-usage --enable-server-load-tracking "
        "--enable-request-id-headers --allow-credentials --disable-frontend-multiprocessing "
        "--exclude-tools-when-tool-choice-none --data-parallel-hybrid-lb --data-parallel-external-lb "
        "--enable-sleep-mode --use-tqdm-on-load --trust-request-chat-template --log-config-file-json "
        "--no-enable-flashinfer-autotune --enable-flashinfer-autotune --enable-ssl-refresh "
        "--disable-async-output-proc --enable-tokenizer-info-endpoint --skip-tokenizer-init "
        "--aggregate-engine-logging --allow-deprecated-quantization --cudagraph-metrics "
        "--disable-cascade-attn "
        "--disable-nccl-for-dp-synchronization --enable-ep-weight-filter --enable-fault-tolerance "
        "--enable-layerwise-nvtx-tracing --enable-logging-iteration-details --enable-mfu-metrics "
        "--enable-mm-embeds --enable-prompt-embeds --enable-return-routed-experts --enable-trace-replay "
        "--fail-on-environ-validation --interleave-mm-strings --jit-monitor-verbose --kv-cache-metrics "
        "--kv-sharing-fast-prefill --mm-device-do-normalize --numa-bind --per-request-spec-decode-metrics "
        "--ray-workers-use-nsight --return-sampling-mask --scheduler-reserve-full-isl "
        "--sleep-preserve-parameter-names --sleep-mode-offload-cudagraph --specialize-active-lora "
        "--data-parallel-multi-port-external-lb --enable-shm-tensor-arena --use-fp64-gumbel "
        "--enable-cumem-allocator --enable-mamba-cache-stochastic-rounding --enable-nccl-comm-suspend",
        "--host --port --uds --api-key --root-path --tokenizer --tokenizer-mode --tokenizer-revision "
        "--revision --code-revision --hf-token --hf-config-path --download-dir --chat-template "
        "--chat-template-content-format --response-role --tool-call-parser --tool-parser-plugin "
        "--reasoning-parser --reasoning-parser-plugin --seed --ssl-keyfile "
        "--ssl-certfile --ssl-ca-certs --ssl-cert-reqs --uvicorn-log-level --log-config-file --max-log-len "
        "--distributed-executor-backend --override-generation-config --generation-config --tool-server "
        "--default-chat-template-kwargs --scheduling-policy --guided-decoding-backend --allowed-origins "
        "--structured-outputs-config --otlp-traces-endpoint --collect-detailed-traces --max-logprobs "
        "--data-parallel-address --data-parallel-rpc-port --data-parallel-start-rank --data-parallel-rank "
        "--data-parallel-size-local --data-parallel-backend --nnodes --node-rank --master-addr "
        "--master-port --api-server-count --disable-access-log-for-endpoints "
        "--moe-backend --kv-events-config --prefix-caching-hash-algo --model-loader-extra-config "
        "--long-prefill-token-threshold --max-num-partial-prefills --max-long-partial-prefills "
        "--num-scheduler-steps --worker-cls --logits-processor-pattern "
        "--allowed-methods --allowed-headers --ignore-patterns --stream-interval "
        "--shutdown-timeout --profiler-config --disable-chunked-mm-input --lora-dtype "
        "--allowed-media-domains --cpu-distributed-timeout-seconds --distributed-timeout-seconds "
        "--custom-histogram-buckets --dbo-decode-token-threshold --dbo-prefill-token-threshold "
        "--dcp-comm-backend --dp-sync-interval --expert-placement-strategy --gdn-prefill-backend "
        "--kda-decode-backend --kda-prefill-backend --mamba-backend --mamba-ssu-algorithm "
        "--mamba-cache-philox-rounds --linear-backend --log-level --logging-config --logprobs-mode "
        "--io-processor-plugin --jit-monitor-mode --kernel-config --kv-cache-metrics-sample "
        "--kv-offloading-backend --max-cpu-loras --max-lora-cls-labels --max-num-active-seqs "
        "--max-num-queued-reqs --max-num-queued-tokens --max-parallel-loading-workers --media-io-kwargs "
        "--mm-encoder-attn-backend --mm-hasher-algorithm --mm-processor-cache-type --mm-processor-device "
        "--mm-shm-cache-max-object-size-mb --mm-tensor-ipc --model-class-overrides --model-impl "
        "--numa-bind-cpus --numa-bind-nodes --pooler-config --prefill-schedule-interval "
        "--pt-load-map-location --reasoning-config --renderer-num-workers --safetensors-load-strategy "
        "--safetensors-prefetch-block-size --safetensors-prefetch-num-threads --scheduler-cls "
        "--show-hidden-metrics-for-version --sleep-mode-backend --sparse-indexer-topk-backend "
        "--video-pruning-method --watchdog-config --watermark --watermark-config --weight-transfer-config "
        "--worker-extension-cls --device-ids --additional-config",
        "--served-model-name --middleware --lora-modules --logits-processors --allowed-local-media-path",
        negated=True,
    ),
    "sglang": _flags(
        "--trust-remote-code --enable-metrics --log-requests --skip-server-warmup --skip-tokenizer-init "
        "--disable-custom-all-reduce --enable-torch-compile --enable-p2p-check --show-time-cost "
        "--enable-cache-report --decode-log-interval-json --enable-multimodal --enable-mixed-chunk "
        "--disable-overlap-schedule --prefill-round-robin-balance --allow-auto-truncate "
        f"--disable-fast-image-processor --enable-metrics-for-all-schedulers {SWITCHES}",
        "--host --port --nccl-port --api-key --tokenizer-path --tokenizer-mode --served-model-name "
        "--revision --load-format --chat-template --completion-template --tool-call-parser "
        "--reasoning-parser --log-level --log-level-http --dist-init-addr --nnodes --node-rank "
        "--schedule-policy --schedule-conservativeness --random-seed --watchdog-timeout --dist-timeout "
        "--download-dir --base-gpu-id --gpu-id-step --sampling-backend --grammar-backend "
        "--disaggregation-bootstrap-port --disaggregation-transfer-backend --disaggregation-ib-device "
        "--load-balance-method --stream-interval --torch-compile-max-bs "
        "--constrained-json-whitespace-pattern "
        "--model-loader-extra-config --decode-log-interval --deepep-mode "
        "--warmups --max-queued-requests --crash-dump-folder --weight-version "
        f"--preferred-sampling-params --file-storage-path --kv-events-config --metrics-http-port {ONE_VALUE}",
        MANY_VALUES,
    ),
    "llama.cpp": _flags(
        "--jinja --no-jinja --verbose -v --no-warmup --metrics --slots --no-slots --props --embedding "
        "--embeddings --reranking --rerank --cont-batching -cb --no-cont-batching --no-webui --webui "
        "--mlock --log-disable --log-colors --log-prefix --log-timestamps --context-shift --no-context-shift "
        "--cache-prompt --no-cache-prompt --special --ignore-eos --verbose-prompt -e --escape --no-escape "
        "--prefill-assistant --parallel-tool-calls --offline --no-perf --perf --check-tensors --spm-infill "
        "--direct-io -dio --no-direct-io --simple-io --color -cnv --conversation -no-cnv -i --interactive "
        "--models-autoload --no-models-autoload --api-prefix-json -h --help --version --endpoint-metrics "
        "-khad -vhad --merge-qkv --mmap --repack --no-repack -nr",
        "--host --port --alias -a --api-key --api-key-file --ssl-key-file --ssl-cert-file --timeout -to "
        "--threads -t --threads-batch -tb --threads-http --prio --poll --cpu-mask -C --cpu-range -Cr "
        "--seed -s --temp --temperature --top-k --top-p --min-p --typical --repeat-penalty --repeat-last-n "
        "--presence-penalty --frequency-penalty --dry-multiplier --dry-base --dry-allowed-length "
        "--dry-penalty-last-n --dry-sequence-breaker --dynatemp-range --dynatemp-exp --mirostat "
        "--mirostat-lr --mirostat-ent --xtc-probability --xtc-threshold --samplers --sampling-seq "
        "--sampler-seq --top-nsigma --grammar --grammar-file --json-schema -j --json-schema-file "
        "--chat-template --chat-template-file --chat-template-kwargs --reasoning-format --reasoning-budget "
        "--reasoning -rea --reasoning-preserve --slot-save-path --slot-prompt-similarity -sps --path "
        "--api-prefix --log-file --log-verbosity -lv --verbosity --numa --keep -n --predict --n-predict "
        "--draft-max --draft --draft-n --draft-min --draft-n-min --draft-p-min --draft-p-split "
        "--spec-draft-n-max --spec-draft-n-min --image-min-tokens --image-max-tokens --lookup-cache-static "
        "--cache-reuse --pooling --embd-normalize --rope-scaling --rope-scale --rope-freq-base "
        "--rope-freq-scale --yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow "
        "--yarn-beta-fast --hf-token -hft --hf-repo -hf -hfr --hf-file -hff --model-url -mu "
        "--models-dir --models-preset --models-max --tags --system-prompt-file -sysf -p --prompt -f --file "
        "--logit-bias -l --tools --media-path --adaptive-target --adaptive-decay --slots-debug "
        "--sleep-idle-seconds --webui-config --webui-config-file --recurrent-ckpt-mode",
    ),
    "tensorrt-llm": _flags(
        "--trust_remote_code --trust-remote-code --fail_fast_on_attention_window_too_large "
        "--disable_fast_image_processor --grpc --enable_block_reuse --enable_partial_reuse "
        "--copy_on_partial_reuse --onboard_blocks --disable_overlap_scheduler --enable_iter_perf_stats "
        "--enable_iter_req_stats --print_iter_log --enable_autotuner --enable_layerwise_nvtx_marker "
        "--enable_min_latency --sampler_force_async_worker --enable_sleep --use_cute_dsl_blockscaling_mm "
        "--use_cute_dsl_blockscaling_bmm --disable_flashinfer_sampling --skip_tokenizer_init "
        "--return_perf_metrics --enable_tqdm",
        "--host --port --backend --tokenizer --log_level --reasoning_parser --tool_parser "
        "--metadata_server_config_file "
        "--server_role --cluster_size --moe_cluster_parallel_size --num_postprocess_workers "
        "--served_model_name --chat_template --custom_tokenizer --custom_module_dirs --gpus_per_node "
        "--revision --otlp_traces_endpoint --disagg_cluster_uri --media_io_kwargs --video_pruning_rate "
        "--dtype --tokenizer_mode --tokenizer_revision --load_format --secondary_offload_min_priority "
        "--event_buffer_max_size --attention_dp_events_gather_period_ms --max_util_for_resume "
        "--guided_decoding_backend --iter_stats_max_iterations --request_stats_max_iterations "
        "--scheduler_config --max_input_len --postprocess_tokenizer_dir --perf_metrics_max_requests "
        "--orchestrator_type --env_overrides --garbage_collection_gen0_threshold --attention_dp_config "
        "--nvfp4_gemm_config --attn_backend --sampler_type --batch_wait_timeout_ms "
        "--batch_wait_timeout_iters --batch_wait_max_tokens_ratio --stream_interval --allreduce_strategy "
        "--checkpoint_format --ray_worker_extension_cls --ray_placement_config --max_stats_len "
        "--layer_wise_benchmarks_config",
    ),
    "lmdeploy": _flags(
        "--allow-credentials --ssl --disable-fastapi-docs --allow-terminate-by-client "
        "--enable-abort-handling --trust-remote-code --empty-init --enable-return-routed-experts "
        "--enable-microbatch --enable-eplb --disable-metrics --enable-prefix-caching --eager-mode "
        "--dummy-prefill",
        "--server-name --server-port --proxy-url --max-concurrent-requests --log-level --model-name "
        "--max-log-len --chat-template --tool-call-parser --reasoning-parser --revision --download-dir "
        "--generation-config --device --logprobs-mode --distributed-executor-backend "
        "--prefix-cache-decode-state-interval --migration-backend --node-rank --nnodes --dist-init-addr "
        "--rope-scaling-factor --num-tokens-per-iter --max-prefill-iters --async --communicator "
        "--moe-a2a-backend --vision-max-batch-size --dllm-unmasking-strategy --dllm-denoising-steps "
        "--dllm-confidence-threshold --dtype --dp-rank",
        "--allow-origins --allow-methods --allow-headers --allowed-media-domains --api-keys",
    ),
    "tgi": _flags(
        "--trust-remote-code --disable-custom-kernels --json-output --ngrok --env -e "
        "--disable-grammar-support --disable-usage-stats --disable-crash-reports",
        "--revision --validation-workers --max-best-of --max-stop-sequences --max-top-n-tokens "
        "--waiting-served-ratio --max-waiting-tokens --hostname --port -p --shard-uds-path --master-addr "
        "--master-port --huggingface-hub-cache --weights-cache-override --rope-scaling --rope-factor "
        "--otlp-endpoint --otlp-service-name --cors-allow-origin --api-key --watermark-gamma "
        "--watermark-delta --ngrok-authtoken --ngrok-edge --tokenizer-config-path --max-client-batch-size "
        "--usage-stats --payload-limit --prometheus-port --dtype --cuda-graphs "
        "--graceful-termination-timeout",
    ),
}
