"""Which family reads which ``model_type``: a plain table."""

FAMILIES: dict[str, str] = {
    "llama": "llama:llama",
}
