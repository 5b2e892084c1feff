"""Which credentials each client is served with, over TLS and without; as the page says."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from clients.conftest import Workplace
from clients.tools import grpcurl, node
from docs.pages import DOCS, rows, section
from leadline.client import Client, LeadlineError, UnauthenticatedError, _retry
from leadline.client.cli import main
from support.certificates import Authority
from support.identities import Tokens
from support.servers import LiveServer, start_server

HERE = Path(__file__).parent
PAGE = DOCS / "clients.md"

STATES = ("none", "wrong", "expired", "revoked", "right")

# The names of the page's rows: how a server is protected, and what of a caller varies.
PLAIN, TLS, MTLS, MTLS_TOKEN = ("no TLS", "TLS", "mTLS, certificate", "mTLS, token")
MODES = {PLAIN: (PLAIN,), TLS: (TLS,), "mTLS": (MTLS, MTLS_TOKEN)}


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
        if self._mode != PLAIN:
            cert, key = self._authority.server().write(self.folder)
            flags += ["--tls-cert", str(cert), "--tls-key", str(key)]
        if self._mode == "mTLS":
            flags += ["--tls-client-ca", self.ca, "--tls-client-auth", "required"]
        return flags

    def _cases(self, row: str) -> Iterator[Case]:
        ca = None if row == PLAIN else self.ca
        wrong = f"ll_{'A' * 43}"
        for state in STATES:
            if row == MTLS:
                yield Case(ca, *self._pairs.get(state, (None, None)))
            else:
                pair = self._pairs["right"] if row == MTLS_TOKEN else (None, None)
                token = wrong if state == "wrong" else self.tokens.secrets.get(state)
                yield Case(ca, *pair, token)

    def _revoke(self) -> None:
        """Revokes while the server runs, and waits until it has noticed."""
        self.tokens.revoke("revoked")
        self._map_certificates("right")
        for row, state in itertools.product(self.cases, ("revoked", "expired")):
            if (row, state) != (MTLS, "expired"):  # this never was served
                wait_until_refused(self, self.cases[row][state])

    def client(self, case: Case) -> Client:
        """A client of the SDK with these credentials."""
        return Client(self.server.target, **asdict(case))


def wait_until_refused(site: Site, case: Case) -> None:
    deadline = time.monotonic() + 30
    with site.client(case) as client:
        while True:
            try:
                next(iter(client.jobs()), None)
            except UnauthenticatedError:
                return
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
        flags += ["-import-path", "protos", "-import-path", "protos/third_party"]
        flags += ["-proto", "leadline/v1/training_service.proto"]
        command = (grpcurl(), *flags, site.server.target, "leadline.v1.TrainingService/ListJobs")
        return str(workplace.try_to_run(*command, TOKEN=case.token or "")[0])

    return [answer(case) for case in cases]


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
        cells[0]: cells[1 + names.index(client)].replace("`", "") for cells in table[place + 1 :]
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
