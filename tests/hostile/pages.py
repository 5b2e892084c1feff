"""Attacks on the live page, and with names in pages and reports."""

import asyncio
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from urllib.parse import urlsplit

from hostile.attack import Scene, attack

_STREAM = b"GET /live/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_PLACES = 32  # the limit on open pages
_ACTIVE = ("<img src=x", "<svg onload", "<script>alert")


@attack(source="cross-site scripting (CWE-79)", is_finite=True)
async def names_as_html(scene: Scene) -> None:
    """Reads pages and a report of a model whose class names are HTML: all must be escaped."""
    base = f"http://{urlsplit(scene.site.metrics_url).netloc}"
    job = scene.site.victim.removeprefix("models/")
    api = f"{base}/live/v1/jobs/{job}"
    await scene.begin()
    for url in (base, api, f"{api}/epochs/1/confusion", f"{api}/epochs/1/examples"):
        await asyncio.to_thread(_check_page, scene, url)
    report = scene.site.folder / "report.html"
    command = ("report", f"jobs/{job}", "--out", str(report), "--target", scene.site.target)
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "leadline.client.cli", *command], check=True
    )
    _check_html(scene, "the report", report.read_text())


def _check_page(scene: Scene, url: str) -> None:
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own
        scene.tally[str(response.status)] += 1
        if "default-src 'none'" not in (response.headers["Content-Security-Policy"] or ""):
            scene.wrong.append(f"{url} has no content security policy")
        if response.headers["X-Content-Type-Options"] != "nosniff":
            scene.wrong.append(f"{url} may be taken for another type")
        if response.headers.get_content_type() == "text/html":
            _check_html(scene, url, response.read().decode())


def _check_html(scene: Scene, where: str, html: str) -> None:
    if active := [words for words in _ACTIVE if words in html]:
        scene.wrong.append(f"{where} has {active}")


@attack(source="slow reading of HTTP (CWE-400)")
async def stalled_pages(scene: Scene) -> None:
    """Opens 64 streams of the live page and reads none: gRPC and the metrics must not be
    affected."""
    address = urlsplit(scene.site.metrics_url)
    await scene.begin()
    with ExitStack() as stack:
        for _ in range(2 * _PLACES):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.connect((address.hostname, address.port))
            connection.sendall(_STREAM)
        while True:
            seconds = await asyncio.to_thread(_scrape, scene)
            if seconds > scene.scaled(10, 1):
                scene.wrong[:] = [f"the metrics took {seconds:.1f} s"]
            await asyncio.sleep(0.2)


def _scrape(scene: Scene) -> float:
    began = time.monotonic()
    try:
        with urllib.request.urlopen(scene.site.metrics_url, timeout=30) as response:  # noqa: S310 - our own
            response.read()
        scene.tally["scraped"] += 1
    except OSError:  # the server is gone
        scene.tally["not scraped"] += 1
    return time.monotonic() - began
