"""Servers on this machine: reached without a proxy, on ports that are free, and known to be the process we started."""

from __future__ import annotations

import os
import socket
import sys
import urllib.request
from argparse import ArgumentTypeError
from shlex import quote

from velocitune_core.config import LAST_PORT, without_credentials

HOST = "127.0.0.1"
FIRST_PORT = 1024  # those below are the system's
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")  # variables that httpx reads, in any case
_DIRECT = ("no_proxy", "NO_PROXY")  # some programs read one, some the other, most the first that is set
_LOOPBACK = (HOST, "localhost", "::1")


def loopback_without_proxy() -> None:
    """Make this process and those that it starts reach this machine itself, whatever proxy the environment names.

    Variables with a proxy that Prefect's client cannot use are removed, with a warning: it would refuse all addresses.
    """
    _remove_unusable_proxies()
    hosts = _direct_hosts()
    if "*" not in hosts:
        hosts += [host for host in _LOOPBACK if host not in hosts]
    for name in _DIRECT:
        os.environ[name] = "*" if "*" in hosts else ",".join(hosts)


def shell_without_proxy() -> str:
    """Return the shell command after which other programs, such as `prefect`, reach this machine; "" if they do.

    Call it before `loopback_without_proxy`, which changes the environment.
    """
    hosts, proxies = _direct_hosts(), _named_proxies()
    if not proxies or "*" in hosts:
        return ""
    unusable = [name for name in proxies if _proxy_problem(os.environ[name])]
    commands = [f"unset {' '.join(unusable)}"] if unusable else []
    missing = [host for host in (HOST, "localhost") if host not in hosts]
    if missing and any(not name.lower().startswith("https") for name in set(proxies) - set(unusable)):
        named = [name for name in ("NO_PROXY", "no_proxy") if name == "NO_PROXY" or name in os.environ]
        commands.append(" ".join(["export", *(f"{name}={quote(','.join([*hosts, *missing]))}" for name in named)]))
    return "; ".join(commands)


def _direct_hosts() -> list[str]:
    """Return the hosts that the environment names to be reached without a proxy; `*` alone is all of them."""
    given = ",".join(os.environ.get(name, "") for name in _DIRECT)
    return list(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))


def _named_proxies() -> list[str]:
    return [name for name in os.environ if name.lower() in _PROXIES and os.environ[name]]


def _remove_unusable_proxies() -> None:
    for name in _named_proxies():
        if problem := _proxy_problem(os.environ[name]):
            sys.stderr.write(
                f"{name}={without_credentials(os.environ[name])} is left out: {problem}; servers of this machine are "
                "reached without a proxy, others then too\n"
            )
            del os.environ[name]


def _proxy_problem(proxy: str) -> str | None:
    """Return why httpx cannot use a proxy, for which it would refuse every address, also one that needs no proxy."""
    import httpx

    address = proxy if "://" in proxy else f"http://{proxy}"  # as httpx reads it
    try:
        httpx.HTTPTransport(proxy=httpx.Proxy(address), verify=False).close()
    except ImportError:
        return "proxies of this kind need `pip install 'httpx[socks]'`"
    except (ValueError, httpx.InvalidURL) as error:
        return without_credentials(str(error))
    return None


def port_number(text: str) -> int:
    """Return a port that a server can be given, for the option of a command. Raises ArgumentTypeError for others."""
    if not text.isdecimal() or not FIRST_PORT <= int(text) <= LAST_PORT:
        raise ArgumentTypeError(f"{text!r} is no port of a server; give a number from {FIRST_PORT} to {LAST_PORT}")
    return int(text)


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, or a closed one blocks for minutes
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listens(pid: int, port: int) -> bool:
    """Return whether a process, or one that it started, is the one that listens on a port."""
    import psutil

    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr.port == port
            for member in tree
            for each in member.net_connections("inet")
        )
    except psutil.Error:  # it has ended
        return False


def answers(url: str) -> bool:
    """Return whether a server of this machine answers, without an error."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2):
            return True
    except OSError:
        return False
