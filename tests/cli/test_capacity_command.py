"""kvplan capacity: how many GPUs and under which condition, held to worked examples."""

import json

import pytest

from kvplan.capacity.lengths import Lengths, percentile

CLAIM = [
    "capacity",
    "llama-3-70b",
    "--sessions",
    "200",
    "--ctx",
    "8k",
    "--gpu",
    "a100-80gb",
    "--overhead",
    "4GiB",
]
FLAGS = ("--", "--gpu-memory-utilization", "0.9")


def test_two_hundred_sessions_on_ten_cards_or_four(answer):
    code, data = answer(*CLAIM, *FLAGS)
    fleets = data["fleets"]
    assert code == 0
    assert data["cache"]["reserved_bytes"] == 200 * 8192 * 327_680
    reserved, tensor_only, paged = (fleets[name] for name in ("reserved", "reserved_tensor_only", "paged"))
    assert (reserved["num_gpus"], reserved["tensor"], reserved["pipeline"]) == (10, 2, 5)
    assert (tensor_only["num_gpus"], tensor_only["pipeline"]) == (16, 1)
    assert (paged["num_gpus"], paged["tensor"], paged["replicas"]) == (4, 4, 1)
    assert paged["max_live_tokens"] == 2253
    assert fleets["unpaged_sessions"] == 55
    holds = {each["name"]: each["holds"] for each in fleets["traffic"]}
    assert holds["Azure 2023 chat"]
    assert holds["ShareGPT sample"]
    assert not holds["Mooncake long documents"]
    assert fleets["limits"]["max_num_seqs"] == 256


def test_the_fleet_is_what_fit_says_and_one_card_less_is_not_enough(answer):
    _, data = answer(*CLAIM, *FLAGS)
    reserved = data["fleets"]["reserved"]
    fit = ["fit", "llama-3-70b", "--ctx", "8k", "--batch", "200", "--overhead", "4GiB"]
    layout = ["--tp", str(reserved["tensor"]), "--pp", str(reserved["pipeline"])]
    assert answer(*fit, "--gpu", "10xa100-80gb", *layout, *FLAGS)[0] == 0
    for tensor, pipeline in ((1, 9), (8, 1), (4, 2), (2, 4)):
        words = ["--gpu", f"{tensor * pipeline}xa100-80gb", "--tp", str(tensor), "--pp", str(pipeline)]
        assert answer(*fit, *words, *FLAGS)[0] == 1


def test_the_screen_has_both_numbers_and_the_condition(kvplan):
    for width in ("60", "80", "160"):
        code, out, err = kvplan(*CLAIM, "--format", "table", *FLAGS, env={"COLUMNS": width})
        assert (code, err) == (0, "")
        text = " ".join(out.split())
        assert "10 GPUs (TP2 × PP5) if every session reserves 8,192 tokens" in text
        assert "4 GPUs (TP4) in blocks, while sessions hold at most 2,253 tokens on average" in text
        assert "false for" in text
        assert all(len(line) <= min(int(width), 120) for line in out.splitlines())


def test_the_textbook_case(answer):
    _, data = answer(*["capacity", "llama-2-7b", "--sessions", "32", "--ctx", "4096", "--tokens", "500"])
    assert data["cache"] == {"reserved_bytes": 64 * 2**30, "paged_bytes": 8 * 2**30}


def test_prices_have_a_source_and_a_date(answer):
    _, data = answer(*CLAIM, *FLAGS)
    paged = data["fleets"]["paged"]
    assert (paged["instance"], paged["num_instances"]) == ("p4de.24xlarge", 1)
    assert "2026-07-20" in paged["price_source"]
    assert data["fleets"]["reserved"]["usd_per_hour"] == pytest.approx(2 * paged["usd_per_hour"], abs=1e-3)
    rate = data["fleets"]["tokens_per_second"]["expected"]
    assert data["fleets"]["usd_per_million_tokens"] == pytest.approx(
        paged["usd_per_hour"] / rate / 0.0036, rel=1e-4
    )
    _, data = answer("capacity", "llama-3-8b", "--sessions", "8", "--ctx", "8k", "--gpu", "rtx-4090")
    assert data["fleets"]["paged"]["usd_per_hour"] is None
    assert data["fleets"]["paged"]["instance"] is None


def test_without_a_card_the_cheapest_instances_are_listed(answer):
    _, data = answer("capacity", "llama-3-8b", "--sessions", "20", "--ctx", "8k")
    prices = [row["usd_per_hour"] for row in data["cheapest"]]
    assert prices == sorted(prices)
    assert len(prices) == 5
    assert all(row["price_source"].endswith(("2026-07-20", "2026-06-18")) for row in data["cheapest"])
    first = data["cheapest"][0]
    _, again = answer(
        "capacity", "llama-3-8b", "--sessions", "20", "--ctx", "8k", "--instance", first["instance"]
    )
    assert again["fleets"]["paged"]["usd_per_hour"] == first["usd_per_hour"]


