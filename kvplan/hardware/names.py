"""How device names are compared: letters and digits only, vendor words dropped."""

import re

PREFIXES = ("nvidia", "geforce", "amd", "radeon", "intel", "apple", "tesla")


def key_of(name: str) -> str:
    """Return a device name as it is looked up: ``NVIDIA GeForce RTX 4090`` and ``rtx-4090`` are one."""
    words = re.split(r"[\s_\-/]+", name.strip().casefold())
    while len(words) > 1 and words[0] in PREFIXES:
        words = words[1:]
    return "".join(words)
