"""``kvplan check``: verdicts, places, exit codes, shared cards, what cannot be told."""

import json
import time

import pytest
from deploy.shapes import SHAPES

VLLM = "services:\n  {name}:\n    image: vllm/vllm-openai:v0.20.0\n    command: --model {model} {flags}\n"


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    """Write files into an empty folder and check them there; returns (exit code, the JSON)."""
    from kvplan.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(files, *words, paths=None):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        code = main(["check", *(list(files) if paths is None else paths), "--offline", "--json", *words])
        return code, json.loads(capsys.readouterr().out)

    return run


def compose(model="meta-llama/Llama-3.1-8B-Instruct", flags="--max-model-len 8192", name="a"):
    return VLLM.format(name=name, model=model, flags=flags)


# File -> rows of (name, verdict, GPU, a part of why), by hand. No --gpu is given.
OUTCOMES = {
    "compose.yml": [
        ("chat", "unknown", None, "GPU is not named"),
        ("small", "unknown", None, "GPU is not named"),
    ],
    "entrypoint.yml": [
        ("wrapped", "unknown", None, "path of the server's own; its name looks like qwen3-8b")
    ],
    "deployment.yaml": [("llm", "fits", "2 × l4", "")],
    "mig.yaml": [("sliced", "fits", "a100-sxm4-80gb:mig-3g.40gb", "")],
    "lws.yaml": [("big", "fits", "16 × h100-sxm", "")],
    "helmrelease.yaml": [("driver", "unknown", None, "GPU is not named")],
    "llmisvc.yaml": [
        ("qwen", "unknown", None, "GPU is not named"),
        ("qwen-prefill", "unknown", None, "GPU is not named"),
    ],
    "scenario.yaml": [("wide-decode", "unknown", None, "VLLM_MAX_NUM_SEQ is not defined")],
    "rayservice.yaml": [("qwen", "fits", "a10g", "")],
    "serve.sh": [
        ("meta-llama/Llama-3.1-8B-Instruct", "unknown", None, "GPU is not named"),
        ("/models/a-Q4_K_M.gguf", "unknown", None, "path of the server's own"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "unknown", None, "GPU is not named"),
    ],
    "recipe.yaml": [
        ("default", "unknown", None, "GPU is not named"),
        ("fp8", "unknown", None, "is not bundled"),
    ],
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_a_file_alone_can_tell(check, name):
    code, data = check({name: SHAPES[name]})
    rows = data["deployments"]
    assert [row["name"] for row in rows] == [row[0] for row in OUTCOMES[name]]
    for row, (_, verdict, gpu, why) in zip(rows, OUTCOMES[name], strict=True):
        # How wide an interval is may change with its calibration; that it starts may not.
        assert {"tight": "fits"}.get(row["verdict"], row["verdict"]) == verdict
        assert why in row["why"]
        if gpu is not None:
            assert row["gpu"] == gpu
    verdicts = {row[1] for row in OUTCOMES[name]}
    assert code == (3 if "unknown" in verdicts else 0)


def test_a_whole_folder(check):
    code, data = check({f"d/{name}": text for name, text in SHAPES.items()}, paths=["d"])
    assert len(data["deployments"]) == sum(1 for row in data["deployments"])
    assert {row["file"] for row in data["deployments"]} == {
        f"d/{name}" for name in SHAPES if name not in ("nothing.yaml",)
    }
    assert code in (1, 3)
    assert [item["file"] for item in data["skipped"]].count("d/nothing.yaml") == 1


def test_a_failure_names_the_flag_that_decided(check):
    code, data = check({"a.yml": compose(flags="--max-model-len 131072 --port 80")}, "--gpu", "24GB")
    (row,) = data["deployments"]
    assert (code, row["verdict"]) == (1, "does_not_fit")
    assert row["flag"] == {"name": "--max-model-len", "file": "a.yml", "line": 4}
    assert row["headroom_bytes"] < 0
    assert row["fix"].endswith("tokens fit")
    assert row["unknown_flags"] == []
    longest = row["fix"].split()[0]
    code, data = check({"a.yml": compose(flags=f"--max-model-len {longest}")}, "--gpu", "24GB")
    assert code == 0


def test_no_length_means_the_models_own(check):
    _, data = check({"a.yml": compose(flags="")}, "--gpu", "24GB")
    (row,) = data["deployments"]
    assert row["plan"]["workload"]["context_tokens"] == 131072
    assert row["verdict"] == "does_not_fit"


def test_what_fits_starts_and_serves_one_request_of_full_length(check):
    _, data = check({"a.yml": compose()}, "--gpu", "h100")
    (row,) = data["deployments"]
    assert row["verdict"] == "fits"
    assert row["max_concurrency"] > 1
    assert row["plan"]["workload"]["num_sequences"] == 1


@pytest.mark.parametrize(
    ("flags", "env", "verdict"),
    [
        ("--max-model-len 9000", "", "refused"),
        ("--max-model-len 9000", "    environment: [VLLM_ALLOW_LONG_MAX_MODEL_LEN=1]\n", "fits"),
        ("--max-model-len 8192", "", "fits"),
        ("--max-model-len 9000 --hf-overrides '{\"rope_scaling\":{}}'", "", "fits"),
    ],
)
def test_a_context_above_the_models_limit(check, flags, env, verdict):
    text = compose("meta-llama/Meta-Llama-3-8B-Instruct", flags) + env
    code, data = check({"a.yml": text}, "--gpu", "h100")
    (row,) = data["deployments"]
    assert row["verdict"] == verdict
    if verdict == "refused":
        assert code == 1
        assert "VLLM_ALLOW_LONG_MAX_MODEL_LEN" in row["why"]
        assert row["flag"]["name"] == "--max-model-len"


def test_more_ranks_than_gpus_are_refused_whatever_the_card(check):
    text = SHAPES["deployment.yaml"].replace("tensor-parallel-size=2", "tensor-parallel-size=4")
    text = text.replace("cloud.google.com/gke-accelerator: nvidia-l4", "zone: a")
    code, data = check({"a.yaml": text})
    (row,) = data["deployments"]
    assert (code, row["verdict"]) == (1, "refused")
    assert row["flag"] == {"name": "--tensor-parallel-size", "file": "a.yaml", "line": 22}
    assert "4 GPUs and is given 2" in row["why"]


def test_fewer_ranks_than_gpus_leave_some_idle(check):
    code, data = check({"a.yml": compose()}, "--gpu", "3xh100")
    (row,) = data["deployments"]
    assert (code, row["gpu"]) == (0, "h100-sxm")
    assert "it runs on 1 of the 3 GPUs it is given" in row["notes"]


def test_a_value_the_engine_cannot_read_is_refused(check):
    code, data = check({"a.yml": compose(flags="--max-model-len many")}, "--gpu", "h100")
    (row,) = data["deployments"]
    assert (code, row["verdict"]) == (1, "refused")
    assert row["flag"]["line"] == 4
    assert "'many'" in row["why"]


def test_unknown_flags_are_listed_and_harmless_ones_are_not(check):
    flags = "--max-model-len 8192 --brand-new-thing 3 --port 80 --trust-remote-code"
    _, data = check({"a.yml": compose(flags=flags)}, "--gpu", "h100")
    assert data["deployments"][0]["unknown_flags"] == [{"name": "--brand-new-thing", "line": 4}]


def test_undefined_variables(check):
    files = {"a.yml": compose("${MODEL}", "--max-model-len ${LEN} --port ${PORT}")}
    code, data = check(files, "--gpu", "h100")
    assert (code, data["deployments"][0]["why"]) == (3, "MODEL is not defined")
    code, data = check(files, "--gpu", "h100", "--env", "MODEL=Qwen/Qwen3-8B")
    assert (code, data["deployments"][0]["why"]) == (3, "LEN is not defined")
    code, data = check(files, "--gpu", "h100", "--env", "MODEL=Qwen/Qwen3-8B", "--env", "LEN=4096")
    assert (code, data["deployments"][0]["verdict"]) == (0, "fits")


def test_an_env_file_beside_counts_and_one_outside_does_not(check, tmp_path):
    (tmp_path.parent / "secret.env").write_text("LEN=131072\n")
    text = compose(flags="--max-model-len ${LEN:-4096}") + "    env_file: [../secret.env]\n"
    _, data = check({"d/a.yml": text}, "--gpu", "24GB", paths=["d/a.yml"])
    assert data["deployments"][0]["plan"]["workload"]["context_tokens"] == 4096
    assert "not among the files given" in data["skipped"][0]["message"]
    _, data = check({"d/a.yml": text, "d/.env": "LEN=8192 # shorter\n"}, "--gpu", "24GB", paths=["d/a.yml"])
    assert data["deployments"][0]["plan"]["workload"]["context_tokens"] == 8192


@pytest.mark.parametrize("name", ["/models/mine", "mine", "a"])
def test_a_servers_own_path_takes_a_mapping(check, name):
    files = {"a.yml": compose("/models/mine")}
    code, data = check(files, "--gpu", "h100")
    assert code == 3
    assert "path of the server's own" in data["deployments"][0]["why"]
    code, data = check(files, "--gpu", "h100", "--model", f"{name}=qwen3-8b")
    assert (code, data["deployments"][0]["model"]) == (0, {"written": "/models/mine", "id": "qwen3-8b"})


def test_a_name_that_sounds_quantized_is_not_priced_as_16_bit(check):
    files = {"a.yml": compose("/models/qwen3-8b-fp8")}
    code, data = check(files, "--gpu", "h100", "--model", "qwen3-8b-fp8=qwen3-8b")
    assert code == 3
    assert "sounds quantized" in data["deployments"][0]["why"]
    code, data = check(files, "--gpu", "h100", "--model", "qwen3-8b-fp8=qwen3-8b,weights=fp8")
    assert data["deployments"][0]["plan"]["model"]["weights_format"] == "fp8"


def test_a_gguf_files_name_says_its_format(check):
    files = {"a.sh": "llama-server -m /m/Qwen3-8B-Q4_K_M.gguf -c 8192 -np 1\n"}
    code, data = check(files, "--gpu", "24GB", "--model", "Qwen3-8B-Q4_K_M.gguf=qwen3-8b")
    (row,) = data["deployments"]
    assert (code, row["plan"]["model"]["weights_format"]) == (0, "q4_k_m")
    assert any("q4_k_m by the file's name" in note for note in row["notes"])


def test_a_flag_beats_the_files_gpu_and_says_so(check):
    _, data = check({"a.yaml": SHAPES["deployment.yaml"]}, "--gpu", "h100")
    (row,) = data["deployments"]
    assert row["gpu"] == "2 × h100-sxm"
    assert any("names nvidia-l4" in note for note in row["notes"])


def test_a_name_for_two_sizes_is_unknown_where_it_matters(check):
    text = SHAPES["rayservice.yaml"].replace("A10G", "A100").replace("0.75", "0.95")
    model = "Qwen/Qwen2.5-32B-Instruct"
    text = text.replace("Qwen/Qwen2.5-7B-Instruct", model)
    code, data = check({"a.yaml": text}, "--model", f"{model}=qwen2.5-32b")
    (row,) = data["deployments"]
    assert (code, row["verdict"]) == (3, "unknown")
    assert "a100-sxm4-40gb: does not fit" in row["why"]
    small = text.replace(model, "Qwen/Qwen2.5-7B-Instruct")
    assert check({"a.yaml": small})[0] == 0


def shared(first, second):
    return (
        compose(flags=f"--gpu-memory-utilization {first} --max-model-len 4096", name="one")
        + compose(flags=f"--gpu-memory-utilization {second} --max-model-len 4096", name="two")[10:]
    )


def test_engines_that_share_a_card_are_added_up_in_order(check):
    code, data = check({"a.yml": shared(0.5, 0.4)}, "--gpu", "48GB")
    assert code == 0
    (card,) = data["shared_gpus"]
    assert (card["verdict"], card["deployments"]) == ("fits", ["one", "two"])
    code, data = check({"a.yml": shared(0.6, 0.6)}, "--gpu", "48GB")
    assert code == 1
    assert [row["verdict"] for row in data["deployments"]] == ["fits", "fits"]
    (card,) = data["shared_gpus"]
    assert card["required_bytes"] > card["limit_bytes"]
    assert card["why"].startswith("two starts after one")


def test_shares_above_one_fail_even_without_a_gpu(check):
    code, data = check({"a.yml": shared(0.6, 0.6)})
    assert code == 1
    assert {row["verdict"] for row in data["deployments"]} == {"unknown"}
    assert "1.20 of the card" in data["shared_gpus"][0]["why"]


def test_the_order_of_starting_follows_depends_on(check):
    text = shared(0.6, 0.6).replace("  one:\n", "  one:\n    depends_on: [two]\n")
    _, data = check({"a.yml": text}, "--gpu", "48GB")
    assert data["shared_gpus"][0]["deployments"] == ["two", "one"]


@pytest.mark.parametrize(
    "extra",
    [
        "    environment: [CUDA_VISIBLE_DEVICES=1]\n",
        "    profiles: [night]\n",
        "    environment: ['NVIDIA_VISIBLE_DEVICES=${CARDS:-all}']\n",
    ],
)
def test_other_cards_profiles_and_chosen_cards_are_not_added_up(check, extra):
    code, data = check({"a.yml": shared(0.6, 0.6) + extra}, "--gpu", "2x48GB")
    assert (code, data["shared_gpus"]) == (0, [])


def test_a_failure_is_not_hidden_by_the_unknown_nor_by_allowing_it(check):
    files = {"a.yml": compose("${M}"), "b.yml": compose(flags="--max-model-len 131072")}
    assert check(files, "--gpu", "24GB")[0] == 1
    assert check(files, "--gpu", "24GB", "--allow-unknown")[0] == 1
    assert check({"a.yml": compose("${M}")}, "--gpu", "24GB", "--allow-unknown")[0] == 0


def test_broken_files_beside_good_ones(check):
    files = {
        "conflict.yml": "services:\n<<<<<<< HEAD\n  a: 1\n=======\n",
        "good.yml": compose(),
        "quote.sh": "echo\nvllm serve 'a\n",
        "tabs.yml": "a:\n\t- b\n",
    }
    code, data = check(files, "--gpu", "h100")
    assert code == 2
    assert [row["verdict"] for row in data["deployments"]] == ["fits"]
    assert [(item["file"], item["line"]) for item in data["problems"]] == [
        ("conflict.yml", 2),
        ("quote.sh", 2),
        ("tabs.yml", 2),
    ]


def test_hostile_files_end_quickly_and_clearly(check, tmp_path):
    (tmp_path / "big.yml").write_bytes(b"a: b\n" * 1_000_000)
    (tmp_path / "binary.yml").write_bytes(b"\x7fELF\0\0" * 100)
    (tmp_path / "latin.yml").write_bytes("a: é".encode("latin-1"))
    (tmp_path / "loop.yml").symlink_to("loop.yml")
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)
    )
    (tmp_path / "bomb.yml").write_text(bomb)
    start = time.perf_counter()
    code, data = check(
        {}, paths=[str(tmp_path / name) for name in ("big.yml", "binary.yml", "latin.yml", "bomb.yml")]
    )
    assert time.perf_counter() - start < 10
    assert code == 2
    found = {item["file"].rsplit("/", 1)[-1]: item["message"] for item in data["problems"]}
    assert "larger than" in found["big.yml"]
    assert "binary" in found["binary.yml"]
    assert "UTF-8" in found["latin.yml"]
    assert "aliases" in found["bomb.yml"]
    code, data = check({}, paths=["loop.yml"])
    assert (code, data["problems"][0]["message"]) == (2, "a link that leads to itself")


