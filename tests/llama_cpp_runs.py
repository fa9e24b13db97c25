"""Runs of llama.cpp in ``oracles/llama_cpp_compute.jsonl`` as models and settings, and what is planned."""

from dataclasses import dataclass

from oracle_tables import oracle

from kvplan.engines.llama_cpp.cache import cells_of, window_of
from kvplan.engines.llama_cpp.compute import compute_buffers
from kvplan.engines.llama_cpp.settings import ALL_LAYERS, Settings
from kvplan.model import cache_kinds
from kvplan.sources.config_model import model_from_config
from kvplan.sources.gguf import Header
from kvplan.sources.gguf_config import config_of_keys
from kvplan.sources.gguf_keys import Keys


@dataclass(frozen=True)
class Compared:
    """One buffer: planned, and as llama.cpp printed it."""

    model: str
    arch: str
    place: str
    planned: object
    printed: int
    row: object

    @property
    def error(self):
        return (self.planned.expected - self.printed) / max(1, self.printed)


def tables():
    return oracle("llama_cpp_compute.jsonl")


def model_of(table):
    """Build the model from the table's GGUF keys."""
    metadata = {
        f"{table['arch']}.{key}": tuple(value) if isinstance(value, list) else value
        for key, value in table["hparams"].items()
    }
    keys = Keys(Header(metadata, {}, (), 0), table["arch"], table["model"])
    return model_from_config(
        config_of_keys(keys, is_tied=table.get("tied")), name=table["model"], source="test"
    )


def settings_of(row):
    shares = row["tensor_split"]
    return Settings(
        n_ctx=row["n_ctx"],
        n_parallel=row["n_parallel"],
        n_batch=row["n_batch"],
        n_ubatch=min(row["n_batch"], row["n_ubatch"]),
        flash_attn=bool(row["flash_attn"]),
        kv_unified=bool(row["kv_unified"]),
        swa_full=bool(row["swa_full"]),
        n_gpu_layers=row["n_gpu_layers"],
        type_k=row["type_k"],
        type_v=row["type_v"],
        n_cpu_moe=ALL_LAYERS if row["cpu_moe"] else 0,
        kv_offload=bool(row["kv_offload"]),
        tensor_split=tuple(int(share) for share in shares.split(",")) if shares else (),
        num_outputs=row["num_outputs"],
        split_mode=row["split_mode"],
        op_offload=bool(row["op_offload"]),
    )


def shares_of(row, settings):
    cards = row["num_cards"]
    if settings.split_mode == "none":
        return (1,) + (0,) * (cards - 1)
    return settings.tensor_split or (1,) * cards


def compared(table):
    """Return every buffer of every run of one model."""
    if table["model"] not in _COMPARED:
        _COMPARED[table["model"]] = list(_compared(table))
    return _COMPARED[table["model"]]


_COMPARED = {}


def _compared(table):
    yield from compared_with(model_of(table), table)


def compared_with(model, table):
    """Return every buffer of every run of a table, planned for the model given."""
    window = window_of(cache_kinds(model), table["arch"])
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        settings = settings_of(row)
        cells = cells_of(
            row["n_ctx"],
            row["n_parallel"],
            row["n_ubatch"],
            window,
            kv_unified=settings.kv_unified,
            swa_full=settings.swa_full,
        )
        planned = compute_buffers(model, table["mix"], settings, cells, shares_of(row, settings))
        for place, amount, printed in (
            *((f"card {card}", planned.cards[card], bytes_) for card, bytes_ in enumerate(row["cards"])),
            ("host", planned.host, row["host"]),
        ):
            yield Compared(table.get("model", table["arch"]), table["arch"], place, amount, printed, row)
