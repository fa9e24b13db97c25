"""Running servers, as each engine documents its answers, and everything that can go wrong with one."""

import json
import socket
import time
from importlib.resources import files

import pytest
from engine_server import serving
from jsonschema import Draft202012Validator

from kvplan.errors import CannotTell, InvalidValue
from kvplan.verify.http import MAX_ANSWER_BYTES, Server
from kvplan.verify.server import ask, metrics_of

SCHEMA = json.loads(files("kvplan.report").joinpath("schema-kvplan-1.json").read_text(encoding="utf-8"))
VLLM_METRICS = """\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",\
gpu_memory_utilization="0.9",num_cpu_blocks="None",num_gpu_blocks="27851",sliding_window="None"} 1.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Meta-Llama-3-8B"} 3.0
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Meta-Llama-3-8B"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="meta-llama/Meta-Llama-3-8B"} 0.25
"""
VLLM = {
    "/version": (200, json.dumps({"version": "0.19.0"})),
    "/v1/models": (
        200,
        json.dumps(
            {
                "object": "list",
                "data": [
                    {
                        "id": "llama",
                        "object": "model",
                        "root": "meta-llama/Meta-Llama-3-8B",
                        "max_model_len": 8192,
                    }
                ],
            }
        ),
    ),
    "/metrics": (200, VLLM_METRICS),
}
SGLANG = {
    "/get_server_info": (
        200,
        json.dumps(
            {
                "model_path": "meta-llama/Meta-Llama-3-8B",
                "mem_fraction_static": 0.85,
                "tp_size": 1,
                "kv_cache_dtype": "auto",
                "context_length": 8192,
                "version": "0.5.3",
                "max_total_num_tokens": 390000,
                "internal_states": [
                    {
                        "last_gen_throughput": 0.0,
                        "memory_usage": {
                            "weight": 14.98,
                            "kvcache": 47.61,
                            "token_capacity": 390000,
                            "graph": 0.22,
                        },
                    }
                ],
            }
        ),
    ),
    "/metrics": (200, 'sglang:token_usage{model_name="m"} 0.5\n'),
}
SGLANG_NOW = {
    "model_path": "meta-llama/Meta-Llama-3-8B", "mem_fraction_static": 0.85, "tp_size": 1, "page_size": 1,
    "context_length": 8192, "kv_cache_dtype": "auto", "disable_radix_cache": False, "version": "0.5.23",
    "speculative_algorithm": None, "max_total_num_tokens": 390000,
    "internal_states": [{"memory_usage": {
        "weight": 14.981, "kvcache": 47.607, "startup_available": 78.1, "token_capacity": 390000,
        "token_capacity_swa": None, "graph": {"prefill": 0.125, "decode": 0.25}}}],
}  # fmt: skip
LLAMA_SERVER = {
    "/props": (
        200,
        json.dumps(
            {
                "default_generation_settings": {"n_ctx": 4096, "speculative": False},
                "total_slots": 4,
                "model_path": "/models/Meta-Llama-3-8B-Q8_0.gguf",
                "build_info": "b6900-d83d7ec29",
            }
        ),
    ),
    "/slots": (
        200,
        json.dumps(
            [{"id": i, "n_ctx": 4096, "is_processing": i == 0, "n_past": 1024 * (i == 0)} for i in range(4)]
        ),
    ),
    "/v1/models": (
        200,
        json.dumps(
            {"data": [{"id": "m", "meta": {"n_params": 8030261248, "size": 8529977344, "n_vocab": 128256}}]}
        ),
    ),
}
OLLAMA = {
    "/api/version": (200, json.dumps({"version": "0.13.0"})),
    "/api/ps": (
        200,
        json.dumps(
            {
                "models": [
                    {
                        "name": "llama3:8b",
                        "model": "llama3:8b",
                        "size": 6000000000,
                        "size_vram": 6000000000,
                        "context_length": 4096,
                        "details": {"format": "gguf", "family": "llama", "quantization_level": "Q4_K_M"},
                    }
                ]
            }
        ),
    ),
    "/api/show": (
        200,
        json.dumps({"parameters": "num_ctx 4096", "model_info": {"llama.context_length": 8192}}),
    ),
}


