"""`fairstrike`: the command line. One file a group of commands; heavy libraries are imported when a command runs."""

import importlib
import os
from typing import Any

import click

_COMMANDS = {
    "up": "sequencer.cli.operate:up",
    "demo": "sequencer.cli.operate:demo",
    "replay-market": "sequencer.cli.replay_market:replay_market",
    "fuzz": "sequencer.cli.fuzz:fuzz",
    "replay": "sequencer.cli.operate:replay",
    "watch": "sequencer.cli.watch:watch",
    "check": "sequencer.cli.check:check",
    "compact": "sequencer.cli.compact:compact",
    "bench": "sequencer.cli.operate:bench",
    "init": "sequencer.cli.init:init",
    "node": "sequencer.node.process:main",
    "sequencer": "sequencer.cli.sequencers:sequencer",
    "feed": "sequencer.cli.feed:feed",
    "gateway": "sequencer.api.gateway:main",
    "cluster": "sequencer.cli.cluster:cluster",
    "status": "sequencer.cli.market:status",
    "instruments": "sequencer.cli.market:instruments",
    "chain": "sequencer.cli.option_chain:chain",
    "ticker": "sequencer.cli.market:ticker",
    "book": "sequencer.cli.market:book",
    "trades": "sequencer.cli.market:trades",
    "account": "sequencer.cli.account:account",
    "positions": "sequencer.cli.account:positions",
    "order": "sequencer.cli.trade:order",
    "receipt": "sequencer.cli.receipt:receipt",
    "fills": "sequencer.cli.history:fills",
    "settlements": "sequencer.cli.history:settlements",
    "statement": "sequencer.cli.history:statement",
    "signer": "sequencer.cli.account:signer",
    "faucet": "sequencer.cli.faucet:faucet",
    "deposit": "sequencer.cli.money:deposit",
    "withdraw": "sequencer.cli.money:withdraw",
    "claim": "sequencer.cli.money:claim",
    "transfer": "sequencer.cli.money:transfer",
    "force": "sequencer.cli.force:force",
    "devchain": "sequencer.cli.devchain:devchain",
    "exit": "sequencer.cli.exit:exit_command",
    "price": "sequencer.cli.quant:price",
    "margin": "sequencer.cli.quant:margin",
    "match": "sequencer.market.match:match_command",
}


DEBUG_VARIABLE = "FAIRSTRIKE_DEBUG"


class LazyGroup(click.Group):
    """Finds commands by name and imports only the one that is asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. What nobody has foreseen is one line, too; with FAIRSTRIKE_DEBUG its traceback."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:  # the reader of our output has enough
            raise click.exceptions.Exit(1) from None
        except Exception as error:  # no traceback reaches a user
            if os.environ.get(DEBUG_VARIABLE):
                raise
            what = " ".join(str(error).split()) or "no more is known"
            raise click.ClickException(
                f"{type(error).__name__}: {what} (unexpected error; {DEBUG_VARIABLE}=1 shows the traceback)"
            ) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order that a newcomer needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, name = where.split(":")
        command: Any = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fairstrike")
def main() -> None:
    """Fairstrike: an options exchange that runs as an optimistic rollup on Ethereum."""
