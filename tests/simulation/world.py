"""What a simulation plays on: a chain with the exchange on it, funded traders, a sequencer process, a client."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from sequencer.api import ipc
from sequencer.development import receipt_key
from sequencer.genesis import genesis_root
from sequencer.l1.chains import Chain, start
from sequencer.l1.deploy import TAKEOVER_S, DeployConfig, Deployment, deploy
from sequencer.l1.signing import Signer
from sequencer.l1.wallet import Wallet
from sequencer.local.bench import key_of, options, owner_of
from sequencer.local.devnet import devnet_key, devnet_params, devnet_signer
from sequencer.node.startup import KEY_VARIABLE
from sequencer.protocol import codec
from sequencer.protocol import constants as c
from sequencer.protocol.constants import Kind
from sequencer.protocol.params import Params
from sequencer.wire.receipts import in_json

ROOT = Path(__file__).resolve().parents[2]
CASH = 1_000_000_000_000
MID = 200_000
RECEIPT_VARIABLE = "FAIRSTRIKE_TEST_RECEIPT_KEY"
RECEIPT_KEY = f"env:{RECEIPT_VARIABLE}"  # for a node that signs receipts
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def option_name(day: int, strike_ticks: int, is_put: bool) -> str:
    """BTC-2JAN22-48000-C."""
    date = time.gmtime(day * c.DAY_S)
    month = MONTHS[date.tm_mon - 1]
    return f"BTC-{date.tm_mday}{month}{date.tm_year % 100:02d}-{strike_ticks // 100}-{'P' if is_put else 'C'}"


@dataclass(slots=True)
class World:
    """Folder, chain and deployment; `accounts[i]` is that of `key_of(i)`."""

    folder: Path
    chain: Chain
    deployment: Deployment
    params: Params
    domain: bytes
    accounts: list[int] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        folder: Path,
        traders: int,
        chain: str = "pyevm",
        data: str = "calldata",
        takeover_s: int = TAKEOVER_S,
        **params: int,
    ) -> Self:
        """A fresh one, with `traders` deposits made."""
        folder.mkdir(parents=True, exist_ok=True)
        of = devnet_params(target_per_s=1_000_000, risk_age_max_s=86_400, **params)
        started = start(chain, log_dir=folder)
        try:
            signer = devnet_signer(0)
            config = DeployConfig(genesis_root(of), signer.address, 60, 60, data=data, takeover_s=takeover_s)
            at = deploy(started.rpc, signer, config)
            at.save(folder / "deployment.json")
            changed = {name: value for name, value in asdict(of).items() if isinstance(value, int)}
            (folder / "params.json").write_text(json.dumps(changed))
            names = [option_name(day, strike, is_put) for _, day, strike, is_put in options(int(time.time()))]
            (folder / "list.json").write_text(json.dumps(names))
            domain = codec.domain_separator(at.chain_id, bytes.fromhex(at.rollup[2:]))
            world = cls(folder, started, at, of, domain)
            for number in range(traders):
                world.fund(number)
            started.mine()
        except BaseException:
            started.stop()
            raise
        return world

    def fund(self, number: int, amount: int = CASH) -> int:
        """Deposits for `key_of(number)`; the index of the inbox message."""
        signer = Signer(key_of(number))
        bank = Wallet(self.chain.rpc, devnet_signer(9), self.deployment)
        bank.transact("ether", signer.address, b"", 10**17, 21_000)
        wallet = Wallet(self.chain.rpc, signer, self.deployment)
        wallet.mint(amount)
        index = wallet.deposit_with_permit(amount)
        if number == len(self.accounts):
            self.accounts.append(wallet.account())
        return index

    @property
    def data(self) -> Path:
        """The sequencer's folder."""
        return self.folder / "sequencer"

    @property
    def socket(self) -> str:
        return str(self.folder / "s.sock")

    def start_node(
        self,
        fault: tuple[str, int] | None = None,
        feed: str = "flat:46000",
        l1: str = "",
        flags: tuple[str, ...] = (),
        key: int = 0,
        clock: Path | None = None,
        **changed: object,
    ) -> "Node":
        """Starts a sequencer process of devnet key `key`; `changed` options by name. `clock`: a file with the seconds
        by which its clock is off.
        """
        options_: dict[str, object] = {
            "folder": self.data,
            "deployment": self.folder / "deployment.json",
            "params": self.folder / "params.json",
            "list": self.folder / "list.json",
            "l1": l1 or self.chain.url,
            "socket": self.socket,
            "feed": feed,
            "tick": 2.0,
            "tick-records": 8,
            "rate": 1_000_000,
            "poll": 0.05,
            "batch-interval": 0.05,
            "snapshot-ticks": 40,
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        arguments = ["--devnet", *flags]
        for name, value in options_.items():
            arguments += [f"--{name}", str(value)]
        module = ["sequencer.node.process"]
        if fault is not None:
            module = ["tests.simulation.faulty_node", fault[0], str(fault[1])]
        if clock is not None:
            module = ["tests.simulation.shifted_node", str(clock)]
        with (self.folder / "node.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *module, *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ
                | {KEY_VARIABLE: "0x" + devnet_key(key).hex(), RECEIPT_VARIABLE: "0x" + receipt_key().hex()},
            )
        return Node(process, str(options_["socket"]))

    def log_tail(self, size: int = 3_000) -> str:
        """The end of what the nodes have said."""
        with contextlib.suppress(OSError):
            return (self.folder / "node.log").read_bytes()[-size:].decode(errors="replace")
        return ""

    def stop(self) -> None:
        self.chain.stop()


@dataclass(slots=True)
class Node:
    """A sequencer process."""

    process: subprocess.Popen[bytes]
    socket: str

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def l1_process(self) -> int | None:
        """The process that talks to L1 for it, while there is one."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError):
                parent = int(path.read_text().rsplit(")", 1)[1].split()[1])
                if parent == self.process.pid and b"l1_process" in (path.parent / "cmdline").read_bytes():
                    return int(path.parent.name)
        return None

    async def connect(self, timeout_s: float = 60.0) -> "Client | None":
        """A client, as soon as the process listens; None when it ends before."""
        until = time.monotonic() + timeout_s
        while self.is_alive and time.monotonic() < until:
            client = Client()
            with contextlib.suppress(OSError):
                client.connection = await ipc.connect(self.socket, client.on_message, client.on_lost)
                return client
            await asyncio.sleep(0.004)
        return None


class Client:
    """A gateway's place: submits records whose signers it knows, and remembers what came back."""

    def __init__(self) -> None:
        self.connection: ipc.Connection
        self.lost = asyncio.Event()
        self.waiting: dict[int, bytes] = {}
        self.answers: deque[tuple[bytes, bool, dict[str, Any]]] = deque()
        self.events: list[tuple[str, Any]] = []
        self.answered = asyncio.Event()
        self._queries: dict[int, asyncio.Future[tuple[bool, Any]]] = {}
        self._rid = 0

    def on_message(self, _connection: ipc.Connection, message: ipc.Message) -> None:
        if isinstance(message, ipc.Acks):
            for rid, ok, body in message.items:
                self.answers.append((self.waiting.pop(rid), ok, json.loads(in_json(body))))
            self.answered.set()
        elif isinstance(message, ipc.Events):
            self.events += [(channel, json.loads(body)) for channel, _, body in message.items]
        elif isinstance(message, ipc.Answer):
            future = self._queries.pop(message.rid)
            if not future.done():
                future.set_result((message.ok, json.loads(message.body)))

    def on_lost(self, _connection: ipc.Connection, _reason: str) -> None:
        self.lost.set()
        self.answered.set()
        for future in self._queries.values():
            if not future.done():
                future.set_exception(ConnectionError("the sequencer is gone"))

    def submit(self, items: list[tuple[bytes, bytes]]) -> None:
        """Sends (record, signer)s."""
        listed = []
        for raw, signer in items:
            self._rid += 1
            self.waiting[self._rid] = raw
            listed.append((self._rid, raw, signer, ""))
        self.connection.send(ipc.Submit(listed))

    async def ask(self, method: str, **params: Any) -> Any:
        """The answer to a query. Raises ConnectionError when the sequencer goes."""
        self._rid += 1
        future: asyncio.Future[tuple[bool, Any]] = asyncio.get_running_loop().create_future()
        self._queries[self._rid] = future
        if not self.connection.send(ipc.Query(self._rid, method, params)):
            raise ConnectionError("the sequencer is gone")
        ok, body = await asyncio.wait_for(future, 60)
        assert ok, body
        return body

    async def hear_books(self) -> None:
        """Gets the events of every instrument's book from now on."""
        names = [f"book.{one['instrument']}" for one in await self.ask("instruments")]
        self._rid += 1
        future: asyncio.Future[tuple[bool, Any]] = asyncio.get_running_loop().create_future()
        self._queries[self._rid] = future
        self.connection.send(ipc.Hear(self._rid, True, names))
        await asyncio.wait_for(future, 60)

    async def until(self, condition: Any, timeout_s: float, what: str) -> dict[str, Any]:
        """The status, once `condition(status)` holds."""
        until = time.monotonic() + timeout_s
        while True:
            status: dict[str, Any] = await self.ask("status")
            if condition(status):
                return status
            assert time.monotonic() < until, f"waited {timeout_s:.0f} s for {what}: {status}"
            await asyncio.sleep(0.02)

    async def l1_seen(self) -> dict[str, Any]:
        """The status, once the sequencer has looked at L1 as it is now, and been through with it."""
        before = await self.ask("status")
        wanted = before["l1_looks"] + 3  # two may have begun before, of which one is not reported yet
        return await self.until(lambda one: one["l1_looks"] >= wanted, 60, "three looks at L1")

    async def answer(self, timeout_s: float = 60.0) -> tuple[bytes, bool, dict[str, Any]]:
        """The next answer to a submission."""
        while not self.answers:
            self.answered.clear()
            await asyncio.wait_for(self.answered.wait(), timeout_s)
            if self.lost.is_set() and not self.answers:
                raise ConnectionError("the sequencer is gone")
        return self.answers.popleft()

    def close(self) -> None:
        self.connection.close()


def withdrawal(domain: bytes, place: int, account: int, nonce: int) -> tuple[bytes, bytes]:
    """(record, signer) of one that takes out 1 USD."""
    raw = codec.encode(Kind.WITHDRAW, account=account, amount=1_000_000, nonce=nonce, expires=0)
    return codec.sign(raw, domain, key_of(place)), owner_of(place)


def order(
    domain: bytes, place: int, account: int, nonce: int, instrument: int, number: int, is_good: bool = True
) -> tuple[bytes, bytes]:
    """(record, signer) of order `number`: of each four, two rest beside the market and two cross it.

    One that is not good has no quantity, and is refused.
    """
    side = (c.BUY, c.SELL)[number % 2]
    outward = -1 if side == c.BUY else 1
    if number % 4 < 2:
        price = MID + outward * (200 + number % 50)
        flags, quantity = side | c.FLAG_POST_ONLY, 20
    else:
        price = MID - outward * 400
        flags, quantity = side | c.TIF_IOC << c.FLAG_TIF_SHIFT, 15
    raw = codec.encode(
        Kind.PLACE,
        account=account,
        instrument=instrument,
        flags=flags,
        price=price,
        quantity=quantity if is_good else 0,
        nonce=nonce,
        expires=0,
        fee_max=65_535,
    )
    return codec.sign(raw, domain, key_of(place)), owner_of(place)
