"""``kvplan verify --url``: a running server against the plan, and how full its cache is."""

import os

from kvplan.cli.asked import Asked
from kvplan.cli.outcome import Outcome, Output
from kvplan.cli.verify_allocation import subject
from kvplan.cli.verify_log import planned_against
from kvplan.engines.base import Notice
from kvplan.report.verify_answer import VerifyAnswer
from kvplan.verify.comparison import EXIT_CODES, outcome
from kvplan.verify.http import Server
from kvplan.verify.log_comparison import explain
from kvplan.verify.log_question import slots_may_be_automatic
from kvplan.verify.measurements import scope_of
from kvplan.verify.server import ask
from kvplan.verify.server_comparison import compare_server, facts_of

# With one of these the command says itself how the slots lie.
SLOT_FLAGS = frozenset(("-np", "--parallel", "-kvu", "--kv-unified", "-no-kvu", "--no-kv-unified"))


def answer(
    asked: Asked, url: str, output: Output, *, api_key: str | None = None, keep: bool = False
) -> Outcome:
    """Ask the server, plan what it was asked, compare; ``keep`` saves what its pool tells.

    ``api_key`` (else KVPLAN_API_KEY) is sent to that address alone.

    Raises CannotTell when the server cannot be reached or is none that kvplan knows.
    """
    key = os.environ.get("KVPLAN_API_KEY", "") if api_key is None else api_key
    server = Server(url, api_key=key.strip())
    readings = ask(server, asked.model)
    result, replan = planned_against(asked, readings, needs_gpu=False)
    rows = compare_server(result, readings, replan)
    reached = outcome(rows)
    notices: tuple[Notice, ...] = ()
    if slots_may_be_automatic(readings) and not SLOT_FLAGS.intersection(asked.engine_words):
        text = (
            "four slots are read as one shared cache, as llama-server makes them by itself; started with "
            "-np 4 it holds four times as much: say so after --, -- -np 4"
        )
        notices = (Notice("slots-may-be-apart", text),)
    facts = facts_of(result, readings, replan)
    if keep:
        from kvplan.cli.verify_save import keep_server

        facts["saved_in"] = str(keep_server(asked, result, readings, replan))
        scope = ", ".join(f"{name} {value}" for name, value in scope_of(result))
        if scope:
            text = f"saved for {scope}: name the server's own flags after -- where they differ"
            notices = (*notices, Notice("saved-scope", text))
    return Outcome(
        EXIT_CODES[reached],
        VerifyAnswer(
            mode="server",
            subject=subject(result, f"against {server.base}"),
            outcome=reached,
            exit_code=EXIT_CODES[reached],
            rows=rows,
            plan=result,
            explanation=explain(rows, readings),
            facts=facts,
            warnings=(*result.warnings, *notices),
        ),
        output,
    )
