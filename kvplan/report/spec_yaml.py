"""A model as the YAML spec that kvplan bundles: the memory-relevant keys and their origin."""

from kvplan.errors import InvalidValue
from kvplan.report.answer import Screen, ShowAnswer


def show(answer: ShowAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Return the spec as YAML. Raises InvalidValue for a model that came without a config."""
    import yaml

    if answer.spec is None:
        raise InvalidValue(
            f"{answer.model.name} has no config to write a spec from",
            why="a GGUF or safetensors header is not a config.json",
            hint="name the original model: org/repo",
        )
    return str(yaml.safe_dump(dict(answer.spec), sort_keys=False, width=100, allow_unicode=True))
