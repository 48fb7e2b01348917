"""A watcher's status: a page, JSON and metrics, on loopback.

The page loads nothing from other servers, runs no script, and reloads itself; everything it shows is escaped.
"""

import contextlib
import html
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from sequencer import pages
from sequencer.clock import utc

REFRESH_S: Final = 5
STALE_S: Final = 60  # age at which a status is stale
LISTS: Final = ("alarms", "batches", "challenges", "roll_backs")
PATHS: Final = "/, /status.json, /metrics or /health\n"
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

Status = dict[str, Any]


def summary(status: Status) -> Status:
    """The status without its lists."""
    return {name: value for name, value in status.items() if name not in LISTS}


# --- the server -----------------------------------------------------------------------------------


def serve(status: Callable[[], Status], port: int) -> contextlib.AbstractContextManager[int]:
    """Serves `status()` on 127.0.0.1, on its own thread; returns the port."""

    def answer(path: str) -> tuple[int, str, str]:
        now_s, known = int(time.time()), status()
        if path == "/":
            return 200, "text/html; charset=utf-8", page(known, now_s)
        if path == "/status.json":
            return 200, "application/json", msgspec.json.encode(known).decode()
        if path == "/metrics":
            return 200, "text/plain; version=0.0.4; charset=utf-8", metrics(known)
        if path == "/health":
            is_well = known["ok"] and not is_stale(known, now_s)
            return 200 if is_well else 503, "text/plain", f"{headline(known, now_s)}\n"
        return 404, "text/plain", PATHS

    return pages.serve(answer, "127.0.0.1", port, "status", {"Content-Security-Policy": POLICY})


# --- content --------------------------------------------------------------------------------------


def is_stale(status: Status, now_s: int) -> bool:
    """Whether L1 has not answered the watcher for long."""
    return now_s - int(status["looked_at"]) > STALE_S


def headline(status: Status, now_s: int) -> str:
    """The status in one line."""
    fault = status["fault"]
    if fault:
        return f"batch {fault['batch']} is WRONG"
    if is_stale(status, now_s):
        since = utc(status["looked_at"]) if status["looked_at"] else "it began"
        return f"nothing seen of L1 since {since}"
    if status["unread"]:
        return f"batch {status['unread']} cannot be read"
    if status["error"]:
        return "L1 does not answer as it should"
    if status["late"]:
        return f"inbox message {status['late']['index']} waits too long"
    if status["frozen_at"]:
        return f"frozen since {utc(status['frozen_at'])}; all batches are right"
    if status["lag_batches"]:
        return f"{status['lag_batches']} batches are still to be checked; all others are right"
    return "all batches are right"


def metrics(status: Status) -> str:
    """For Prometheus, in its text format."""
    out = []

    def add(name: str, what: str, value: int, kind: str = "gauge", labels: str = "") -> None:
        out.append(f"# HELP fairstrike_watcher_{name} {what}\n# TYPE fairstrike_watcher_{name} {kind}\n")
        out.append(f"fairstrike_watcher_{name}{labels} {value}\n")

    add("ok", "1 when no batch is wrong, no inbox message is late and L1 answers", int(status["ok"]))
    add("looked_at_seconds", "when L1 last answered, seconds since 1970", status["looked_at"])
    wrong = (status["fault"] or {}).get("batch", 0)
    add("wrong_batch", "the first batch that stands and is wrong, 0 when none is", wrong)
    add(
        "unread_batch",
        "the first batch that stands and cannot be read, 0 when none is",
        status["unread"] or 0,
    )
    for name, what in (
        ("batches_posted", "batches that stand on L1"),
        ("batches_checked", "of them, executed again and found right"),
        ("segments_checked", "segments whose root was compared"),
        ("records_checked", "records executed again"),
        ("l1_block", "number of L1's newest block"),
        ("lag_blocks", "blocks of L1 that are not read"),
        ("lag_batches", "batches that are not checked"),
        ("inbox_messages", "messages in the inbox"),
        ("inbox_taken", "of them, taken by batches that were checked"),
        ("marks_age_s", "age of the oldest marks of open positions, at which a freeze would close them"),
        ("archive_bytes", "size of the archive"),
        ("frozen_at", "when the rollup was frozen, seconds since 1970, 0 when it is not"),
    ):
        add(name, what, status[name])
    peers = (status["receipts"] or {}).get("peers")
    if peers is not None:
        add("peers", "neighbours with whom headers are exchanged", peers["neighbours"])
        add("headers", "signed headers in memory", peers["headers"])
        add("header_pairs_total", "pairs of headers that contradict each other", peers["pairs"], "counter")
        dropped = sum(
            counts[name]
            for counts in peers["from"].values()
            for name in ("malformed", "unsigned", "stale", "flooded")
        )
        add(
            "headers_dropped_total",
            "from present neighbours, malformed, unsigned, stale or too many",
            dropped,
        )
    add("alarms_total", "alarms since the start", status["alarms_raised"], "counter")
    add("roll_backs_total", "roll-backs in the archive", len(status["roll_backs"]), "counter")
    out.append("# HELP fairstrike_watcher_challenges challenges of this run by state\n")
    out.append("# TYPE fairstrike_watcher_challenges gauge\n")
    for state in ("committed", "filed", "won", "failed"):
        count = sum(one["state"] == state for one in status["challenges"])
        out.append(f'fairstrike_watcher_challenges{{state="{state}"}} {count}\n')
    return "".join(out)


