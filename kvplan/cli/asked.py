"""What was typed, as words, and the command line that asks it again with changes made."""

from collections.abc import Mapping, Sequence
from shlex import quote

from kvplan.frozen import dataclass

# Changes that are options of kvplan; any other is an option of the engine.
OWN_CHANGES = ("gpu", "ctx", "batch", "weights", "kv", "allow_offload")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of one command as typed."""

    model: str
    gpus: tuple[str, ...] = ()
    ctx: str | None = None
    batch: str | None = None
    weights: str | None = None
    kv: str | None = None
    kv_k: str | None = None
    kv_v: str | None = None
    engine: str | None = None
    tp: int | None = None
    pp: int | None = None
    reserve: str | None = None
    cpu_memory: str | None = None
    overhead: str | None = None
    min_headroom: str | None = None
    encoder_ctx: str | None = None
    draft: str | None = None
    lora: str | None = None
    strict: bool = False
    allow_offload: bool = False
    allow_unknown: bool = False
    offline: bool = False
    assume: str | None = None
    engine_words: tuple[str, ...] = ()

    def command(self, name: str, changes: Sequence[tuple[str, str]] = ()) -> str:
        """Return the command line that asks this, with ``changes`` made."""
        now = dict(changes)
        engine_words = self._engine_words(now)
        words = ["kvplan", name, quote(self.model)]
        if "gpu" in now:
            words += ["--gpu", quote(multiplied(self.gpus[0], int(now["gpu"])))]
        else:
            for gpu in self.gpus:
                words += ["--gpu", quote(gpu)]
        ctx = now.get("ctx", self.ctx)
        for flag, value in (
            ("--ctx", ctx),
            ("--batch", now.get("batch", self.batch)),
            ("--weights", now.get("weights", self.weights)),
            ("--kv", now.get("kv", self.kv)),
            ("--kv-k", None if "kv" in now else self.kv_k),
            ("--kv-v", None if "kv" in now else self.kv_v),
            ("--engine", self.engine),
            ("--tp", None if "gpu" in now else self.tp),
            ("--pp", None if "gpu" in now else self.pp),
            ("--reserve", self.reserve),
            ("--cpu-memory", self.cpu_memory),
            ("--overhead", self.overhead),
            ("--min-headroom", self.min_headroom),
            ("--encoder-ctx", self.encoder_ctx),
            ("--draft", self.draft),
            ("--lora", self.lora),
            ("--assume", self.assume),
        ):
            if value is not None:
                words += [flag, quote(str(value))]
        words += ["--strict"] * self.strict
        words += ["--allow-offload"] * (self.allow_offload or "allow_offload" in now)
        if engine_words:
            words += ["--", *(quote(word) for word in engine_words)]
        return " ".join(words)

    def _engine_words(self, changes: Mapping[str, str]) -> tuple[str, ...]:
        """Return the engine's own words with its options among ``changes`` set."""
        words = list(self.engine_words)
        for key, value in changes.items():
            if key in OWN_CHANGES:
                if words:
                    words = _without_own(words, key)
                continue
            words = _without_flag(words, key, takes_value=value != "true")
            # TensorRT-LLM's parser takes underscores alone.
            own = key if (self.engine or "").startswith(("tensorrt", "trt")) else key.replace("_", "-")
            words += [f"--{own}"] if value == "true" else [f"--{own}", value]
        return tuple(words)


def _without_own(words: list[str], key: str) -> list[str]:
    """Return the engine's words without its own flags for what an option of kvplan sets."""
    from kvplan.deploy.lifting import LIFTED

    for name, (option, _) in LIFTED.items():
        if option.startswith(f"--{key}") or (key == "gpu" and option in ("--tp", "--pp")):
            words = _without_flag(words, name, takes_value=True)
    return words


def _without_flag(words: Sequence[str], option: str, *, takes_value: bool) -> list[str]:
    flag = f"--{option.replace('_', '-')}"
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.replace("_", "-") == flag:
            skip = takes_value
        elif word.partition("=")[0].replace("_", "-") != flag:
            kept.append(word)
    return kept


def multiplied(gpu: str, count: int) -> str:
    """Return a ``--gpu`` text for ``count`` of what ``gpu`` names (``2x48GB`` -> ``4x48GB``)."""
    head, times, rest = gpu.partition("x")
    name = rest if times and head.strip().isdigit() else gpu
    return f"{count}x{name.strip()}"
