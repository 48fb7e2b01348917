"""Prices in, and what a quant asks of them."""
