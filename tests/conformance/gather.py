"""All that the page says: records, outcomes, and what this machine can tell."""

import datetime
import gzip
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import tempfile
import threading
import time

import outcomes
import page

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Note on the commit and the time at which the run began.
BEGIN = "begin.json"

# Programs that stand around the sidecar in tests/real: name, command, and the version in the command's output.
PROGRAMS = [
    ("nginx", ["nginx", "-v"], r"nginx/(\S+)"),
    ("Apache", ["apache2", "-v"], r"Apache/(\S+)"),
    ("Envoy", ["envoy", "--version"], r"/(\d+\.\d+\.\d+)/"),
    ("HAProxy", ["haproxy", "-v"], r"version (\S+)"),
    ("Caddy", ["caddy", "version"], r"^v(\S+)"),
    ("Varnish", ["varnishd", "-V"], r"varnish-(\S+)"),
    ("Redis", ["redis-server", "--version"], r"v=(\S+)"),
    ("Redis, the oldest", ["redis-server-6.2", "--version"], r"v=(\S+)"),
    ("Chromium", ["chromium", "--version"], r"Chromium (\S+)"),
    ("Firefox", ["firefox-esr", "--version"], r"Firefox (\S+)"),
    ("Node.js", ["node", "--version"], r"v(\S+)"),
    ("ws, of Node.js", ["node", "-p", "require('/usr/share/nodejs/ws/package').version"], r"^(\d\S*)"),
    ("gunicorn", ["gunicorn", "--version"], r"version ([^\s)]+)"),
    ("grpcio", ["/usr/bin/python3", "-c", "import grpc; print(grpc.__version__)"], r"^(\d\S*)"),
    ("PHP", ["sh", "-c", "exec $(ls /usr/sbin/php-fpm[0-9]* | tail -n 1) -v"], r"PHP (\S+)"),
    # It prints no version; the interpreter in its first line knows.
    ("sslyze", ["sh", "-c", "$(sed -n '1s/^#!//p' \"$(command -v sslyze)\") -m pip show sslyze"], r"Version: (\S+)"),
    ("OpenSSL", ["openssl", "version"], r"OpenSSL (\S+)"),
    ("Prometheus", ["prometheus", "--version"], r"version (\S+)"),
    ("kubectl", ["kubectl", "version", "--client"], r"Client Version: v(\S+)"),
    ("Helm", ["helm", "version", "--short"], r"v(\d[^\s+]*)"),
    ("buildah", ["buildah", "--version"], r"version (\S+)"),
    ("runc", ["runc", "--version"], r"version (\S+)"),
]

# Files of the package for pages that a page loads.
LOADED = ["index.js", "sha256.js"]


def everything(folder, binary):
    records = read_records(folder / "records.jsonl")
    logs = [log.read_text(errors="replace") for log in sorted(folder.glob("*.log"))]
    results = outcomes.read(logs, records)
    threats = read_threats((ROOT / "docs/security.md").read_text())
    named = {test for threat in threats for test in threat["tests"]}
    named.update(test for section in page.SECTIONS for test in section.tests)
    kept = {test: word for test, word in results.items() if named & set(test.split("::")) or word != outcomes.PASSED}
    words = list(results.values())
    cases = take_framing(records)
    return {
        "about": {**about_run(folder / BEGIN), "unread_outcomes": outcomes.unread(logs)},
        "totals": {word: words.count(word) for word in outcomes.WORST_FIRST},
        "outcomes": kept,
        "threats": threats,
        "records": sorted(records, key=lambda record: json.dumps(record, sort_keys=True)),
        "framing": cases,
        "advisories": read_advisories(folder / "advisories.txt"),
        "sizes": measure(binary),
        "machine": machine(),
        "programs": [[name, version(command, pattern)] for name, command, pattern in PROGRAMS],
    }


def read_records(file):
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def take_framing(records):
    """Takes the single cases out of the records of framing, which keep their numbers. Returns, for each case, what must
    come of it, and for each app whether it came for a trusted and for an untrusted peer."""
    cases = {}
    for record in records:
        if record["section"] == "framing":
            figures = record["figures"]
            played = figures.pop("cases")
            figures["played"] = len(played)
            figures["failed"] = sum(not result["passed"] for result in played.values())
            peer = "trusted" if figures["trusted"] else "untrusted"
            for name, result in played.items():
                case = cases.setdefault(name, {"expected": result["expected"], "apps": {}})
                app = case["apps"].setdefault(record["name"], {})
                # A case that is played again does not mend what failed before.
                app[peer] = app.get(peer, True) and result["passed"]
                if result["expected"] != case["expected"]:
                    app["expected"] = result["expected"]
    return cases


def read_threats(text):
    """Returns the rows of the table in docs/security.md."""
    rows = []
    for line in text.splitlines():
        if line.startswith("| T"):
            row, threat, defence, tests, _ = (part.strip() for part in line.strip("|").split(" | "))
            rows.append({"row": row, "threat": threat, "defence": defence, "tests": re.findall(r"`(\w+)`", tests)})
    return rows


def output(command, **options):
    """Returns what a command prints, or None if it fails or is not there."""
    try:
        # The version of some programs stands on stderr.
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=True, **options
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def version(command, pattern):
    found = re.search(pattern, output(command) or "")
    return found[1] if found else None


def git(*arguments):
    # In a container, the checkout may belong to another user, which git refuses otherwise.
    return output(["git", "-c", "safe.directory=*", *arguments], cwd=ROOT)


