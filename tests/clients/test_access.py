"""Which credentials each client is served with, over TLS and without; as the page says."""

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from clients.conftest import Workplace
from clients.tools import grpcurl, node
from docs.pages import DOCS, blocks_under, rows, section
from leadline.client import Client, JobState, LeadlineError, UnauthenticatedError, _retry
from leadline.client.cli import main
from leadline.client.cli.exit_codes import ExitCode
from leadline.server.access.tokens import revoke_tokens
from support.certificates import Authority
from support.identities import Tokens
from support.servers import start_server

HERE = Path(__file__).parent
PAGE = DOCS / "clients.md"

STATES = ("none", "wrong", "expired", "revoked", "right")

# The names of the page's rows: how a server is protected, and what of a caller varies.
PLAIN, TLS = "no TLS, token", "TLS, token"
MTLS, MTLS_TOKEN = "mTLS, certificate", "mTLS, token beside a right certificate"
MODES = {"plain": (PLAIN,), "tls": (TLS,), "mtls": (MTLS, MTLS_TOKEN)}


@dataclass(frozen=True)
class Case:
    """The credentials of a caller."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token: str | None = None


class Site:
    """A server with certificates, tokens, and the credentials of all states.

    Attributes:
        server: the server.
        tokens: its tokens; the names are states.
        cases: the credentials by the page's row and the state.
    """

    def __init__(self, folder: Path, mode: str, *flags: str) -> None:
        self.folder = folder
        self._mode = mode
        self._authority = Authority()
        self.ca = str(self._authority.write(folder))
        self.tokens = Tokens(folder / "tokens.json")
        self.tokens.create("expired", "viewer", timedelta(seconds=1))
        for name in ("revoked", "right"):
            self.tokens.create(name, "trainer")
        self._pairs = self._issue()
        self._access = folder / "access.toml"
        self._map_certificates("revoked", "right")
        self.server = start_server(folder, *self._flags(), *flags)
        self.cases = {row: dict(zip(STATES, self._cases(row), strict=True)) for row in MODES[mode]}
        self._revoke()

    def _issue(self) -> dict[str, tuple[str, str]]:
        pairs = {
            "wrong": Authority().client("right"),
            "expired": self._authority.client("right", days=(-3, -1)),
            "revoked": self._authority.client("revoked"),
            "right": self._authority.client("right"),
        }
        written = {name: pair.write(self.folder, name) for name, pair in pairs.items()}
        return {name: (str(cert), str(key)) for name, (cert, key) in written.items()}

    def _map_certificates(self, *names: str) -> None:
        lines = [f'{name} = {{ name = "{name}", role = "trainer" }}' for name in names]
        self._access.write_text("\n".join(["[certificates]", *lines, ""]))

    def _flags(self) -> list[str]:
        flags = ["--tokens-file", str(self.tokens.path), "--access-file", str(self._access)]
        if self._mode != "plain":
            cert, key = self._authority.server().write(self.folder)
            flags += ["--tls-cert", str(cert), "--tls-key", str(key)]
        if self._mode == "mtls":
            flags += ["--tls-client-ca", self.ca, "--tls-client-auth", "required"]
        return flags

    def _cases(self, row: str) -> Iterator[Case]:
        ca = None if row == PLAIN else self.ca
        secrets = {"wrong": f"ll_{'A' * 43}", **self.tokens.secrets}
        for state in STATES:
            cert, key = self._pairs.get("right" if row == MTLS_TOKEN else state, (None, None))
            if row in (PLAIN, TLS):
                cert = key = None
            yield Case(ca, cert, key, token=None if row == MTLS else secrets.get(state))

    def _revoke(self) -> None:
        """Revokes while the server runs, and waits until it has noticed."""
        self.tokens.revoke("revoked")
        self._map_certificates("right")
        for row, state in itertools.product(self.cases, ("revoked", "expired")):
            if (row, state) != (MTLS, "expired"):  # this never was served
                with self.client(self.cases[row][state]) as client:
                    wait_until_served(client, served=False)

    def client(self, case: Case) -> Client:
        """A client of the SDK with these credentials."""
        return Client(self.server.target, **asdict(case))


def is_served(client: Client) -> bool:
    try:
        next(iter(client.jobs()), None)
    except UnauthenticatedError:
        return False
    return True


def wait_until_served(client: Client, *, served: bool) -> None:
    """Waits until the server has noticed what changed."""
    deadline = time.monotonic() + 30
    while is_served(client) != served:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module", params=MODES)
def site(
    request: pytest.FixtureRequest,
    transport: str,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_dataset: Path,
) -> Iterator[Site]:
    site = Site(
        tmp_path_factory.mktemp("access"),
        request.param,
        *("--transport", transport, "--spare-workers", "0", f"--dataset=tiny={tiny_dataset}"),
    )
    yield site
    assert site.server.stop() == 0, site.server.log.read_text()


def call_sdk(site: Site, _workplace: Workplace, cases: list[Case]) -> list[str]:
    def answer(case: Case) -> str:
        with site.client(case) as client:
            try:
                next(iter(client.jobs()), None)
            except LeadlineError as error:
                return type(error).__name__
        return "OK"

    return [answer(case) for case in cases]


def call_cli(site: Site, workplace: Workplace, cases: list[Case]) -> list[str]:
    def answer(case: Case) -> str:
        options = [f"--{name}={path}" for name, path in asdict(case).items() if path]
        options = [option for option in options if not option.startswith("--token=")]
        if case.token:
            path = workplace.folder / "access.token"
            path.write_text(case.token)
            options.append(f"--token-file={path}")
        return str(int(main(["jobs", "--target", site.server.target, *options])))

    return [answer(case) for case in cases]


def call_node(site: Site, workplace: Workplace, cases: list[Case]) -> list[str]:
    program, argument = workplace.folder / "access.mjs", workplace.folder / "access.json"
    program.write_text((HERE / "access.mjs").read_text())
    values = {"target": site.server.target, "cases": [asdict(case) for case in cases]}
    argument.write_text(json.dumps(values))
    return [str(code) for code in json.loads(workplace.run(node(), program.name, argument.name))]


def call_grpcurl(site: Site, workplace: Workplace, cases: list[Case]) -> list[str]:
    def answer(case: Case) -> str:
        flags = ["-cacert", case.ca] if case.ca else ["-plaintext"]
        flags += ["-cert", case.cert, "-key", case.key] if case.cert and case.key else []
        if case.token:
            flags += ["-expand-headers", "-H", "authorization: Bearer ${TOKEN}"]
        flags += [
            "-connect-timeout",
            "4",
            "-import-path",
            "protos",
            "-import-path",
            "protos/third_party",
        ]
        flags += ["-proto", "leadline/v1/training_service.proto"]
        command = (grpcurl(), *flags, site.server.target, "leadline.v1.TrainingService/ListJobs")
        return str(workplace.try_to_run(*command, TOKEN=case.token or "")[0])

    # At once, because grpcurl tries to connect until its time limit.
    with ThreadPoolExecutor(len(cases)) as threads:
        return list(threads.map(answer, cases))


def call_tritonclient(site: Site, _workplace: Workplace, cases: list[Case]) -> list[str]:
    def answer(case: Case) -> str:
        options = {
            "ssl": case.ca is not None,
            "root_certificates": case.ca,
            "certificate_chain": case.cert,
            "private_key": case.key,
        }
        headers = {"authorization": f"Bearer {case.token}"} if case.token else {}
        with triton.InferenceServerClient(site.server.target, **options) as client:
            try:
                client.get_server_metadata(headers, client_timeout=30)
            except InferenceServerException as error:
                return str(error.status()).removeprefix("StatusCode.")
        return "OK"

    return [answer(case) for case in cases]


CLIENTS: dict[str, Callable[[Site, Workplace, list[Case]], list[str]]] = {
    "SDK": call_sdk,
    "command line": call_cli,
    "grpc-js": call_node,
    "grpcurl": call_grpcurl,
    "tritonclient": call_tritonclient,
}


def documented(client: str, transport: str, row: str) -> list[str]:
    """What the page's tables say that a client shows for each state."""
    heading, *table = rows(section(PAGE, "Which credentials are served"))
    place = next(index for index, cells in enumerate(table) if cells[0] == "answer")
    (served,) = [cells[1:] for cells in table[:place] if cells[0] == row]
    assert heading[1:] == list(STATES)
    names = table[place][1:]
    shown = {
        cells[0].replace("`", ""): cells[1 + names.index(client)].strip("`")
        for cells in table[place + 1 :]
    }
    return [shown.get(f"{answer}, {transport}") or shown[answer] for answer in served]


