"""A pool that serves a queue: what holds tokens, what is kept for later, what is lost.

Every step each running request gains one token; whoever is first in the queue starts as soon as
there is room. In one piece, room is the first gap that is long enough, so gaps between reservations
are lost (external waste). In blocks, a request takes one when it needs it; when none is left the
youngest is preempted and starts over later (vLLM's recomputation). Measured while the queue is not
empty. Nothing here is random.
"""

import heapq
from bisect import insort
from collections import deque

from kvplan.capacity.allocation import DEFAULT_BLOCK_SIZE, POLICIES, Policy, reserved_tokens
from kvplan.capacity.lengths import Lengths
from kvplan.frozen import dataclass
from kvplan.units import ceil_div

# Before this share of the requests has started the pool is still filling.
WARM_UP = 0.1


@dataclass(frozen=True, slots=True)
class Usage:
    """Shares of the pool on average: tokens, kept for tokens to come, never used, between pieces.

    ``mean_running`` requests at once. ``preempted_share`` of steps had a request waiting that had
    run before; ``recomputed_share`` of all tokens were computed again. ``num_refused`` requests were
    larger than the whole pool.
    """

    policy: Policy
    in_use: float
    reserved_for_later: float
    internal_waste: float
    external_waste: float
    mean_running: float
    num_preemptions: int = 0
    preempted_share: float = 0.0
    recomputed_share: float = 0.0
    num_refused: int = 0


def simulate_all(
    lengths: Lengths,
    pool_tokens: int,
    limit_tokens: int,
    max_running: int | None = None,
    block_size: int = DEFAULT_BLOCK_SIZE,
) -> tuple[Usage, ...]:
    """Run the requests through a pool under every policy, at most ``max_running`` at once."""
    cap = max_running or len(lengths.prompts)
    return tuple(
        _paged(lengths, pool_tokens, cap, block_size)
        if policy == "paged"
        else _contiguous(policy, lengths, pool_tokens, limit_tokens, cap)
        for policy in POLICIES
    )


@dataclass(slots=True)
class _Sums:
    """What is added up over the measured steps."""

    steps: int = 0
    used: int = 0
    to_come: int = 0
    internal: int = 0
    running: int = 0
    preempted: int = 0

    def add(self, steps: int, used: int, running: int, final: int, reserved: int) -> None:
        # In the k-th of these steps the running requests hold used + k x running tokens.
        held = used * steps + running * steps * (steps + 1) // 2
        self.steps += steps
        self.used += held
        self.to_come += final * steps - held
        self.internal += (reserved - final) * steps
        self.running += running * steps


class _Gaps:
    """Free pieces of a pool by position; the first that is long enough is taken."""

    __slots__ = ("pieces",)

    def __init__(self, size: int) -> None:
        self.pieces: list[tuple[int, int]] = [(0, size)]

    def take(self, size: int) -> int | None:
        for number, (start, length) in enumerate(self.pieces):
            if length >= size:
                if length == size:
                    del self.pieces[number]
                else:
                    self.pieces[number] = (start + size, length - size)
                return start
        return None

    def give(self, start: int, size: int) -> None:
        insort(self.pieces, (start, size))
        number = self.pieces.index((start, size))
        for left in (number, number - 1):
            if 0 <= left < len(self.pieces) - 1:
                first, second = self.pieces[left], self.pieces[left + 1]
                if first[0] + first[1] == second[0]:
                    self.pieces[left : left + 2] = [(first[0], first[1] + second[1])]


def _contiguous(
    policy: Policy, lengths: Lengths, pool_tokens: int, limit_tokens: int, max_running: int
) -> Usage:
    gaps, sums = _Gaps(pool_tokens), _Sums()
    queue = deque(zip(lengths.prompts, lengths.outputs, strict=True))
    total, refused = len(queue), 0
    # Each is its end, its start, prompt, output, where its piece lies and how long that is.
    running: list[tuple[int, int, int, int, int, int]] = []
    now = used = final = reserved = started = 0
    while queue:
        while queue and len(running) < max_running:
            prompt, output = queue[0]
            size = reserved_tokens(policy, prompt, output, limit_tokens)
            position = gaps.take(size) if size <= pool_tokens else None
            if size > pool_tokens:
                queue.popleft()
                refused += 1
                continue
            if position is None:
                break
            queue.popleft()
            started += 1
            heapq.heappush(running, (now + output, now, prompt, output, position, size))
            used, final, reserved = used + prompt, final + prompt + output, reserved + size
        if not running or not queue:
            break
        end = running[0][0]
        if started > WARM_UP * total:
            sums.add(end - now, used, len(running), final, reserved)
        used += (end - now) * len(running)
        now = end
        while running and running[0][0] == now:
            _, _, prompt, output, position, size = heapq.heappop(running)
            gaps.give(position, size)
            used, final, reserved = used - prompt - output, final - prompt - output, reserved - size
    return _usage(policy, sums, pool_tokens, refused)


