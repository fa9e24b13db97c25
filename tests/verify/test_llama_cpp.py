"""A real llama.cpp loading a small GGUF written here: its printed buffers against the plan, in bytes.

llama-cpp-python brings it (``pip install llama-cpp-python`` builds it for the CPU); its log callback
gives the lines that llama-server prints.
"""

import ctypes

import pytest
from small_gguf import written

from kvplan.engines import engine_named
from kvplan.plan import plan
from kvplan.sources import open_model
from kvplan.verify.logs import read_log
from kvplan.workload import Workload

HOW = "pip install -e '.[test,llama-cpp]' (builds for minutes)"
try:
    import llama_cpp
except (ImportError, OSError, RuntimeError) as error:
    # The package raises the last two when its library was not built.
    pytest.skip(f"llama.cpp is not installed ({type(error).__name__}): {HOW}", allow_module_level=True)


def printed(path, n_ctx, n_parallel, kv_type, flash):
    """Load the file and make a context; return what llama.cpp logs."""
    lines = []

    @llama_cpp.llama_log_callback
    def collect(_level, text, _data):
        lines.append(text)

    llama_cpp.llama_log_set(collect, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    assert model, b"".join(lines)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_seq_max = n_ctx, n_parallel
    settings.type_k = settings.type_v = kv_type
    settings.flash_attn_type = 1 if flash else 0
    context = llama_cpp.llama_init_from_model(model, settings)
    assert context, b"".join(lines)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return b"".join(lines).decode()


@pytest.mark.parametrize(
    ("n_ctx", "n_parallel", "kv", "kv_type", "flash"),
    [
        (512, 1, "f16", 1, False),
        (4096, 1, "f16", 1, True),
        (4096, 4, "q8_0", 8, True),
        (1000, 2, "f32", 0, False),
    ],
)
def test_printed_buffers_equal_the_plan(n_ctx, n_parallel, kv, kv_type, flash, tmp_path):
    path = written(tmp_path / "tiny.gguf")
    said = read_log(printed(path, n_ctx, n_parallel, kv_type, flash), "llama.cpp")
    workload = Workload(
        context_tokens=n_ctx // n_parallel,
        num_sequences=n_parallel,
        kv_cache_dtype_k=kv,
        kv_cache_dtype_v=kv,
        engine_options=(
            ("ctx_size", n_ctx),
            ("parallel", n_parallel),
            ("n_gpu_layers", "0"),
            ("no_kv_offload", True),
            ("flash_attn", "on" if flash else "off"),
        ),
    )
    result = plan(open_model(str(path)), workload, (), engine_named("llama.cpp"))
    cache = said.of("kv_cache")
    assert abs(sum(one.num_bytes for one in cache) - result.cache.total.expected) <= cache[0].rounding_bytes
    compute = next(one for one in said.of("activations") if one.device.startswith("CPU"))
    planned = next(part.bytes for part in result.host if part.name == "activations")
    assert planned.low - compute.rounding_bytes <= compute.num_bytes <= planned.high + compute.rounding_bytes
    if planned.basis == "exact":
        assert abs(compute.num_bytes - planned.expected) <= compute.rounding_bytes
