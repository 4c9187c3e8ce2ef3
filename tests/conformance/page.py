"""The page. The same run gives the same bytes: what the page says comes from conformance.json alone."""

import collections
import re

import outcomes
from sections import FRAMING, SECTIONS, WORDS

ABSENT = "not measured in this run"

INTRODUCTION = """\
# Conformance

After this page you can decide whether the sidecar may stand in front of your app: it says what was tried on one commit,
with which result, and the command that repeats each part.

A command writes this page after the tests ([Repeat it](#repeat-it)), and no figure is entered by hand. Where a part did
not run, the page says so. The figures are those of the commit below, and not of a newer one.
"""

LIMITS = """\
## What this page does not show

- Velt is a stand-in that runs beside the tests: no test calls the real Velt, which would need an account.
- All programs share one machine and its loopback. There is no real network.
- Times depend on what else the machine did: the tests run side by side, and its load is [below](#the-machine).
- The tests run a build without optimization, except where a line says otherwise. Its memory and its times are larger
  than those of the released binary: compare the three memories of a flood with each other. Times and CPU of the
  released binary, next to other proxies, are in [performance.md](performance.md).
- For HTTP/2 no test suite of another project was run, as Autobahn is for WebSocket: its frames are among the framing
  cases and the floods.
- Passed means that a test looked for the fault and did not find it. What is left of each threat is in
  [security.md](security.md).
"""

REPEAT = """\
## Repeat it

On Debian, in a checkout of the commit, as root or with sudo:

```sh
VELT_SIDECAR_RECORDS=/tmp/records tests/run           # installs the programs, runs all tests, writes this page anew
VELT_SIDECAR_RECORDS=/tmp/records tests/run --long    # the same at full size
```

The folder must not exist, or be empty. One part alone is repeated by the command at its end, after `tests/run` has
installed the programs, with `PATH=$HOME/.cache/velt-sidecar/tools/bin:$PATH:/usr/sbin`.
"""


def cell(text):
    """Returns any text as the text of a table's cell. Marks of Markdown and HTML are written as entities, which no
    character before them can undo."""
    text = " ".join(str(text).split())
    text = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    # An underscore within a word is no mark.
    text = re.sub(r"[&<>|`*~\[\]\\@#$]|(?<![^\W_])_|_(?![^\W_])", lambda mark: f"&#{ord(mark[0])};", text)
    # Nor does an address become a link.
    return re.sub(r"(?i)(https?|ftp)://|www\.", lambda start: start[0][:-1] + f"&#{ord(start[0][-1])};", text)


def code(text):
    return f"`{text}`" if re.fullmatch(r"[\w:./-]+", text) else cell(text)


def table(heads, rows):
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines.extend(f"| {' | '.join(cells)} |" for cells in rows)
    return "\n".join(lines) + "\n"


def number(value):
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}"
    if isinstance(value, list):
        return cell(", ".join(map(str, value))) or "none"
    return cell(WORDS.get(value, value) if isinstance(value, str) else value)


def mark(outcome):
    return outcome if outcome == outcomes.PASSED else f"**{outcome}**"


def verdict(run, functions):
    """Returns the outcomes of several tests in one cell."""
    by_outcome = collections.defaultdict(list)
    for function in functions:
        by_outcome[outcomes.together(run["outcomes"], function)].append(function)
    parts = []
    for outcome in [*outcomes.WORST_FIRST, outcomes.NOT_RUN]:
        names = by_outcome[outcome]
        if names and outcome == outcomes.PASSED:
            parts.append(f"{len(names)} passed")
        elif names:
            parts.append(f"**{len(names)} {outcome}**: " + ", ".join(map(code, names)))
    return "; ".join(parts) or "none"


def records_of(run, part):
    found = [record for record in run["records"] if record["section"] == part.records]
    return sorted(found, key=in_order)


def in_order(record):
    """Returns a key: the name, and then the figures that are words, as who asks and who answers."""
    words = sorted((key, word) for key, word in record["figures"].items() if isinstance(word, str))
    return by_number(record["name"]), words


