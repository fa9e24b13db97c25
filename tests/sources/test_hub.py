"""The Hub through its real client against a server here: requests, pins, refusals, never a weight."""

import json

import pytest
from huggingface_hub import constants
from sources.fake_hub import COMMIT
from sources.gguf_files import (
    TINY_CONFIG,
    TINY_PARAMETERS,
    gguf_bytes,
    llama_gguf,
    safetensors_bytes,
    tiny_llama,
)

from kvplan.errors import HubError, InvalidSpec, InvalidValue, OptionClash
from kvplan.model import num_parameters
from kvplan.sources import open_model
from kvplan.weights import weight_bytes

WEIGHT_BYTES = 8 * 1024**2


@pytest.fixture
def tiny(hub):
    checkpoint = safetensors_bytes(tiny_llama())
    hub.repos["org/tiny"] = {
        "config.json": json.dumps(TINY_CONFIG).encode(),
        "model.safetensors": checkpoint + b"\0" * WEIGHT_BYTES,
    }
    return hub


def test_a_repository(tiny):
    model = open_model("org/tiny")
    assert (model.name, model.repo, model.revision) == ("org/tiny", "org/tiny", COMMIT)
    assert model.source == "huggingface:org/tiny"
    assert num_parameters(model.structure) == model.published_total == TINY_PARAMETERS
    assert weight_bytes(model, "bf16").expected == 2 * TINY_PARAMETERS
    assert sum(tensor.num_bytes for tensor in model.stored) == 2 * TINY_PARAMETERS


def test_never_a_weight_and_few_requests(tiny):
    open_model("org/tiny")
    assert tiny.bytes_sent("model.safetensors") < WEIGHT_BYTES // 16
    # Which files, the config (asked for and fetched), one range behind one redirect.
    assert len(tiny.requests) <= 5


def test_a_server_that_ignores_ranges_is_hung_up_on(tiny):
    tiny.ignores_ranges = True
    tiny.repos["org/tiny"]["model.safetensors"] += b"\0" * (64 * 1024**2)
    assert len(open_model("org/tiny").stored) == len(tiny_llama())
    assert tiny.served.get("model.safetensors", 0) == 0


def test_a_revision_is_asked_for_and_pinned(tiny):
    assert open_model("org/tiny@v1").revision == open_model("org/tiny", revision="v1").revision == COMMIT
    assert ("GET", "/api/models/org/tiny/revision/v1") in tiny.requests
    with pytest.raises(HubError, match="no revision 'v2'"):
        open_model("org/tiny@v2")
    with pytest.raises(OptionClash):
        open_model("org/tiny@v1", revision="main")


def test_shards_and_what_engines_do_not_load(hub):
    config = {**TINY_CONFIG, "tie_word_embeddings": True}
    second = [
        ("model.layers.2.eh_proj.weight", "BF16", (64, 128)),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", (8,)),
        ("lm_head.weight", "BF16", (256, 64)),
    ]
    hub.repos["org/sharded"] = {
        "config.json": json.dumps(config).encode(),
        "model-00001-of-00002.safetensors": safetensors_bytes(tiny_llama()[:-1]),
        "model-00002-of-00002.safetensors": safetensors_bytes(second),
    }
    model = open_model("org/sharded")
    loaded = TINY_PARAMETERS - 256 * 64
    assert num_parameters(model.structure) == loaded
    assert weight_bytes(model, "bf16").expected == 2 * loaded
    assert model.published_total == loaded + 64 * 128 + 8 + 256 * 64
    for reason in ("multi-token-prediction", "lm_head twice", "buffers"):
        assert reason in model.published_relation


def test_files_that_only_the_index_names(hub):
    hub.repos["org/odd"] = {
        "config.json": json.dumps(TINY_CONFIG).encode(),
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": "part.safetensors"}}).encode(),
        "part.safetensors": safetensors_bytes(tiny_llama()),
    }
    assert len(open_model("org/odd").stored) == len(tiny_llama())
    outside = b'{"weight_map":{"a":"../../secret.safetensors"}}'
    hub.repos["org/hostile"] = {**hub.repos["org/odd"], "model.safetensors.index.json": outside}
    with pytest.raises(InvalidSpec, match="weight_map"):
        open_model("org/hostile")


