"""The parts of the page that have records: the tests that make the records, and the columns."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Column:
    key: str
    head: str


@dataclasses.dataclass(frozen=True)
class Section:
    chapter: str
    title: str
    # Section of the records, as the tests name it.
    records: str
    text: str
    tests: list
    # Head of the first column.
    name: str
    columns: list
    # The command that repeats this part.
    repeat: str
    # Words for names of records that are names of the code.
    names: dict = dataclasses.field(default_factory=dict)


def real(tests):
    return f"cargo test --locked --test real {tests}"


def outside(tests):
    return f"cargo test --locked --test it {tests}"


# Words for figures that are words of the code.
WORDS = {
    "Http1": "HTTP/1.1",
    "Http2": "HTTP/2",
    "H2c": "HTTP/2",
    "TlsHttp1": "HTTP/1.1 over TLS",
    "TlsHttp2": "HTTP/2 over TLS",
}

REQUESTS = Column("requests", "requests")
FAILED = Column("failed", "failed")
SLOWEST = Column("slowest_ms", "slowest, ms")
MEMORY = [
    Column("before_mib", "MiB before"),
    Column("during_mib", "MiB during, at most"),
    Column("after_mib", "MiB after"),
]

SUITES = "Protocol suites"
FLOODS = "Floods, and clients that stand still"
ROLLOUTS = "Rollouts and lost requests"
VELT = "Faults of Velt"
STORE = "Faults of the shared store"

CHAPTERS = {
    "1": "1: framing",
    "2": "2: pings and pongs",
    "3": "3: reserved bits",
    "4": "4: opcodes",
    "5": "5: fragmentation",
    "6": "6: UTF-8",
    "7": "7: closing",
    "9": "9: limits",
    "10": "10: automatic fragmentation",
    "12": "12: compression, content",
    "13": "13: compression, parameters",
}

STALLS = {
    "ClientReadsNothing": "clients read nothing of an answer",
    "ClientReadsNoFrames": "clients read nothing of their connection",
    "ClientReadsSlowly": "clients read slowly",
    "ClientSendsNothing": "clients send nothing of a body",
    "ClientSendsSlowly": "clients send slowly",
    "AppReadsNothing": "the app reads nothing of a body",
    "AppAnswersNothing": "the app does not answer",
    "AppCloses": "the app breaks its answers off",
}

ANSWERS = {
    "a bomb": "gzip that unpacks to 10 MB",
    "a page": "200 with an HTML page",
    "a redirect": "302",
    "another user's": "another user's token",
    "down": "503",
    "forbidden": "403",
    "invalid": "400",
    "late": "504",
    "nothing": "200 without a token",
    "silence": "none",
    "unknown": "404",
}

CUTS = {
    "Down": "the link goes down",
    "Silent": "packets are lost in both directions",
    "ToReplica": "packets to the replica are lost",
    "FromReplica": "packets from the replica are lost",
}

FRAMING = Section(
    chapter="",
    title="Framing cases for each app server",
    records="framing",
    text="""\
Requests of which two readers could make two different things, sent by a trusted and by an untrusted peer. After each
case, another client sends a request. A case passes if the app has read the same requests as the sidecar, or none, and
the other client's request unchanged.
""",
    tests=[
        "t12_to_t23_node_gets_only_forwarded_requests",
        "t12_to_t23_gunicorn_gets_only_forwarded_requests",
        "t12_to_t23_nginx_gets_only_forwarded_requests",
        "t12_to_t23_nginx_gets_only_forwarded_requests_over_http2",
    ],
    name="case",
    columns=[],
    repeat=real("framing::"),
)

SECTIONS = [
    Section(
        chapter=SUITES,
        title="WebSocket: the cases of Autobahn",
        records="websocket",
        text="""\
The case list of the Autobahn test suite 25.10.1, played directly and through the sidecar by a client of this project,
against `ws` on Node.js. A case passes if both ways give the same bytes, the same end and the same events at the app.
""",
        tests=["every_case_of_autobahn_ends_the_same_direct_and_through"],
        name="chapter",
        columns=[Column("cases", "cases"), FAILED],
        repeat=real("autobahn::"),
        names=CHAPTERS,
    ),
    Section(
        chapter=SUITES,
        title="gRPC: grpcio directly and through the sidecar",
        records="grpc",
        text="Calls of Python's `grpcio`. A difference is a line that client or app printed in one way only.\n",
        tests=["client_and_server_see_the_same_calls_direct_and_through"],
        name="kind of call",
        columns=[Column("calls", "calls"), Column("differences", "differences")],
        repeat=real("grpc::"),
    ),
    Section(
        chapter=SUITES,
        title="gRPC: a cancelled call",
        records="cancelled_call",
        text="The time from the client's cancel until the app knows.\n",
        tests=["a_cancelled_call_is_cancelled_at_the_app"],
        name="way",
        columns=[SLOWEST],
        repeat=real("grpc::"),
    ),
    Section(
        chapter=SUITES,
        title="TLS: sslyze",
        records="tls",
        text="""\