def test_vllm_is_read():
    with serving(VLLM) as url:
        readings = ask(Server(url))
    assert (readings.engine, readings.version, readings.model) == (
        "vllm",
        "0.19.0",
        "meta-llama/Meta-Llama-3-8B",
    )
    assert readings.counts["num_blocks"] == 27851
    assert readings.counts["max_model_len"] == 8192
    assert readings.counts["cache_used_fraction"] == 0.25
    assert readings.counts["requests_running"] == 3


def test_sglang_is_read():
    with serving(SGLANG) as url:
        readings = ask(Server(url))
    assert (readings.engine, readings.version) == ("sglang", "0.5.3")
    assert readings.counts["kv_cache_tokens"] == 390000
    assert readings.largest("weights").num_bytes == round(14.98 * 2**30)
    assert readings.counts["cache_used_fraction"] == 0.5


def test_llama_server_is_read():
    with serving(LLAMA_SERVER) as url:
        readings = ask(Server(url))
    assert (readings.engine, readings.version, readings.model) == (
        "llama.cpp",
        "b6900",
        "Meta-Llama-3-8B-Q8_0.gguf",
    )
    assert (readings.counts["n_ctx_seq"], readings.counts["n_parallel"]) == (4096, 4)
    assert readings.counts["cache_used_tokens"] == 1024
    assert readings.counts["requests_running"] == 1
    assert readings.largest("weights_file").num_bytes == 8529977344


def test_ollama_is_read():
    with serving(OLLAMA) as url:
        readings = ask(Server(url))
    assert (readings.engine, readings.version, readings.model) == ("ollama", "0.13.0", "llama3:8b")
    assert readings.counts["n_ctx"] == 4096
    assert readings.largest("on_gpu").num_bytes == 6000000000


def test_vllm_blocks_against_the_plan(answer):
    with serving(VLLM) as url:
        code, said = answer("verify", "--url", url, "--gpu", "h100")
    rows = {row["name"]: row for row in said["comparisons"]}
    assert said["model"]["id"] == "llama-3-8b"
    # 27,851 blocks of 2 MiB are 54.4 GiB: what is left of 0.9 x 79 GiB after 15 GiB of weights.
    assert rows["num_blocks"]["measured"] == 27851
    assert said["measured"]["cache_bytes"] == 27851 * 16 * 131072
    assert said["measured"]["cache_used_bytes"] == round(0.25 * 27851 * 16 * 131072)
    assert code == (0 if rows["num_blocks"]["status"] == "agrees" else 1)


def test_without_a_gpu_the_server_is_only_described(answer):
    with serving(VLLM) as url:
        code, said = answer("verify", "--url", url)
    assert (code, said["verdict"]) == (3, "not_measured")
    assert said["measured"]["cache_used_percent"] == 25


def test_llama_server_against_the_plan(answer):
    with serving(LLAMA_SERVER) as url:
        code, said = answer("verify", "llama-3-8b", "--weights", "q8_0", "--url", url)
    rows = {row["name"]: row for row in said["comparisons"]}
    assert rows["weights"]["measured"] == 8529977344
    assert said["measured"]["cache_used_percent"] == 6.25
    # Four slots of 4,096 tokens, 131,072 bytes each.
    assert said["measured"]["cache_bytes"] == 16384 * 131072
    assert code == (0 if rows["weights"]["status"] == "agrees" else 1)


def test_ollama_against_the_plan(answer):
    with serving(OLLAMA) as url:
        _, said = answer("verify", "llama-3-8b", "--url", url, "--gpu", "rtx-4090")
    rows = {row["name"]: row for row in said["comparisons"]}
    assert rows["on_gpu"]["measured"] == 6000000000
    assert rows["on_gpu"]["planned"]["expected"] > 4 * 2**30


@pytest.mark.parametrize("paths", [VLLM, SGLANG, SGLANG_NOW, LLAMA_SERVER, OLLAMA])
def test_the_json_is_the_schemas(paths, answer):
    paths = {"/server_info": (200, json.dumps(paths))} if paths is SGLANG_NOW else paths
    with serving(paths) as url:
        _, said = answer("verify", "llama-3-8b", "--url", url, "--gpu", "h100")
    Draft202012Validator(SCHEMA).validate(said)
    assert said["mode"] == "server"


def test_a_closed_port_says_so():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(CannotTell, match="cannot reach"):
        ask(Server(f"http://127.0.0.1:{port}"))


def test_another_server_says_so():
    with serving({"/": (200, "<html>hello</html>")}) as url, pytest.raises(CannotTell, match="no engine"):
        ask(Server(url))


