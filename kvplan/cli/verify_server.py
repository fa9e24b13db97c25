"""``kvplan verify --url``: a running server against the plan, and how full its cache is."""

from kvplan.cli.outcome import Outcome, Output
from kvplan.cli.question import Asked
from kvplan.cli.verify_allocation import subject
from kvplan.cli.verify_log import planned_against
from kvplan.engines.base import Notice
from kvplan.report.verify_answer import VerifyAnswer
from kvplan.verify.comparison import EXIT_CODES, outcome
from kvplan.verify.http import Server
from kvplan.verify.log_comparison import explain, scope_of
from kvplan.verify.server import ask
from kvplan.verify.server_comparison import compare_server, facts_of


def answer(asked: Asked, url: str, output: Output, *, keep: bool = False) -> Outcome:
    """Ask the server, plan what it was asked, compare; ``keep`` saves what its pool tells.

    Raises CannotTell when the server cannot be reached or is none that kvplan knows.
    """
    server = Server(url)
    readings = ask(server, asked.model)
    result, replan = planned_against(asked, readings, needs_gpu=False)
    rows = compare_server(result, readings, replan)
    reached = outcome(rows)
    notices: tuple[Notice, ...] = ()
    facts = facts_of(result, readings, replan)
    if keep:
        from kvplan.cli.verify_save import keep_server

        facts["saved_in"] = str(keep_server(asked, result, readings, replan))
        scope = ", ".join(f"{name} {value}" for name, value in scope_of(result))
        if scope:
            text = f"saved for {scope}: name the server's own flags after -- where they differ"
            notices = (Notice("saved-scope", text),)
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
