"""Fairstrike: an options exchange as an optimistic rollup. The imports below pick the compiled transition, if any."""

from sequencer import _compiled

_compiled.install()
