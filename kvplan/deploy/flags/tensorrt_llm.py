"""TensorRT-LLM's flags. Source: TensorRT-LLM commands/serve.py."""

from kvplan.deploy.flags.readers import Flag, share, whole, word

FLAGS: tuple[Flag, ...] = (
    (("--max_seq_len",), "max_seq_len", whole),
    (("--max_batch_size",), "max_batch_size", whole),
    (("--max_num_tokens",), "max_num_tokens", whole),
    (("--tp_size",), "tp_size", whole),
    (("--pp_size",), "pp_size", whole),
    (("--ep_size",), "ep_size", whole),
    (
        ("--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction"),
        "free_gpu_memory_fraction",
        share,
    ),
    (("--kv_cache_dtype",), "kv_cache_dtype", word),
)
