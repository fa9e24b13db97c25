"""KServe: LLMInferenceService (model, parallelism, VLLM_ADDITIONAL_ARGS) and InferenceService."""

from collections.abc import Mapping
from dataclasses import replace

from kvplan.deploy.carriers.containers import container_launches, hint_of
from kvplan.deploy.carriers.context import Context, environment, launches_of, node_gpu, whole_number
from kvplan.deploy.carriers.option_keys import without_scheme
from kvplan.deploy.launch import Launch
from kvplan.deploy.programs import Started
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.splitting import always, split_words
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Table, Text, Value, dig, is_true, listing, table, text
from kvplan.errors import UnreadableDeployment

KINDS = ("LLMInferenceService", "LLMInferenceServiceConfig", "InferenceService", "ServingRuntime")
# The Hugging Face runtime's own flags -> vLLM's.
RUNTIME_FLAGS = {
    "--model-id": "--model",
    "--model-name": "--served-model-name",
    "--backend": "--served-model-name",
}
PARALLELISM = {
    "tensor": "--tensor-parallel-size",
    "pipeline": "--pipeline-parallel-size",
    "data": "--data-parallel-size",
    "dataLocal": "--data-parallel-size-local",
}


def launches(document: Table, context: Context) -> list[Launch]:
    """Return the engines of a KServe object."""
    if document.get("kind") == "LLMInferenceService":
        return _llm_service(document, context)
    if document.get("kind") == "InferenceService":
        return _inference_service(document, context)
    # A runtime or a config alone names no model.
    context.note(document.line, f"{document.get('kind')} names no model of its own")
    return []


def _llm_service(document: Table, context: Context) -> list[Launch]:
    spec = table(document.get("spec"))
    name = str(text(dig(document, "metadata", "name")) or "")
    model = text(dig(spec, "model", "uri")) or text(dig(spec, "model", "name"))
    if model is None:
        return []
    word = without_scheme(Word(str(model), model.line))
    served = text(dig(spec, "model", "name"))
    offloaded = text(dig(spec, "workload", "kvCacheOffloading", "cpu"))
    extra = (f"kvCacheOffloading.cpu {offloaded} is host memory, not counted here",) if offloaded else ()
    found = _workload(spec, word, served, context, name, extra)
    prefill = table(spec.get("prefill"))
    if prefill:
        found += _workload(prefill, word, served, context, f"{name}-prefill", extra)
    return found


def _workload(
    workload: Table,
    model: Word,
    served: Text | None,
    context: Context,
    name: str,
    extra_notes: tuple[str, ...],
) -> list[Launch]:
    pod = table(workload.get("template"))
    entry = next((table(item) for item in listing(pod.get("containers"))), Table())
    worker = table(next(iter(listing(dig(workload, "worker", "containers"))), None))
    env = environment(entry.get("env"))
    words: list[Word] = [model]
    if served is not None:
        words += [Word("--served-model-name", served.line), Word(str(served), served.line)]
    parallelism = table(workload.get("parallelism"))
    for key, flag in PARALLELISM.items():
        size = whole_number(parallelism.get(key))
        if size is not None:
            words += [Word(flag, parallelism.key_line(key)), Word(str(size), parallelism.key_line(key))]
    if is_true(parallelism.get("expert")):
        words.append(Word("--enable-expert-parallel", parallelism.key_line("expert")))
    words += [Word(str(arg), arg.line) for arg in listing(entry.get("args")) if isinstance(arg, Text)]
    words += _additional(env, context)
    names, line = node_gpu(pod)
    pods = _num_pods(parallelism) if worker else 1
    hint = hint_of(entry, names, line, pods)
    started = Started("vllm", tuple(words), model.line, env)
    return launches_of([started], context, name, hint, extra_notes=extra_notes, visible=False)


def _num_pods(parallelism: Table) -> int:
    data, local = whole_number(parallelism.get("data")), whole_number(parallelism.get("dataLocal"))
    if data and local:
        return max(1, data // local)
    return max(1, whole_number(parallelism.get("pipeline")) or 1)


def _additional(env: Mapping[str, Word], context: Context) -> list[Word]:
    word = env.get("VLLM_ADDITIONAL_ARGS")
    if word is None:
        return []
    try:
        return split_words(word.text, always(word.line))
    except ShellError as error:
        raise UnreadableDeployment(context.file.name, word.line, error.problem) from None


def _inference_service(document: Table, context: Context) -> list[Launch]:
    predictor = table(dig(document, "spec", "predictor"))
    name = str(text(dig(document, "metadata", "name")) or "")
    names, line = node_gpu(predictor)
    model = table(predictor.get("model"))
    if model:
        return _model(model, predictor, context, name, names, line)
    found: list[Launch] = []
    for item in listing(predictor.get("containers")):
        found += container_launches(table(item), context, name, names, line)
    return found


def _model(
    model: Table, predictor: Table, context: Context, name: str, names: tuple[str, ...], line: int
) -> list[Launch]:
    """Return the Hugging Face runtime's launch: vLLM with the model's own flags."""
    kind: Value = dig(model, "modelFormat", "name")
    runtime = text(model.get("runtime")) or text(predictor.get("runtime"))
    if kind not in ("huggingface", "vLLM", "vllm") and "vllm" not in str(runtime or "").casefold():
        context.note(model.line, f"modelFormat {kind} is not a language model's engine")
        return []
    uri = text(model.get("storageUri"))
    env = environment(model.get("env"))
    words = [Word(str(arg), arg.line) for arg in listing(model.get("args")) if isinstance(arg, Text)]
    words = _renamed(words)
    if uri is not None and not any(word.text.startswith("--model=") for word in words):
        words.insert(0, without_scheme(Word(str(uri), uri.line)))
    hint = hint_of(model, names, line)
    started = Started("vllm", tuple(words), model.line, env)
    return launches_of([started], context, name, hint, visible=False)


def _renamed(words: list[Word]) -> list[Word]:
    """Spell the runtime's own names as vLLM's: ``--model_id`` is the model."""
    renamed: list[Word] = []
    for word in words:
        spelling, joined, value = word.text.partition("=")
        flag = RUNTIME_FLAGS.get(spelling.replace("_", "-"))
        if flag is None:
            renamed.append(word)
        else:
            renamed.append(replace(word, text=f"{flag}={value}" if joined else flag))
    return renamed
