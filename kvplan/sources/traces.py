"""Request lengths from a file: CSV or JSON lines, by the column names that public traces use.

Known are Azure's, vidur's, Mooncake's, BurstGPT's and LLMServingSim's columns; a trace of one's own
needs a column of prompt tokens and one of output tokens by any of those names. Times, where there
are any, must not run backwards.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from kvplan.capacity.lengths import Lengths
from kvplan.errors import InputError, InvalidSpec, InvalidValue, reason_of

MAX_BYTES = 256 * 10**6
MAX_REQUESTS = 2_000_000
MAX_TOKENS = 2**31 - 1

PROMPT = (
    "prompt_tokens", "ContextTokens", "num_prefill_tokens", "input_length", "Request tokens",
    "input_tokens", "prompt_len", "prompt_length", "prompt", "input", "isl",
)  # fmt: skip
OUTPUT = (
    "output_tokens", "GeneratedTokens", "num_decode_tokens", "output_length", "Response tokens",
    "completion_tokens", "output_len", "output", "osl",
)  # fmt: skip
TIME = (
    "TIMESTAMP", "timestamp_ms", "arrival_time_s", "Timestamp", "timestamp", "arrived_at", "arrival_time",
)  # fmt: skip
BLOCKS, SEEN_BLOCKS = "n_hash_blocks", "n_prefix_blocks_seen_before"


def read_trace(path: str) -> Lengths:
    """Return the requests of a trace file.

    Raises InvalidSpec for a file that is no trace (empty, no known columns, negative or unreadable
    counts, times that run backwards) naming the line, InvalidValue for one above 256 MB.
    """
    source = Path(path)
    try:
        size = source.stat().st_size
        if source.is_dir():
            raise IsADirectoryError(21, "is a folder", path)
        if size > MAX_BYTES:
            raise InvalidValue(
                f"{source.name} has {size / 1e6:,.0f} MB",
                why=f"a trace is read whole, up to {MAX_BYTES // 10**6} MB",
                hint=f"take its beginning: head -n 1000000 {source.name} > part.csv",
            )
        with source.open(encoding="utf-8-sig", newline="") as file:
            return _read(file, source.name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {path}",
            why=reason_of(error),
            hint="name a CSV or JSON-lines file of request lengths",
        ) from None


def _read(lines: Iterable[str], name: str) -> Lengths:
    prompts: list[int] = []
    outputs: list[int] = []
    seen = blocks = 0
    last: float | None = None
    columns: tuple[str, str, str | None] | None = None
    for number, row in _rows(lines, name):
        columns = columns or _columns(row, name, number)
        prompt_name, output_name, time_name = columns
        prompts.append(_count(row, prompt_name, name, number))
        outputs.append(_count(row, output_name, name, number))
        if len(prompts) > MAX_REQUESTS:
            raise _invalid(
                name, number, f"more than {MAX_REQUESTS:,} requests", "take its beginning: head -n"
            )
        if time_name is not None:
            now = _time(row.get(time_name), name, number)
            if last is not None and now is not None and now < last:
                raise _invalid(name, number, f"{time_name} runs backwards", "sort it by that column")
            last = now if now is not None else last
        if BLOCKS in row and SEEN_BLOCKS in row:
            blocks += _count(row, BLOCKS, name, number)
            seen += _count(row, SEEN_BLOCKS, name, number)
    if not prompts:
        raise InvalidSpec(
            f"{name} has no requests",
            why="it is empty, or has a header alone",
            hint=f"it should start like: {PROMPT[0]},{OUTPUT[0]}",
        )
    return Lengths(
        tuple(prompts),
        tuple(outputs),
        f"{name}, {len(prompts):,} requests",
        shared_fraction=seen / blocks if blocks else None,
    )


def _rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    iterator = iter(lines)
    first = next(iterator, "")
    if not first.lstrip().startswith("{"):
        _check_header(first.strip(), name)
        reader = csv.DictReader(_chained(first, iterator), strict=True)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise _invalid(name, reader.line_num, str(error), "write it as plain CSV") from None
        return
    for number, line in enumerate(_chained(first, iterator), start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except ValueError as error:
            raise _invalid(name, number, f"not JSON: {error}", "one object a line") from None
        if not isinstance(data, dict):
            raise _invalid(name, number, "not an object", "one object a line")
        yield number, data


def _check_header(line: str, name: str) -> None:
    """Raise InvalidSpec where the first line holds numbers instead of the columns' names."""
    try:
        counts = [float(value) for value in line.split(",")]
    except ValueError:
        return
    header = f"{PROMPT[0]},{OUTPUT[0]}"
    if any(count < 0 for count in counts):
        negative = next(value for value, count in zip(line.split(","), counts, strict=True) if count < 0)
        raise _invalid(
            name,
            1,
            f"{negative.strip()} is negative, and no header names the columns",
            f"counts are 0 or more, below a first line like: {header}",
        )
    raise InvalidSpec(
        f"{name} has no header",
        why=f"its first line is {line[:60]}",
        hint=f"put the columns' names before it: {header}",
    )


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _columns(row: Mapping[str, object], name: str, number: int) -> tuple[str, str, str | None]:
    prompt = next((column for column in PROMPT if column in row), None)
    output = next((column for column in OUTPUT if column in row), None)
    if prompt is None or output is None:
        missing = "prompt" if prompt is None else "output"
        raise _invalid(
            name,
            number,
            f"no column of {missing} tokens among {', '.join(str(column) for column in row)}",
            f"name it {(PROMPT if prompt is None else OUTPUT)[0]}",
        )
    return prompt, output, next((column for column in TIME if column in row), None)


def _count(row: Mapping[str, object], column: str, name: str, number: int) -> int:
    value = row.get(column)
    try:
        count = int(value) if isinstance(value, str | int) and not isinstance(value, bool) else -1
    except ValueError:
        count = -1
    if not 0 <= count <= MAX_TOKENS:
        raise _invalid(
            name, number, f"{column} is {value!r}", "counts are whole numbers of tokens, 0 or more"
        )
    return count


def _time(value: object, name: str, number: int) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(str(value))
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(str(value).strip())
        # Without a zone only the order counts: read as UTC, which has no hour twice.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        raise _invalid(name, number, f"'{value}' is no time", "seconds, or 2023-11-16 18:15:46.68") from None


def _invalid(name: str, number: int, why: str, hint: str) -> InvalidSpec:
    return InvalidSpec(f"{name}, line {number:,} is not a request", why=why, hint=hint)