def test_a_folder_with_a_loop_of_links_is_walked_once(check, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "back").symlink_to(tmp_path / "d")
    (tmp_path / "outside.yml").write_text(compose())
    (tmp_path / "d" / "out.yml").symlink_to(tmp_path / "outside.yml")
    code, data = check({"d/a.yml": compose()}, "--gpu", "h100", paths=["d"])
    assert (code, [row["file"] for row in data["deployments"]]) == (0, ["d/a.yml"])


def test_nothing_there(check):
    code, data = check({}, paths=["nowhere.yml"])
    assert (code, data["problems"][0]["message"]) == (2, "no file or folder has that name")
    code, data = check({}, paths=[])
    assert (code, data["error"]["message"]) == (2, "nothing to check")


def test_standard_input(kvplan):
    code, out, _ = kvplan("check", "-", "--gpu", "h100", "--offline", stdin="vllm serve Qwen/Qwen3-8B\n")
    assert code == 0
    assert "FITS" in out
    code, out, _ = kvplan("check", "-", "--gpu", "h100", "--offline", stdin=compose())
    assert code == 0
    assert "stdin:4" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--gpu", "h1000"), "not a GPU"),
        (("--model", "x"), "--model x"),
        (("--model", "x=y,format=z"), "weights=FORMAT"),
        (("--env", "1=2"), "--env"),
        (("--max-kv-gib", "-1"), "budget"),
        (("--min-headroom", "5"), "unit"),
        (("--engine", "vlm"), "engine"),
        (("--policy", "no.yaml"), "not there"),
    ],
)
def test_bad_options_are_usage_errors(check, words, message):
    code, data = check({"a.yml": compose()}, *words)
    assert code == 2
    assert message in " ".join(str(value) for value in data["error"].values())


