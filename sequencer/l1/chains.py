"""Starts a development chain (embedded py-evm, anvil or hardhat) or attaches to a running node.

anvil and hardhat come from npm with pinned versions (`devnets/package-lock.json`), installed once into
`$XDG_CACHE_HOME/fairstrike/devnets`. All three run Prague from genesis at any date, mine a block a transaction
unless a block time is given, have chain id 31337, a gas limit of 60M, and the ten well-known accounts.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from sequencer.l1.errors import ChainStartError, RpcError, RpcRejected, RpcUnavailable
from sequencer.l1.rpc import Rpc, to_int
from sequencer.l1.signing import Signer

ChainName = Literal["pyevm", "anvil", "hardhat"]

DEVNET_MNEMONIC: Final = "test test test test test test test test test test test junk"
DEVNET_ACCOUNTS: Final = 10
DEVNETS_DIR: Final = Path(__file__).parent / "devnets"
GAS_LIMIT: Final = 60_000_000
STATES_MAX: Final = 256  # old blocks whose state can be asked for; anvil would write all others to the disk
READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0
INSTALL_TIMEOUT_S: Final = 300.0
START_TRIES: Final = 3
LOG_TAIL_BYTES: Final = 600
LOG_HEAD_BYTES: Final = 100_000
_READY_MARKS: Final = {"pyevm": "listening on ", "anvil": "Listening on ", "hardhat": "Started HTTP"}


@dataclass(slots=True)
class Chain:
    """A chain to talk to. A started one ends with `stop` (or with its `with`); an attached one is left alone."""

    name: str
    url: str
    chain_id: int
    rpc: Rpc
    process: subprocess.Popen[bytes] | None = None
    log_path: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process if this object started it."""
        self.rpc.close()
        if self.process is not None:
            _end(self.process)
            self.process = None

    def signer(self, index: int) -> Signer:
        """Key of a funded development account, 0 to 9."""
        return Signer.from_mnemonic(DEVNET_MNEMONIC, index)

    # --- development only -------------------------------------------------------------------------

    def head_time_s(self) -> int:
        block = self.rpc.block("latest")
        assert block is not None
        return to_int(block["timestamp"])

    def mine(self, blocks: int = 1) -> None:
        self.rpc.batch_strict([("evm_mine", ())] * blocks)

    def set_next_time(self, time_s: int) -> None:
        """Timestamp of the next block; time goes on from there."""
        self.rpc.call("evm_setNextBlockTimestamp", time_s)

    def set_time(self, time_s: int) -> int:
        """Mines a block with this timestamp unless the head is there already; returns the head's timestamp."""
        head_s = self.head_time_s()
        if time_s <= head_s:
            return head_s
        self.set_next_time(time_s)
        self.mine()
        return time_s

    def increase_time(self, seconds: int) -> None:
        """Shifts the chain's clock; it shows in the next block."""
        self.rpc.call("evm_increaseTime", seconds)

    def set_automine(self, on: bool) -> None:
        self.rpc.call("evm_setAutomine", on)

    def snapshot(self) -> str:
        return str(self.rpc.call("evm_snapshot"))

    def revert(self, snapshot_id: str) -> None:
        """Back to a snapshot, which is spent by it; blocks mined after it are gone as in a reorganisation."""
        if not self.rpc.call("evm_revert", snapshot_id):
            raise RpcRejected("evm_revert", -32000, f"no snapshot {snapshot_id}")

    def drop_transaction(self, tx_hash: str) -> None:
        """Makes the mempool forget a transaction."""
        prefix = {"anvil": "anvil", "hardhat": "hardhat"}.get(self.name, "evm")
        self.rpc.call(f"{prefix}_dropTransaction", tx_hash)


