"""What Typer complains of, in kvplan's three lines, as its releases have worded it."""

import pytest

from kvplan.cli.app import COMMANDS
from kvplan.cli.usage import EXAMPLES, usage_error


@pytest.mark.parametrize(
    ("said", "words", "what", "why"),
    [
        ("Missing argument 'MODEL'.", "fit", "kvplan fit needs MODEL", "no word stands in its place"),
        (
            "No such option: --ctxx (Possible options: --ctx)",
            "fit",
            "--ctxx is not an",
            "did you mean: --ctx?",
        ),
        ("No such option: --ctxx Did you mean --ctx?", "fit", "--ctxx is not", "did you mean: --ctx?"),
        ("No such option: --zz", "fit", "--zz is not an option of kvplan fit", "its help lists those"),
        ("Got unexpected extra argument (b)", "show a b", "kvplan show has no place for 'b'", "one too many"),
        ("Option '--ctx' requires an argument.", "fit a --ctx", "--ctx has no value", "the word behind it"),
        ("Option '--strict' does not take a value.", "fit a --strict=1", "--strict takes no value", "switch"),
        (
            "Invalid value for '--tp': Input should be greater than or equal to 1",
            "fit a --tp 0",
            "--tp cannot be '0'",
            "it takes 1 or more",
        ),
        (
            "Invalid value for '--tp': 0 is not in the range 1<=x<=4096.",
            "fit a --tp=0",
            "--tp cannot be '0'",
            "it takes 1 to 4,096",
        ),
        (
            "Invalid value for '--top': 'x' is not a valid integer.",
            "find --top x",
            "--top cannot be 'x'",
            "it takes a whole number",
        ),
        ("Something new.", "fit", "Something new.", "the words must match"),
    ],
)
def test_complaints_in_words(said, words, what, why):
    error = usage_error(f"Usage: kvplan\n\nError: {said}\n", words.split(), tuple(COMMANDS))
    assert what in error.message
    assert why in error.why
    assert f"kvplan {words.split()[0]}" in error.hint


def test_every_command_has_an_example_of_itself():
    assert set(EXAMPLES) == set(COMMANDS)
    assert all(example.split()[:2] == ["kvplan", name] for name, example in EXAMPLES.items())