def test_a_hundred_files_cost_little_more_than_one(check, tmp_path):
    from kvplan.cli import main

    for number in range(100):
        (tmp_path / "m").mkdir(exist_ok=True)
        (tmp_path / "m" / f"{number}.yaml").write_text(SHAPES["deployment.yaml"])

    def seconds(path):
        start = time.process_time()
        assert main(["check", path, "--offline", "--quiet"]) == 0
        return time.process_time() - start

    seconds("m/1.yaml")
    assert seconds("m") < 2 * seconds("m/1.yaml") + 1


def test_budgets(check):
    files = {"a.yml": compose()}
    for words, broken in (
        (("--min-headroom", "70GiB"), "min_headroom"),
        (("--max-kv-gib", "0.5"), "max_kv_gib"),
        (("--min-concurrency", "500"), "min_concurrency"),
        (("--min-context", "16k"), "min_context"),
    ):
        code, data = check(files, "--gpu", "h100", *words)
        (row,) = data["deployments"]
        assert (code, row["verdict"]) == (1, "fits")
        assert [text.split()[0] for text in row["broken_budgets"]] == [broken]
    assert check(files, "--gpu", "h100", "--min-headroom", "1GiB", "--max-kv-gib", "2")[0] == 0


def test_what_is_refused_on_any_card_fails_without_one(check):
    code, data = check({"a.yml": compose("meta-llama/Meta-Llama-3-8B-Instruct", "--max-model-len 9000")})
    (row,) = data["deployments"]
    assert (code, row["verdict"], row["gpu"], row["headroom_bytes"]) == (1, "refused", None, None)
    assert row["flag"] == {"name": "--max-model-len", "file": "a.yml", "line": 4}
    code, data = check({"a.yml": compose("qwen3-8b", "--tensor-parallel-size 3")})
    assert (code, data["deployments"][0]["verdict"]) == (1, "refused")