def guarded(paths, key, prefixes=("/",)):
    """The same server with a key: as vLLM (``/v1`` alone) or SGLang and llama-server (everything)."""

    def behind(path, status, text):
        def answer(handler):
            needs = any(path.startswith(prefix) for prefix in prefixes)
            if needs and handler.headers.get("Authorization") != f"Bearer {key}":
                status_, body = 401, b'{"error":"Unauthorized"}'
            else:
                status_, body = status, text.encode()
            handler.send_response(status_)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        return answer

    everything = {"/api/version": (404, "{}"), "/props": (404, "{}"), "/server_info": (404, "{}"), **paths}
    return {path: behind(path, *answer) for path, answer in everything.items()}


GUARDED = [
    (VLLM, ("/v1",), "vllm"),
    (SGLANG, ("/props", "/server_info", "/get_server_info"), "sglang"),
    (LLAMA_SERVER, ("/",), "llama.cpp"),
]


@pytest.mark.parametrize(("paths", "prefixes", "engine"), GUARDED)
def test_a_key_opens_a_server_and_a_wrong_one_is_said(paths, prefixes, engine):
    with serving(guarded(paths, "s3cret", prefixes)) as url:
        assert ask(Server(url, api_key="s3cret")).engine == engine
        with pytest.raises(CannotTell, match="wants a key"):
            ask(Server(url))
        with pytest.raises(CannotTell, match="refuses this key"):
            ask(Server(url, api_key="other"))


def test_the_key_comes_from_the_option_or_the_environment_and_is_never_shown(kvplan):
    with serving(guarded(LLAMA_SERVER, "s3cret")) as url:
        words = ("verify", "llama-3-8b", "--weights", "q8_0", "--url", url, "--format", "plain")
        asked = (kvplan(*words, "--api-key", "s3cret"), kvplan(*words, env={"KVPLAN_API_KEY": "s3cret"}))
        refused = kvplan(*words)
    for code, out, err in asked:
        assert code in (0, 1), err
        assert "s3cret" not in out + err
    assert refused[0] == 3
    assert "KVPLAN_API_KEY" in refused[2]


@pytest.mark.parametrize("key", ["a\nb", "schlüssel"])
def test_a_key_that_no_header_carries_is_refused(key):
    with pytest.raises(InvalidValue, match="no HTTP header"):
        Server("http://127.0.0.1", api_key=key)


def test_a_password_in_the_address_is_refused():
    with pytest.raises(InvalidValue, match="user or password"):
        Server("http://me:secret@127.0.0.1:8000")


def test_a_server_that_still_loads_says_so(answer):
    with serving({"/api/version": (503, '{"error":{"code":503,"message":"Loading model"}}')}) as url:
        code, said = answer("verify", "--url", url)
    assert (code, said["error"]["message"].split()[-4:]) == (3, ["is", "not", "ready", "(503)"])


def test_four_slots_are_one_cache_unless_the_command_says_otherwise(answer):
    """Builds since b6924 make four slots of one cache; -np 4 makes four caches."""
    newer = json.loads(LLAMA_SERVER["/props"][1]) | {"build_info": "b10488-0c1e57098"}
    paths = LLAMA_SERVER | {
        "/props": (200, json.dumps(newer)),
        "/slots": (200, json.dumps([{"id": 0, "is_processing": True, "n_prompt_tokens": 1024}])),
    }
    with serving(paths) as url:
        words = ("verify", "llama-3-8b", "--weights", "q8_0", "--url", url)
        _, shared = answer(*words)
        _, apart = answer(*words, "--", "-np", "4")
        _, three = answer(*words, "--", "-np", "4", "--kv-unified")
    assert shared["measured"]["cache_bytes"] == 4096 * 131072
    assert shared["measured"]["cache_used_percent"] == 25
    assert "slots-may-be-apart" in {warning["code"] for warning in shared["warnings"]}
    assert apart["measured"]["cache_bytes"] == 16384 * 131072
    assert "slots-may-be-apart" not in {warning["code"] for warning in apart["warnings"]}
    assert three["measured"]["cache_bytes"] == 4096 * 131072