def section(run, part):
    records = records_of(run, part)
    heads = [part.name, *(column.head for column in part.columns), "test"]
    rows = []
    for record in records:
        figures = [number(record["figures"].get(column.key)) for column in part.columns]
        name = part.names.get(record["name"], record["name"])
        rows.append([cell(name), *figures, mark(run["outcomes"].get(record["test"], outcomes.NOT_RUN))])
    lines = [f"### {part.title}\n", part.text]
    lines.append(table(heads, rows) if rows else f"**{ABSENT.capitalize()}.**\n")
    lines.append(tests_of(run, part, records))
    return "\n".join(lines)


def tests_of(run, part, records):
    """Returns a line on each test of a section that is not in the table, and one on how to repeat the section."""
    measured = {function for record in records for function in record["test"].split("::")}
    lines = []
    for function in part.tests:
        outcome = outcomes.together(run["outcomes"], function)
        if outcome != outcomes.PASSED or function not in measured:
            rest = "" if function in measured else f", {ABSENT}"
            lines.append(f"- {code(function)}: {mark(outcome)}{rest}{reason(run, function)}\n")
    return "".join(lines) + ("\n" if lines else "") + f"Repeat: `{part.repeat}`\n"


def reason(run, function):
    said = {
        record["name"]
        for record in run["records"]
        if record["section"] == "left_out" and function in record["test"].split("::")
    }
    return "".join(f": {cell(text)}" for text in sorted(said))


def threats(run):
    # Threat and defence are Markdown already, with links to headings of docs/security.md.
    rows = [
        [
            threat["row"],
            *(threat[part].replace("](#", "](security.md#") for part in ("threat", "defence")),
            ", ".join(map(code, threat["tests"])) or "none",
            verdict(run, threat["tests"]),
        ]
        for threat in run["threats"]
    ]
    return (
        "## Threats\n\nThe table of [security.md](security.md#the-table), with the outcome of each test of a row.\n\n"
        + table(["row", "threat", "defence", "tests", "result"], rows)
        + "\nRepeat: `cargo test --locked NAME`, with the name of a test\n"
    )


def framing(run):
    records = records_of(run, FRAMING)
    apps = sorted({record["name"] for record in records})
    rows = []
    for name in sorted(run["framing"], key=by_number):
        case = run["framing"][name]
        results = [framing_cell(case["apps"].get(app)) for app in apps]
        rows.append([cell(name), cell(case["expected"]), *results])
    counts = []
    for record in records:
        figures = record["figures"]
        peer = "trusted" if figures["trusted"] else "untrusted"
        outcome = mark(run["outcomes"].get(record["test"], outcomes.NOT_RUN))
        counts.append([cell(record["name"]), peer, number(figures["played"]), number(figures["failed"]), outcome])
    lines = ["## Framing cases for each app server\n", FRAMING.text]
    if rows:
        lines.append(table(["app", "peer", "cases played", "failed", "test"], counts))
        lines.append(table(["case", "what must come of it", *map(cell, apps)], rows))
    else:
        lines.append(f"**{ABSENT.capitalize()}.**\n")
    lines.append(tests_of(run, FRAMING, records))
    return "\n".join(lines)


