"""Helm values of the vLLM production stack: ``servingEngineSpec.modelSpec[].vllmConfig``."""

from kvplan.deploy.carriers.context import Context, environment, launches_of, node_gpu, whole_number
from kvplan.deploy.carriers.option_keys import flag_words
from kvplan.deploy.images import version_of_image
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Text, dig, is_true, listing, table, text

# Keys of vllmConfig that are no vLLM flag.
NOT_FLAGS = ("v1", "v0", "extraArgs", "hf_token", "env", "tokenizer")
# The chart reads tensorParallelSize from vllmConfig only; in extraArgs it is passed on as it is.


def is_values(document: Table) -> bool:
    """Tell whether a document is the chart's values."""
    return bool(listing(dig(document, "servingEngineSpec", "modelSpec")))


def launches(document: Table, context: Context) -> list[Launch]:
    """Return one launch a model spec."""
    found: list[Launch] = []
    for item in listing(dig(document, "servingEngineSpec", "modelSpec")):
        spec = table(item)
        model = text(spec.get("modelURL"))
        if model is None:
            continue
        config = table(spec.get("vllmConfig"))
        own = Table({key: value for key, value in config.items() if key not in NOT_FLAGS})
        words = [Word(str(model), model.line), *flag_words(own, camel=True)]
        if is_true(spec.get("enableLoRA")):
            words.append(Word("--enable-lora", spec.key_line("enableLoRA")))
        words += [
            Word(str(arg), arg.line) for arg in listing(config.get("extraArgs")) if isinstance(arg, Text)
        ]
        env = environment(spec.get("env"))
        image = f"{text(spec.get('repository')) or ''}:{text(spec.get('tag')) or ''}"
        names, line = node_gpu(spec, Table({"nodeSelector": spec.get("nodeSelectorTerms")}), _terms(spec))
        count = whole_number(spec.get("requestGPU"))
        notes = () if count is not None else ("requestGPU is not set: the pod sees every GPU of its node",)
        visible = text(dig(spec, "lmcacheConfig", "cudaVisibleDevices"))
        if visible is not None:
            env["CUDA_VISIBLE_DEVICES"] = Word(str(visible), visible.line)
        started = Started("vllm", tuple(words), model.line, env, version_of_image(image.strip(":"), "vllm"))
        found += launches_of(
            [started],
            context,
            str(text(spec.get("name")) or model),
            GpuHint(names, line, count, (), exclusive=count is not None),
            extra_notes=() if visible else notes,
        )
    return found


def _terms(spec: Table) -> Table:
    """Return the chart's nodeSelectorTerms as the affinity they become."""
    terms = spec.get("nodeSelectorTerms")
    inner = Table({"nodeSelectorTerms": terms})
    return Table(
        {
            "affinity": Table(
                {"nodeAffinity": Table({"requiredDuringSchedulingIgnoredDuringExecution": inner})}
            )
        }
    )
