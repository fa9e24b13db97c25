"""What TGI loads beside the model: adapters; and what it drafts with.

text-generation-inference 3.0 launcher/src/main.rs (--lora-adapters, --speculate),
server/text_generation_server/utils/adapter.py and layers/lora.py (each rank keeps its part of the
matrices of queries, keys, values, outputs and MLP), models/__init__.py (get_model: drafts are n-grams,
or the heads of a Medusa or MLP speculator repository named as the model).
"""

from kvplan.adapters import divided_adapters_bytes
from kvplan.engines.base import Notice
from kvplan.engines.tgi.settings import Settings
from kvplan.model import ModelSpec
from kvplan.quantity import Quantity
from kvplan.workload import Workload

SPLIT_WHY = "LoRA in 16 bits, divided over the shards; which projections is the adapter's choice"
NGRAMS = (
    "--speculate drafts with n-grams, which keep no memory; heads of a Medusa or MLP speculator "
    "repository are not counted"
)


def adapter_bytes(model: ModelSpec, workload: Workload, shards: int) -> Quantity:
    """Return a shard's adapters: those of ``--lora``, else as many as ``--lora-adapters`` names."""
    return divided_adapters_bytes(model, workload.adapters, num_named(workload), shards, SPLIT_WHY)


def num_named(workload: Workload) -> int:
    """Return how many adapters ``--lora-adapters`` names between commas."""
    named = workload.option("lora_adapters")
    return len([name for name in named.split(",") if name.strip()]) if isinstance(named, str) else 0


def beside_notices(settings: Settings) -> tuple[Notice, ...]:
    """Return what of drafting is not counted."""
    return (Notice("draft-by-ngrams", NGRAMS),) if settings.speculate else ()
