"""Where the fleets of ``kvplan capacity`` can be rented: instances by name, by fleet, and by price."""

from collections.abc import Iterable

from kvplan.capacity.allocation import shares
from kvplan.capacity.estimate import CHAT_TOKENS, Demand, Estimate, fleets_of
from kvplan.capacity.fleet import MAX_GPUS_PER_REPLICA, Fleet, Site
from kvplan.capacity.lengths import within
from kvplan.cli.question import Question
from kvplan.engines.base import context_or_limit
from kvplan.errors import KvplanError
from kvplan.hardware.cloud import Instance, Offer, cheapest, device_of
from kvplan.pricing import usd_per_million_tokens
from kvplan.report.capacity_answer import Cheapest
from kvplan.speed import Rate

CHEAPEST_SHOWN = 5


def on_instance(asking: Question, instance: Instance) -> Site:
    """Return the site that an instance is: its card, as many as one machine has."""
    return Site(
        asking.model,
        asking.workload,
        device_of(instance),
        asking.engine,
        asking.rules,
        instance.num_gpus,
        1 if instance.is_fraction else MAX_GPUS_PER_REPLICA,
    )


def offer_for(
    site: Site | None, fleet: Fleet | None, table: tuple[Instance, ...], chosen: Instance | None
) -> Offer | None:
    """Return the instances to rent for a fleet: the chosen one, or the cheapest with enough cards."""
    if site is None or fleet is None:
        return None
    if chosen is not None:
        return Offer(chosen, fleet.num_nodes)
    return cheapest(site.device, fleet.num_gpus, fleet.shape.tensor, table)


def dollars_per_million(offer: Offer | None, found: Estimate, paged: Fleet | None) -> float | None:
    """Return dollars a million output tokens of the paged fleet, None without a rate or a price."""
    rate = found.fleets.rate if found.fleets else None
    price = offer.price_usd_per_hour if offer else None
    if rate is None or price is None or paged is None:
        return None
    return usd_per_million_tokens(price, rate.expected * paged.replicas)


def cheapest_instances(
    asking: Question, demand: Demand, table: tuple[Instance, ...], num_sessions: int
) -> tuple[Cheapest, ...]:
    """Return the priced instances that serve the sessions for least, one a kind of card."""
    limit, _ = context_or_limit(asking.model, asking.workload)
    live = float(min(CHAT_TOKENS, limit))
    if demand.lengths is not None:
        live = shares(within(demand.lengths, limit), limit, demand.block_size)[-1].mean_reserved_tokens
    best: dict[str, Cheapest] = {}
    for instance in _cheapest_of_their_cards(table):
        try:
            fleets = fleets_of(on_instance(asking, instance), num_sessions, live)
        except KvplanError:
            continue
        if fleets.paged is None:
            continue
        row = _priced(instance, fleets.paged, fleets.rate)
        if instance.gpu not in best or best[instance.gpu].usd_per_hour > row.usd_per_hour:
            best[instance.gpu] = row
    return tuple(sorted(best.values(), key=lambda row: row.usd_per_hour)[:CHEAPEST_SHOWN])


def _cheapest_of_their_cards(table: tuple[Instance, ...]) -> Iterable[Instance]:
    """Return one instance a set of cards: of equal ones only the cheapest counts."""
    found: dict[tuple[str, int, int], tuple[float, Instance]] = {}
    for instance in table:
        price = instance.price_usd_per_hour
        if price is None:
            continue
        key = (instance.gpu, instance.count, instance.gpu_memory_mib if instance.is_fraction else 0)
        if key not in found or found[key][0] > price:
            found[key] = price, instance
    return [instance for _, instance in found.values()]


def _priced(instance: Instance, paged: Fleet, rate: Rate | None) -> Cheapest:
    offer = Offer(instance, paged.num_nodes)
    price = offer.price_usd_per_hour or 0.0
    per_million = usd_per_million_tokens(price, rate.expected * paged.replicas) if rate else None
    return Cheapest(offer, instance.gpu, paged.num_gpus, paged.layout, price, per_million)
