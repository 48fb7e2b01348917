"""A running exchange for each of these tests."""

import sys
from pathlib import Path

# By its path, because an installed package may own the name `tests`.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from exchange_fixture import exchange, stand_in

__all__ = ["exchange", "stand_in"]
