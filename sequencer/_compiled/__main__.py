"""Says whether the transition runs compiled."""

from sequencer import _compiled

if __name__ == "__main__":
    print("transition:", _compiled.status())  # noqa: T201  # what a person runs it for
