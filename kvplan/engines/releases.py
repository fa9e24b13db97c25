"""Releases by their numbers, to compare rules that came or went with them."""


def release_numbers(version: str, most: int) -> tuple[int, ...]:
    """Return at most ``most`` leading numbers of a version; nothing where one of them is none."""
    parts = version.split(".")[:most]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
