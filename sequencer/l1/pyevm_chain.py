"""The embedded chain: blocks, a transaction pool and snapshots over py-evm's Prague rules, in memory.

py-evm executes; the blocks, receipts and logs are kept in lists here, because its own chain class hashes and
stores every transaction several times over and finds a receipt by walking the chain. State lives in one
node store by root, so that a snapshot is a block number and a revert is a truncation.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import eth_hash.auto
import rlp
from eth.chains.base import ChainContext
from eth.db.atomic import AtomicDB
from eth.db.chain import ChainDB
from eth.db.trie import make_trie_root_and_nodes
from eth.exceptions import Revert, VMError
from eth.vm.forks.prague import PragueVM
from eth.vm.spoof import SpoofTransaction
from eth_account.hdaccount import HDPath, seed_from_mnemonic
from eth_keys.datatypes import PrivateKey
from eth_typing import Address, Hash32
from eth_utils import ValidationError
from tiny_keccak import keccak256

from sequencer.l1.pyevm_blocks import Block, Call, ChainError, Mined, Pooled, Snapshot, hexbytes, hexint
from sequencer.l1.refusals import revert_reason

DEVNET_MNEMONIC: Final = "test test test test test test test test test test test junk"
DEVNET_PATH: Final = "m/44'/60'/0'/0/{}"
DEVNET_ACCOUNTS: Final = 10
DEVNET_BALANCE_WEI: Final = 10_000 * 10**18
CHAIN_ID: Final = 31_337
GAS_LIMIT: Final = 60_000_000
TRANSACTION_BYTES_MAX: Final = 131_072
TIP_WEI: Final = 10**9
EMPTY_ROOT: Final = Hash32(bytes.fromhex("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"))
REPLACEMENT_PERCENT: Final = 110
BLOCK_HASHES: Final = 256
ZERO_ADDRESS: Final = bytes(20)


def _keccak(in_data: bytearray | bytes) -> bytes:
    return keccak256(bytes(in_data))


# py-evm hashes through eth_hash, which knows no faster backend than pycryptodome (10 µs a node, here 0.5)
eth_hash.auto.keccak.hasher = _keccak


def devnet_keys() -> list[bytes]:
    """The ten well-known development keys (those of anvil and hardhat)."""
    seed = seed_from_mnemonic(DEVNET_MNEMONIC, "")
    return [bytes(HDPath(DEVNET_PATH.format(i)).derive(seed)) for i in range(DEVNET_ACCOUNTS)]


class _Vm(PragueVM):
    """Prague with the block hashes taken from the list of blocks."""

    recent_hashes: Callable[[], Iterable[Hash32]]

    @property
    def previous_hashes(self) -> Iterable[Hash32]:
        return self.recent_hashes()


@dataclass(slots=True)
class PyEvmChain:
    """One development chain. `clock` gives the wall time in seconds; `on_block` hears of each block that is made."""

    genesis_time_s: int | None = None
    chain_id: int = CHAIN_ID
    clock: Callable[[], float] = time.time
    automine: bool = True
    on_block: Callable[[Block], None] = lambda _block: None
    blocks: list[Block] = field(default_factory=list)
    number_of: dict[bytes, int] = field(default_factory=dict)
    where: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    pool: dict[tuple[bytes, int], Pooled] = field(default_factory=dict)
    snapshots: list[Snapshot | None] = field(default_factory=list)
    addresses: list[bytes] = field(default_factory=list)
    _db: Any = None
    _chaindb: Any = None
    _context: Any = None
    _offset_s: float = 0.0
    _next_time_s: int | None = None
    _arrivals: int = 0
    _reverts: int = 0

    def __post_init__(self) -> None:
        self._db = AtomicDB()
        self._chaindb = ChainDB(self._db)
        self._context = ChainContext(self.chain_id)
        self.addresses = [PrivateKey(key).public_key.to_canonical_address() for key in devnet_keys()]
        genesis_s = int(self.clock()) if self.genesis_time_s is None else self.genesis_time_s
        self._offset_s = genesis_s - self.clock()
        state: Any = PragueVM.get_state_class()(self._db, cast("Any", None), EMPTY_ROOT)
        for address in self.addresses:
            state.set_balance(address, DEVNET_BALANCE_WEI)
        state.persist()
        header = PragueVM.create_genesis_header(
            timestamp=genesis_s,
            gas_limit=GAS_LIMIT,
            state_root=state.state_root,
            coinbase=ZERO_ADDRESS,
            difficulty=0,
        )
        self._append(Block(header, header.hash, [], []))

    # --- reading ------------------------------------------------------------------------------

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    @property
    def head_number(self) -> int:
        return len(self.blocks) - 1

    def state_at(self, number: int) -> Any:
        """A fresh state to read from or to execute calls on, in the context of block `number`."""
        return self._vm(self.blocks[number].header).state

    def nonce(self, address: bytes, number: int) -> int:
        return int(self.state_at(number).get_nonce(address))

    def pending_nonce(self, address: bytes) -> int:
        nonce = self.nonce(address, self.head_number)
        while (address, nonce) in self.pool:
            nonce += 1
        return nonce

    def base_fee_next(self) -> int:
        return int(
            PragueVM.create_header_from_parent(
                self.head.header, timestamp=2**63, gas_limit=GAS_LIMIT
            ).base_fee_per_gas
        )

    def call(self, call: "Call", number: int, gas: int | None = None) -> tuple[bytes, int]:
        """Execute without keeping: (output, gas needed before refunds). Reverts raise ChainError code 3."""
        state = self.state_at(number)
        gas = gas or call.gas
        price = self.blocks[number].header.base_fee_per_gas
        # the caller need not own the gas that a call only pretends to buy
        state.set_balance(call.sender, state.get_balance(call.sender) + gas * price)
        nonce = state.get_nonce(call.sender)
        transaction = PragueVM.create_unsigned_transaction(
            nonce=nonce, gas_price=price, gas=gas, to=Address(call.to), value=call.value, data=call.data
        )
        spoof = SpoofTransaction(transaction, from_=call.sender)
        try:
            computation = state.apply_transaction(spoof)
        except (ValidationError, VMError) as error:
            raise ChainError(str(error)) from error
        if computation.is_error:
            output = bytes(computation.output)
            if isinstance(computation.error, Revert):
                reason = revert_reason(output)
                raise ChainError(
                    f"execution reverted: {reason}" if reason else "execution reverted", 3, hexbytes(output)
                )
            raise ChainError(f"execution failed: {computation.error!r}", 3, "0x")
        spent = transaction.intrinsic_gas + computation.get_gas_used()
        return bytes(computation.output), max(spent, floor_gas(call.data))

    def estimate(self, call: "Call", number: int) -> int:
        """Gas to send, by bisection; a first guess with the 1/64 that every call keeps back ends it mostly."""
        _, spent = self.call(call, number, GAS_LIMIT)
        low, high = spent - 1, GAS_LIMIT
        guess = spent
        while high - low > max(1, low // 64):
            try:
                self.call(call, number, guess)
                high = guess
            except ChainError:
                low = guess
            guess = min((low + high) // 2, low + low // 32)
        return high

    # --- the pool -----------------------------------------------------------------------------

    def send(self, raw: bytes) -> bytes:
        """Take a signed transaction into the pool; with automine, mine it when it is its turn."""
        if len(raw) > TRANSACTION_BYTES_MAX and raw[:1] != b"\x03":
            raise ChainError(f"oversized data: transaction size {len(raw)}, limit {TRANSACTION_BYTES_MAX}")
        try:
            transaction = PragueVM.get_transaction_builder().decode(_without_sidecar(raw))
            transaction.validate()
            sender = transaction.sender
        except (ValidationError, rlp.exceptions.RLPException, ValueError, TypeError) as error:
            raise ChainError(f"invalid transaction: {error}") from error
        self._admit(transaction, sender)
        key = (sender, transaction.nonce)
        self._arrivals += 1
        self.pool[key] = Pooled(transaction, sender, transaction.nonce, transaction.hash, self._arrivals)
        if self.automine:
            while self._executable():
                self.mine()
        return bytes(transaction.hash)

    def _admit(self, transaction: Any, sender: bytes) -> None:
        if transaction.chain_id not in (None, self.chain_id):
            raise ChainError(f"invalid chain id: have {transaction.chain_id}, want {self.chain_id}")
        old = self.pool.get((sender, transaction.nonce))
        if transaction.hash in self.where or (old and old.hash == transaction.hash):
            raise ChainError("already known")
        state = self.state_at(self.head_number)
        nonce = state.get_nonce(sender)
        if transaction.nonce < nonce:
            raise ChainError(f"nonce too low: next nonce {nonce}, tx nonce {transaction.nonce}")
        if transaction.gas < max(transaction.intrinsic_gas, floor_gas(transaction.data)):
            raise ChainError("intrinsic gas too low")
        if transaction.gas > GAS_LIMIT:
            raise ChainError("exceeds block gas limit")
        if state.get_balance(sender) < transaction.gas * transaction.max_fee_per_gas + transaction.value:
            raise ChainError("insufficient funds for gas * price + value")
        if old and not all(
            getattr(transaction, name) * 100 >= getattr(old.transaction, name) * REPLACEMENT_PERCENT
            for name in ("max_fee_per_gas", "max_priority_fee_per_gas")
        ):
            raise ChainError("replacement transaction underpriced")

    def drop(self, tx_hash: bytes) -> bool:
        """Forget a pooled transaction, as a mempool may."""
        for key, pooled in self.pool.items():
            if pooled.hash == tx_hash:
                del self.pool[key]
                return True
        return False

    def _executable(self) -> list[Pooled]:
        base_fee = self.base_fee_next()
        state = self.state_at(self.head_number)
        chosen: list[Pooled] = []
        nonces: dict[bytes, int] = {}
        gas = 0
        waiting = sorted(self.pool.values(), key=lambda pooled: pooled.arrival)
        progress = True
        while progress:
            progress = False
            for pooled in waiting:
                expected = nonces.get(pooled.sender)
                if expected is None:
                    expected = nonces[pooled.sender] = state.get_nonce(pooled.sender)
                fits = gas + pooled.transaction.gas <= GAS_LIMIT
                if pooled.nonce == expected and pooled.transaction.max_fee_per_gas >= base_fee and fits:
                    chosen.append(pooled)
                    nonces[pooled.sender] += 1
                    gas += pooled.transaction.gas
                    progress = True
        return chosen

    # --- mining -------------------------------------------------------------------------------

    def mine(self) -> Block:
        """Mine one block with what the pool holds, in order of arrival."""
        header = self._next_header()
        vm = self._vm(header)
        mined: list[Mined] = []
        receipts: list[Any] = []
        logs: list[dict[str, Any]] = []
        for pooled in self._executable():
            transaction = pooled.transaction
            try:
                receipt, computation = vm.apply_transaction(header, transaction)
            except (ValidationError, VMError):
                continue
            finally:
                self.pool.pop((pooled.sender, pooled.nonce), None)
            header = vm.increment_blob_gas_used(vm.add_receipt_to_header(header, receipt), transaction)
            before = mined[-1].cumulative_gas if mined else 0
            contract = computation.msg.storage_address if computation.msg.is_create else None
            receipts.append(receipt)
            mined.append(
                Mined(
                    transaction,
                    pooled.sender,
                    pooled.hash,
                    len(mined),
                    receipt.gas_used - before,
                    receipt.gas_used,
                    0 if computation.is_error else 1,
                    receipt.bloom,
                    contract,
                    [_log(entry) for entry in receipt.logs],
                    _effective_gas_price(transaction, header.base_fee_per_gas),
                )
            )
        vm.state.persist()
        header = header.copy(
            state_root=vm.state.state_root,
            transaction_root=_trie_root([item.transaction for item in mined]),
            receipt_root=_trie_root(receipts),
        )
        block = Block(header, header.hash, mined, logs)
        for item in mined:
            for entry in item.logs:
                entry |= {
                    "blockNumber": hexint(header.block_number),
                    "blockHash": hexbytes(block.hash),
                    "transactionHash": hexbytes(item.hash),
                    "transactionIndex": hexint(item.index),
                    "logIndex": hexint(len(logs)),
                    "removed": False,
                }
                logs.append(entry)
        self._append(block)
        self.on_block(block)
        return block

    def next_time_s(self) -> int:
        """Timestamp of a block that is made now."""
        if self._next_time_s is not None:
            return self._next_time_s
        return max(int(self.head.header.timestamp) + 1, int(self.clock() + self._offset_s))

    def _next_header(self) -> Any:
        number = len(self.blocks)
        parent = self.head.header
        time_s, self._next_time_s = self.next_time_s(), None
        # a block mined again after a revert must be another block, whatever its content
        mix_hash = keccak256(number.to_bytes(8, "big") + self._reverts.to_bytes(8, "big"))
        return PragueVM.create_header_from_parent(
            parent, timestamp=time_s, gas_limit=GAS_LIMIT, coinbase=ZERO_ADDRESS, mix_hash=mix_hash
        )

    def _vm(self, header: Any) -> Any:
        vm = _Vm(header, self._chaindb, self._context, cast("Any", None))
        number = header.block_number
        vm.recent_hashes = lambda: (
            block.hash for block in reversed(self.blocks[max(0, number - BLOCK_HASHES) : number])
        )
        return vm

    def _append(self, block: Block) -> None:
        number = len(self.blocks)
        self.blocks.append(block)
        self.number_of[block.hash] = number
        for item in block.mined:
            self.where[item.hash] = (number, item.index)

    # --- time and snapshots -------------------------------------------------------------------

    def set_next_time(self, time_s: int) -> None:
        if time_s <= self.head.header.timestamp:
            raise ChainError(f"timestamp {time_s} is not after the head's {self.head.header.timestamp}")
        self._next_time_s = time_s
        self._offset_s = time_s - self.clock()

    def increase_time(self, seconds: int) -> int:
        self._offset_s += seconds
        return int(self._offset_s)

    def snapshot(self) -> int:
        self.snapshots.append(Snapshot(self.head_number, dict(self.pool), self._offset_s))
        return len(self.snapshots)

    def revert(self, snapshot_id: int) -> bool:
        """Back to a snapshot, which is spent by it, like all later ones."""
        if not 1 <= snapshot_id <= len(self.snapshots) or self.snapshots[snapshot_id - 1] is None:
            return False
        taken = self.snapshots[snapshot_id - 1]
        assert taken is not None
        for index in range(snapshot_id - 1, len(self.snapshots)):
            self.snapshots[index] = None
        for block in self.blocks[taken.head + 1 :]:
            self.number_of.pop(block.hash, None)
            for item in block.mined:
                self.where.pop(item.hash, None)
        del self.blocks[taken.head + 1 :]
        self.pool = dict(taken.pool)
        self._offset_s = taken.offset_s
        self._next_time_s = None
        self._reverts += 1
        return True


def floor_gas(data: bytes) -> int:
    """EIP-7623: the least a transaction pays for its calldata."""
    zeros = data.count(0)
    return 21_000 + 10 * zeros + 40 * (len(data) - zeros)


def _effective_gas_price(transaction: Any, base_fee: int) -> int:
    return int(min(transaction.max_fee_per_gas, base_fee + transaction.max_priority_fee_per_gas))


def _log(entry: Any) -> dict[str, Any]:
    return {
        "address": hexbytes(entry.address),
        "topics": ["0x" + topic.to_bytes(32, "big").hex() for topic in entry.topics],
        "data": hexbytes(entry.data),
    }


def _without_sidecar(raw: bytes) -> bytes:
    """A blob transaction travels with its blobs; the chain executes the body alone."""
    if raw[:1] == b"\x03":
        with contextlib.suppress(rlp.exceptions.RLPException):
            items = rlp.decode(raw[1:])
            if items and isinstance(items[0], list):
                return b"\x03" + bytes(rlp.encode(items[0]))
    return raw


def _trie_root(items: list[Any]) -> bytes:
    root, _ = make_trie_root_and_nodes(items)
    return bytes(root)
