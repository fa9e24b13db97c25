"""What every engine policy answers, and the values it answers with.

A policy turns a model, a workload and devices into a Plan: per device the budget and the components
with their bounds, the checks that must hold, and what the cache costs. Policies are pure: they
touch no file, network, clock or environment.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import field
from typing import Literal

from kvplan.device import Device
from kvplan.errors import UnknownFormat
from kvplan.frozen import dataclass
from kvplan.model import ModelSpec
from kvplan.quantity import Basis, Quantity, total
from kvplan.workload import Workload

ComponentName = Literal[
    "weights",
    "kv_cache",
    "recurrent_state",
    "activations",
    "cuda_graphs",
    "runtime",
    "communication",
    "draft_model",
    "adapters",
    "multimodal",
    "other_processes",
]
CheckName = Literal["budget", "free_at_start", "outside_pool", "host_memory"]


@dataclass(frozen=True, slots=True)
class Component:
    """One named part of what a device holds."""

    name: ComponentName
    bytes: Quantity
    note: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A test that must hold: ``required`` within ``limit_bytes``."""

    name: CheckName
    required: Quantity
    limit_bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reads:
    """What a decode step finds in one place, by how it is read.

    ``dense_bytes`` are weights that every step reads, ``expert_bytes`` weights of which the router
    picks a part, ``cache_bytes`` the caches of all sequences at full context, ``num_layers`` the
    layers computed there. Looked-up tables (the token embedding) are not read.
    """

    dense_bytes: int
    expert_bytes: int
    cache_bytes: int
    num_layers: int


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What one device holds.

    ``budget_bytes`` is the engine's share of the device; ``components`` are what counts against it.
    ``checks`` hold the budget test and any others; the one with the least room binds. ``reads`` is
    what a step reads there, where the engine knows better than an even share of the model.
    """

    device: Device
    budget_bytes: int
    components: tuple[Component, ...]
    checks: tuple[Check, ...]
    rank: str = ""
    reads: Reads | None = None

    @property
    def required(self) -> Quantity:
        """The sum of the components."""
        return total(component.bytes for component in self.components)

    @property
    def headroom_bytes(self) -> int:
        """Budget less the expected requirement; negative when short."""
        headroom_bytes = self.budget_bytes
        for component in self.components:
            headroom_bytes -= component.bytes.expected
        return headroom_bytes

    @property
    def binding(self) -> CheckName:
        """The check with the least room by its upper bound."""
        if not self.checks:
            return "budget"
        return min(self.checks, key=lambda check: check.limit_bytes - check.required.high).name


@dataclass(frozen=True, slots=True)
class Parallel:
    """How the model is spread: tensor x pipeline x data ranks, experts over ``expert``."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: int = 1


@dataclass(frozen=True, slots=True)
class CacheGroup:
    """The layers of one kind: marginal bytes of a token inside the window, bytes of a sequence.

    Whole model, every layer of the kind together, ranks counted once.
    """

    kind: str
    num_layers: int
    bytes_per_token: int
    bytes_per_sequence: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """What the cache costs, whole model, all ranks counted once without replication.

    ``bytes_per_token`` is the marginal cost of one more token at the asked context;
    ``bytes_per_sequence`` one sequence as the engine reserves it, states included;
    ``total`` that for ``num_sequences``; ``peak_bytes`` where the engine holds more for a moment.
    """

    bytes_per_token: int
    bytes_per_sequence: int
    state_bytes_per_sequence: int
    total: Quantity
    peak_bytes: int
    groups: tuple[CacheGroup, ...]
    block_size: int | None = None
    page_size_bytes: int | None = None
    num_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning with a stable code for scripts."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the engine will not start whatever the memory, in its own words, and what works."""

    code: str
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole answer before it is judged.

    ``sequence_limit`` is the engine's own cap on concurrent sequences (``max_num_seqs``), None
    where it has none; ``kv_cache_tokens`` and ``max_concurrency`` what its start-up log would
    print. ``host`` is what lies in system memory, ``offloaded`` whether weights or cache had to,
    ``host_reads`` what a step reads of it; ``on_devices`` is then the same workload with nothing
    there, to compare with.
    ``startup_lines`` are what the server will print of its memory, in its own words;
    ``command_lines`` how to start it so (llama-server's command, a Modelfile's lines).
    """

    model: ModelSpec
    workload: Workload
    engine_name: str
    engine_version: str
    engine_options: tuple[tuple[str, object], ...]
    parallel: Parallel
    weights_format: str
    weights: Quantity
    kv_dtype_k: str
    kv_dtype_v: str
    context_tokens: int
    num_sequences: int
    devices: tuple[DevicePlan, ...]
    cache: CacheUse
    sequence_limit: int | None = None
    sequence_limit_name: str = ""
    kv_cache_tokens: int | None = None
    max_concurrency: float | None = None
    host: tuple[Component, ...] = ()
    offloaded: bool = False
    host_reads: Reads | None = None
    on_devices: "Plan | None" = None
    refusals: tuple[Refusal, ...] = ()
    assumptions: tuple[str, ...] = ()
    warnings: tuple[Notice, ...] = ()
    startup_lines: tuple[str, ...] = ()
    command_lines: tuple[str, ...] = ()
    details: tuple[tuple[str, object], ...] = field(default=())

    @property
    def cache_basis(self) -> Basis:
        """How well the cache's bytes are known."""
        return self.cache.total.basis


