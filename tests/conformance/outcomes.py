"""Outcomes of tests, from the output of `cargo test`."""

import re

PASSED, FAILED, LEFT_OUT, NOT_RUN = "passed", "failed", "left out", "not run"

# Where a test ran several times, the first of these words counts.
WORST_FIRST = [FAILED, LEFT_OUT, PASSED]

# What the runner prints: at the start of a program, for each test, before the output of tests, and at the end. Text
# behind a word is a test's own, so that the word may be too.
START = re.compile(r"running (\d+) tests?$")
LINE = re.compile(r"test (?P<test>\S+)(?: - should panic)? \.\.\. (?:(?P<word>ok|FAILED)|(?P<left>ignored)(?:, .*)?)$")
UNENDED = re.compile(r"test (\S+)(?: - should panic)? \.\.\. ")
OUTPUT = re.compile(r"(failures|successes):$")
FAILURE = re.compile(r"    (\S+)$")
TOTAL = re.compile(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
WORDS = {"ok": PASSED, "FAILED": FAILED, "ignored": LEFT_OUT}


class Program:
    """What a test program has told: the outcome of each test, and its own count of outcomes, if it came to its end."""

    def __init__(self, size):
        self.size = size
        self.told = {}
        self.unended = set()
        self.failures = []
        self.counts = None

    def take(self, line):
        """Takes a line while the program tells outcomes."""
        found, unended = LINE.match(line), UNENDED.match(line)
        if found:
            note(self.told, found["test"], WORDS[found["word"] or found["left"]])
        elif unended:
            self.unended.add(unended[1])

    def outcomes(self):
        """Returns the outcome of each test. The list of failures at the end counts more than the lines."""
        return {**self.told, **dict.fromkeys(self.failures, FAILED)}

    def unread(self):
        """Returns the number of tests whose outcome no line tells, or of lines that are another program's."""
        outcomes = self.outcomes()
        if self.counts is None:
            return max(self.size - len(outcomes), 1)
        words = list(outcomes.values())
        differences = [abs(words.count(word) - count) for word, count in self.counts.items()]
        return max(sum(differences), len(self.unended - outcomes.keys()))


def programs(log):
    """Returns the test programs whose output is in a log. A line that looks like an outcome counts only while a program
    tells outcomes: afterwards comes what its tests have printed, and then the list of failures."""
    found, part = [], None
    for line in COLOUR.sub("", log).splitlines():
        start, output, total = START.match(line), OUTPUT.match(line), TOTAL.match(line)
        if start:
            found.append(Program(int(start[1])))
            part = "outcomes"
        elif part is None:
            continue
        elif total:
            found[-1].counts = dict(zip((PASSED, FAILED, LEFT_OUT), map(int, total.groups())))
            part = None
        elif output:
            found[-1].failures = []
            part = output[1]
        elif part == "outcomes":
            found[-1].take(line)
        elif part == "failures" and (failure := FAILURE.match(line)):
            found[-1].failures.append(failure[1])
    return found


def read(logs, records):
    """Returns the outcome of each test. A test that says that it is left out has passed by the runner's word, and is
    left out by its own."""
    outcomes = {}
    for log in logs:
        for program in programs(log):
            for test, outcome in program.outcomes().items():
                note(outcomes, test, outcome)
    for record in records:
        if record["section"] == "left_out":
            note(outcomes, record["test"], LEFT_OUT)
    return outcomes


def unread(logs):
    """Returns the number of outcomes that can't be read: the output of a test stands within the line, the program
    crashed, or a test has printed a line that looks like an outcome."""
    return sum(program.unread() for log in logs for program in programs(log))


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
