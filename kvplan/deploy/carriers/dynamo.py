"""NVIDIA Dynamo: DynamoGraphDeployment, one engine a service, settings in mounted ConfigMaps."""

from dataclasses import replace

from kvplan.deploy.carriers.containers import container_launches, mounted_text
from kvplan.deploy.carriers.context import Context, environment, node_gpu, whole_number
from kvplan.deploy.carriers.helm_release import yaml_in
from kvplan.deploy.carriers.trtllm_options import option_words
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, dig, table

CONFIG_FLAGS = ("--extra-engine-args", "--extra_llm_api_options", "--config", "--extra-llm-api-options")


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the engines of a graph's services; the front end and the planner are none."""
    spec = table(document.get("spec"))
    shared = environment(spec.get("envs"))
    found: list[Launch] = []
    for name, value in table(spec.get("services")).items():
        service = table(value)
        pod = table(service.get("extraPodSpec"))
        entry = table(pod.get("mainContainer"))
        if not entry:
            continue
        count = whole_number(dig(service, "resources", "limits", "gpu")) or whole_number(
            dig(service, "resources", "requests", "gpu")
        )
        nodes = whole_number(dig(service, "multinode", "nodeCount")) or 1
        names, line = node_gpu(pod, service)
        hint = GpuHint(names, line, None if count is None else count * nodes, (), exclusive=True)
        extra = {**shared, **environment(service.get("envs"))}
        for item in container_launches(entry, context, str(name), extra_env=extra, hint=hint):
            found.append(_with_config(item, entry, pod, context))
    return found


def _with_config(launch: Launch, entry: Table, pod: Table, context: Context) -> Launch:
    """Add the settings of a mounted TensorRT-LLM file: they win over the command line."""
    for index, word in enumerate(launch.flags):
        spelling, joined, value = word.text.partition("=")
        if spelling not in CONFIG_FLAGS:
            continue
        following = launch.flags[index + 1].text if index + 1 < len(launch.flags) else ""
        path = value if joined else following
        mounted = mounted_text(path, entry, pod, context)
        rest = (*launch.flags[:index], *launch.flags[index + (1 if joined else 2) :])
        if mounted is None:
            missing = (*launch.missing, f"{path}: its settings are not in the files given")
            return replace(launch, flags=rest, missing=missing)
        added: list[Word] = []
        for inner in yaml_in(mounted[1], context.file.name):
            added += option_words(table(inner))
        return replace(launch, flags=(*rest, *added))
    return launch
