"""Types of command-line options and arguments: each refuses a wrong value with its limit and the value given."""

import math
import string
import urllib.parse
from pathlib import Path
from typing import Any, Final

import click

ADDRESS_HEX_DIGITS: Final = 40
CHAINS: Final = ("pyevm", "anvil", "hardhat")
PORT_MAX: Final = 65_535
_HOST_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_[]:")
TLS_SCHEME: Final = "tls://"
_NAME_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + ".-")
LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


class Url(click.ParamType):
    """http://HOST:PORT or https://…; the command gets it as it was written."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        if not is_url(str(value)):
            self.fail(f"must be http://HOST:PORT or https://HOST, not {value!r}", param, ctx)
        return str(value)


def is_url(text: str) -> bool:
    """Whether `text` is an HTTP URL that a connection can be made to."""
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return is_plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


class ChainName(Url):
    """A development chain, or the URL of one that runs."""

    name = "chain"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        if value not in CHAINS and not is_url(str(value)):
            self.fail(f"must be {', '.join(CHAINS)} or http://HOST:PORT, not {value!r}", param, ctx)
        return str(value)


class EthAddress(click.ParamType):
    """An Ethereum address; the command gets it in lower case, 0x and 40 hex digits."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        text = str(value).removeprefix("0x").lower()
        if len(text) != ADDRESS_HEX_DIGITS or not set(text) <= set("0123456789abcdef"):
            self.fail(
                f"must be an address, 0x and {ADDRESS_HEX_DIGITS} hex digits, not {value!r}", param, ctx
            )
        return "0x" + text


class KeySource(click.ParamType):
    """Where a private key is: env:NAME or keystore:PATH."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        scheme, _, rest = str(value).partition(":")
        if scheme not in ("env", "keystore") or not rest:
            self.fail(f"must be env:NAME or keystore:PATH, not {value!r}", param, ctx)
        return str(value)


class IpAddress(click.ParamType):
    """An IPv4 or IPv6 address."""

    name = "ip"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        import ipaddress

        try:
            return str(ipaddress.ip_address(str(value)))
        except ValueError:
            self.fail(f"must be an IPv4 or IPv6 address, not {value!r}", param, ctx)


class LogServer(click.ParamType):
    """A server of a replicated log: nats://HOST:PORT, or tls://HOST:PORT."""

    name = "nats-url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        scheme, _, rest = str(value).partition("://")
        host, _, port = rest.rpartition(":")
        is_host = bool(host) and set(host) <= _HOST_CHARACTERS
        if scheme not in ("nats", "tls") or not is_host or not is_port(port) or int(port) == 0:
            limit = f"nats://HOST:PORT or tls://HOST:PORT with a port from 1 to {PORT_MAX}"
            self.fail(f"must be {limit}, not {value!r}", param, ctx)
        return str(value)


class NodeName(click.ParamType):
    """The name of a cluster's node."""

    name = "node"
    most = 32

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        text = str(value)
        if not 0 < len(text) <= self.most or not set(text) <= _NAME_CHARACTERS:
            limit = f"1 to {self.most} letters, digits, dots and hyphens"
            self.fail(f"must be {limit}, not {value!r}", param, ctx)
        return text


def is_port(text: str) -> bool:
    """Whether it is a port number."""
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= PORT_MAX


class HostPort(click.ParamType):
    """HOST:PORT to listen at."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        text = str(value)
        _, colon, port = text.rpartition(":")
        if not colon or not is_port(port) or not text.isascii() or not text.isprintable() or " " in text:
            self.fail(f"must be HOST:PORT with a port from 0 to {PORT_MAX}, not {value!r}", param, ctx)
        return text


class Endpoints(click.ParamType):
    """Endpoints of peers, tcp/HOST:PORT and more after commas; the command gets a tuple."""

    name = "tcp/host:port,…"
    most = 32

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """`value` when it is such; else click's error."""
        if isinstance(value, tuple):
            return value
        found = tuple(part.strip() for part in str(value).split(","))
        if len(found) > self.most:
            self.fail(f"must be at most {self.most} endpoints, not {len(found)}", param, ctx)
        for one in found:
            scheme, _, rest = one.partition("/")
            host, _, port = rest.rpartition(":")
            is_host = bool(host) and set(host) <= _HOST_CHARACTERS
            if scheme != "tcp" or not is_host or not is_port(port) or int(port) == 0:
                limit = f"tcp/HOST:PORT with a port from 1 to {PORT_MAX}, and more after commas"
                self.fail(f"must be {limit}, not {one!r}", param, ctx)
        return found


