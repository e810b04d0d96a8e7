"""Loopback is reached without a proxy, whatever the environment names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler

import httpx
import pytest
import requests
from servers import free_port

from tasks.workspace.loopback import answers, is_free, loopback_without_proxy, port_number, shell_without_proxy

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy")


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port where nobody listens, under a proxy that lets every connection wait."""
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "example.org")
        monkeypatch.setenv("no_proxy", "")
        yield free_port()


def test_clients_leave_the_proxy_out(closed_port: int) -> None:
    loopback_without_proxy()
    for host in ("127.0.0.1", "localhost", "[::1]"):
        url = f"http://{host}:{closed_port}/"
        with httpx.Client(verify=False, timeout=1) as client, pytest.raises(httpx.ConnectError):
            client.get(url)  # refused at once; the proxy would be a timeout
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=1)
        assert not answers(url)
    assert os.environ["NO_PROXY"].startswith("example.org,")
    loopback_without_proxy()
    assert os.environ["NO_PROXY"].count("localhost") == 1


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("hosts", ["example.org", "*"])
def test_hosts_that_are_reached_without_a_proxy_still_are(
    monkeypatch: pytest.MonkeyPatch, name: str, hosts: str
) -> None:
    for each in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(each, "")
        monkeypatch.delenv(each)
    monkeypatch.setenv(name, hosts)
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    loopback_without_proxy()
    assert requests.utils.should_bypass_proxies("http://mlflow.example.org:5000/", None)
    assert requests.utils.should_bypass_proxies("http://127.0.0.1:4200/", None)


@pytest.mark.parametrize("proxy", ["socks5://me:pa55@127.0.0.1:9", "socks4://127.0.0.1:9", "http://me:pa55@h:port"])
def test_a_proxy_that_the_client_cannot_use_is_left_out_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], proxy: str
) -> None:
    if proxy.startswith("socks5"):
        monkeypatch.setitem(sys.modules, "socksio", None)  # as if it were not installed
    for name in (*PROXIES, "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")  # one that it can use, without http:// before it
    monkeypatch.setenv("ALL_PROXY", proxy)
    loopback_without_proxy()
    loopback_without_proxy()
    warning = capsys.readouterr().err
    assert warning.startswith(f"ALL_PROXY={proxy.replace('me:pa55', '***')} is left out: ") and warning.count("\n") == 1
    assert "pa55" not in warning and ("httpx[socks]" in warning) == proxy.startswith("socks5")
    assert "ALL_PROXY" not in os.environ and os.environ["HTTP_PROXY"] == "127.0.0.1:9"
    with httpx.Client(verify=False, timeout=1) as client, pytest.raises(httpx.ConnectError):
        client.get(f"http://127.0.0.1:{free_port()}/")


GET = "import sys, httpx; print(httpx.get(sys.argv[1], timeout=5).status_code)"


@pytest.mark.parametrize(
    ("proxies", "command"),
    [
        ({"http_proxy": "http://127.0.0.1:9"}, "export NO_PROXY=127.0.0.1,localhost"),
        (
            {"ALL_PROXY": "http://127.0.0.1:9", "no_proxy": "example.org"},
            "export NO_PROXY=example.org,127.0.0.1,localhost no_proxy=example.org,127.0.0.1,localhost",
        ),
        ({"all_proxy": "socks9://127.0.0.1:9"}, "unset all_proxy"),
        (
            {"http_proxy": "http://127.0.0.1:9", "all_proxy": "socks9://127.0.0.1:9"},
            "unset all_proxy; export NO_PROXY=127.0.0.1,localhost",
        ),
        ({"https_proxy": "http://127.0.0.1:9"}, ""),
        ({"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1, localhost"}, ""),
        ({"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "*"}, ""),
        ({}, ""),
    ],
)
def test_a_command_leads_other_programs_to_this_machine(
    monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str], command: str
) -> None:
    for name in (*PROXIES, "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        get = [sys.executable, "-c", GET, f"http://127.0.0.1:{server.server_port}/"]
        as_it_is = subprocess.run(get, capture_output=True, check=False)
        script = f'{command or ":"}; exec "$@"'
        after = subprocess.run(["sh", "-c", script, "sh", *get], capture_output=True, text=True, check=False)
        server.shutdown()
    assert shell_without_proxy() == command
    assert (as_it_is.returncode == 0) == (command == "")
    assert after.stdout == "200\n", after.stderr


def test_hosts_with_blanks_are_quoted_for_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org 10.0.0.1,$(false)")
    shown = subprocess.run(
        ["sh", "-c", f'{shell_without_proxy()}; printf %s "$NO_PROXY"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "example.org 10.0.0.1,$(false),127.0.0.1,localhost" and shown.stderr == ""


def test_a_port_below_the_first_is_refused_as_the_message_says() -> None:
    assert port_number("1024") == 1024
    with pytest.raises(ArgumentTypeError, match="from 1024 to 65535"):
        port_number("1023")


def test_a_port_is_free_until_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        port = listener.getsockname()[1]
        listener.listen()
        assert not is_free(port)
    assert is_free(port)
