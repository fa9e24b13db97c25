"""YAML with line numbers, and the bombs it does not swallow."""

import time

import pytest

from kvplan.deploy.yaml_values import dig, is_true, load_documents, table
from kvplan.errors import UnreadableDeployment


def one(text):
    (document,) = load_documents(text, "x.yaml")
    return document


def test_lines_of_keys_values_and_parts():
    document = one("a:\n  b: c\n  d: |\n    one\n    two\n  e: >\n    three\n    four\n  f: 'x\n    y'\n")
    assert document["a"]["b"].line == 2
    assert table(document["a"]).key_line("d") == 3
    text = document["a"]["d"]
    assert (text, text.line_at(text.index("two"))) == ("one\ntwo\n", 5)
    text = document["a"]["e"]
    assert (text, text.line_at(text.index("four"))) == ("three four\n", 8)
    text = document["a"]["f"]
    assert (text, text.line_at(text.index("y"))) == ("x y", 10)


def test_scalars_stay_text():
    document = one("a: 010\nb: no\nc: 1_000\nd: 2026-01-01\ne: ~\nf: ''\ng:\n")
    assert document == {"a": "010", "b": "no", "c": "1_000", "d": "2026-01-01", "e": None, "f": "", "g": None}
    assert not is_true(document["b"])
    assert is_true(None, default=True)


def test_merge_keys_and_aliases():
    document = one("b: &b {x: 1, y: 2}\nc: &c {z: 3}\na:\n  <<: [*b, *c]\n  y: 5\nd: {<<: *b}\n")
    assert document["a"] == {"y": "5", "x": "1", "z": "3"}
    assert dig(document, "d", "x") == "1"
    assert dig(document, "d", "x", "nothing") is None


def test_several_documents_and_odd_keys():
    assert load_documents("a: 1\n---\n- b\n---\n", "x") == [{"a": "1"}, ["b"], None]
    assert one("{[1, 2]: x, ~: y}") == {"?": "x", "~": "y"}
    assert load_documents("", "x") == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: &a [*a]", 1),
        ("a: *nobody", 1),
        ("a:\n  - b\n c: d", 3),
        ("a: 'b", 1),
        ("\n\n" + "[" * 100, 3),
        (
            "a0: &a0 [x, x]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
            None,
        ),
        ("x: \x07", None),
    ],
)
def test_what_is_refused_quickly_and_with_a_line(text, line):
    start = time.perf_counter()
    with pytest.raises(UnreadableDeployment) as caught:
        load_documents(text, "x.yaml")
    assert time.perf_counter() - start < 2
    if line is not None:
        assert caught.value.line == line
        assert caught.value.message.startswith(f"x.yaml:{line}: ")


def test_tags_are_never_obeyed():
    assert one("a: !!python/object/apply:os.system ['true']\nb: !custom c") == {"a": ["true"], "b": "c"}
