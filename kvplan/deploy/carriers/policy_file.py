"""kvplan.yaml and [tool.kvplan] as files to check: the deployments that they hold as data."""

from kvplan.deploy.carriers.context import Context
from kvplan.deploy.launch import Launch
from kvplan.deploy.policy_place import NAMES, SECTION

PROJECT = "pyproject.toml"


def is_policy(name: str, text: str) -> bool:
    """Tell whether a file is a policy: by its name, and for a project by its section."""
    return name in NAMES or (name == PROJECT and SECTION.decode() in text)


def launches(context: Context) -> list[Launch]:
    """Return a policy's deployments, each with the policy whose settings hold for it.

    Raises InvalidSpec with file and line for a policy that cannot be read.
    """
    # pydantic is imported only where there is a policy.
    from kvplan.deploy.policy import policy_of_text
    from kvplan.deploy.policy_settings import deployments_of

    name = context.file.name
    return deployments_of(policy_of_text(context.file.text, name, is_toml=name.endswith(".toml")))