class SocketAddress(click.ParamType):
    """Socket between sequencer and gateways: a path, 127.0.0.1:PORT, or tls://HOST:PORT."""

    name = "socket"
    characters_max = 107  # of a Unix socket's path

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        text = str(value)
        is_good = text.isprintable()
        if text.startswith(TLS_SCHEME):
            host, _, port = text.removeprefix(TLS_SCHEME).rpartition(":")
            is_good = bool(host) and text.isascii() and not set(host) & set("/ @?#") and is_port(port)
        elif "/" not in text and ":" in text:
            host, _, port = text.rpartition(":")
            is_good = host in LOOPBACK and is_port(port)
        if not text or not is_good or len(text.encode()) > self.characters_max:
            limit = f"a path of at most {self.characters_max} bytes, 127.0.0.1:PORT of this machine, or tls://HOST:PORT"
            self.fail(f"must be {limit}, not {value!r}", param, ctx)
        return text


class SocketAddresses(SocketAddress):
    """One or several of them, separated by commas; the command gets a tuple."""

    name = "socket,…"
    count_max = 16

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """`value` when each is one; else click's error."""
        if isinstance(value, tuple):
            return value
        found = tuple(super(SocketAddresses, self).convert(one, param, ctx) for one in str(value).split(","))
        if len(found) > self.count_max:
            self.fail(f"must be at most {self.count_max} addresses, not {len(found)}", param, ctx)
        return found


class Host(click.ParamType):
    """A host's name or IP address, or the name of a process: what stands in a certificate."""

    name = "host"
    characters_max = 63

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        text = str(value)
        if not is_host(text):
            limit = f"a name of letters, digits, dots and dashes (at most {self.characters_max}), or an IP address"
            self.fail(f"must be {limit}, not {value!r}", param, ctx)
        return text


def is_host(text: str) -> bool:
    """Whether it is a host's name or an IP address."""
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        is_plain = text.isascii() and not set(text) - _NAME_CHARACTERS and len(text) <= Host.characters_max
        return is_plain and text[:1].isalnum() and text[-1:].isalnum()
    return "%" not in text


class Label(click.ParamType):
    """Label of an order."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` when it is one; else click's error."""
        from sequencer.wire.labels import LABEL_LIMIT, checked_label

        try:
            return checked_label(value)
        except ValueError:
            self.fail(f"must be {LABEL_LIMIT}, not {value!r}", param, ctx)


class Number(click.ParamType):
    """A finite decimal number from `low` (above it, where `is_open`) to `high`."""

    name = "number"

    def __init__(self, low: float, high: float, is_open: bool = False) -> None:
        self._low, self._high, self._is_open = low, high, is_open

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`value` when it is one; else click's error."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        is_in = self._low <= number <= self._high and not (self._is_open and number == self._low)
        if not is_in:
            bounds = f"{'above' if self._is_open else 'from'} {self._low:g} {'and at most' if self._is_open else 'to'}"
            self.fail(f"must be a number {bounds} {self._high:g}, not {value!r}", param, ctx)
        return number


URL: Final = Url()
CHAIN: Final = ChainName()
ETH_ADDRESS: Final = EthAddress()
KEY_SOURCE: Final = KeySource()
IP: Final = IpAddress()
HOST_PORT: Final = HostPort()
ENDPOINTS: Final = Endpoints()
LOG_SERVER: Final = LogServer()
NODE_NAME: Final = NodeName()
SOCKET: Final = SocketAddress()
HOST: Final = Host()
SOCKETS: Final = SocketAddresses()
FILE: Final = click.Path(path_type=Path, dir_okay=False)
LABEL: Final = Label()
PAUSE_S: Final = Number(0.0, 86_400.0, is_open=True)
RATE: Final = Number(0.0, 1e9)
SEED: Final = click.IntRange(-(2**63), 2**63 - 1)
COUNT: Final = click.IntRange(1, 10**9)
COUNT_OR_NONE: Final = click.IntRange(0, 10**12)