def start(
    chain: str,
    *,
    genesis_time_s: int | None = None,
    block_time_s: float | None = None,
    port: int | None = None,
    log_dir: Path | None = None,
    ready_timeout_s: float = READY_TIMEOUT_S,
    caps_tx_gas: bool = False,
) -> Chain:
    """Start "pyevm", "anvil" or "hardhat" on 127.0.0.1, or attach to a URL.

    `genesis_time_s` is the first block's time (now when None), `block_time_s` the interval of mining (None mines
    each transaction at once), `port` a free one when None. `caps_tx_gas`: no transaction above 16,777,216 gas
    (EIP-7825); anvil only, and then of Osaka, which has that rule. Raises ChainStartError.
    """
    if "://" in chain:
        rpc = Rpc(chain)
        try:
            return Chain("url", chain, rpc.chain_id(), rpc)
        except RpcError as error:
            raise ChainStartError(chain, str(error)) from error
    if chain not in ("pyevm", "anvil", "hardhat"):
        raise ChainStartError(chain, "unknown chain: pyevm, anvil, hardhat or a URL")
    if caps_tx_gas and chain != "anvil":
        raise ChainStartError(chain, "caps_tx_gas: only anvil can bound a transaction's gas")
    directory = log_dir or Path(tempfile.gettempdir()) / f"fairstrike-{os.getuid()}"
    directory.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, START_TRIES + 1):
        chosen = port or _free_port()
        # Of this process alone: what another's node says on the same port must not be taken for this one's.
        log_path = directory / f"{chain}-{chosen}-{os.getpid()}.log"
        command, environment, cwd = _command(chain, chosen, genesis_time_s, block_time_s)
        if caps_tx_gas:
            command += ["--enable-tx-gas-limit"]
            command[command.index("prague")] = "osaka"
        process = _spawn(command, environment, cwd, log_path)
        try:
            return _ready(chain, chosen, process, log_path, ready_timeout_s)
        except ChainStartError as error:
            _end(process)
            # another process may have taken the port between looking and binding
            if port is not None or attempt == START_TRIES or "in use" not in str(error).lower():
                raise
    raise AssertionError("unreachable")


def is_installed() -> bool:
    """Whether anvil and hardhat are installed already."""
    return (install_dir() / ".installed").exists()


def install_dir() -> Path:
    """Where this version's npm packages are, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    lock = (DEVNETS_DIR / "package-lock.json").read_bytes()
    return cache / "fairstrike" / "devnets" / hashlib.sha256(lock).hexdigest()[:12]


def install() -> Path:
    """Install anvil and hardhat with npm unless they are; returns the directory. Raises ChainStartError."""
    directory = install_dir()
    directory.mkdir(parents=True, exist_ok=True)
    _put(DEVNETS_DIR / "hardhat.config.js", directory)
    if is_installed():
        return directory
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise ChainStartError(
            "anvil/hardhat",
            "they come from npm, and Node.js (20 or newer) is not on the PATH; chain 'pyevm' needs neither",
        )
    log_path = directory / "npm.log"
    with _locked(directory / ".lock"), log_path.open("wb") as log:
        if is_installed():
            return directory
        for name in ("package.json", "package-lock.json"):
            shutil.copy(DEVNETS_DIR / name, directory)
        command = [npm, "ci", "--prefix", str(directory), "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            subprocess.run(
                command,
                stdout=log,
                stderr=log,
                check=True,
                timeout=INSTALL_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise ChainStartError("anvil/hardhat", f"npm ci failed: {error}", str(log_path)) from error
        (directory / ".installed").touch()
    return directory


def _put(source: Path, directory: Path) -> None:
    """A copy of `source`, at no time half of one: others may be reading it."""
    target, content = directory / source.name, source.read_bytes()
    if target.exists() and target.read_bytes() == content:
        return
    beside = directory / f"{source.name}.{os.getpid()}"
    beside.write_bytes(content)
    beside.replace(target)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _anvil(directory: Path) -> str:
    """The platform's binary: without the wrapper script there is one process to end."""
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower(), ""
    )
    system = platform.system().lower()
    binary = directory / "node_modules" / "@foundry-rs" / f"anvil-{system}-{machine}" / "bin" / "anvil"
    if not binary.exists():
        raise ChainStartError("anvil", f"there is no binary for {system}/{machine}")
    return str(binary)