def about_run(begin):
    """Returns what was true when the run began, and whether the checkout is still the same. A commit that is looked up
    at the end need not be the one that was tested."""
    now = about()
    begun = json.loads(begin.read_text()) if begin.exists() else None
    checked_out = "not known" if begun is None else "the same" if begun["tree"] == now["tree"] else "changed"
    return {**(begun or now), "begun": begun and begun["date"], "date": now["date"], "checkout": checked_out}


def about():
    # The page itself is written before it is committed.
    own = ["--", ".", ":(exclude)docs/conformance.md", ":(exclude)docs/conformance.json"]
    changed = git("status", "--porcelain", *own)
    content = (git("rev-parse", "HEAD"), changed, git("diff", "HEAD", *own))
    manifest = (ROOT / "Cargo.toml").read_text()
    return {
        "version": re.search(r'^version = "(.*)"', manifest, re.MULTILINE)[1],
        "commit": content[0],
        "tree": hashlib.sha256(repr(content).encode()).hexdigest()[:16],
        "changed_files": None if changed is None else len(changed.splitlines()),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "long": "VELT_SIDECAR_LONG" in os.environ,
    }


def read_advisories(file):
    """Returns what tests/run noted: a line `status: ...`, a line `database: ...`, and what cargo-deny printed."""
    if not file.exists():
        return {}
    lines = file.read_text(errors="replace").splitlines()
    heads = dict(line.split(": ", 1) for line in lines[:2] if ": " in line)
    return {
        "status": heads.get("status", "unknown"),
        "database": heads.get("database", "unknown"),
        "last_line": next((line for line in reversed(lines[2:]) if line.strip()), ""),
        "cargo_deny": version(["cargo", "deny", "--version"], r"cargo-deny (\S+)"),
    }


def first_match(file, pattern):
    try:
        found = re.search(pattern, pathlib.Path(file).read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1] if found else None


def machine():
    memory = first_match("/proc/meminfo", r"^MemTotal: +(\d+) kB")
    return {
        "processor": first_match("/proc/cpuinfo", r"^model name\s*: (.*)$") or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        # Of the fifteen minutes before the page, in which the tests themselves ran.
        "load": round(os.getloadavg()[2], 1),
        "governor": first_match("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", r"(\w+)"),
        "memory_mib": int(memory) // 1024 if memory else None,
        "system": first_match("/etc/os-release", r'^PRETTY_NAME="(.*)"'),
        "kernel": f"{platform.system()} {platform.release()}",
        "compiler": output(["rustc", "--version"]),
    }


def measure(binary):
    """Returns name, value and unit of each size. A value that can't be measured is None."""
    sizes = []
    for name in LOADED:
        content = (ROOT / "frontend/dist" / name).read_bytes()
        sizes.append([f"package for pages: {name}", len(content), "bytes"])
        sizes.append([f"package for pages: {name}, after gzip -9", len(gzip.compress(content, 9, mtime=0)), "bytes"])
    released = binary is not None and binary.is_file()
    sizes.append(["released binary", binary.stat().st_size if released else None, "bytes"])
    sizes.append(["files of the image, not compressed", image(binary) if released else None, "bytes"])
    sizes.extend(packages(binary) if released else [["packages", None, "bytes"]])
    resident, proportional = idle(binary) if released else (None, None)
    sizes.append(["idle memory, resident", resident, "KiB"])
    sizes.append(["idle memory, proportional", proportional, "KiB"])
    return sizes


def image(binary):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder, "root")
        if output([str(ROOT / "deploy/rootfs"), str(binary.resolve()), str(root)], cwd=ROOT) is None:
            return None
        return sum(file.lstat().st_size for file in root.rglob("*") if file.is_file() and not file.is_symlink())


def packages(binary):
    script = ROOT / "deploy/package"
    if not script.exists():
        return [["packages (.deb, archive)", None, "bytes"]]
    with tempfile.TemporaryDirectory() as folder:
        if output([str(script), str(binary.resolve()), folder], cwd=ROOT) is None:
            return [["packages (.deb, archive)", None, "bytes"]]
        files = sorted(file for file in pathlib.Path(folder).iterdir() if file.name != "SHA256SUMS")
        return [[file.name, file.stat().st_size, "bytes"] for file in files]


def idle(binary):
    """Starts the binary, and returns its resident and its proportional memory in KiB when it has nothing to do."""
    settings = {
        "VELT_API_KEY": "key",
        "VELT_AUTH_TOKEN": "token",
        "VELT_SIDECAR_LISTEN__ADDRESS": "127.0.0.1:0",
        "VELT_SIDECAR_ADMIN__ADDRESS": "127.0.0.1:0",
        "VELT_SIDECAR_APP__ADDRESS": "127.0.0.1:9",
    }
    started = subprocess.Popen([binary.resolve()], env=settings, cwd="/", stderr=subprocess.PIPE, text=True)
    # Ends the wait for a sidecar that neither listens nor ends.
    limit = threading.Timer(30, started.kill)
    limit.start()
    try:
        if not any("velt-sidecar is listening" in line for line in started.stderr):
            return None, None
        # No event tells that a process has come to rest.
        time.sleep(3)
        rollup = f"/proc/{started.pid}/smaps_rollup"
        found = [first_match(rollup, rf"^{name}: +(\d+) kB") for name in ("Rss", "Pss")]
        return tuple(int(kib) if kib else None for kib in found)
    finally:
        limit.cancel()
        started.terminate()
        started.wait()
