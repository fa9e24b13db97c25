"""The answer of ``kvplan find``."""

from kvplan.find import Candidate
from kvplan.frozen import dataclass
from kvplan.hardware.cloud import Offer


@dataclass(frozen=True, slots=True)
class Found:
    """One row: a candidate, the longest context it could have, and the command that asks for it."""

    candidate: Candidate
    max_context_tokens: int
    command: str


@dataclass(frozen=True, slots=True)
class FindAnswer:
    """What fits, best first. ``num_fitting`` counts all of it, ``found`` may be its beginning.

    ``offer`` is the cheapest instance with these cards, where prices were asked for (``priced``) and
    somebody rents them. ``num_too_slow`` were left out by the wanted rate, of which ``num_unknown``
    have none. ``num_cards`` above 0 says that each row is the best on another card of so many,
    ``as_published`` that no other format was tried.
    """

    asked: str
    found: tuple[Found, ...]
    num_fitting: int
    num_models: int
    num_too_slow: int
    num_unknown: int
    exit_code: int
    offer: Offer | None = None
    priced: bool = False
    num_cards: int = 0
    as_published: bool = False
