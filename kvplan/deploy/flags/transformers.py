"""transformers' generation settings, spelled as flags.

Source: transformers 5.23 generation/configuration_utils.py.
"""

from kvplan.deploy.flags.readers import Flag, mapping, whole, word

FLAGS: tuple[Flag, ...] = (
    (("--cache-implementation",), "cache_implementation", word),
    (("--cache-config",), "cache_config", mapping),
    (("--max-cache-len",), "max_cache_len", whole),
    (("--max-new-tokens",), "max_new_tokens", whole),
    (("--num-beams",), "num_beams", whole),
    (("--num-return-sequences",), "num_return_sequences", whole),
    (("--prefill-chunk-size",), "prefill_chunk_size", whole),
)
