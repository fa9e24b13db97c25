"""What was not typed: ``KVPLAN_*`` variables and the nearest kvplan.yaml, as the words of their flags.

So a command sees one command line, whoever said it, and the commands that it prints say all of it.
Order: flag, environment, kvplan.yaml (or ``[tool.kvplan]``), the command's own default. Where no
variable is set and no such file lies above, this costs a few questions to the file system.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kvplan.deploy.policy_place import find_policy
from kvplan.errors import InputError, InvalidValue, KvplanError
from kvplan.report.answer import Setting

if TYPE_CHECKING:
    from kvplan.cli.outcome import Outcome
    from kvplan.deploy.policy import Loaded

PREFIX = "KVPLAN_"
_PLANS = "fit show compare find sweep capacity verify"
# Option -> the commands that take its flag; a flag is the option with dashes.
VALUES: dict[str, str] = {
    "gpu": f"{_PLANS} check diff",
    "ctx": _PLANS,
    "batch": f"{_PLANS} check diff",
    "weights": _PLANS,
    "kv": _PLANS,
    "engine": f"{_PLANS} check",
    "tp": "fit show compare sweep capacity verify",
    "pp": "fit show compare sweep verify",
    "reserve": "fit compare find sweep capacity check diff",
    "cpu_memory": "fit compare find sweep check diff",
    "overhead": "fit compare find sweep capacity",
    "min_headroom": "fit find sweep capacity check diff",
    "draft": "fit compare sweep capacity",
    "lora": "fit compare sweep capacity",
    "max_kv_gib": "check diff",
    "min_concurrency": "check diff",
    "min_context": "check diff",
    "policy": "check diff",
}
SWITCHES: dict[str, str] = {
    "strict": "fit find capacity check",
    "allow_offload": "fit find check",
    "allow_unknown": "fit check diff",
    "offline": "fit show compare sweep capacity check diff verify",
}
# Variables that say something else than an option.
OTHER_VARIABLES = ("KVPLAN_SPECS", "KVPLAN_CALIBRATION", "KVPLAN_DEBUG")
# These read a policy file by what they check, deployment by deployment.
READ_THE_FILE_THEMSELVES = ("check", "diff")
# Flags that say the same in another way, so that a default would contradict them.
INSTEAD: dict[str, tuple[str, ...]] = {
    "gpu": ("--instance",),
    "batch": ("--sessions",),
    "kv": ("--kv-k", "--kv-v"),
}
# Several cards in a file are unequal ones; here a repeated --gpu means alternatives.
ONE_GPU = ("compare", "sweep", "capacity")
# A log and a server say themselves what they are: only this is a matter of the reader's.
OF_READERS = ("offline",)
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def variables() -> tuple[str, ...]:
    """Return the names of all variables that kvplan reads."""
    return (*(_variable(name) for name in (*VALUES, *SWITCHES)), *OTHER_VARIABLES)


def flag_of(option: str) -> str:
    """Return an option's flag: ``min_headroom`` is ``--min-headroom``."""
    return f"--{option.replace('_', '-')}"


def _variable(option: str) -> str:
    return f"{PREFIX}{option.upper()}"


def with_settings(words: Sequence[str], engine_words: Sequence[str]) -> tuple[list[str], tuple[Setting, ...]]:
    """Return a command line with the words of its defaults added, and those defaults.

    Raises KvplanError for a variable or a policy file that cannot be read.
    """
    command = next((word for word in words if not word.startswith("-")), "")
    open_options = [
        option
        for option, takers in (*VALUES.items(), *SWITCHES.items())
        if command in takers.split() and not _is_said(option, words)
    ]
    if not open_options or "--help" in words:
        return list(words), ()
    if any(word.partition("=")[0] in ("--log", "--url") for word in words):
        open_options = [option for option in open_options if option in OF_READERS]
    found = _from_environment(open_options)
    if command not in READ_THE_FILE_THEMSELVES:
        unsaid = [option for option in open_options if option not in found]
        found = {**_from_file(command, unsaid), **found}
    if engine_words and found:
        found = _without(found, engine_words)
    return [*words, *(word for said in found.values() for word in _words(said))], tuple(
        setting for said in found.values() for setting in said
    )