def test_versions_older_than_any_rule_are_planned_as_the_oldest_and_said(check):
    _, data = check({"a.yml": compose().replace("v0.20.0", "v0.6.3")}, "--gpu", "h100")
    (row,) = data["deployments"]
    assert row["verdict"] in ("fits", "tight")
    assert any("older than the rules kvplan has" in note for note in row["notes"])


def test_ollama_models_are_priced_in_the_format_they_ship_in(check):
    files = {"Modelfile": "FROM llama3.1:8b\nPARAMETER num_ctx 8192\n"}
    code, data = check(files, "--gpu", "24GB")
    (row,) = data["deployments"]
    assert (code, row["verdict"]) == (0, "fits")
    assert row["plan"]["model"]["weights_format"] == "q4_k_m"
    assert row["plan"]["workload"]["context_tokens"] == 8192
    _, data = check({"Modelfile": "FROM llama3.1:8b-instruct-q8_0\n"}, "--gpu", "24GB")
    assert data["deployments"][0]["plan"]["model"]["weights_format"] == "q8_0"


def test_names_cannot_steer_a_terminal(check):
    text = compose(name='"a\\e[31m\\nb"')
    _, data = check({"a.yml": text}, "--gpu", "h100")
    assert data["deployments"][0]["name"] == "a?[31m b"


