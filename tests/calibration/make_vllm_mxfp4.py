"""Make tests/oracles/vllm_mxfp4.jsonl by running vLLM's own padding and layouts of MXFP4 experts.

    for V in 0.12.0 0.16.0 0.17.1 0.19.0 0.22.0 0.26.0 0.29.0 0.33.0; do
        pip download --no-deps --only-binary :all: vllm==$V && unzip -q vllm-$V-*.whl 'vllm/*.py' -d $V
    done
    python tests/calibration/make_vllm_mxfp4.py 0.12.0 0.16.0 ...      # needs torch, on a CPU

From each tree, the function that rounds sizes up (fused_moe/oracle/mxfp4.py, since 0.19) and the two
layouts of triton_kernels for Hopper run as they are, on tensors of zeros; Triton itself is a stand-in,
since its kernels are only defined here, not run.
"""

import ast
import enum
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

ORACLE = Path(__file__).resolve().parent.parent / "oracles" / "vllm_mxfp4.jsonl"
ORIGIN = (
    "sizes of MXFP4 experts (num_experts x [rows, columns]) as vLLM's own code of each version makes them"
)
# hidden size, width of an expert on a rank
SHAPES = ((2880, 2880), (2880, 1440), (2880, 720), (2880, 360), (4096, 1536), (3584, 320), (2048, 704))
EXPERTS = 2
BACKENDS = ("MARLIN", "TRITON", "FLASHINFER_TRTLLM_MXFP4_BF16")


class Anything(ModuleType):
    """A module of which every attribute is a decorator that changes nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **_: given[0] if given and callable(given[0]) else (lambda made: made)


def round_up(amount, unit):
    """Round ``amount`` up to a multiple of ``unit``."""
    return -(-amount // unit) * unit


def rounding(tree):
    """Return the tree's function that rounds (backend, hidden, width) up; None before 0.19."""
    source = tree / "vllm/model_executor/layers/fused_moe/oracle/mxfp4.py"
    if not source.exists():
        return None
    wanted = ("Mxfp4MoeBackend", "mxfp4_round_up_hidden_size_and_intermediate_size")
    body = [
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if getattr(node, "name", "") in wanted
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith("_BACKENDS"))
    ]
    platform = SimpleNamespace(is_xpu=lambda: False, is_rocm=lambda: False)
    names = {
        "Enum": enum.Enum, "round_up": round_up, "current_platform": platform, "MoEActivation": object,
    }  # fmt: skip
    for node in body:
        exec(compile(ast.Module([node], []), str(source), "exec"), names)
    backends, function = names[wanted[0]], names[wanted[1]]
    return lambda name, hidden, width: function(backends[name], hidden, width)


def layouts(tree):
    """Return the tree's two Hopper layouts, of values and of scales."""
    for name in [name for name in sys.modules if name.startswith("triton")]:
        del sys.modules[name]
    language = Anything("triton.language")
    language.constexpr = lambda value=None: value
    triton = Anything("triton")
    triton.language = language
    triton.jit = lambda made=None, **_: made or (lambda each: each)
    names = ("triton.language.target_info", "triton_kernels.target_info")
    sys.modules.update({"triton": triton, "triton.language": language})
    folder = tree / "vllm/third_party/triton_kernels"
    for name, path in (
        ("triton_kernels", folder),
        ("triton_kernels.tensor_details", folder / "tensor_details"),
        ("triton_kernels.tensor_details.layout_details", folder / "tensor_details/layout_details"),
    ):
        package = ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    sys.modules.update({name: Anything(name) for name in names})
    found = "triton_kernels.tensor_details.layout_details"
    values = importlib.import_module(f"{found}.hopper_value").HopperMXValueLayout
    scales = importlib.import_module(f"{found}.hopper_scale").HopperMXScaleLayout
    return values, scales


def swizzled(kinds, rows, columns):
    """Return the bytes of one matrix's values and scales in Hopper's layouts."""
    values, scales = kinds
    packed = torch.zeros(EXPERTS, rows, columns // 2, dtype=torch.uint8).transpose(-2, -1)
    exponents = torch.zeros(EXPERTS, rows, columns // 32, dtype=torch.uint8).transpose(-2, -1)
    return (
        values(packed.shape, mx_axis=1).swizzle_data(packed).numel(),
        scales(exponents.shape, mx_axis=1, num_warps=8).swizzle_data(exponents).numel(),
    )


def rows_of(tree):
    """Yield the rows of one version."""
    rounds, kinds = rounding(tree), layouts(tree)
    for hidden, width in SHAPES:
        for backend in BACKENDS if rounds else ("TRITON",):
            padded = rounds(backend, hidden, width) if rounds else (hidden, round_up(width, 64))
            matrices = ((2 * padded[1], padded[0]), padded)
            if backend == "TRITON":
                sizes = [swizzled(kinds, *matrix) for matrix in matrices]
            else:
                sizes = [
                    (EXPERTS * rows * columns // 2, EXPERTS * rows * columns // 32)
                    for rows, columns in matrices
                ]
            yield {
                "version": tree.name,
                "backend": backend,
                "num_experts": EXPERTS,
                "hidden_size": hidden,
                "width": width,
                "padded": padded,
                "value_bytes": [value for value, _ in sizes],
                "scale_bytes": [scale for _, scale in sizes],
            }


def main():
    """Write the table from the trees named on the command line."""
    rows = [{"origin": ORIGIN}]
    for name in sys.argv[1:]:
        rows += rows_of(Path(name).resolve())
    ORACLE.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
