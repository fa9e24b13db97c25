"""A CUDA card that is not there: engines' Python runs on torch's meta device, kernels stand empty.

``install`` goes before an engine is imported, ``factories`` around what makes tensors. Modules that hold
kernels, and those an engine imports without their being installed, become empty stand-ins.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import types

# Packages of kernels: never the real ones.
KERNELS = frozenset((
    "flashinfer", "flash_attn", "deep_gemm", "deep_ep", "tilelang", "cutlass", "nvtx", "tvm_ffi", "xgrammar",
    "flash_mla", "cuda", "mamba_ssm", "quack", "torchvision", "torchaudio", "cv2", "av", "librosa",
    "soundfile", "timm", "scipy",
))  # fmt: skip
# What an engine only looks for: absent stays absent.
ABSENT = frozenset((
    "nixl", "nixl_ep", "mori", "pplx_kernels", "triton_kernels", "aiter", "helion", "fastsafetensors",
    "runai_model_streamer", "tensorizer", "bitsandbytes", "lmcache", "mooncake", "peft", "terratorch",
    "pandas", "datasets", "accelerate", "kernels", "amdsmi", "ray", "conch", "qutlass", "humming",
    "intel_extension_for_pytorch",
))  # fmt: skip
STREAMING_MULTIPROCESSORS = 132


class Nothing:
    """Whatever is asked of it, nothing: calls, attributes, items, comparisons."""

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        # A decorator returns what it decorates.
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else Nothing()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()

    def __getitem__(self, key):
        return Nothing()

    def __iter__(self):
        return iter(())

    def __mro_entries__(self, bases):
        return (object,)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        return False

    def __index__(self):
        return 8

    def __or__(self, other):
        return object

    def __lt__(self, other):
        return False

    __ror__ = __or__
    __le__ = __gt__ = __ge__ = __lt__


class _Class(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()


class StandIn(types.ModuleType):
    """A module with every name: classes for capitalized ones, ``Nothing`` else."""

    __version__ = "99.0"
    __file__ = "/nowhere"
    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = Nothing()
        if name[:1].isupper() and not name.isupper():
            made = _Class(name, (), {"__init__": lambda *args, **kwargs: None})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, wanted):
        self.wanted = wanted

    def find_spec(self, name, path=None, target=None):
        found = self.wanted(name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if found else None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def _imported_by(package):
    frame = sys._getframe(3)
    while frame and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    path = frame.f_code.co_filename if frame else ""
    return f"/{package}/" in path and "site-packages" not in path


def install(package, capability, memory_bytes, name, extensions=(), kernels=KERNELS):
    """Put stand-ins for kernels and a card into place; ``extensions`` are the package's compiled modules."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    import triton
    import triton.language

    # These look for what is really installed, before the stand-ins.
    from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, PreTrainedModel  # noqa: F401
    from triton.backends.compiler import GPUTarget

    missing = set()

    def is_kernel(module):
        root = module.split(".")[0]
        return root in kernels or any(module == each or module.startswith(f"{each}.") for each in extensions)

    def is_missing(module):
        root = module.split(".")[0]
        if root in (package, "torch", "transformers") or root in ABSENT or root.startswith("_"):
            return False
        if root not in missing and ("." in module or not _imported_by(package)):
            return False
        missing.add(root)
        return True

    sys.meta_path.insert(0, _Finder(is_kernel))
    sys.meta_path.append(_Finder(is_missing))

    class Driver:
        def get_current_target(self):
            return GPUTarget("cuda", capability[0] * 10 + capability[1], 32)

        def get_current_device(self):
            return 0

        def __getattr__(self, asked):
            return Nothing()

    triton.runtime.driver.set_active(Driver())
    properties = types.SimpleNamespace(
        name=name, total_memory=memory_bytes, major=capability[0], minor=capability[1], is_integrated=False,
        multi_processor_count=STREAMING_MULTIPROCESSORS, warp_size=32, gcnArchName="", uuid="GPU-0",
        L2_cache_size=50 << 20, shared_memory_per_block_optin=232448, regs_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=233472, max_threads_per_multi_processor=2048,
    )  # fmt: skip
    answers = {
        "is_available": True, "is_initialized": True, "device_count": 8, "current_device": 0,
        "get_device_capability": capability, "get_device_properties": properties, "get_device_name": name,
        "mem_get_info": (memory_bytes, memory_bytes), "memory_allocated": 0, "memory_reserved": 0,
        "set_device": None, "empty_cache": None, "synchronize": None,
    }  # fmt: skip
    for asked, answer in answers.items():
        setattr(torch.cuda, asked, lambda *args, answer=answer, **kwargs: answer)
    torch.cuda.Stream = torch.cuda.Event = Nothing
    torch.cuda.current_stream = torch.cuda.stream = Nothing
    torch.version.cuda = "13.0"
    for each in ("block_fp8", "fp8", "fp4"):
        setattr(torch.ops._C, f"cutlass_scaled_mm_supports_{each}", lambda *args: True)
    torch.ops._C.cutlass_group_gemm_supported = lambda *args: True
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.is_available = lambda: True
    torch.accelerator.device_count = lambda: 8


def factories():
    """Return the context in which tensors for a card are made on torch's meta device.

    From here on operators that no kernel registers do nothing.
    """
    import torch
    from torch.utils._device import DeviceContext

    found = torch._ops._OpNamespace.__getattr__

    class Operator(Nothing):
        def __bool__(self):
            return True

    def operator(self, name):
        try:
            return found(self, name)
        except AttributeError:
            if name.startswith("__") or "_C" not in self.name:
                raise
            made = Operator()
            setattr(self, name, made)
            return made

    torch._ops._OpNamespace.__getattr__ = operator
    for name in ("register_fake", "impl_abstract", "register_kernel", "impl"):
        if hasattr(torch.library, name):
            setattr(torch.library, name, lambda *args, **kwargs: lambda function: function)
    meta = torch.device("meta")

    class Made(DeviceContext):
        def __torch_function__(self, function, kinds, args=(), kwargs=None):
            kwargs = dict(kwargs or {})
            asked = kwargs.get("device")
            if isinstance(asked, int | str) or (isinstance(asked, torch.device) and asked.type == "cuda"):
                kwargs["device"] = meta
            if function in (torch.Tensor.cuda, torch.Tensor.pin_memory):
                return args[0]
            if function is torch.Tensor.to:
                args = tuple(meta if isinstance(each, str | torch.device) else each for each in args)
            if function is torch.Tensor.item and args[0].is_meta:
                return 0
            if function is torch.Tensor.tolist and args[0].is_meta:
                return [0] * args[0].numel()
            return super().__torch_function__(function, kinds, args, kwargs)

    return Made(meta)


def forked(run, row):
    """Run one row in a process of its own; return its line with what came out, or what was raised."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.close(reads)
        try:
            row["result"] = run(row)
        except BaseException as error:
            row["crash"] = f"{type(error).__name__}: {error}"[:600]
        with os.fdopen(writes, "w") as pipe:
            pipe.write(json.dumps(row))
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text or json.dumps({**row, "crash": "ended"})
