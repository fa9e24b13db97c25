"""Which models, and in which precision, fit on given devices: tried one by one, then ranked.

What fits comes before what is tight, and that before what spills; then the order of kvplan.choices.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache

from kvplan.choices import Choice, choices, order_of
from kvplan.device import Device
from kvplan.engines.base import Engine, Plan
from kvplan.errors import KvplanError
from kvplan.frozen import replace
from kvplan.judge import DEFAULT_RULES, Rules, Status, Verdict, exit_code, judge
from kvplan.model import ModelSpec, num_active_parameters
from kvplan.offload import plan_or_offload
from kvplan.plan import as_it_is, default_engine, plan, trial
from kvplan.quality import Loss
from kvplan.speed import Rate, decode_rate
from kvplan.weights import num_model_parameters, weight_bytes
from kvplan.workload import Workload

# More than any device has.
MOST_BYTES = 2**62


class Candidate:
    """A model in a format that fits: its status and what the format loses.

    The rest is worked out when it is first asked for, since of the thousands that fit a few are shown.
    """

    def __init__(
        self, case: "_Case", devices: Sequence[Device], status: Status, planned: Plan | None = None
    ) -> None:
        self.status: Status = status
        self._case, self._devices, self._planned = case, devices, planned

    @property
    def model(self) -> ModelSpec:
        """The model."""
        return self._case.choice.model

    @property
    def loss(self) -> Loss:
        """What its format loses."""
        return self._case.choice.loss

    @cached_property
    def plan(self) -> Plan:
        """The whole plan."""
        return self._planned or plan(self.model, self._case.workload, self._devices, self._case.engine)

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict, whose status is the candidate's."""
        return self._case.verdict(self.plan)

    @cached_property
    def rate(self) -> Rate | None:
        """Tokens a second of all sequences together; None where a bandwidth is not known."""
        return decode_rate(self.plan)

    @property
    def engine(self) -> Engine:
        """The engine that it runs under."""
        return self._case.engine

    @property
    def num_parameters(self) -> int:
        """The model's parameters, the stand-in for its quality."""
        return num_model_parameters(self.model)

    @property
    def num_active_parameters(self) -> int:
        """The parameters that one token uses."""
        return _num_active_parameters(self.model)


