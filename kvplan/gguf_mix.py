"""Placeholder so that kvplan.weights imports; the llama.cpp worker replaces this file at once."""

from kvplan.model import ModelSpec
from kvplan.tensors import Tensor


def mix_tensor_bytes(model: ModelSpec, mix: str) -> tuple[tuple[Tensor, int, int], ...]:
    raise RuntimeError
