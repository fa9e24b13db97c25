"""llama.cpp's flags. Source: llama.cpp common/arg.cpp."""

from kvplan.deploy.flags.readers import Flag, whole, word

FLAGS: tuple[Flag, ...] = (
    (("-m", "--model"), "model", word),
    (("-c", "--ctx-size"), "ctx_size", whole),
    (("-np", "--parallel"), "parallel", whole),
    (("-b", "--batch-size"), "n_batch", whole),
    (("-ub", "--ubatch-size"), "n_ubatch", whole),
    (("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers", word),
    (("-fa", "--flash-attn"), "flash_attn", word),
    (("-ctk", "--cache-type-k"), "cache_type_k", word),
    (("-ctv", "--cache-type-v"), "cache_type_v", word),
    (("-kvu", "--kv-unified"), "kv_unified", None),
    (("-no-kvu", "--no-kv-unified"), "!kv_unified", None),
    (("--swa-full",), "swa_full", None),
    (("-ts", "--tensor-split"), "tensor_split", word),
    (("-sm", "--split-mode"), "split_mode", word),
    (("-mg", "--main-gpu"), "main_gpu", whole),
    (("-cmoe", "--cpu-moe"), "cpu_moe", None),
    (("-ncmoe", "--n-cpu-moe"), "n_cpu_moe", whole),
    (("-nkvo", "--no-kv-offload"), "no_kv_offload", None),
    (("--no-op-offload",), "no_op_offload", None),
    (("--no-mmap",), "no_mmap", None),
    (("-fit", "--fit"), "fit", word),
    (("-fitt", "--fit-target"), "fit_target", word),
    (("-fitc", "--fit-ctx"), "fit_ctx", whole),
    (("--mmproj",), "mmproj", word),
    (("-md", "--model-draft"), "model_draft", word),
    (("-ot", "--override-tensor"), "override_tensor", word),
)
