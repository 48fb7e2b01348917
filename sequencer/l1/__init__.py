"""Everything that touches L1: chains to develop on, the JSON-RPC client, the one owner of a key's nonces,
the poster of batches, the follower of the inbox, deployment, and small helpers for traders' wallets.
"""