def test_a_fraction_of_a_card_is_a_small_card(answer):
    words = ("capacity", "qwen3-0.6b", "--sessions", "2", "--ctx", "2k", "--instance")
    _, data = answer(*words, "g6f.4xlarge")
    paged = data["fleets"]["paged"]
    assert (paged["instance"], paged["tensor"], paged["pipeline"]) == ("g6f.4xlarge", 1, 1)
    code, data = answer(
        "capacity", "llama-3-8b", "--sessions", "2", "--ctx", "2k", "--instance", "g6f.4xlarge"
    )
    assert code == 1
    assert data["fleets"]["paged"] is None


def write_trace(path, rows, header="TIMESTAMP,ContextTokens,GeneratedTokens"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return str(path)


def test_a_trace_decides_live_tokens_and_the_context(answer, tmp_path):
    rows = [
        f"2023-11-16 18:{n // 60:02}:{n % 60:02}.1234567,{500 + 17 * (n % 50)},{20 + n % 90}"
        for n in range(600)
    ]
    trace = write_trace(tmp_path / "day.csv", rows)
    _, data = answer(
        "capacity", "llama-3.1-8b", "--sessions", "40", "--gpu", "l40s", "--ctx", "8k", "--trace", trace
    )
    totals = [500 + 17 * (n % 50) + 20 + n % 90 for n in range(600)]
    steps = {step["name"]: step for step in data["contexts"]}
    assert steps["p50"]["context_tokens"] == -(-percentile(totals, 50) // 256) * 256
    assert [step["served"] for step in data["contexts"]] == sorted(
        step["served"] for step in data["contexts"]
    )
    most = [step["max_sequences"] for step in data["contexts"]]
    assert most == sorted(most, reverse=True)
    asked = next(step for step in data["contexts"] if step["context_tokens"] == 8192)
    _, fit = answer("fit", "llama-3.1-8b", "--gpu", "l40s", "--ctx", "8k")
    assert asked["max_sequences"] == fit["limits"]["max_sequences"]
    effective = [each["effective"] for each in data["allocation"]]
    in_use = [each["simulated"]["in_use"] for each in data["allocation"]]
    assert effective == sorted(effective)
    assert in_use == sorted(in_use)


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ("num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio", "100,20,120,5.0"),
        ("timestamp_ms,input_length,output_length,n_hash_blocks,n_prefix_blocks_seen_before", "0,100,20,4,1"),
        ("arrival_time_s,prompt_tokens,output_tokens", "0.5,100,20"),
        ("Timestamp,Request tokens,Response tokens", "5,100,20"),
    ],
)
def test_public_traces_are_known_by_their_columns(tmp_path, columns, row):
    from kvplan.sources.traces import read_trace

    found = read_trace(write_trace(tmp_path / "trace.csv", [row] * 3, columns))
    assert (found.prompts, found.outputs) == ((100,) * 3, (20,) * 3)
    assert found.shared_fraction == (0.25 if "hash" in columns else None)


def test_json_lines_are_read_too(tmp_path):
    from kvplan.sources.traces import read_trace

    path = tmp_path / "trace.jsonl"
    path.write_text('{"prompt": 7, "output": 3}\n\n{"prompt": 9, "output": 1}\n')
    found = read_trace(str(path))
    assert found == Lengths((7, 9), (3, 1), "trace.jsonl, 2 requests")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no requests"),
        ("prompt_tokens,output_tokens\n", "has no requests"),
        ("prompt_tokens,output_tokens\n5,-1\n", "line 2"),
        ("prompt_tokens,output_tokens\n5,x\n", "line 2"),
        ("prompt_tokens,output_tokens\n5\n", "line 2"),
        ("timestamp,prompt_tokens,output_tokens\n2,5,1\n1,5,1\n", "runs backwards"),
        ("timestamp,prompt_tokens,output_tokens\nsoon,5,1\n", "no time"),
        ("a,b\n1,2\n", "no column of prompt tokens"),
        ("-5,10\n", "line 1"),
        ("5,10\n", "has no header"),
        ("prompt_tokens,b\n1,2\n", "no column of output tokens"),
        ('{"prompt": 1, "output": 2}\nnope\n', "not JSON"),
        ("prompt_tokens,output_tokens\n99999,5\n", "no request fits"),
    ],
)
def test_bad_traces_are_refused_with_a_hint(answer, tmp_path, text, says):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    code, data = answer("capacity", "llama-3-8b", "--ctx", "8k", "--trace", str(path))
    error = data["error"]
    assert code == 2
    assert says in f"{error['message']} {error['why']}"
    assert error["hint"]


