"""llm-d: values of the ModelService chart, and scenarios of its benchmark."""

from kvplan.deploy.carriers.containers import container_launches, hint_of, words_of
from kvplan.deploy.carriers.context import Context, environment, launches_of, node_gpu, whole_number
from kvplan.deploy.carriers.option_keys import without_scheme
from kvplan.deploy.launch import GpuHint, Launch
from kvplan.deploy.programs import Started, follow
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Listing, Table, Text, dig, is_true, listing, table, text
from kvplan.errors import UnreadableDeployment

ROLES = ("decode", "prefill")
# What the benchmark's preprocessing puts into the environment, by key of the scenario's model.
SCENARIO: dict[str, str] = {
    "maxModelLen": "VLLM_MAX_MODEL_LEN",
    "blockSize": "VLLM_BLOCK_SIZE",
    "gpuMemoryUtilization": "VLLM_ACCELERATOR_MEM_UTIL",
    "maxNumSeq": "VLLM_MAX_NUM_SEQ",
    "maxNumBatchedTokens": "VLLM_MAX_NUM_BATCHED_TOKENS",
}


def is_values(document: Table) -> bool:
    """Tell whether a document is the chart's values."""
    return "modelArtifacts" in document and any(
        isinstance(table(document.get(role)).get("containers"), Listing) for role in ROLES
    )


def is_scenario(document: Table) -> bool:
    """Tell whether a document holds benchmark scenarios."""
    return any(
        "common" in table(item) or "decode" in table(item) for item in listing(document.get("scenario"))
    )


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the decode and prefill engines of the chart's values."""
    artifacts = table(document.get("modelArtifacts"))
    uri, named = text(artifacts.get("uri")), text(artifacts.get("name"))
    model: Word | None = None
    if uri is not None:
        spelled = Word(str(uri), uri.line)
        # Charts write hf://{{ .Values.modelArtifacts.name }}.
        model = Word(str(named), uri.line) if "{{" in uri and named is not None else without_scheme(spelled)
    found: list[Launch] = []
    for role in ROLES:
        section = table(document.get(role))
        if not section or not is_true(section.get("create"), default=True):
            continue
        parallelism = table(section.get("parallelism"))
        extra = _parallel(parallelism)
        for item in listing(section.get("containers")):
            entry = table(item)
            names, line = node_gpu(section, Table({"nodeSelector": section.get("acceleratorTypes")}))
            if text(entry.get("modelCommand")) in ("vllmServe", "imageDefault"):
                env = environment(entry.get("env"))
                words = [*([model] if model else []), *words_of(entry.get("args"), env, context), *extra]
                image = text(entry.get("image"))
                started = Started("vllm", tuple(words), entry.line, env, _version(image))
                hint = hint_of(entry, names, line)
                found += launches_of([started], context, role, hint, visible=True)
            else:
                found += container_launches(entry, context, role, names, line)
    return found


def _version(image: Text | None) -> str:
    from kvplan.deploy.images import version_of_image

    return version_of_image(str(image), "vllm") if image is not None and "vllm" in image else ""


def _parallel(parallelism: Table) -> list[Word]:
    words: list[Word] = []
    for key, flag in (("tensor", "--tensor-parallel-size"), ("data", "--data-parallel-size")):
        size = whole_number(parallelism.get(key))
        if size is not None and size > 1:
            line = parallelism.key_line(key)
            words += [Word(flag, line), Word(str(size), line)]
    return words


def scenario_launches(document: Table, context: Context) -> list[Launch]:
    """Return the engines of the benchmark's scenarios: scripts with an environment made elsewhere."""
    found: list[Launch] = []
    for item in listing(document.get("scenario")):
        scenario = table(item)
        for role in ROLES:
            section = table(scenario.get(role))
            script = text(dig(section, "vllm", "customCommand"))
            if script is None or section.get("enabled") == "false" or section.get("replicas") == "0":
                continue
            found += _scenario_role(scenario, section, role, script, context)
    return found


def _scenario_role(
    scenario: Table, section: Table, role: str, script: Text, context: Context
) -> list[Launch]:
    common = table(scenario.get("common"))
    model = table(common.get("model"))
    env: dict[str, Word] = {}
    for key, variable in SCENARIO.items():
        value = text(model.get(key))
        if value is not None:
            env[variable] = Word(str(value), value.line)
    hub = text(model.get("huggingfaceId")) or text(model.get("name"))
    parallelism = table(section.get("parallelism"))
    workers = whole_number(parallelism.get("workers")) or 1
    local = whole_number(parallelism.get("dataLocal")) or 1
    tensor = whole_number(parallelism.get("tensor")) or 1
    for variable, number in (("TP_SIZE", tensor), ("DP_SIZE_LOCAL", local), ("LWS_GROUP_SIZE", workers)):
        env[variable] = Word(str(number), parallelism.line)
    env.update(environment(section.get("extraEnvVars")))
    if hub is not None:
        env["MODEL_PATH"] = env["MODEL_NAME"] = Word(str(hub), hub.line)
    names, line = node_gpu(table(common.get("affinity")), section)
    per_pod = whole_number(dig(section, "accelerator", "count")) or tensor * local
    body = Word(str(script), script.line, spans=script.spans)
    try:
        started = follow(body, env)
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, error.line, error.problem) from None
    if hub is not None:
        # The weights lie in a cache under the Hub's own name.
        started = [_with_hub_name(each, hub) for each in started]
    hint = GpuHint(names, line, per_pod * workers, (), exclusive=True)
    name = f"{text(scenario.get('name')) or 'scenario'}-{role}"
    return launches_of(started, context, name, hint, visible=False)


def _with_hub_name(started: Started, hub: Text) -> Started:
    from dataclasses import replace

    words = tuple(
        Word(str(hub), word.line) if word.text.startswith("/") and word.text.endswith(str(hub)) else word
        for word in started.words
    )
    return replace(started, words=words)