@pytest.mark.parametrize("name", CLIENTS)
def test_each_client_is_served_as_the_page_says(
    site: Site,
    transport: str,
    workplace: Workplace,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_retry, "CALL_ATTEMPTS", 1)
    cases = [case for states in site.cases.values() for case in states.values()]

    shown = CLIENTS[name](site, workplace, cases)

    expected = [documented(name, transport, row) for row in site.cases]
    assert [shown[at : at + len(STATES)] for at in range(0, len(shown), len(STATES))] == expected


@pytest.mark.parametrize("site", ["tls"], indirect=True)
def test_a_revoked_token_ends_streams_unless_its_file_has_the_next_one(
    site: Site, tmp_path: Path
) -> None:
    first = site.tokens.create("watcher", "trainer")
    revoked_id = site.tokens.ids["watcher"]
    kept, replaced = tmp_path / "kept", tmp_path / "replaced"
    for path in (kept, replaced):
        path.write_text(first)
    with (
        Client(site.server.target, ca=site.ca, token_file=kept) as keeping,
        Client(site.server.target, ca=site.ca, token_file=replaced) as replacing,
        ThreadPoolExecutor(2) as threads,
    ):
        wait_until_served(keeping, served=True)
        job = replacing.train(dataset="tiny")
        job.pause()
        command = (sys.executable, "-m", "leadline", "watch", job.name, "--json")
        options = ("--target", site.server.target, "--ca", site.ca, "--token-file", str(kept))
        watch = subprocess.Popen(
            (*command, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert watch.stdout
        assert watch.stdout.readline()
        ending = threads.submit(lambda: list(keeping.job(job.name).events()))
        continuing = threads.submit(lambda: list(replacing.job(job.name).events()))

        second = site.tokens.create("watcher", "trainer")
        replaced.write_text(second)
        wait_until_served(replacing, served=True)
        revoke_tokens(site.tokens.path, [revoked_id])

        with pytest.raises(UnauthenticatedError):
            ending.result(timeout=30)
        _, errors = watch.communicate(timeout=30)
        assert watch.returncode == ExitCode.UNAUTHENTICATED
        assert json.loads(errors)["error"]["code"] == "UNAUTHENTICATED"
        assert first not in errors
        job.cancel()
        assert continuing.result(timeout=30)[-1].finished.state == JobState.JOB_STATE_CANCELLED


@pytest.fixture
def example(site: Site, workplace: Workplace) -> Callable[[str, str], str]:
    """Returns an example of the page for the server, in a folder with its files."""
    (workplace.folder / "ca.pem").write_bytes(Path(site.ca).read_bytes())
    (workplace.folder / "token").write_text(site.tokens.secrets["right"])

    def read(heading: str, language: str) -> str:
        (text,) = blocks_under(PAGE, heading, language)
        return text.replace("leadline.example:50051", site.server.target)

    return read


@pytest.mark.parametrize("site", ["tls"], indirect=True)
def test_the_examples_of_the_page_are_served(
    site: Site, workplace: Workplace, example: Callable[[str, str], str], tmp_path: Path
) -> None:
    workplace.generate("Python")
    program = workplace.folder / "tls.mjs"
    program.write_text(example("Node.js over TLS", "js"))
    with site.client(site.cases[TLS]["right"]) as client:
        number = f"{len(list(client.jobs()))}\n"

    assert workplace.run(sys.executable, "-c", example("The SDK over TLS", "python")) == number
    assert workplace.run_python("-c", example("Python over TLS", "python")) == number
    assert workplace.run_python("-c", example("tritonclient over TLS", "python")) == "leadline\n"
    assert workplace.run(node(), program.name) == number
    grpcurl()
    assert json.loads(workplace.run("sh", "-ec", example("grpcurl over TLS", "sh"))) is not None
    commands = example("The command line over TLS", "sh")
    lines = workplace.run("sh", "-ec", commands, XDG_CONFIG_HOME=str(tmp_path)).splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :] != []
