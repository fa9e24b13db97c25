"""What is loaded beside a model: vision projector, draft model, LoRA adapters, control vectors.

The files' sizes come in as options (``mmproj_bytes`` …) where they could be read; a projector whose file
was not is as large as the model's own vision tensors in fp16. llama.cpp 0c1e57098: tools/mtmd (projectors
lie on the first device unless ``--no-mmproj-offload``), src/llama-adapter.cpp (adapters lie with the
layers they change; control vectors are one fp32 row a layer). Ollama counts the projector and 1 GiB for
its graph (llm/llama_server.go).
"""

from kvplan.adapters import adapters_bytes
from kvplan.engines.base import Component
from kvplan.engines.llama_cpp.settings import Settings
from kvplan.model import ModelSpec, num_layers
from kvplan.quantity import Quantity, exact
from kvplan.units import GIB, MIB
from kvplan.workload import Workload

VISION_ROLES = ("vision", "projector", "audio")
# A projector's graph: Ollama reserves 1 GiB; 1,136 MiB in all were seen with a 27B model's projector.
PROJECTOR_GRAPH = Quantity(64 * MIB, 512 * MIB, GIB + 512 * MIB, "assumed", "Ollama reserves 1 GiB for it")
UNKNOWN_PROJECTOR = Quantity(200 * MIB, 900 * MIB, 2 * GIB, "assumed", "projector files are 0.2 to 2 GiB")
UNKNOWN_ADAPTER = Quantity(16 * MIB, 160 * MIB, GIB, "assumed", "the adapter's file was not read")
UNKNOWN_DRAFT = Quantity(300 * MIB, GIB, 4 * GIB, "assumed", "the draft model's file was not read")


def extra_components(
    model: ModelSpec, workload: Workload, settings: Settings
) -> tuple[tuple[Component, ...], tuple[Component, ...]]:
    """Return what lies on the first device and what in system memory."""
    on_device: list[Component] = []
    on_host: list[Component] = []
    option = workload.option
    if option("mmproj"):
        amount = _projector(model, option("mmproj_bytes")) + PROJECTOR_GRAPH
        part = Component("multimodal", amount, "projector and its graph")
        (on_host if option("no_mmproj_offload") else on_device).append(part)
    if option("model_draft") and model.draft is None:
        amount = _file(option("draft_bytes"), UNKNOWN_DRAFT) + _draft_context(settings)
        on_device.append(Component("draft_model", amount, "draft model, its cache and buffers"))
    if option("lora"):
        on_device.append(Component("adapters", _file(option("lora_bytes"), UNKNOWN_ADAPTER), "LoRA"))
    if workload.adapters:
        on_device.append(Component("adapters", adapters_bytes(model, workload.adapters), "LoRA"))
    if option("control_vector"):
        rows = 4 * model.structure.hidden_size * num_layers(model.structure)
        on_device.append(Component("adapters", exact(rows), "control vector: one fp32 row a layer"))
    return tuple(on_device), tuple(on_host)


def _file(num_bytes: object, unknown: Quantity) -> Quantity:
    if isinstance(num_bytes, int) and num_bytes > 0:
        return exact(num_bytes, "the file's size")
    return unknown


def _projector(model: ModelSpec, num_bytes: object) -> Quantity:
    if isinstance(num_bytes, int) and num_bytes > 0:
        return exact(num_bytes, "the file's size")
    elements = sum(tensor.num_elements for tensor in model.structure.tensors if tensor.role in VISION_ROLES)
    if not elements:
        return UNKNOWN_PROJECTOR
    return Quantity(elements, 2 * elements, 4 * elements, "assumed", "the model's vision tensors in fp16")


def _draft_context(settings: Settings) -> Quantity:
    # A small model's cache over the same context: 1 to 32 KiB a token, and a compute buffer.
    tokens = settings.n_ctx
    return Quantity(
        tokens * 1024 + 32 * MIB, tokens * 12 * 1024 + 128 * MIB, tokens * 64 * 1024 + GIB, "assumed"
    )