def test_a_checkpoint_in_another_dtype_is_loaded_as_the_config_says(hub):
    hub.repos["org/wide"] = {
        "config.json": json.dumps(TINY_CONFIG).encode(),
        "model.safetensors": safetensors_bytes(tiny_llama("F32")),
    }
    model = open_model("org/wide")
    assert weight_bytes(model, model.weights_format).expected == 2 * TINY_PARAMETERS
    assert "stored as float32" in model.notes[0]
    silent = {key: value for key, value in TINY_CONFIG.items() if key != "torch_dtype"}
    hub.repos["org/silent"] = {**hub.repos["org/wide"], "config.json": json.dumps(silent).encode()}
    model = open_model("org/silent")
    assert (model.dtype, model.weights_format, model.assumptions) == ("float32", "fp32", ())
    assert weight_bytes(model, "fp32").expected == 4 * TINY_PARAMETERS


def test_modelopts_own_quantization_file(tiny):
    tiny.repos["org/tiny"]["hf_quant_config.json"] = b'{"quantization":{"quant_algo":"FP8"}}'
    tiny.repos["org/tiny"]["model.safetensors"] = safetensors_bytes(
        [(name, "F8_E4M3" if "proj" in name else dtype, shape) for name, dtype, shape in tiny_llama()]
    )
    model = open_model("org/tiny")
    packed = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64)
    assert model.weights_format == "fp8-per-tensor"
    assert weight_bytes(model, model.weights_format).expected == packed + 2 * (TINY_PARAMETERS - packed)


def test_the_token_goes_to_the_hub(tiny, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    open_model("org/tiny")
    assert tiny.tokens == {"Bearer hf_test"}


GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/tiny is restricted"}


@pytest.mark.parametrize(
    ("ending", "status", "headers", "match"),
    [
        ("config.json", 401, GATED, "gated"),
        ("config.json", 403, GATED, "gated"),
        ("config.json", 403, {}, "not for this token"),
        ("config.json", 429, {}, "too many requests"),
        ("config.json", 503, {}, "could not be asked"),
        ("/org/tiny", 401, {"X-Error-Code": "RepoNotFound"}, "not on the Hub"),
        ("/org/tiny", 404, {"X-Error-Code": "RepoNotFound"}, "not on the Hub"),
        ("/org/tiny", 429, {}, "too many requests"),
        ("/org/tiny", 500, {}, "could not be asked"),
    ],
)
def test_refusals_are_answers_of_three_lines(tiny, monkeypatch, ending, status, headers, match):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its own retries
    tiny.refusals[ending] = (status, headers)
    with pytest.raises(HubError, match=match) as error:
        open_model("org/tiny")
    assert error.value.exit_code == 3
    assert error.value.why
    assert error.value.hint
    assert "\n" not in error.value.message + error.value.why + error.value.hint


@pytest.mark.parametrize("status", [401, 429, 500])
def test_headers_that_are_refused_are_said(tiny, status):
    tiny.refusals["model.safetensors"] = (status, {})
    model = open_model("org/tiny")
    assert model.stored == ()
    assert "headers could not be read" in model.notes[0]
    quantized = {**TINY_CONFIG, "quantization_config": {"quant_method": "awq", "bits": 4}}
    tiny.repos["org/quantized"] = {**tiny.repos["org/tiny"], "config.json": json.dumps(quantized).encode()}
    assert "headers could not be read" in open_model("org/quantized").assumptions[0]


def test_a_header_cut_by_the_network_is_said(tiny):
    tiny.cuts_after = 100
    model = open_model("org/tiny")
    assert model.stored == ()
    assert "headers could not be read" in model.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (10**9).to_bytes(8, "little"),
        (500).to_bytes(8, "little") + b"{}",
        b"\2" + bytes(7) + b"[]",
    ],
    ids=["empty", "huge", "longer-than-allowed", "longer-than-the-file", "no-table"],
)
def test_headers_that_lie(tiny, content):
    tiny.repos["org/tiny"]["model.safetensors"] = content
    with pytest.raises(InvalidSpec, match=r"org/tiny/model\.safetensors"):
        open_model("org/tiny")


