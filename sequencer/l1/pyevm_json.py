"""Blocks, transactions and receipts of the embedded chain, as JSON-RPC has them."""

from typing import Any, Final

from sequencer.l1.pyevm_blocks import Block, Mined, Pooled, blob_gas, hexbytes, hexint

EMPTY_UNCLES: Final = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"


def head_json(block: Block) -> dict[str, Any]:
    """A header, as eth_subscribe tells it."""
    return {name: value for name, value in block_json(block, False).items() if name != "transactions"}


def block_json(block: Block, full: bool) -> dict[str, Any]:
    header = block.header
    return {
        "number": hexint(header.block_number),
        "hash": hexbytes(block.hash),
        "parentHash": hexbytes(header.parent_hash),
        "timestamp": hexint(header.timestamp),
        "gasLimit": hexint(header.gas_limit),
        "gasUsed": hexint(header.gas_used),
        "baseFeePerGas": hexint(header.base_fee_per_gas),
        "miner": hexbytes(header.coinbase),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": hexbytes(header.extra_data),
        "nonce": hexbytes(header.nonce),
        "mixHash": hexbytes(header.mix_hash),
        "sha3Uncles": EMPTY_UNCLES,
        "uncles": [],
        "size": "0x400",
        "logsBloom": "0x" + header.bloom.to_bytes(256, "big").hex(),
        "stateRoot": hexbytes(header.state_root),
        "transactionsRoot": hexbytes(header.transaction_root),
        "receiptsRoot": hexbytes(header.receipt_root),
        "withdrawalsRoot": hexbytes(header.withdrawals_root),
        "withdrawals": [],
        "blobGasUsed": hexint(blob_gas(block)),
        "excessBlobGas": hexint(header.excess_blob_gas),
        "parentBeaconBlockRoot": hexbytes(header.parent_beacon_block_root),
        "requestsHash": hexbytes(header.requests_hash),
        "transactions": [
            transaction_json(item, block) if full else hexbytes(item.hash) for item in block.mined
        ],
    }


def transaction_json(item: Mined | Pooled, block: Block | None) -> dict[str, Any]:
    transaction = item.transaction
    kind = int(getattr(transaction, "type_id", None) or 0)
    fields: dict[str, Any] = {
        "hash": hexbytes(item.hash),
        "type": hexint(kind),
        "nonce": hexint(transaction.nonce),
        "from": hexbytes(item.sender),
        "to": hexbytes(transaction.to) if transaction.to else None,
        "value": hexint(transaction.value),
        "gas": hexint(transaction.gas),
        "input": hexbytes(transaction.data),
        "r": hexint(transaction.r),
        "s": hexint(transaction.s),
        "v": hexint(transaction.y_parity if kind else transaction.v),
        "blockHash": None,
        "blockNumber": None,
        "transactionIndex": None,
        "gasPrice": hexint(transaction.max_fee_per_gas),
    }
    if transaction.chain_id is not None:
        fields["chainId"] = hexint(transaction.chain_id)
    if kind:
        fields["accessList"] = [
            {
                "address": hexbytes(entry[0]),
                "storageKeys": ["0x" + int(key).to_bytes(32, "big").hex() for key in entry[1]],
            }
            for entry in transaction.access_list
        ]
        fields["yParity"] = fields["v"]
    if kind >= 2:
        fields["maxFeePerGas"] = hexint(transaction.max_fee_per_gas)
        fields["maxPriorityFeePerGas"] = hexint(transaction.max_priority_fee_per_gas)
    if kind == 3:
        fields["blobVersionedHashes"] = [hexbytes(value) for value in transaction.blob_versioned_hashes]
    if block is not None and isinstance(item, Mined):
        fields |= {
            "blockHash": hexbytes(block.hash),
            "blockNumber": hexint(block.header.block_number),
            "transactionIndex": hexint(item.index),
            "gasPrice": hexint(item.gas_price),
        }
    return fields


def receipt_json(item: Mined, block: Block) -> dict[str, Any]:
    return {
        "transactionHash": hexbytes(item.hash),
        "transactionIndex": hexint(item.index),
        "blockHash": hexbytes(block.hash),
        "blockNumber": hexint(block.header.block_number),
        "from": hexbytes(item.sender),
        "to": hexbytes(item.transaction.to) if item.transaction.to else None,
        "contractAddress": hexbytes(item.contract) if item.contract else None,
        "status": hexint(item.status),
        "gasUsed": hexint(item.gas_used),
        "cumulativeGasUsed": hexint(item.cumulative_gas),
        "effectiveGasPrice": hexint(item.gas_price),
        "type": hexint(int(getattr(item.transaction, "type_id", None) or 0)),
        "logsBloom": "0x" + item.bloom.to_bytes(256, "big").hex(),
        "logs": item.logs,
    }