class Search:
    """What fits of the choices, asked of one group of devices after another.

    What was found on a card decides smaller and larger ones of its kind without another plan.
    ``engine`` None takes the one that the weights call for, ``has_gpu`` False one that runs on the CPU;
    ``measured`` gives it what was measured on this machine.
    A model whose limit is below the asked context is left out, as is one that the engine cannot plan.
    """

    def __init__(
        self,
        tried: Iterable[Choice],
        workload: Workload,
        *,
        engine: Engine | None = None,
        rules: Rules = DEFAULT_RULES,
        has_gpu: bool = True,
        measured: Callable[[Engine], Engine] = as_it_is,
    ) -> None:
        self._host_bytes, self._rules = workload.cpu_memory_bytes, rules
        asked: dict[str, Workload] = {}
        self._cases: list[_Case] = []
        for choice in tried:
            limit, name = choice.model.context_limit_tokens, choice.format_name
            if limit and workload.context_tokens > limit:
                continue
            if name not in asked:
                asked[name] = replace(workload, weights_format=name)
            policy = measured(engine or default_engine(choice.model, name, has_gpu=has_gpu))
            self._cases.append(_Case(choice, asked[name], policy, rules))

    def fitting(self, devices: Sequence[Device]) -> Iterator[Candidate]:
        """Yield the choices that fit on ``devices``, in their order."""
        memory = self._memory_bytes(devices)
        for case in self._cases:
            found = case.tried(devices) if case.may_fit(memory) else None
            if found is not None:
                yield found

    def best_of_each(
        self, devices: Sequence[Device], tokens_per_second: float | None = None
    ) -> Iterator[Candidate]:
        """Yield of each model the format that ranks first, in the order of the models.

        Of those that decode so fast, or where none does, of all that fit. What cannot rank before what
        was found is not tried.
        """
        by_model: dict[str, list[_Case]] = {}
        for case in self._cases:
            by_model.setdefault(case.choice.model.name, []).append(case)
        memory = self._memory_bytes(devices)
        for cases in by_model.values():
            best, shortcomings = None, (True, True)
            for case in sorted(cases, key=lambda case: order_of(case.choice.model, case.choice.loss)):
                found = case.tried(devices) if case.may_fit(memory) else None
                if found is None:
                    continue
                falls_short = (not fast_enough(found, tokens_per_second), found.status != "fits")
                if best is None or falls_short < shortcomings:
                    best, shortcomings = found, falls_short
                if not any(shortcomings):
                    break
            if best is not None:
                yield best

    def spilling(self, devices: Sequence[Device], fitting: Container[str] = ()) -> Iterator[Candidate]:
        """Yield what runs with a part in system memory, of models other than ``fitting``.

        The first format of each model that does; rules that do not allow it yield nothing.
        """
        if not self._rules.allow_offload:
            return
        memory = sum(device.memory_bytes for device in devices) + (self._host_bytes or MOST_BYTES)
        found: set[str] = set()
        for case in self._cases:
            name = case.choice.model.name
            if name in fitting or name in found or not case.may_fit(memory):
                continue
            candidate = case.spilled(devices)
            if candidate is not None:
                found.add(name)
                yield candidate

    def _memory_bytes(self, devices: Sequence[Device]) -> int:
        """Return what the weights have to fit in."""
        return sum(device.memory_bytes for device in devices) if devices else self._host_bytes or 0

    def best(self, devices: Sequence[Device], tokens_per_second: float | None = None) -> Candidate | None:
        """Return the best of the choices on ``devices`` that decodes so fast; None if none fits.

        The choices are in the order of ``best_first``: what cannot be better than what fits is not tried.
        """
        tight: Candidate | None = None
        for candidate in self.fitting(devices):
            if not fast_enough(candidate, tokens_per_second):
                continue
            if candidate.status == "fits":
                return candidate
            tight = tight or candidate
        if tight is None:
            spilling = self.spilling(devices)
            tight = next((each for each in spilling if fast_enough(each, tokens_per_second)), None)
        return tight


class _Case:
    """A choice under its workload and engine, and what is known of it by kind of device."""

    def __init__(self, choice: Choice, workload: Workload, engine: Engine, rules: Rules) -> None:
        self.choice, self.workload, self.engine = choice, workload, engine
        self._rules = rules
        self._known: dict[object, _Known] = {}

    @cached_property
    def _least_weight_bytes(self) -> int:
        return weight_bytes(self.choice.model, self.choice.format_name).low

    def may_fit(self, memory_bytes: int) -> bool:
        """Tell whether the weights, all devices together, may be smaller than that."""
        return self.choice.least_bytes < memory_bytes and self._least_weight_bytes < memory_bytes

    def tried(self, devices: Sequence[Device]) -> "Candidate | None":
        """Return the candidate that the choice makes on ``devices``; None if it fails or cannot be told."""
        kind = self.engine.kind_of(self.choice.model, self.workload, devices) if devices else None
        if kind is None:
            return self._planned(devices)
        known = self._known.get(kind)
        if known is None:
            known = self._known[kind] = _Known()
        usable_bytes = devices[0].usable_bytes
        status = known.status(usable_bytes)
        if status == "unknown":
            found = self._planned(devices)
            known.learn(usable_bytes, "does_not_fit" if found is None else found.status)
            return found
        return None if status == "does_not_fit" else Candidate(self, devices, status)

    def _planned(self, devices: Sequence[Device]) -> "Candidate | None":
        model, workload = self.choice.model, self.workload
        try:
            spare = self.engine.most_spare_bytes(model, workload, devices, spilling=self._rules.allow_offload)
            if spare is not None and spare < 0:
                return None
            found = trial(model, workload, devices, self.engine)
        except KvplanError:
            return None
        status = judge(found, self._rules).status
        if exit_code(status, self._rules) != 0 or status == "unknown":
            return None
        return Candidate(self, devices, status, found if isinstance(found, Plan) else None)

    def spilled(self, devices: Sequence[Device]) -> "Candidate | None":
        """Return the candidate with a part in system memory; None where it cannot run so."""
        if not devices:
            return None
        try:
            found = plan_or_offload(self.choice.model, self.workload, devices, self.engine, self._rules)
        except KvplanError:
            return None
        status = judge(found, self._rules).status
        return Candidate(self, devices, status, found) if status == "offload" else None

    def verdict(self, found: Plan) -> Verdict:
        """Judge one of its plans."""
        return judge(found, self._rules)


