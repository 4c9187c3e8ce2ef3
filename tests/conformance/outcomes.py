"""Outcomes of tests, from the output of `cargo test`."""

import re

PASSED, FAILED, LEFT_OUT, NOT_RUN = "passed", "failed", "left out", "not run"

# Where a test ran several times, the first of these words counts.
WORST_FIRST = [FAILED, LEFT_OUT, PASSED]

LINE = re.compile(r"^test (?P<test>\S+)(?: - should panic)? \.\.\. (?P<word>ok|FAILED|ignored)\b")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WORDS = {"ok": PASSED, "FAILED": FAILED, "ignored": LEFT_OUT}
TOTAL = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", re.MULTILINE)


def read(logs, records):
    """Returns the outcome of each test. A test that says that it is left out has passed by the runner's word, and is
    left out by its own."""
    outcomes = {}
    for log in logs:
        for line in COLOUR.sub("", log).splitlines():
            found = LINE.match(line)
            if found:
                note(outcomes, found["test"], WORDS[found["word"]])
    for record in records:
        if record["section"] == "left_out":
            note(outcomes, record["test"], LEFT_OUT)
    return outcomes


def unread(logs):
    """Returns the number of outcomes that the runner has counted and that no line tells, because the output of a test
    stands within the line."""
    lines = sum(bool(LINE.match(line)) for log in logs for line in COLOUR.sub("", log).splitlines())
    counted = sum(int(count) for log in logs for counts in TOTAL.findall(COLOUR.sub("", log)) for count in counts)
    return counted - lines


def note(outcomes, test, outcome):
    known = outcomes.get(test, outcome)
    outcomes[test] = min(known, outcome, key=WORST_FIRST.index)


def of_function(outcomes, function):
    """Returns the outcome of each test that is this function, or is made of it: a function of a page's tests becomes
    a module with a test for each browser."""
    return {test: outcome for test, outcome in outcomes.items() if function in test.split("::")}


def together(outcomes, function):
    """Returns one word for all tests that are this function."""
    found = of_function(outcomes, function).values()
    return min(found, key=WORST_FIRST.index) if found else NOT_RUN