def test_what_a_deployment_names_is_never_read_here(kvplan, tmp_path):
    """Neither a folder of this machine that has the name, nor standard input."""
    for folder in ("org/model", "thing"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("not JSON: it must not be opened")
    (tmp_path / "a.sh").write_text(
        "vllm serve org/model\nvllm serve -- -\nvllm serve --model -\nvllm serve thing\n"
    )
    code, out, _ = kvplan("check", "a.sh", "--gpu", "h100", "--json", cwd=tmp_path, stdin="{}")
    rows = json.loads(out)["deployments"]
    assert code == 3
    assert {row["model"]["written"] for row in rows} >= {"org/model", "thing"}
    assert all(
        "a path of the server's own" in row["why"] or row["why"] == "no model is named" for row in rows
    )


def pair(first, second):
    return (
        "services:\n"
        f"  first:\n    image: {first[0]}\n    command: {first[1]}\n"
        f"  second:\n    image: {second[0]}\n    depends_on: [first]\n    command: {second[1]}\n"
    )


ON_TGI = (
    "ghcr.io/huggingface/text-generation-inference:3.3",
    "--model-id qwen2.5-7b --max-total-tokens 8192",
)
ON_LMDEPLOY = (
    "openmmlab/lmdeploy:v0.18.0",
    "lmdeploy serve api_server qwen2.5-7b --cache-max-entry-count 0.5",
)
ON_VLLM = ("vllm/vllm-openai:v0.20.0", "--model qwen2.5-7b --max-model-len 8192 --gpu-memory-utilization 0.4")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        # TGI takes what the card has; what comes after it finds next to nothing.
        (ON_TGI, ON_VLLM, "does_not_fit"),
        (ON_TGI, ON_LMDEPLOY, "does_not_fit"),
        # A share of what is free is taken of what the first left.
        (ON_VLLM, ON_LMDEPLOY, "fits"),
        (ON_VLLM, ON_VLLM, "fits"),
        # How much LMDeploy leaves is known between bounds, and vLLM's share lies between them.
        (ON_LMDEPLOY, ON_VLLM, "unknown"),
    ],
)
def test_pools_of_what_is_free_are_added_up_in_order(check, first, second, verdict):
    _, data = check({"a.yml": pair(first, second)}, "a.yml", "--gpu", "a100-80gb")
    (shared,) = data["shared_gpus"]
    assert {row["verdict"] for row in data["deployments"]} <= {"fits", "tight"}
    assert shared["verdict"] == verdict, shared["why"]


