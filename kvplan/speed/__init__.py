"""How fast it decodes: a roofline over what one step must read, and from where.

A decode step reads every active weight and every cached token once. Its time is, place by place,
``bytes / (share x bandwidth) + layers x launch time``: layers split over devices take turns, tensor
parallel ranks work at once, what lies in system memory is computed there (llama.cpp) or crosses the
bus (vLLM, SGLang, transformers). A mixture of experts reads the experts that some sequence's router
picks: ``E x (1 - (1 - k / E) ** sequences)`` of E, with k a token. Where a device's compute is known
the arithmetic of many sequences may take longer than the reading.

Shares of the vendor's bandwidth and launch times come from published runs: llama.cpp's of May 2024
and December 2023 on 22 devices (XiongjieDai/GPU-Benchmarks-on-LLM-Inference@00dd2bd README, the rows
of tests/oracles/decode_rates.jsonl), 0.8 and 3 microseconds an operation for NVIDIA and 0.5 for Intel
Arc (ai-dynamo/aiconfigurator@095f58a), PCIe 5.0 x16 measured at 55 GB/s of 63
(stas00/ml-engineering@744d01e network/README.md). System memory is taken as two channels, DDR4-3200
to DDR5-6400; a server with eight is faster than the upper bound.
"""

from kvplan.speed.rates import Rate, decode_rate, prefill_rate

__all__ = ["Rate", "decode_rate", "prefill_rate"]
