"""text-generation-launcher's flags that touch memory, and their variables.

Source: text-generation-inference 3.0 launcher/src/main.rs; every flag is also read from the variable of
its name (clap's ``env``). ATTENTION and TGI_WIGGLE_ROOM have no flag: they are spelled as one here.
"""

from kvplan.deploy.flags.readers import Flag, share, switch, whole, word

FLAGS: tuple[Flag, ...] = (
    (("--model-id",), "model", word),
    (("--sharded",), "sharded", switch),
    (("--num-shard",), "num_shard", whole),
    (("--quantize",), "quantize", word),
    (("--kv-cache-dtype",), "kv_cache_dtype", word),
    (("--speculate",), "speculate", whole),
    (("--lora-adapters",), "lora_adapters", word),
    (("--max-concurrent-requests",), "max_concurrent_requests", whole),
    (("--max-input-tokens",), "max_input_tokens", whole),
    (("--max-input-length",), "max_input_length", whole),
    (("--max-total-tokens",), "max_total_tokens", whole),
    (("--max-batch-prefill-tokens",), "max_batch_prefill_tokens", whole),
    (("--max-batch-total-tokens",), "max_batch_total_tokens", whole),
    (("--max-batch-size",), "max_batch_size", whole),
    (("--cuda-memory-fraction",), "cuda_memory_fraction", share),
    (("--enable-prefill-logprobs",), "enable_prefill_logprobs", None),
    (("--attention",), "attention", word),
    (("--wiggle-room",), "wiggle_room", share),
)

# A variable's name -> the flag it stands for.
ENVIRONMENT: dict[str, str] = {
    "MODEL_ID": "--model-id",
    "SHARDED": "--sharded",
    "NUM_SHARD": "--num-shard",
    "QUANTIZE": "--quantize",
    "KV_CACHE_DTYPE": "--kv-cache-dtype",
    "SPECULATE": "--speculate",
    "LORA_ADAPTERS": "--lora-adapters",
    "MAX_CONCURRENT_REQUESTS": "--max-concurrent-requests",
    "MAX_INPUT_TOKENS": "--max-input-tokens",
    "MAX_INPUT_LENGTH": "--max-input-length",
    "MAX_TOTAL_TOKENS": "--max-total-tokens",
    "MAX_BATCH_PREFILL_TOKENS": "--max-batch-prefill-tokens",
    "MAX_BATCH_TOTAL_TOKENS": "--max-batch-total-tokens",
    "MAX_BATCH_SIZE": "--max-batch-size",
    "CUDA_MEMORY_FRACTION": "--cuda-memory-fraction",
    "ATTENTION": "--attention",
    "TGI_WIGGLE_ROOM": "--wiggle-room",
}