The scanner's complaints about the default settings. `certificate_path_validation` is about the test's certificate,
which comes from no public authority.
""",
        tests=["a_scanner_has_nothing_to_complain_of_in_the_defaults"],
        name="scan",
        columns=[Column("complaints", "complaints"), Column("vulnerable", "vulnerable")],
        repeat=real("scanner::"),
    ),
    Section(
        chapter=FLOODS,
        title="Floods",
        records="floods",
        text="""\
The sidecar is a process of its own. Its resident memory is read every ten milliseconds, and once more when all
attackers have gone; a flood fails if it takes more than the bound. Another client asks meanwhile, with a new
connection for each request; at the first of these requests that fails, the test fails and the flood has no line here.
""",
        tests=[
            "t38_t39_http1_floods_leave_other_clients_served",
            "t38_http2_floods_leave_other_clients_served",
        ],
        name="flood",
        columns=[
            Column("connections", "connections"),
            Column("seconds", "seconds"),
            Column("sent_mib", "MiB sent"),
            Column("disconnected", "disconnected"),
            *MEMORY,
            Column("bound_mib", "bound, MiB more"),
            Column("requests", "another client's requests"),
            Column("p99_ms", "p99, ms"),
        ],
        repeat=real("floods:: -- --nocapture"),
    ),
    Section(
        chapter=FLOODS,
        title="Memory of requests that stand still",
        records="standing_memory",
        text="Resident memory before the load, under it, and at most ten seconds after its end.\n",
        tests=[
            "stalled_downloads_cost_little_and_memory_returns",
            "stalled_uploads_cost_little_and_memory_returns",
            "stalled_streams_cost_little_and_memory_returns",
            "idle_connections_leave_no_memory_behind",
        ],
        name="load",
        columns=[Column("count", "how many"), *MEMORY, Column("each_kib", "KiB each")],
        repeat=real("floods::memory:: -- --nocapture"),
    ),
    Section(
        chapter=FLOODS,
        title="Ten thousand idle connections",
        records="idle_connections",
        text="""\
One connection in ten has sent a request, the others nothing. All are closed at `listen.idle_timeout`. A machine that
allows a process fewer descriptors gets fewer connections.
""",
        tests=["t38_ten_thousand_idle_connections_cost_little_and_are_closed"],
        name="load",
        columns=[
            Column("connections", "connections"),
            Column("kept_kib", "KiB each after a request"),
            Column("silent_kib", "KiB each without"),
            Column("requests", "another client's requests"),
            Column("p99_ms", "p99, ms"),
        ],
        repeat=real("ten_thousand -- --nocapture"),
    ),
    Section(
        chapter=FLOODS,
        title="A container with a memory limit",
        records="memory_limit",
        text="Stalled downloads, uploads and connections of HTTP/2, some of them with 200 large heads, all at once.\n",
        tests=["stalled_clients_leave_others_served_below_the_limit"],
        name="load",
        columns=[
            Column("limit_mib", "limit, MiB"),
            Column("during_mib", "MiB during, at most"),
            Column("downloads", "downloads"),
            Column("uploads", "uploads"),
            Column("http2_connections", "connections of HTTP/2"),
            Column("requests", "another client's requests"),
            Column("p99_ms", "p99, ms"),
        ],
        repeat=real("below_the_limit -- --nocapture"),
    ),
    Section(
        chapter=FLOODS,
        title="Others beside requests that stand still",
        records="standing_still",
        text="""\
While requests stand still in one way, other requests download, upload and ask for a token, over the same connection
where there is one (HTTP/2) and over another. If one of them is not answered, the test fails and has no lines here.
""",
        tests=[
            "unread_downloads_leave_others_served",
            "unread_connections_leave_others_served",
            "slow_downloads_leave_others_served",
            "silent_uploads_leave_others_served",
            "slow_uploads_leave_others_served",
            "uploads_unread_by_app_leave_others_served",
            "silent_app_leaves_others_served",
            "answers_broken_off_leave_others_served",
        ],
        name="what stands still",
        columns=[
            Column("standing_still", "how many"),
            Column("client", "client"),
            Column("app", "app"),
            REQUESTS,
            SLOWEST,
        ],
        repeat=outside("standing_still::"),
        names=STALLS,
    ),
    Section(
        chapter=ROLLOUTS,
        title="Pods replaced under load",
        records="rollouts",
        text="""\
