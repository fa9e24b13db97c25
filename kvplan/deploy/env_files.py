"""``.env`` files: names and values, as Compose reads them. Nothing is expanded or run."""

from kvplan.deploy.words import Word


def read_env(text: str) -> dict[str, Word]:
    """Return the variables of an env file."""
    found: dict[str, Word] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        name = name.strip()
        if not equals or not name or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] in "'\"" and value.find(value[0], 1) > 0:
            value = value[1 : value.find(value[0], 1)]
        else:
            value = value.split(" #", maxsplit=1)[0].rstrip()
        found[name] = Word(value)
    return found