def test_a_huge_trace_is_refused_before_it_is_read(answer, tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate(10**9)
    code, data = answer("capacity", "llama-3-8b", "--trace", str(path))
    assert code == 2
    assert "1,000 MB" in data["error"]["message"]


def test_other_bad_questions(answer, tmp_path):
    table = tmp_path / "prices.yaml"
    for words, says in (
        (("--gpu", "4xh100", "--sessions", "5"), "names 4 cards"),
        (("--mean-in", "5"), "only one of --mean-in and --mean-out"),
        (("--tokens", "5", "--mean-in", "5", "--mean-out", "5"), "given twice"),
        (("--batch", "5", "--sessions", "5"), "--batch and --sessions"),
        (("--instance", "p5.49xlarge", "--sessions", "5"), "did you mean"),
        (("--instance", "g5.xlarge", "--gpu", "h100"), "--gpu and --instance"),
        (("--evict", "lru"), "not an eviction policy"),
        (("--evict", "h2o:5"), "does not say what is kept"),
        (("--prices", str(table), "--sessions", "5"), "not a price table"),
        (("--prices", str(tmp_path / "none.yaml"), "--sessions", "5"), "cannot read"),
        (("--trace", str(tmp_path / "none.csv")), "cannot read"),
    ):
        table.write_text(
            "instances:\n  - {provider: me, instance: box, gpu: l40s, count: 1, price_usd_hr: -1}\n"
        )
        code, data = answer("capacity", "llama-3-8b", *words)
        assert code == 2, words
        assert says in f"{data['error']['message']} {data['error']['why']}"


def test_a_price_table_of_ones_own(answer, tmp_path):
    table = tmp_path / "prices.yaml"
    row = "{provider: me, instance: box, gpu: l40s, count: 2, price_usd_hr: 1.5, region: cellar, date: 1 May}"
    table.write_text(f"instances:\n  - {row}\n")
    words = ("capacity", "llama-3-8b", "--sessions", "20", "--ctx", "8k", "--prices", str(table))
    _, data = answer(*words)
    assert [row["instance"] for row in data["cheapest"]] == ["box"]
    assert data["cheapest"][0]["price_source"] == "me cellar on demand, 1 May"
    _, data = answer(*words, "--gpu", "h100")
    assert data["fleets"]["paged"]["usd_per_hour"] is None


def test_prefixes_are_shared_only_where_they_can_be(answer):
    words = ("--sessions", "100", "--ctx", "8k", "--prefix", "1000", "--prefix-fraction", "0.8")
    _, data = answer("capacity", "llama-3-8b", *words)
    shared = data["sharing"]
    assert (shared["prefix_tokens"], shared["num_sharing"]) == (992, 80)
    assert shared["saved_bytes"] == 79 * 992 * 131_072
    _, data = answer("capacity", "qwen3-next-80b", *words)
    assert data["sharing"]["kinds"] == ["full_attention"]
    assert data["sharing"]["not_shared"] == ["gated_delta_net"]
    assert data["sharing"]["shared_bytes_per_token"] == 24_576
    _, data = answer("capacity", "llama-3-8b", *words, "--engine", "ideal")
    assert (data["sharing"]["engine_support"], data["sharing"]["saved_bytes"]) == (None, 0)
    _, data = answer("capacity", "llama-3-8b", *words, "--", "--no-enable-prefix-caching")
    assert data["sharing"]["saved_bytes"] == 0


def test_eviction_bounds_the_cache_where_the_engine_has_it(answer):
    words = (
        "capacity",
        "llama-3.1-8b",
        "--ctx",
        "128k",
        "--evict",
        "streaming-llm:4+4092",
        "--evict",
        "h2o:512+512",
    )
    _, data = answer(*words)
    streaming, h2o = data["evictions"]
    assert streaming["bounded_bytes_per_sequence"] == 4096 * 131_072
    assert h2o["bounded_bytes_per_sequence"] == 1024 * 131_072
    assert streaming["bytes_per_sequence"] == 2**17 * 131_072
    assert streaming["available"] is None
    assert "tensorrt-llm" in streaming["engines"]
    assert h2o["engines"] == []


def test_output_is_the_same_every_time(kvplan):
    words = [
        "capacity",
        "llama-2-13b",
        "--gpu",
        "a100-40gb",
        "--ctx",
        "2k",
        "--mean-in",
        "161.31",
        "--mean-out",
        "337.99",
        "--json",
    ]
    assert kvplan(*words)[1] == kvplan(*words)[1]
    data = json.loads(kvplan(*words, "--seed", "1")[1])
    assert data["allocation"][-1]["effective"] >= 0.96
