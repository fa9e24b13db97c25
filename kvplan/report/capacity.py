"""Capacity for people: the GPUs and their condition first, then allocation, load, and the context."""

from kvplan.report import sheet
from kvplan.report.answer import Screen
from kvplan.report.capacity_answer import CapacityAnswer
from kvplan.report.capacity_json import records
from kvplan.report.capacity_sentences import head, notes
from kvplan.report.capacity_tables import tables
from kvplan.report.sheet import Sheet


def table(answer: CapacityAnswer, screen: Screen) -> str:
    """Draw the tables."""
    return sheet.table(_sheet(answer), screen)


def plain(answer: CapacityAnswer, screen: Screen) -> str:
    """Write tab-separated rows."""
    return sheet.plain(_sheet(answer), screen)


def markdown(answer: CapacityAnswer, screen: Screen) -> str:
    """Write pipe tables."""
    return sheet.markdown(_sheet(answer), screen)


def csv(answer: CapacityAnswer, screen: Screen) -> str:
    """Write one record a fleet, or a policy where no sessions were asked."""
    return sheet.csv(_sheet(answer), screen)


def _sheet(answer: CapacityAnswer) -> Sheet:
    return Sheet(tuple(head(answer)), tuple(tables(answer)), tuple(notes(answer)), tuple(records(answer)))
