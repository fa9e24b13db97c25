"""Ray Serve LLM: RayService objects (YAML in a string) and serve configs with ``llm_configs``."""

from collections.abc import Iterator

from kvplan.deploy.carriers.context import Context, launches_of, node_gpu
from kvplan.deploy.carriers.helm_release import yaml_in
from kvplan.deploy.carriers.kubernetes import pods
from kvplan.deploy.carriers.option_keys import flag_words, without_scheme
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Value, dig, listing, table, text

KINDS = ("RayService", "RayJob", "RayCluster")
# accelerator_type "A10G", "H100", "A100-40G", "AMD-Instinct-MI300X-OAM": Ray's own spellings.


def is_serve_config(document: Table) -> bool:
    """Tell whether a document is a Ray Serve config, or a list of LLM configs."""
    return "llm_configs" in document or any(
        "llm_configs" in table(table(item).get("args")) for item in listing(document.get("applications"))
    )


def launches(document: Table, context: Context) -> list[Launch]:
    """Return one launch an LLM config."""
    gpus: tuple[tuple[str, ...], int] = ((), 0)
    inner: list[Value] = [document]
    if "kind" in document:
        workers = dig(document, "spec", "rayClusterConfig", "workerGroupSpecs")
        for pod in pods(workers):
            names, line = node_gpu(pod)
            gpus = (names, line) if names else gpus
        inner = list(yaml_in(dig(document, "spec", "serveConfigV2"), context.file.name))
    found: list[Launch] = []
    for config in (config for value in inner for config in _llm_configs(table(value))):
        found += _config(config, context, gpus)
    return found


def _llm_configs(document: Table) -> Iterator[Table]:
    places = [document, *(table(table(item).get("args")) for item in listing(document.get("applications")))]
    for place in places:
        for item in listing(place.get("llm_configs")):
            if isinstance(item, Table):
                yield item


def _config(config: Table, context: Context, gpus: tuple[tuple[str, ...], int]) -> list[Launch]:
    loading = table(config.get("model_loading_config"))
    source = loading.get("model_source") or loading.get("model_id")
    model = text(source) or text(table(source).get("bucket_uri"))
    if model is None:
        return []
    kwargs = Table(
        {key: value for key, value in table(config.get("engine_kwargs")).items() if key != "device"}
    )
    kwargs.line = table(config.get("engine_kwargs")).line
    names, line = gpus
    accelerator = text(config.get("accelerator_type"))
    if accelerator is not None:
        names, line = (str(accelerator),), accelerator.line
    words = [without_scheme(Word(str(model), model.line)), *flag_words(kwargs)]
    name = str(text(loading.get("model_id")) or model)
    started = Started("vllm", tuple(words), model.line)
    return launches_of([started], context, name, GpuHint(names, line, None, (), exclusive=True))