def with_origin(error: KvplanError, settings: Sequence[Setting]) -> KvplanError:
    """Return an error that says where a value it complains of came from."""
    for setting in settings:
        if setting.value and setting.value in error.message:
            origin = f"{setting.flag} {setting.value} is from {setting.source}"
            error.why = f"{error.why}; {origin}" if error.why else origin
    return error


def told(outcome: "Outcome", settings: Sequence[Setting]) -> "Outcome":
    """Return the outcome with the settings that its answer must name."""
    return replace(outcome, settings=(*settings, *outcome.settings)) if settings else outcome


def file_settings(loaded: "Loaded", options: Iterable[str]) -> dict[str, tuple[Setting, ...]]:
    """Return what a policy's general keys say of these options."""
    found: dict[str, tuple[Setting, ...]] = {}
    for option in options:
        value = getattr(loaded.policy, option, None)
        if value is None:
            continue
        line = loaded.key_lines.get(option, 0)
        source = f"{loaded.origin}:{line}" if line else loaded.origin
        if isinstance(value, bool):
            found[option] = (_switched(option, source, on=value),)
        else:
            values = value if isinstance(value, list) else [value]
            found[option] = tuple(Setting(flag_of(option), str(each), source) for each in values)
    return found


def _is_said(option: str, words: Sequence[str]) -> bool:
    flag = flag_of(option)
    flags = (flag, f"--no-{flag[2:]}", *INSTEAD.get(option, ()))
    return any(word.partition("=")[0] in flags for word in words)


def _words(said: tuple[Setting, ...]) -> list[str]:
    return [word for setting in said for word in (setting.flag, setting.value) if word]


def _switched(option: str, source: str, *, on: bool) -> Setting:
    return Setting(flag_of(option) if on else f"--no-{flag_of(option)[2:]}", "", source)


def _from_environment(options: Iterable[str]) -> dict[str, tuple[Setting, ...]]:
    found: dict[str, tuple[Setting, ...]] = {}
    for option in options:
        name = _variable(option)
        text = os.environ.get(name, "").strip()
        if not text:
            continue
        if option not in SWITCHES:
            found[option] = (Setting(flag_of(option), text, name),)
        elif text.casefold() in (*YES, *NO):
            found[option] = (_switched(option, name, on=text.casefold() in YES),)
        else:
            raise InvalidValue(
                f"{name}={text} is neither on nor off",
                why=f"it stands for {flag_of(option)}",
                hint=f"write {name}=1 or {name}=0",
            )
    return found


def _from_file(command: str, options: Iterable[str]) -> dict[str, tuple[Setting, ...]]:
    from pathlib import Path

    named = os.environ.get(_variable("policy"), "").strip()
    if named and not Path(named).is_file():
        raise InputError(
            f"KVPLAN_POLICY={named} is not there", why="no file has that name", hint="check the path"
        )
    path = Path(named) if named else find_policy(Path())
    if path is None:
        return {}
    # yaml and pydantic are imported only where there is a file to read.
    from kvplan.deploy.policy import load_policy
    from kvplan.deploy.policy_place import shown

    found = file_settings(load_policy(path, named or shown(path)), options)
    cards = found.get("gpu", ())
    if command in ONE_GPU and len(cards) > 1:
        raise InputError(
            f"{cards[0].source}: gpu names {len(cards)} cards side by side",
            why=f"kvplan {command} plans on one kind of card at a time",
            hint=f"name it: kvplan {command} … --gpu {cards[0].value}",
        )
    return found


def _without(
    found: Mapping[str, tuple[Setting, ...]], engine_words: Sequence[str]
) -> dict[str, tuple[Setting, ...]]:
    """Leave out the defaults of what the engine's own flags say."""
    from kvplan.deploy.flags import TABLES, scan
    from kvplan.deploy.lifting import LIFTED

    said = {
        LIFTED[name][0].removesuffix("-k").removesuffix("-v")
        for engine in TABLES
        for name in scan(engine, engine_words).flag_at
        if name in LIFTED
    }
    return {option: value for option, value in found.items() if flag_of(option) not in said}