def test_what_is_no_model(hub):
    hub.repos["org/lora"] = {"adapter_config.json": b"{}", "adapter_model.safetensors": b""}
    hub.repos["org/paint"] = {"model_index.json": b"{}"}
    hub.repos["org/empty"] = {}
    for name, match in (("lora", "adapter"), ("paint", "diffusion"), ("empty", r"no config\.json")):
        with pytest.raises(HubError, match=match):
            open_model(f"org/{name}")
    with pytest.raises(HubError, match="not on the Hub"):
        open_model("org/gone")


def test_offline_answers_from_the_cache(tiny):
    with pytest.raises(HubError, match="not in the local cache"):
        open_model("org/tiny", offline=True)
    open_model("org/tiny")
    before = len(tiny.requests)
    model = open_model("org/tiny", offline=True)
    assert (model.revision, num_parameters(model.structure)) == (COMMIT, TINY_PARAMETERS)
    assert len(tiny.requests) == before


def test_a_hub_out_of_reach(tiny, monkeypatch):
    open_model("org/tiny")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert open_model("org/tiny").revision == COMMIT
    with pytest.raises(HubError, match="not in the local cache") as error:
        open_model("org/other")
    assert "did not answer" in error.value.why


@pytest.fixture
def gguf_repo(hub):
    metadata, tensors = llama_gguf()
    whole = gguf_bytes(metadata, tensors) + b"\0" * WEIGHT_BYTES
    first = gguf_bytes(
        {**metadata, "split.no": 0, "split.count": 2, "split.tensors.count": len(tensors)}, tensors[:3]
    )
    second = gguf_bytes({"split.no": 1, "split.count": 2, "split.tensors.count": len(tensors)}, tensors[3:])
    hub.repos["org/tiny-GGUF"] = {
        "config.json": b"{}",
        "tiny-Q4_K_M.gguf": whole,
        "mmproj-F16.gguf": b"",
        "Q8_0/tiny-Q8_0-00001-of-00002.gguf": first,
        "Q8_0/tiny-Q8_0-00002-of-00002.gguf": second,
    }
    return hub


def test_gguf_repositories_list_what_they_hold(gguf_repo):
    with pytest.raises(InvalidValue, match="2 GGUF models") as error:
        open_model("org/tiny-GGUF")
    assert error.value.why == "they are Q8_0, Q4_K_M"
    assert "org/tiny-GGUF:Q8_0" in error.value.hint
    with pytest.raises(InvalidValue, match="none is Q2_K"):
        open_model("org/tiny-GGUF:Q2_K")


def test_a_gguf_file_is_read_by_its_header(gguf_repo):
    for ref in ("org/tiny-GGUF:q4_k_m", "org/tiny-GGUF/tiny-Q4_K_M.gguf@v1"):
        model = open_model(ref)
        assert (model.architecture, model.weights_format, model.revision) == ("llama", "q4_k_m", COMMIT)
        # 144 bytes per 256 elements of q4_k, 210 of q6_k, four bytes an element of fp32.
        expected = (1024 * 512 * (144 + 210) // 256) + 512 * 4
        expected += 2 * (2 * 512 * 4 + (2 * 512 * 512 + 512 * 128 + 2 * 512 * 1024) * 144 // 256)
        expected += 2 * ((512 * 128 + 512 * 1024) * 210 // 256)
        assert weight_bytes(model, "q4_k_m").expected == expected
    assert gguf_repo.bytes_sent("tiny-Q4_K_M.gguf") < WEIGHT_BYTES


def test_a_split_gguf_is_one_model(gguf_repo):
    split = open_model("org/tiny-GGUF:Q8_0")
    whole = open_model("org/tiny-GGUF:Q4_K_M")
    assert split.stored == whole.stored
    del gguf_repo.repos["org/tiny-GGUF"]["Q8_0/tiny-Q8_0-00002-of-00002.gguf"]
    with pytest.raises(HubError, match="00002-of-00002"):
        open_model("org/tiny-GGUF:Q8_0")


def test_the_program_speaks_of_the_hub_in_json(tiny, kvplan, tmp_path):
    env = {"HF_ENDPOINT": tiny.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    code, out, _ = kvplan("show", "org/tiny", "--json", env=env)
    assert code == 0
    assert json.loads(out)["model"]["revision"] == COMMIT
    code, out, _ = kvplan("show", "org/gone", "--json", env=env)
    assert code == 3
    assert json.loads(out)["error"]["code"] == "hub-error"