def test_a_draft_that_is_not_known_leaves_a_failure_open(check):
    """What fails only with the most that a draft may take cannot be told; what fails anyway fails."""
    draft = '{"model":"/models/draft","num_speculative_tokens":3}'
    text = compose(model="qwen2.5-14b", flags=f"--speculative-config '{draft}' --max-model-len 24576")
    code, data = check({"a.yml": text}, "--gpu", "40GB")
    (row,) = data["deployments"]
    assert (code, row["verdict"], row["headroom_bytes"]) == (3, "unknown", None)
    assert row["why"].startswith("the draft /models/draft was not read")
    assert row["fix"] == "--model /models/draft=ID"
    for name, verdict in (("qwen2.5-7b", "does_not_fit"), ("qwen2.5-1.5b", "refused")):
        # The larger draft is too much; the smaller one has another vocabulary.
        _, data = check({"a.yml": text}, "--gpu", "40GB", "--model", f"/models/draft={name}")
        assert data["deployments"][0]["verdict"] == verdict
    assert check({"a.yml": text}, "--gpu", "24GB")[0] == 1


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("Qwen/Qwen3-14B-FP8", "--model Qwen/Qwen3-14B-FP8=Qwen3-14B,weights=fp8"),
        ("amd/Llama-3.1-70B-Instruct-FP8-KV",
         "--model amd/Llama-3.1-70B-Instruct-FP8-KV=Llama-3.1-70B-Instruct,weights=fp8"),
        ("someone/Qwen3-14B-AWQ", "--model someone/Qwen3-14B-AWQ=Qwen3-14B,weights=awq"),
        ("someone/Qwen3-14B-4bit", "--model someone/Qwen3-14B-4bit=Qwen3-14B,weights=FORMAT"),
        ("someone/of-their-own", "--model someone/of-their-own=ID"),
    ],
)  # fmt: skip
def test_a_release_in_another_format_has_its_mapping_proposed_not_made(check, name, fix):
    _, data = check({"a.sh": f"vllm serve {name}\n"}, "--gpu", "h100")
    (row,) = data["deployments"]
    assert (row["verdict"], row["fix"]) == ("unknown", fix)
    if fix.endswith(("ID", "FORMAT")):
        return
    _, data = check({"a.sh": f"vllm serve {name} --max-model-len 8192\n"}, "--gpu", "2xh100", *fix.split())
    assert data["deployments"][0]["verdict"] != "unknown"


def test_services_that_mount_their_model_at_one_path_are_mapped_by_name(check):
    text = """
services:
  one:
    image: vllm/vllm-openai:v0.19.0
    command: --model /model --max-model-len 8192
  two:
    image: vllm/vllm-openai:v0.19.0
    command: --model /model --max-model-len 8192
"""
    _, data = check({"compose.yml": text}, "--gpu", "h100")
    assert [row["fix"] for row in data["deployments"]] == ["--model one=ID", "--model two=ID"]
    _, data = check({"compose.yml": text}, "--gpu", "h100", "--model", "one=qwen3-8b")
    assert [row["verdict"] for row in data["deployments"]] == ["fits", "unknown"]
