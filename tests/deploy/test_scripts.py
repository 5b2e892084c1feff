"""The scripts of deploy/ can be started, and list what the image needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from leadline.server.settings import Settings
from leadline.server.tls import load_certificates

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_executable_and_free_of_syntax_errors(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)  # noqa: S607 - the user's bash


def test_certificates_are_made_and_renewed(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    options = {"tls_cert": folder / "server.pem", "tls_key": folder / "server.key"}
    made = []
    for _ in range(2):
        subprocess.run([DEPLOY / "certificates.sh", folder, "gpu1.example.org"], check=True)
        certificates = load_certificates(Settings(**options))
        assert certificates is not None
        made.append(certificates.current.chain)
        certificate = x509.load_pem_x509_certificate(made[-1])
        authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost", "gpu1.example.org"]

    assert made[0] != made[1]
    assert options["tls_key"].stat().st_mode & 0o077 == 0


def _requirements(*extras: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, DEPLOY / "requirements.py", *extras],
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout.splitlines()


def test_the_image_gets_what_the_server_needs_and_what_its_extras_name() -> None:
    needed = _requirements("server")
    names = {requirement.split(">=")[0] for requirement in needed}
    assert {"torch", "grpcio", "sqlalchemy"} <= names
    assert not names & {"leadline", "leadline[models]", "pytest", "ruff", "matplotlib"}


def test_without_extras_only_the_client_is_needed() -> None:
    assert set(_requirements()) < set(_requirements("server"))


def test_an_extra_that_is_not_there_fails_the_build() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        _requirements("sever")
