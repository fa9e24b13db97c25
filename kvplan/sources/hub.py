"""Models on the Hugging Face Hub: the config, and how the weights are quantized; never a weight.

Everything goes through huggingface_hub, so its cache, token, endpoint and offline switch hold. The
revision that answered is pinned in the model.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from kvplan.errors import HubError, InvalidSpec
from kvplan.model import ModelSpec
from kvplan.sources.config_model import model_from_config


def open_hub(ref: str, *, offline: bool = False, assume: str | None = None) -> ModelSpec:
    """Open ``org/repo[@revision]``. Raises HubError when the Hub cannot answer or has no such model."""
    repo, _, revision = ref.partition("@")
    # huggingface_hub reads both when it is imported; a config needs no progress bar.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    path, commit = _download(repo, "config.json", revision or None)
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - the client returns a string
            data = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidSpec(
            f"{repo}: config.json cannot be read",
            why=type(error).__name__,
            hint="look at the file on the Hub, or name another revision: org/repo@revision",
        ) from None
    quantization = None
    if isinstance(data, dict) and "quantization_config" not in data:
        quantization = _optional(repo, "hf_quant_config.json", commit or revision or None)
    return model_from_config(
        data,
        name=repo,
        source=f"huggingface:{repo}",
        repo=repo,
        revision=commit,
        assume=assume,
        quantization_data=quantization,
    )


def _optional(repo: str, name: str, revision: str | None) -> Mapping[str, object] | None:
    try:
        path, _ = _download(repo, name, revision)
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            data = json.load(file)
    except (HubError, OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _download(repo: str, name: str, revision: str | None) -> tuple[str, str | None]:
    """Return the local path of one small file and the commit it belongs to."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        path: Any = hf_hub_download(repo, name, revision=revision)
    except GatedRepoError:
        raise _error(
            repo,
            "is gated",
            "its owner grants access one by one",
            "accept its terms on the Hub, then: hf auth login",
        ) from None
    except RevisionNotFoundError:
        raise _error(
            repo,
            f"has no revision '{revision}'",
            "the Hub knows the model but not that revision",
            f"leave it out: {repo}",
        ) from None
    except RepositoryNotFoundError:
        raise _error(
            repo,
            "is not on the Hub",
            "no such model, or it is private",
            "check the spelling, or: hf auth login",
        ) from None
    except LocalEntryNotFoundError:
        raise _error(
            repo,
            "is not in the local cache and the Hub did not answer",
            "offline, or unreachable",
            "go online once, or name a bundled model: kvplan list models",
        ) from None
    except OfflineModeIsEnabled:
        raise _error(
            repo,
            "is not in the local cache",
            "the Hub is switched off (--offline or HF_HUB_OFFLINE)",
            "go online once, or name a bundled model: kvplan list models",
        ) from None
    except EntryNotFoundError:
        raise _error(
            repo,
            f"has no {name}",
            "without it the model cannot be sized",
            "name the original model: org/repo",
        ) from None
    except HFValidationError:
        raise _error(
            repo, "is not a model's name on the Hub", "names look like org/repo", "check the spelling"
        ) from None
    except HfHubHTTPError as error:
        raise _error(
            repo,
            "could not be asked for",
            str(error).splitlines()[0][:100],
            "try again later, or name a bundled model",
        ) from None
    except (OSError, ValueError) as error:
        raise _error(
            repo,
            "could not be read from the Hub",
            f"{type(error).__name__}: {error}"[:120],
            "try again later, or name a bundled model",
        ) from None
    text = str(path)
    parts = text.replace(os.sep, "/").split("/")
    commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else None
    return text, commit


def _error(repo: str, what: str, why: str, hint: str) -> HubError:
    return HubError(f"{repo} {what}", why=why, hint=hint)
