"""Checks that a server could bind its ports."""

import errno
import http.client
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from leadline.server.doctor.check import Check, Status
from leadline.server.telemetry.port import in_url
from leadline.server.transport.sockets import is_loopback

_ANSWER_SECONDS = 3.0
_END = "-----END CERTIFICATE-----"
_SERVICE = "leadline.v1.TrainingService"

# Describes the Leadline server on a host and port; None without one.
_WhoAnswers = Callable[[str, int], str | None]


def check_grpc_port(host: str, port: int, tls_cert: Path | None = None) -> Check:
    """Checks the gRPC port; a running Leadline server on it is fine.

    Args:
        host: the address.
        port: the port.
        tls_cert: the certificate that a server would have; None for plain text.
    """
    who = _who_answers_grpc if tls_cert is None else partial(_who_has, tls_cert)
    return _check("grpc port", host, port, option="--port", who_answers=who)


def check_http_port(host: str, port: int, tls_cert: Path | None = None) -> Check:
    """Checks the port of metrics and the live page in the same way."""
    who = _who_answers_http if tls_cert is None else partial(_who_has, tls_cert)
    return _check("http port", host, port, option="--metrics-port", who_answers=who)


def _check(name: str, host: str, port: int, *, option: str, who_answers: _WhoAnswers) -> Check:
    place = f"{in_url(host.strip('[]'))}:{port}"
    detail = {"host": host, "port": port, "loopback": is_loopback(host), "in_use_by": None}
    error = _binding_error(host.strip("[]"), port)
    if error is None:
        reach = "" if detail["loopback"] else "; other machines can reach it"
        value = f"{place if port else 'any free port'} can be bound{reach}"
        return Check(name, Status.OK, value, detail)
    if error.errno != errno.EADDRINUSE:
        advice = f"name another address, or another port with {option}"
        return Check(name, Status.FAILED, f"{place}: {_reason(error)}", detail, advice)
    user = who_answers(_reachable(host), port)
    detail["in_use_by"] = user or "another program"
    if user is not None:
        return Check(name, Status.OK, f"{place} is in use by {user}", detail)
    advice = f"stop that program, or name another port with {option}"
    return Check(name, Status.FAILED, f"{place}: another program uses it", detail, advice)


def _binding_error(host: str, port: int) -> OSError | None:
    """Returns the error of binding a socket, or None on success."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error
    except UnicodeError:
        return OSError(errno.EINVAL, "not a host name")
    errors = [_error_at(family, address) for family, _, _, _, address in addresses]
    # "localhost" may resolve to an IPv6 address on a host without IPv6.
    missing = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
    serious = [error for error in errors if error is not None and error.errno not in missing]
    if serious or all(errors):
        return next(error for error in (*serious, *errors) if error is not None)
    return None


def _error_at(family: int, address: tuple[object, ...]) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and address[0] != "::":
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(address)
    except OSError as error:
        return error
    return None


def _who_answers_grpc(host: str, port: int) -> str | None:
    with grpc.insecure_channel(f"{in_url(host)}:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=_SERVICE)
        try:
            status = health.Check(request, timeout=_ANSWER_SECONDS).status
        except grpc.RpcError:
            return None
    serves = status == health_pb2.HealthCheckResponse.SERVING
    return "a Leadline server, which is " + ("serving" if serves else "not serving")


def _who_answers_http(host: str, port: int) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        metrics = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    is_guarded = response.getheader("WWW-Authenticate") == 'Bearer realm="Leadline"'
    return "a Leadline server" if is_guarded or b"\nleadline_jobs{" in metrics else None


def _who_has(tls_cert: Path, host: str, port: int) -> str | None:
    """Describes the server that has this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        own = ssl.PEM_cert_to_DER_cert(tls_cert.read_text().partition(_END)[0] + _END)
        with (
            socket.create_connection((host, port), timeout=_ANSWER_SECONDS) as plain,
            context.wrap_socket(plain) as secure,
        ):
            is_it = secure.getpeercert(binary_form=True) == own
    except (OSError, ValueError):
        return None
    return "a Leadline server, which has this certificate" if is_it else None


def _reachable(host: str) -> str:
    """Returns an address that reaches a server on this host: loopback for all interfaces."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104


def _reason(error: OSError) -> str:
    # Errors of name resolution have separate numbers.
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)