class _Known:
    """How devices of one kind did, by what is usable of one: with more, none does worse."""

    __slots__ = ("_fails_to", "_fits_from", "_tight_from", "_tight_to")

    def __init__(self) -> None:
        self._fails_to, self._fits_from = -1, MOST_BYTES
        self._tight_from, self._tight_to = MOST_BYTES, -1

    def status(self, usable_bytes: int) -> Status:
        """Return the status that what was learnt decides, ``unknown`` where it decides none."""
        if usable_bytes >= self._fits_from:
            return "fits"
        if usable_bytes <= self._fails_to:
            return "does_not_fit"
        return "tight" if self._tight_from <= usable_bytes <= self._tight_to else "unknown"

    def learn(self, usable_bytes: int, status: Status) -> None:
        """Take in how a device with so much did."""
        if status == "fits":
            self._fits_from = min(self._fits_from, usable_bytes)
        elif status == "tight":
            self._tight_from = min(self._tight_from, usable_bytes)
            self._tight_to = max(self._tight_to, usable_bytes)
        elif status == "does_not_fit":
            self._fails_to = max(self._fails_to, usable_bytes)


def candidates(
    models: Iterable[ModelSpec],
    workload: Workload,
    devices: Sequence[Device],
    *,
    formats: Sequence[str] | None = None,
    engine: Engine | None = None,
    rules: Rules = DEFAULT_RULES,
    measured: Callable[[Engine], Engine] = as_it_is,
    every_format: bool = False,
    tokens_per_second: float | None = None,
) -> Iterator[Candidate]:
    """Yield every model that fits in its best format, in the order of the models, then what fits by spilling.

    Best by ``Search.best_of_each``; ``every_format`` yields all that fit. Without ``devices`` the CPU does
    it all, in the workload's ``cpu_memory_bytes``.
    """
    tried = choices(models, formats=formats, engine=engine)
    search = Search(tried, workload, engine=engine, rules=rules, has_gpu=bool(devices), measured=measured)
    fits = search.fitting(devices) if every_format else search.best_of_each(devices, tokens_per_second)
    fitting: set[str] = set()
    for candidate in fits:
        fitting.add(candidate.model.name)
        yield candidate
    yield from search.spilling(devices, fitting)


@lru_cache(maxsize=4096)
def _num_active_parameters(model: ModelSpec) -> int:
    return num_active_parameters(model.structure)


def ranked(found: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Return candidates best first."""
    return tuple(sorted(found, key=_rank))


def _rank(candidate: Candidate) -> tuple[int, tuple[bool, int, int, str]]:
    return {"fits": 0, "tight": 1}.get(candidate.status, 2), order_of(candidate.model, candidate.loss)


def fast_enough(candidate: Candidate, tokens_per_second: float | None) -> bool:
    """Tell whether one sequence decodes at that rate, by the expected value; not if it is unknown.

    Any is fast enough where no rate is asked for.
    """
    if tokens_per_second is None:
        return True
    if candidate.rate is None:
        return False
    return candidate.rate.expected / max(1, candidate.plan.num_sequences) >= tokens_per_second