# --- the page -------------------------------------------------------------------------------------

STYLE: Final = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:70em;padding:1.5em}
h1{font-size:1.25em;margin:0;padding:.7em 1em;border-radius:.4em;color:#fff;background:#1a7f37}
h1.bad{background:#b3261e}h1.care{background:#8a6100}
h2{font-size:1.05em;margin:1.6em 0 .4em}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.25em 1em .25em 0;border-bottom:1px solid #8884;vertical-align:top}
th{font-weight:500;white-space:nowrap}
td{font-family:ui-monospace,monospace;overflow-wrap:anywhere}
.bad td,td.bad,li.bad,p.bad{color:#d32f2f;font-weight:600}
td.good{color:#2a9d4a}td.care{color:#b07d00}
ul{padding-left:1.2em}footer{margin-top:2em;color:#888}
"""


def page(status: Status, now_s: int) -> str:
    """The status as a page that reloads itself."""
    fault, error = status["fault"], status["error"]
    is_bad = bool(fault or error or status["late"] or is_stale(status, now_s))
    tone = "bad" if is_bad else "care" if status["frozen_at"] or status["lag_batches"] else "good"
    last = status["batches_checked"]
    figures = {
        "last batch found right": f"{last:,} of {status['batches_posted']:,} posted" if last else "none yet",
        "segments, records": f"{status['segments_checked']:,}, {status['records_checked']:,}",
        "root": status["root"],
        "exchange's clock": utc(status["time"]) if status["time"] else "not begun",
        "oldest marks of open positions": f"{status['marks_age_s']:,} s behind that clock",
        "inbox": f"{status['inbox_taken']:,} of {status['inbox_messages']:,} messages taken",
        "L1": f"block {status['l1_block']:,}, {utc(status['l1_time'])}" if status["l1_time"] else "not seen",
        "lag behind L1": f"{status['lag_blocks']:,} blocks ({status['confirmations']} confirmations wanted), "
        f"{status['lag_batches']:,} batches",
        "last look": utc(status["looked_at"]) if status["looked_at"] else "none",
        "rollup": f"{status['rollup']} on chain {status['chain_id']}",
        "frozen": utc(status["frozen_at"]) if status["frozen_at"] else "no",
        "archive": f"{status['archive_bytes']:,} bytes; snapshot after batch {status['snapshot_batch']:,}",
        "mode": status["mode"],
    }
    parts = [f'<h1 class="{tone}">{_text(headline(status, now_s))}</h1>']
    if error:
        parts.append(f'<p class="bad">{_text(error)}</p>')
    if fault:
        parts.append(f'<h2>the wrong batch</h2><table class="bad">{_pairs(fault)}</table>')
    if status["alarms"]:
        alarms = "".join(
            f'<li class="bad">{_text(utc(one["at_s"]))}: {_text(one["what"])}'
            for one in reversed(status["alarms"])
        )
        parts.append(f"<h2>alarms</h2><ul>{alarms}</ul>")
    parts.append(f"<h2>now</h2><table>{_pairs(figures)}</table>")
    if status["challenges"]:
        parts.append(f"<h2>challenges</h2>{_table(status['challenges'])}")
    if status["roll_backs"]:
        parts.append(f"<h2>roll-backs on L1</h2>{_table(status['roll_backs'])}")
    batches = [
        {
            "batch": one["batch"],
            "verdict": one["verdict"],
            "final": "final" if one["is_final"] else "can be challenged",
            "posted": utc(one["posted_at"]) if one["posted_at"] else "",
            "block": one["block"],
            "segments": one["segments"],
            "root": one["post_root"],
        }
        for one in status["batches"]
    ]
    if batches:
        parts.append(f"<h2>newest batches</h2>{_table(batches)}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{"!! " if is_bad else ""}Fairstrike watcher</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}"
        '<footer><a href="/status.json">status.json</a> · <a href="/metrics">metrics</a> · times are UTC; '
        f"this page loads itself every {REFRESH_S} s</footer></body></html>"
    )


def _text(value: object) -> str:
    return html.escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _pairs(values: dict[str, Any]) -> str:
    return "".join(
        f"<tr><th>{_text(name.replace('_', ' '))}</th><td>{_text(value)}</td></tr>"
        for name, value in values.items()
        if value is not None and value != ""
    )


_CLASS: Final = {"right": "good", "won": "good", "wrong": "bad", "failed": "bad", "not checked": "care"}


def _table(rows: list[dict[str, Any]]) -> str:
    """A table of alike rows, at least one."""
    head = "".join(f"<th>{_text(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{_CLASS.get(str(value), "")}">{_text(value)}</td>' for value in row.values())
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