@dataclass(frozen=True, slots=True)
class Trial:
    """What of a plan decides whether it fits: its fields of the same names, and nothing to show."""

    model: ModelSpec
    workload: Workload
    engine_name: str
    devices: tuple[DevicePlan, ...]
    cache_basis: Basis
    host: tuple[Component, ...] = ()
    offloaded: bool = False
    refusals: tuple[Refusal, ...] = ()


class Engine(ABC):
    """A policy: how one engine, at one version, turns a model into reserved bytes.

    ``name`` and ``version`` are what ``--engine NAME@VERSION`` selects; ``versions`` are the known
    ones, oldest first. ``kv_formats`` are the names ``--kv`` takes here, generic ones included.
    ``about`` is one line for ``kvplan list engines``. ``runs_on_cpu`` says that system memory may
    stand in for a device, ``spills_by_itself`` that what does not fit goes to system memory unasked,
    ``loads_beside`` that draft models and adapters are loaded beside the model, with nothing reserved,
    ``takes_what_fits`` that a length left open is the longest that its pool holds. ``block_size`` is the
    number of tokens by which its caches grow, 0 where only a plan tells.
    """

    name: str
    version: str
    versions: tuple[str, ...]
    kv_formats: tuple[str, ...]
    weight_families: tuple[str, ...]
    about: str
    runs_on_cpu: bool = False
    spills_by_itself: bool = False
    loads_beside: bool = False
    takes_what_fits: bool = False
    block_size: int = 0

    @abstractmethod
    def plan(self, model: ModelSpec, workload: Workload, devices: Sequence[Device]) -> Plan:
        """Price the model under this engine.

        ``devices`` are the GPUs in order (empty: CPU only). Raises KvplanError for input that no
        engine could accept; what only this engine refuses is a Refusal in the plan.
        """

    def trial(
        self,
        model: ModelSpec,  # noqa: ARG002
        workload: Workload,  # noqa: ARG002
        devices: Sequence[Device],  # noqa: ARG002
    ) -> Trial | None:
        """Return what decides whether ``plan`` of the same fits, where that costs far less.

        None where the engine knows no shorter way. Raises what ``plan`` raises.
        """
        return None

    def kind_of(
        self,
        model: ModelSpec,  # noqa: ARG002
        workload: Workload,  # noqa: ARG002
        devices: Sequence[Device],  # noqa: ARG002
    ) -> object | None:
        """Return all but its size that makes one group of equal devices plan like another, to look up by.

        Of two groups of one kind, the one with more usable memory never does worse. None where the
        engine does not promise that.
        """
        return None

    def most_spare_bytes(
        self,
        model: ModelSpec,  # noqa: ARG002
        workload: Workload,  # noqa: ARG002
        devices: Sequence[Device],  # noqa: ARG002
        *,
        spilling: bool = False,  # noqa: ARG002
    ) -> int | None:
        """Return an upper bound on the room in the fullest device that costs far less than a plan.

        With ``spilling`` on that in all devices and system memory together.

        Negative where no plan can fit. None where the engine knows no such bound, or its plans are
        as cheap. Raises what ``plan`` raises.
        """
        return None

    def searching(self) -> "Engine":
        """Return the engine as searches use it, where a plan is asked whether it fits and no more.

        Its plans have the same expected and upper amounts; a lower bound that costs much may be wide.
        """
        return self

    def spilled(
        self,
        plan: Plan,  # noqa: ARG002
        devices: Sequence[Device],  # noqa: ARG002
        *,
        least: bool = True,  # noqa: ARG002
    ) -> Plan | None:
        """Return ``plan``'s workload with as little as possible in system memory, so that it fits.

        Without ``least`` with as much there as may be, which is found sooner; it need not fit.
        None where the engine has no way to spill, where none suffices, or where a flag has fixed
        what lies where.
        """
        return None


def capped_notice(asked: int, capped: int, why: str = "") -> Notice:
    """Return the warning that fewer sequences run at once than were asked; ``why`` names the cap."""
    cause = f" ({why})" if why else ""
    return Notice("batch-capped", f"{asked:,} sequences asked, {capped:,} run at once{cause}")


def not_loaded(engine: str, format_name: str, taken: str) -> UnknownFormat:
    """Return the error of an engine that does not load a format; ``taken`` lists those it does."""
    return UnknownFormat(
        f"{engine} does not load {format_name} weights",
        why=f"it takes {taken}",
        hint="name such a format, or the engine that loads these weights",
    )


def context_or_limit(model: ModelSpec, workload: Workload) -> tuple[int, str]:
    """Return the context to plan and where it came from: the flag, else the model's limit."""
    if workload.context_tokens:
        return workload.context_tokens, workload.context_source
    return (model.context_limit_tokens or 4096), ("model" if model.context_limit_tokens else "engine")