Pods are replaced one by one, behind a balancer that follows their readiness, while clients ask. The line about the
shared store counts the requests after the rollout: each user must still have the token from before.
""",
        tests=[
            "a_rollout_with_native_sidecars_loses_no_request",
            "a_rollout_with_ordinary_containers_loses_no_request",
            "rollout_while_velt_is_down_leaves_every_user_a_token",
        ],
        name="rollout",
        columns=[Column("pods", "pods replaced"), REQUESTS, Column("lost", "lost")],
        repeat="cargo test --locked --test it --test real rollout",
        names={
            "AppFirst": "native sidecars: the app ends first",
            "Together": "ordinary containers: both end together",
        },
    ),
    Section(
        chapter=VELT,
        title="The app's requests while Velt fails",
        records="velt",
        text="""\
Each fault lasts until the sidecar suspends its calls; then new users ask for a page of the app. A request fails if the
app's answer does not arrive whole. Calls to Velt are those until the suspension. With a wrong certificate, the one
request waits for the mint. In the line about expired tokens, 1,000 users ask for a token at once, 16 calls run at a
time, and the clock is the test's own.
""",
        tests=[
            "t44_every_failure_of_velt_suspends_calls_after_a_few",
            "t44_refusals_suspend_calls_without_an_outage",
            "t44_a_certificate_that_is_not_velts_is_an_outage",
            "t49_a_thousand_expired_users_are_served_by_one_call_each",
        ],
        name="answer of Velt",
        columns=[Column("calls", "calls to Velt"), REQUESTS, FAILED, SLOWEST],
        repeat=outside("-- t44_ t49_"),
        names=ANSWERS,
    ),
    Section(
        chapter=STORE,
        title="Requests while the store fails",
        records="store",
        text="A real Redis and one sidecar. A request fails if its answer has no token, or another than before.\n",
        tests=[
            "store_that_fails_costs_no_request",
            "wrong_password_and_missing_rights_cost_no_request",
            "certificate_that_does_not_fit_costs_no_request",
            "server_that_speaks_nonsense_costs_no_request",
        ],
        name="the store is, or has",
        columns=[Column("users", "asked by"), REQUESTS, FAILED, SLOWEST],
        repeat=real("replicas::faults::"),
    ),
    Section(
        chapter=STORE,
        title="A replica that is cut off from the store",
        records="partitions",
        text="""\
Three sidecars in network namespaces. Requests go to the one that is cut off; the first of them that fails ends the
test. A replica has caught up when it serves no token that was forgotten during the cut.
""",
        tests=["cut_off_replica_serves_on_and_catches_up"],
        name="cut",
        columns=[
            REQUESTS,
            SLOWEST,
            Column("noticed_ms", "noticed after, ms"),
            Column("caught_up_ms", "caught up after, ms"),
        ],
        repeat=real("replicas::partition:: -- --nocapture"),
        names=CUTS,
    ),
    Section(
        chapter=STORE,
        title="A replica that is cut off while it mints",
        records="leases",
        text="Another replica mints in its place. Other users ask meanwhile; the first failed request ends the test.\n",
        tests=["lease_of_a_cut_off_replica_is_taken_over"],
        name="cut",
        columns=[REQUESTS, SLOWEST, Column("taken_over_ms", "taken over after, ms")],
        repeat=real("replicas::partition:: -- --nocapture"),
        names=CUTS,
    ),
    Section(
        chapter=STORE,
        title="Crowds on five replicas",
        records="crowds",
        text="""\
Each user asks each replica. With 1,000 users (`tests/run --long`) the build is optimized (`opt-level = 1`).
""",
        tests=[
            "cold_users_on_five_replicas_cost_a_mint_each",
            "primary_that_dies_costs_few_mints_and_no_request",
        ],
        name="crowd",
        columns=[
            Column("users", "users"),
            Column("replicas", "replicas"),
            REQUESTS,
            FAILED,
            Column("mints", "mints"),
        ],
        repeat=real("replicas::crowd:: -- --nocapture"),
    ),
]
