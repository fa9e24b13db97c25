"""NVIDIA Dynamo: DynamoGraphDeployment, one engine a service, settings in mounted ConfigMaps."""

from kvplan.deploy.carriers.containers import container_launches
from kvplan.deploy.carriers.context import Context, environment, node_gpu, whole_number
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.yaml_values import Table, dig, table


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
        found += container_launches(entry, context, str(name), extra_env=extra, hint=hint, pod=pod)
    return found