def test_sglang_as_it_answers_now_is_read():
    """0.5.23: /server_info, GiB to three decimals, graphs by phase."""
    metrics = 'sglang:token_usage{m="x"} 0.25\nsglang:num_running_reqs{m="x"} 7\n'
    paths = {"/server_info": (200, json.dumps(SGLANG_NOW)), "/metrics": (200, metrics)}
    with serving(paths) as url:
        readings = ask(Server(url))
    assert readings.version == "0.5.23"
    assert readings.largest("cuda_graphs").num_bytes == round(0.375 * 2**30)
    # Half a thousandth of a GiB.
    assert readings.largest("weights").rounding_bytes == 2**30 // 2000 + 1
    assert readings.counts["requests_running"] == 7
    assert "swa_tokens" not in readings.counts
    assert readings.settings == {"kv_cache_dtype": "auto", "disable_radix_cache": False}


def test_sglangs_pool_against_the_plan(answer):
    with serving({"/server_info": (200, json.dumps(SGLANG_NOW))}) as url:
        code, said = answer("verify", "--url", url, "--gpu", "h100")
    rows = {row["name"]: row for row in said["comparisons"]}
    # 390,000 tokens of 131,072 bytes are 47.607 GiB.
    assert rows["kv_cache"]["status"] == "agrees"
    assert code == 0


def test_a_vllm_pool_that_a_flag_fixes_is_planned_so(answer):
    metrics = VLLM_METRICS.replace(
        'num_gpu_blocks="27851"', 'num_gpu_blocks="1024",kv_cache_memory_bytes="2147483648"'
    )
    with serving(VLLM | {"/metrics": (200, metrics)}) as url:
        code, said = answer("verify", "--url", url)
    # 2 GiB in blocks of 2 MiB, whatever the card.
    (row,) = said["comparisons"]
    assert (code, row["name"], row["planned"]["expected"], row["measured"]) == (0, "num_blocks", 1024, 1024)


def test_a_silent_server_times_out():
    def silent(handler):
        time.sleep(3)

    with serving({"/api/version": silent}) as url:
        began = time.monotonic()
        with pytest.raises(CannotTell, match="does not answer in time"):
            ask(Server(url, timeout_seconds=0.3))
        assert time.monotonic() - began < 2.5


def test_an_endless_answer_is_cut():
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(MAX_ANSWER_BYTES // 65536 + 40):
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    with serving({"/api/version": endless}) as url, pytest.raises(CannotTell, match="more than 8 MiB"):
        ask(Server(url))


def test_a_redirect_is_not_followed():
    asked = []

    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", "/secret")
        handler.end_headers()

    def secret(handler):
        asked.append(handler.path)
        handler.send_response(200)
        handler.end_headers()

    answers = {"/api/version": elsewhere, "/secret": secret}
    with serving(answers) as url, pytest.raises(CannotTell, match="sends elsewhere"):
        ask(Server(url, api_key="s3cret"))
    assert asked == []


WRONG_TYPES = {
    "models": [None, 5, {}],
    "version": "x",
    "data": [None],
    "internal_states": [7],
    "model_path": [],
    "default_generation_settings": {"n_ctx": "many"},
    "total_slots": -5,
}
HOSTILE = [
    "null", "[]", "{}", "17", '"text"', "[" * 20000, '{"version": 5}', '{"version": {"a": []}}', "\x00" * 100,
    json.dumps(WRONG_TYPES), '{"total_slots": -1e400, "version": "1"}',
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_never_crash(text, answer):
    paths = [*VLLM, *SGLANG, *LLAMA_SERVER, *OLLAMA]
    with serving(dict.fromkeys(paths, (200, text))) as url:
        code, said = answer("verify", "llama-3-8b", "--url", url)
    assert code in (0, 1, 3), said


@pytest.mark.parametrize(
    "url", ["", "ftp://host", "file:///etc/passwd", "http://", "http://h:99999", "http://[::bad"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(InvalidValue, match="not the address"):
        Server(url)


@pytest.mark.parametrize(("url", "base"), [("127.0.0.1:8000", "http://127.0.0.1:8000"),
                                           ("http://host:1/v1/", "http://host:1"),
                                           ("https://host/llm", "https://host/llm")])  # fmt: skip
def test_addresses_as_people_type_them(url, base):
    assert Server(url).base == base


def test_prometheus_text():
    text = 'a{b="c\\"d,e=\\"f"} 1.5 1700000000\n# a 7\nb 2e3\nbroken{ 5\nc{x="y"} NaN\n'
    samples = metrics_of(text)
    assert samples["a"][0][1] == 1.5
    assert samples["b"] == [({}, 2000.0)]
    assert "broken" not in samples