def _command(
    chain: str, port: int, genesis_time_s: int | None, block_time_s: float | None
) -> tuple[list[str], dict[str, str], Path | None]:
    """Command, additions to the environment, working directory."""
    if chain == "pyevm":
        command = [sys.executable, "-m", "sequencer.l1.pyevm_node", "--port", str(port)]
        if genesis_time_s is not None:
            command += ["--genesis-time", str(genesis_time_s)]
        if block_time_s is not None:
            command += ["--block-time", str(block_time_s)]
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
        return command, {"PYTHONPATH": path}, None
    directory = install()
    if chain == "anvil":
        command = [_anvil(directory), "--host", "127.0.0.1", "--port", str(port), "--hardfork", "prague"]
        command += [
            "--gas-limit",
            str(GAS_LIMIT),
            "--mnemonic",
            DEVNET_MNEMONIC,
            "--accounts",
            str(DEVNET_ACCOUNTS),
            "--prune-history",
            str(STATES_MAX),
        ]
        if genesis_time_s is not None:
            command += ["--timestamp", str(genesis_time_s)]
        if block_time_s is not None:
            command += ["--block-time", str(block_time_s)]
        return command, {}, None
    node = shutil.which("node")
    if node is None:
        raise ChainStartError("hardhat", "Node.js is not on the PATH")
    command = [node, str(directory / "node_modules" / "hardhat" / "internal" / "cli" / "bootstrap.js")]
    command += ["--config", str(directory / "hardhat.config.js")]
    command += ["node", "--hostname", "127.0.0.1", "--port", str(port)]
    environment = {"HARDHAT_DISABLE_TELEMETRY_PROMPT": "true", "HARDHAT_TELEMETRY_DISABLED": "true"}
    if genesis_time_s is not None:
        environment["FAIRSTRIKE_INITIAL_DATE"] = datetime.fromtimestamp(genesis_time_s, UTC).isoformat()
    if block_time_s is not None:
        environment["FAIRSTRIKE_BLOCK_TIME_MS"] = str(int(block_time_s * 1000))
    return command, environment, directory


def _spawn(
    command: list[str], environment: dict[str, str], cwd: Path | None, log_path: Path
) -> subprocess.Popen[bytes]:
    with log_path.open("wb") as log:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=os.environ | environment,
                start_new_session=True,  # a Ctrl-C in the terminal ends the sequencer first, then its chain
            )
        except OSError as error:
            raise ChainStartError(command[0], str(error), str(log_path)) from error


def _ready(name: str, port: int, process: subprocess.Popen[bytes], log_path: Path, timeout_s: float) -> Chain:
    url = f"http://127.0.0.1:{port}"
    rpc = Rpc(url, attempts=1)
    try:
        chain_id = _wait_for_answer(rpc, name, process, log_path, timeout_s)
    finally:
        rpc.close()
    return Chain(name, url, chain_id, Rpc(url), process, log_path)


def _wait_for_answer(
    rpc: Rpc, name: str, process: subprocess.Popen[bytes], log_path: Path, timeout_s: float
) -> int:
    """The chain's id, once the node answers; raises ChainStartError when it ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ChainStartError(name, f"exit code {process.returncode}: {_tail(log_path)}", str(log_path))
        # the log says that it is this process that listens, and not another one on the same port
        if _READY_MARKS[name] in _tail(log_path, LOG_HEAD_BYTES):
            with contextlib.suppress(RpcUnavailable):
                chain_id = rpc.chain_id()
                if process.poll() is None:
                    return chain_id
        time.sleep(0.02)
    raise ChainStartError(name, f"no answer within {timeout_s:.0f} s: {_tail(log_path)}", str(log_path))


def _tail(log_path: Path, size_bytes: int = LOG_TAIL_BYTES) -> str:
    with contextlib.suppress(OSError):
        return log_path.read_bytes()[-size_bytes:].decode("utf-8", "replace").strip()
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: Any = probe.getsockname()[1]
        return int(port)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then insist; the process is this one's child and leads its own group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
            return
