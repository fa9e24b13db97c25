"""A check as JUnit XML, the form that CI systems show as test results.

One suite a file, one case an engine. What fails is a failure, a file that cannot be read an error,
what cannot be told is skipped with its reason.
"""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

from kvplan.deploy.rows import CheckResult, Row
from kvplan.report.answer import Screen
from kvplan.report.check_answer import CheckAnswer
from kvplan.report.check_wording import engine_name, message, shared_message, verdict_word, where

# Characters that XML 1.0 has no way to write.
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(answer: CheckAnswer, screen: Screen) -> str:  # noqa: ARG001 - every format takes the screen
    """Write one test suite a file."""
    root = ElementTree.Element("testsuites", name="kvplan check")
    for file in _files(answer.result):
        root.append(_suite(file, answer.result))
    for name in ("tests", "failures", "errors", "skipped"):
        total = sum(int(suite.get(name, "0")) for suite in root)
        if name != "skipped":
            root.set(name, str(total))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _files(result: CheckResult) -> Iterable[str]:
    names = [row.at.file for row in result.rows] + [item.at.file for item in result.problems]
    return dict.fromkeys([*names, *(item.file for item in result.shared)])


def _suite(file: str, result: CheckResult) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_clean(file))
    for row in result.rows:
        if row.at.file == file:
            suite.append(_case(file, row))
    for item in result.shared:
        if item.file == file:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_clean(file),
                name=_clean(f"GPU {item.index} of {item.group}"),
                time="0",
            )
            if item.exit_code:
                kind = "failure" if item.exit_code == 1 else "skipped"
                ElementTree.SubElement(case, kind, message=_clean(shared_message(item)))
    for problem in result.problems:
        if problem.at.file == file:
            case = ElementTree.SubElement(suite, "testcase", classname=_clean(file), name="file", time="0")
            error = ElementTree.SubElement(case, "error", message=_clean(problem.message), type="unreadable")
            error.text = _clean(f"{problem.at}: {problem.message}")
    suite.set("tests", str(len(suite)))
    for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("time", "0")
    return suite


def _case(file: str, row: Row) -> ElementTree.Element:
    name = f"{row.name} ({engine_name(row)})" if row.engine else row.name
    case = ElementTree.Element("testcase", classname=_clean(file), name=_clean(name), time="0")
    if row.exit_code == 1:
        failure = ElementTree.SubElement(
            case, "failure", message=_clean(message(row)), type=verdict_word(row)
        )
        failure.text = _clean(f"{where(row)}: {message(row)}")
    elif row.status == "unknown":
        ElementTree.SubElement(case, "skipped", message=_clean(message(row)))
    else:
        output = ElementTree.SubElement(case, "system-out")
        output.text = _clean(message(row))
    return case


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
