"""Whether other machines could reach a server in the open."""

from leadline.server.settings import Settings
from leadline.server.transport.sockets import is_loopback


def exposure(settings: Settings, *, requires_identities: bool) -> str:
    """Why other machines could reach a server in the open; "" if they could not."""
    hosts = {"--host": settings.host, "--metrics-host": settings.metrics_host}
    beyond = [f"{flag} {host}" for flag, host in hosts.items() if not is_loopback(host)]
    missing = []
    if settings.tls_cert is None:
        missing.append("TLS (set --tls-cert and --tls-key)")
    if not requires_identities:
        missing.append("identities (create a token: `leadline tokens create`)")
    if not beyond or not missing:
        return ""
    return (
        f"{' and '.join(beyond)} would serve other machines without "
        f"{' and without '.join(missing)}; --insecure allows it, on a network where everyone may "
        "do everything"
    )