def by_number(text):
    """Returns a key by which T9 stands before T10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", text)]


def framing_cell(app):
    """Returns the results of a case at one app: for a trusted and for an untrusted peer, or one of them."""
    peers = [peer for peer in ("trusted", "untrusted") if peer in (app or {})]
    if not peers:
        return "not played"
    failed = [peer for peer in peers if not app[peer]]
    if failed:
        return f"**failed** ({', '.join(failed)} peer)"
    words = f"passed: {cell(app['expected'])}" if "expected" in app else "passed"
    return words if len(peers) == 2 else f"{words} ({peers[0]} peer)"


def advisories(run):
    found = run["advisories"]
    lines = ["## Advisories on the day\n"]
    if not found:
        lines.append(f"**{ABSENT.capitalize()}.**\n")
    else:
        rows = [
            ["result", mark(cell(found["status"]))],
            ["last change of the database", cell(found["database"])],
            ["last line of cargo-deny", cell(found["last_line"]) or "–"],
            ["cargo-deny", cell(found["cargo_deny"] or "not found")],
        ]
        lines.append("All dependencies in `Cargo.lock`, against the RustSec database.\n")
        lines.append(table(["", "value"], rows))
    lines.append("Repeat: `cargo deny --locked check advisories`\n")
    return "\n".join(lines)


def sizes(run):
    rows = [
        [cell(name), ABSENT if value is None else f"{value:,} {unit}"]
        for name, value, unit in run["sizes"]
    ]
    return (
        "## Sizes\n\nThe binary is built by `cargo build --release --locked`. Idle memory is that of the binary,\n"
        "three seconds after its start and without a request.\n\n"
        + table(["", "value"], rows)
        + "\nRepeat: `tests/conformance/run FOLDER --binary target/release/velt-sidecar`\n"
    )


def machine(run):
    found = run["machine"]
    memory = found["memory_mib"]
    rows = [
        ["processor", found["processor"]],
        ["architecture", found["architecture"]],
        ["cores that the tests may use", found["cores"]],
        ["load, tests included", found["load"]],
        ["frequency governor", found["governor"]],
        ["memory", None if memory is None else f"{memory:,} MiB"],
        ["system", found["system"]],
        ["kernel", found["kernel"]],
        ["compiler", found["compiler"]],
    ]
    programs = [[cell(name), cell(version or "not found")] for name, version in run["programs"]]
    return (
        "## The machine\n\n"
        + table(["", "value"], [[name, cell("not known" if value is None else value)] for name, value in rows])
        + "\nReal programs around the sidecar, and the version that each of them prints:\n\n"
        + table(["program", "version"], programs)
    )


def about(run):
    found, totals = run["about"], run["totals"]
    commit = found["commit"] and code(found["commit"])
    changed, checkout = found["changed_files"], found["checkout"]
    if commit and changed:
        commit += f", and **{changed} changed files that are in no commit**"
    ran = sum(totals.values())
    rows = [
        ["version", cell(found["version"])],
        ["commit", commit or "**not known**"],
        ["checkout at the end of the run", checkout if checkout == "the same" else f"**{checkout}**"],
        ["begun", cell(found["begun"] or "not known")],
        ["written", cell(found["date"])],
        ["size", "full (`tests/run --long`)" if found["long"] else "normal (`tests/run`)"],
        ["tests", ", ".join(f"{totals[word]:,} {word}" for word in totals) if ran else f"**{ABSENT}**"],
    ]
    failed = sorted(test for test, outcome in run["outcomes"].items() if outcome == outcomes.FAILED)
    left_out = sorted(test for test, outcome in run["outcomes"].items() if outcome == outcomes.LEFT_OUT)
    lists = "".join(
        f"\n{head}: " + ", ".join(map(code, tests)) + "\n"
        for head, tests in [("**Failed**", failed), ("**Left out**", left_out)]
        if tests
    )
    if found["unread_outcomes"]:
        # The runner's own totals say that these tests ran, and no line says how they ended.
        lists += f"\n**Outcomes that could not be read, of tests that ran: {found['unread_outcomes']}.**\n"
    return "## The run\n\n" + table(["", "value"], rows) + lists


def glance(run):
    """Returns a table of all parts: what was tried, and what is missing."""
    rows = []
    tests = [threat["tests"] for threat in run["threats"]]
    rows.append(["[Threats](#threats)", number(len(tests)), verdict_of(run, sum(tests, []))])
    for part in [FRAMING, *SECTIONS]:
        count = sum(record["section"] == part.records for record in run["records"])
        measured = number(count) if count else f"**{ABSENT}**"
        rows.append([f"[{part.title}](#{anchor(part.title)})", measured, verdict_of(run, part.tests)])
    read = (
        "A part in which no test **failed** and whose figures were measured has been shown. What is printed in bold was not: "
        "its part below says why.\n\n"
    )
    return "## At a glance\n\n" + read + table(["part", "lines of figures", "tests"], rows)


def verdict_of(run, functions):
    words = [outcomes.together(run["outcomes"], function) for function in sorted(set(functions))]
    counted = [(word, words.count(word)) for word in [*outcomes.WORST_FIRST, outcomes.NOT_RUN]]
    return ", ".join(f"{count} {mark(word)}" for word, count in counted if count)


def anchor(heading):
    return "".join(sign for sign in heading.lower() if sign.isalnum() or sign in " -").replace(" ", "-")


def render(run):
    parts = [INTRODUCTION, about(run), glance(run), REPEAT, LIMITS, threats(run), framing(run)]
    chapter = None
    for part in SECTIONS:
        if part.chapter != chapter:
            chapter = part.chapter
            parts.append(f"## {chapter}\n")
        parts.append(section(run, part))
    parts.extend([advisories(run), sizes(run), machine(run)])
    return "\n".join(parts)
