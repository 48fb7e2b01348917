"""Verification without trust: rebuilds the state from L1, checks it, challenges it, exits."""
