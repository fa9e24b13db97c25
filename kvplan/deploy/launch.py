"""A launch: one engine that some file starts, as it stands there, before any model is looked up."""

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from kvplan.deploy.words import Word
from kvplan.frozen import dataclass

if TYPE_CHECKING:
    from kvplan.deploy.policy import Loaded


@dataclass(frozen=True, slots=True)
class GpuHint:
    """What a file says of the GPUs.

    ``names`` are types as the file spells them (several where it lists candidates), at ``line``;
    ``count`` how many a launch is given, None where the file does not say; ``indices`` which of the
    machine's, where it names them. ``exclusive`` says that nothing else is put on them (Kubernetes);
    ``chosen_elsewhere`` that a variable decides which they are. ``cpu`` means none at all.
    """

    names: tuple[str, ...] = ()
    line: int = 0
    count: int | None = None
    indices: tuple[int, ...] = ()
    exclusive: bool = False
    chosen_elsewhere: bool = False
    cpu: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """One engine started by a file.

    ``name`` is what the file calls it; ``engine`` kvplan's name for the program (or the program's own
    where kvplan has no rules of it), ``version`` what the image's tag says. ``model`` is the model as
    written; ``flags`` the engine's own words, ``aliases`` other names by which a mapping may mean it.
    ``groups`` name the launches that share a machine and run at once, empty where no other does;
    ``order`` is when it starts among them. ``missing`` says what the file leaves open; ``spreads``
    that it leaves the number of GPUs to the reader (a recipe). ``policy`` is the policy file that holds
    it as data, whose settings are its own.
    """

    name: str
    file: str
    line: int
    engine: str
    model: Word | None
    flags: tuple[Word, ...] = ()
    version: str = ""
    env: Mapping[str, Word] = field(default_factory=dict)
    gpus: GpuHint = GpuHint()
    groups: tuple[str, ...] = ()
    order: int = 0
    notes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    spreads: bool = False
    policy: "Loaded | None" = None

    def variable(self, name: str) -> str:
        """Return the value of an environment variable, empty where it is unset or not known."""
        word = self.env.get(name)
        return word.text if word is not None and word.known else ""
