"""Records a day of Deribit's public option trades, and the index beside it, as `fairstrike replay-market` reads them.

    python scripts/record_tape.py BTC 2024-03-29 my-day
    fairstrike replay-market my-day/trades.jsonl --index my-day/index.jsonl

Saves the answers as they come, one a line: trades of `public/get_last_trades_by_currency_and_time` (kind option, oldest
first, from history.deribit.com, which has all days), and bars of `public/get_tradingview_chart_data` of the perpetual
(from www.deribit.com), from an hour before the day to `--index-days` after it: what expires meanwhile settles. Pages
overlap by their last millisecond; the reader counts a trade once.
https://docs.deribit.com/api-reference/market-data
"""

import datetime as dt
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

TRADES_URL: Final = "https://history.deribit.com/api/v2"
CHART_URL: Final = "https://www.deribit.com/api/v2"
TRADES_A_PAGE: Final = 1_000
BARS_A_PAGE: Final = 1_440
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
BEFORE_MS: Final = 3_600_000
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
TIMEOUT_S: Final = 30.0
TRIES: Final = 6
TOO_MANY_REQUESTS: Final = 10_028  # Deribit's code for who asks too fast


class RecordError(Exception):
    """What the server answered instead of data."""


def ask(base: str, method: str, pause_s: float, **params: Any) -> dict[str, Any]:
    """The answer to a public method; asked again, ever more slowly, while the server is busy. Raises RecordError."""
    url = f"{base.rstrip('/')}/public/{method}?{urllib.parse.urlencode(params)}"
    if not url.startswith(("https://", "http://")):
        raise RecordError(f"{base}: must be an http(s) URL")
    why = ""
    for attempt in range(TRIES):
        time.sleep(pause_s * 2**attempt)
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:  # noqa: S310  # http(s), checked above
                answer = json.loads(response.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}: {error.read(200).decode(errors='replace')}"
            if error.code not in (429, 500, 502, 503, 504):
                break
        except (OSError, ValueError) as error:
            why = str(error)
        else:
            if isinstance(answer, dict) and isinstance(answer.get("result"), dict):
                return answer
            failure = answer.get("error") if isinstance(answer, dict) else None
            why = f"no result: {json.dumps(answer)[:200]}"
            if not isinstance(failure, dict) or failure.get("code") != TOO_MANY_REQUESTS:
                break
    raise RecordError(f"{url}: {why}")


def trades(base: str, currency: str, start_ms: int, end_ms: int, pause_s: float) -> Iterator[dict[str, Any]]:
    """Answers with every option trade of start_ms..end_ms, oldest first."""
    at_ms = start_ms
    while True:
        answer = ask(
            base,
            "get_last_trades_by_currency_and_time",
            pause_s,
            currency=currency,
            kind="option",
            start_timestamp=at_ms,
            end_timestamp=end_ms,
            count=TRADES_A_PAGE,
            sorting="asc",
            include_old="true",
        )
        rows = answer["result"].get("trades")
        if not isinstance(rows, list):
            raise RecordError(f"{base}: result.trades must be an array")
        yield answer
        if not rows or not answer["result"].get("has_more"):
            return
        last_ms = max(int(row["timestamp"]) for row in rows)
        if last_ms <= at_ms and all(int(row["timestamp"]) == at_ms for row in rows):
            raise RecordError(f"{base}: more than {len(rows)} trades at {at_ms}: a page cannot hold them")
        at_ms = last_ms


def bars(base: str, currency: str, start_ms: int, end_ms: int, pause_s: float) -> Iterator[dict[str, Any]]:
    """Answers with the minute bars of the perpetual from start_ms to end_ms."""
    for at_ms in range(start_ms, end_ms, BARS_A_PAGE * MINUTE_MS):
        yield ask(
            base,
            "get_tradingview_chart_data",
            pause_s,
            instrument_name=f"{currency}-PERPETUAL",
            start_timestamp=at_ms,
            end_timestamp=min(at_ms + (BARS_A_PAGE - 1) * MINUTE_MS, end_ms),
            resolution="1",
        )


def save(path: Path, answers: Iterator[dict[str, Any]], what: str, count: str) -> int:
    """Writes answers line by line; the file has its name once it is whole. How many rows they hold."""
    partial = path.with_suffix(".partial")
    rows = 0
    with partial.open("w", encoding="utf-8") as file:
        for answer in answers:
            rows += len(answer["result"].get(count, ()))
            file.write(json.dumps(answer) + "\n")
            click.echo(f"\r{what}: {rows:,}", nl=False, err=True)
    click.echo(err=True)
    os.replace(partial, path)
    return rows


@click.command(help=__doc__)
@click.argument("currency", type=click.Choice(["BTC", "ETH"]))
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--index-days", type=click.IntRange(0, 60), default=2, show_default=True, help="bars after the day"
)
@click.option("--trades-url", default=TRADES_URL, show_default=True)
@click.option("--chart-url", default=CHART_URL, show_default=True)
@click.option("--pause", "pause_s", default=0.2, show_default=True, help="seconds before each request")
def main(
    currency: str,
    day: dt.datetime,
    folder: Path,
    index_days: int,
    trades_url: str,
    chart_url: str,
    pause_s: float,
) -> None:
    """See the module."""
    start_ms = int(day.replace(tzinfo=dt.UTC).timestamp()) * 1000
    end_ms = start_ms + DAY_MS - 1
    now_ms = int(time.time()) * 1000
    if start_ms > now_ms:
        raise click.ClickException(f"{day:%Y-%m-%d} has not come yet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = save(
            folder / "trades.jsonl",
            trades(trades_url, currency, start_ms, end_ms, pause_s),
            "trades",
            "trades",
        )
        if not found:
            raise RecordError(f"{trades_url}: no option of {currency} traded on {day:%Y-%m-%d}")
        until_ms = min(end_ms + index_days * DAY_MS, now_ms)
        save(
            folder / "index.jsonl",
            bars(chart_url, currency, start_ms - BEFORE_MS, until_ms, pause_s),
            "bars",
            "ticks",
        )
    except (RecordError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"fairstrike replay-market {folder}/trades.jsonl --index {folder}/index.jsonl")


if __name__ == "__main__":
    main()
