"""Shell scripts are followed, never run."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.deploy.shell import commands_of
from kvplan.deploy.shell_lexer import ShellError
from kvplan.deploy.splitting import interpolated, interpolated_words
from kvplan.deploy.words import Word
from kvplan.deploy.yaml_values import Text


def run(script, variables=None, arguments=None):
    named = {name: Word(value) for name, value in (variables or {}).items()}
    words = None if arguments is None else [Word(text) for text in arguments]
    found = commands_of(script, lambda offset: script.count("\n", 0, offset) + 1, named, words)
    return found.commands


def texts(script, **given_):
    return [[word.text for word in command.words] for command in run(script, **given_)]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("a b 'c d' \"e f\" g\\ h", [["a", "b", "c d", "e f", "g h"]]),
        ("a \\\n  b # no\nc", [["a", "b"], ["c"]]),
        ("X=1; Y=$X$X; a ${Y}0", [["a", "110"]]),
        ("a ${X:-b} ${X-} ${X:+c} '${X}'", [["a", "b", "${X}"]]),
        ('a ${X:-${Y:-b c}} "${Z:-b c}"', [["a", "b", "c", "b c"]]),
        (": ${X:=5}; a $X", [["a", "5"]]),
        ("A=(x 'y z'); A+=(w); a \"${A[@]}\"", [["a", "x", "y z", "w"]]),
        ("a $((2 * (3 + 4)))", [["a", "14"]]),
        ("N=3; a $((N * 2))", [["a", "6"]]),
        ("if [ 2 -gt 1 ]; then a; else b; fi", [["a"]]),
        ("if [[ vllm == v* && -n x ]]; then a; fi", [["a"]]),
        ("case abc in a*|b) a;; *) b;; esac", [["a"]]),
        ("for x in 1 2; do a $x; done", [["a", "1"], ["a", "2"]]),
        ("f() { a \"$1\"; }; f 'b c'", [["a", "b c"]]),
        ("true && a || b", [["a"]]),
        ("false && a; c", [["c"]]),
        ("a 2>&1 | tee log > /dev/null &", [["a"], ["tee", "log"]]),
        ("a -c 4096 > log", [["a", "-c", "4096"]]),
        ("cat <<EOF\nvllm serve no\nEOF\na", [["cat"], ["a"]]),
        ("exec a; b", [["exec", "a"]]),
        ('eval "a b"', [["a", "b"]]),
        ('set -- x y; a "$@" $#', [["a", "x", "y", "2"]]),
        ("(a); { b; }", [["a"], ["b"]]),
        ("export A=1 B=2; a $A$B", [["a", "12"]]),
        ("while sleep 1; do a; done", [["a"]]),
    ],
)
def test_what_would_run(script, words):
    found = [command for command in texts(script) if command[0] not in ("export", "sleep")]
    assert found == words


def test_both_ways_of_a_condition_that_cannot_be_known():
    script = "if [ -f x ]; then M=a; N=1; else M=b; N=1; fi\nserve $M $N"
    (command,) = run(script)
    assert command.words[1].undefined == ("M",)
    assert command.words[2].text == "1"


def test_a_maybe_assignment_makes_a_variable_unknown():
    (command,) = run('A=1; [ -n "$NOBODY" ] && A=2; a $A')
    assert command.words[1].undefined == ("A",)


def test_undefined_variables_are_said_and_kept():
    (command,) = run("vllm serve $MODEL --x=${Y}")
    assert [word.undefined for word in command.words] == [(), (), ("MODEL",), ("Y",)]


def test_lines():
    (command,) = run("\n\na \\\n  b\\\n c")
    assert [word.line for word in command.words] == [3, 4, 5]


@pytest.mark.parametrize("script", ["a 'b", 'a "b', "a `b", "a $(b", "a ${b", 'vllm serve "x\ny'])
def test_what_never_closes_is_an_error_with_a_line(script):
    with pytest.raises(ShellError) as caught:
        run("\n" + script)
    assert caught.value.line == 2
    assert "never closed" in caught.value.problem


def test_endless_scripts_end():
    assert texts("while true; do a; done") == [["a"]]
    with pytest.raises(ShellError):
        run("f() { f; f; }; f")
    doubled = "A=xxxxxxxxxx\n" + "A=$A$A\n" * 40 + "a $A"
    assert len(run(doubled)[0].words[1].text) < 1_000_000


def test_nothing_is_executed(tmp_path):
    mark = tmp_path / "mark"
    run(f"touch {mark}; $(touch {mark}); `touch {mark}`; eval 'touch {mark}'; bash -c 'touch {mark}'")
    assert not mark.exists()
    assert "KVPLAN_TEST_MARK" not in os.environ


@given(st.text(alphabet="ab$'\"{}()[]|&;<>\\\n #=`!*@-:+?0 ifdonecas", max_size=60))
def test_any_text_is_read_or_refused(script):
    try:
        run(script)
    except ShellError as error:
        assert error.problem


def test_compose_replaces_before_it_splits():
    text = Text("--a ${X:+--b ${X}} --c '$${X}' ${Y:-1 2}")
    text.line = 3
    words = interpolated_words(text, {"X": Word("x y")})
    assert [word.text for word in words] == ["--a", "--b", "x", "y", "--c", "${X}", "1", "2"]
    assert interpolated(Text("$$A ${B}"), {"B": Word("b")}).text == "$A b"
