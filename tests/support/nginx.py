"""A real nginx that has deploy/nginx.conf."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import ROOT, free_port

CONFIGURATION = (ROOT / "deploy" / "nginx.conf").read_text()


def nginx_program() -> str:
    """Where it is; skips, loudly, where it is not."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("NO NGINX: install it (apt-get install nginx); deploy/nginx.conf goes untried")
    return found


@contextmanager
def nginx_proxy(nginx: str, folder: Path, *servers: httpx.URL) -> Iterator[str]:
    """The address of an nginx that has the configuration, but for its port and the addresses of the servers."""
    port = free_port()
    upstream = "".join(f"server {server.host}:{server.port} max_fails=1 fail_timeout=2s; " for server in servers)
    ours = re.sub(r"(?s)resolver [^;]*;\s*server serve:8000 [^;]*;", upstream, CONFIGURATION)
    ours = ours.replace("listen 80;", f"listen 127.0.0.1:{port};")
    assert upstream in ours
    assert f":{port};" in ours
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}"
        f" http {{ access_log off; {places}\n{ours}\n}}"
    )
    process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(file)], stderr=subprocess.PIPE)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
        assert b"[emerg]" not in said, said.decode()