def _usage(policy: Policy, sums: _Sums, pool_tokens: int, refused: int) -> Usage:
    whole = max(1, sums.steps * pool_tokens)
    in_use, later, internal = sums.used / whole, sums.to_come / whole, sums.internal / whole
    return Usage(
        policy,
        in_use,
        later,
        internal,
        max(0.0, 1 - in_use - later - internal) if sums.steps else 0.0,
        sums.running / max(1, sums.steps),
        num_refused=refused,
    )


class _Blocks:
    """The paged pool: requests that take a block when their last one is full."""

    __slots__ = (
        "block_size",
        "events",
        "free",
        "held",
        "max_running",
        "now",
        "num_preemptions",
        "order",
        "queue",
        "recomputed",
        "running",
        "sums",
        "used",
        "version",
    )  # fmt: skip

    def __init__(self, num_blocks: int, block_size: int, max_running: int) -> None:
        self.block_size, self.free, self.max_running = block_size, num_blocks, max_running
        self.events: list[tuple[int, int, int]] = []
        # number -> [tokens at its start, start, end, blocks]
        self.running: dict[int, list[int]] = {}
        self.queue: deque[tuple[int, int, int]] = deque()
        self.version: dict[int, int] = {}
        self.now = self.used = self.held = self.num_preemptions = self.recomputed = 0
        self.sums = _Sums()

    def start(self) -> bool:
        number, tokens, left = self.queue[0]
        needed = ceil_div(tokens + 1, self.block_size)
        if needed > self.free or len(self.running) >= self.max_running:
            return False
        self.queue.popleft()
        self.free -= needed
        self.held += needed
        self.running[number] = [tokens, self.now, self.now + left, needed]
        self.version[number] = self.version.get(number, 0) + 1
        self.used += tokens
        self._schedule(number)
        return True

    def _schedule(self, number: int) -> None:
        tokens, start, end, blocks = self.running[number]
        # The step after the one that fills the last block needs another.
        full = start + blocks * self.block_size - tokens
        heapq.heappush(self.events, (min(end, full), number, self.version[number]))

    def stop(self, number: int) -> tuple[int, int]:
        """Take a request out; returns its tokens now and the steps it still needs."""
        tokens, start, end, blocks = self.running.pop(number)
        self.version[number] += 1
        self.free += blocks
        self.held -= blocks
        have = tokens + self.now - start
        self.used -= have
        return have, end - self.now

    def grow(self, number: int) -> None:
        while not self.free:
            youngest = next(reversed(self.running))
            have, left = self.stop(youngest)
            self.num_preemptions += 1
            self.recomputed += have
            self.queue.appendleft((youngest, have, left))
            if youngest == number:
                return
        self.free -= 1
        self.held += 1
        self.running[number][3] += 1
        self._schedule(number)

    def advance(self, *, measured: bool, preempted: bool) -> None:
        """Go on to the next event."""
        while self.events and self.version[self.events[0][1]] != self.events[0][2]:
            heapq.heappop(self.events)
        at = self.events[0][0]
        steps = at - self.now
        if steps and measured:
            reserved = self.held * self.block_size
            before = self.sums.used
            self.sums.add(steps, self.used, len(self.running), 0, 0)
            held = self.sums.used - before
            self.sums.to_come += held
            self.sums.internal += reserved * steps - held
            self.sums.preempted += steps * preempted
        self.used += steps * len(self.running)
        self.now = at


def _paged(lengths: Lengths, pool_tokens: int, max_running: int, block_size: int) -> Usage:
    num_blocks = pool_tokens // block_size
    pool = _Blocks(num_blocks, block_size, max_running)
    total, refused = len(lengths.prompts), 0
    for number, (prompt, output) in enumerate(zip(lengths.prompts, lengths.outputs, strict=True)):
        if ceil_div(prompt + output, block_size) > num_blocks:
            refused += 1
        else:
            pool.queue.append((number, prompt, output))
    seen: set[int] = set()
    may_start = True
    while pool.queue:
        while may_start and pool.queue and pool.start():
            seen.add(next(reversed(pool.running)))
        if not pool.running or not pool.queue:
            break
        pool.advance(measured=len(seen) > WARM_UP * total, preempted=pool.queue[0][0] in seen)
        while pool.events and pool.events[0][0] == pool.now:
            _, number, version = heapq.heappop(pool.events)
            if pool.version[number] != version:
                continue
            if pool.running[number][2] == pool.now:
                pool.stop(number)
                may_start = True
            else:
                before = pool.num_preemptions
                pool.grow(number)
                # After a preemption nobody starts until somebody ends, as in vLLM's scheduler.
                may_start = may_start and pool.num_preemptions == before
    sums = pool.sums
    whole = max(1, sums.steps * num_blocks * block_size)
    in_use, internal = sums.used / whole, sums.internal / whole
    tokens = sum(lengths.prompts) + sum(lengths.outputs)
    return Usage(
        "paged",
        in_use,
        0.0,
        internal,
        max(0.0, 1 - in_use - internal) if sums.steps else 0.0,
        sums.running / max(1, sums.steps),
        pool.num_preemptions,
        sums.preempted / max(1, sums.steps),
        pool.recomputed / max(1, tokens),
        refused,
    )
