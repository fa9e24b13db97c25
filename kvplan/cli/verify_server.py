"""``kvplan verify --url``: a running server against the plan, and how full its cache is."""

from kvplan.cli.outcome import Outcome, Output
from kvplan.cli.question import Asked
from kvplan.cli.verify_allocation import subject
from kvplan.cli.verify_log import planned_against
from kvplan.report.verify_answer import VerifyAnswer
from kvplan.verify.comparison import EXIT_CODES, outcome
from kvplan.verify.http import Server
from kvplan.verify.log_comparison import explain
from kvplan.verify.server import ask
from kvplan.verify.server_comparison import compare_server, facts_of


def answer(asked: Asked, url: str, output: Output) -> Outcome:
    """Ask the server, plan what it was asked, compare.

    Raises CannotTell when the server cannot be reached or is none that kvplan knows.
    """
    server = Server(url)
    readings = ask(server, asked.model)
    result, replan = planned_against(asked, readings, needs_gpu=False)
    rows = compare_server(result, readings, replan)
    reached = outcome(rows)
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
            facts=facts_of(result, readings, replan),
            warnings=result.warnings,
        ),
        output,
    )
