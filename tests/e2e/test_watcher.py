"""The watcher on a chain: silent on honest runs, restarts, reorganisations, late messages, and its status.

Long because all of it runs on one staged chain, which takes longer to set up than a test.
"""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sequencer.cli import main
from sequencer.l1.batch import Batch
from sequencer.l1.errors import DeploymentError
from sequencer.l1.rpc import Rpc
from sequencer.l1.txmgr import TxManager
from sequencer.l1.txstore import Intent
from sequencer.l1.wallet import Wallet
from sequencer.local.devnet import devnet_params, devnet_signer
from sequencer.local.lie_demo import HEADER_LIE_BATCH, bent, chained
from sequencer.local.lie_stage import BOND_WEI, CHALLENGER, DELAY_MIN_S, Stage, stage
from sequencer.local.lies import LIES
from sequencer.local.play import OPENING
from sequencer.market.tape import open_tape
from sequencer.proof.audit import FaultKind
from sequencer.proof.challenge import Challenge, arbiter
from sequencer.proof.exit import marks_age_s
from sequencer.proof.status_page import STALE_S, headline, page, serve
from sequencer.proof.watcher import BATCHES_SHOWN, WatchConfig, Watcher

USD = 1_000_000


@pytest.fixture(scope="module")
def built() -> Iterator[tuple[Stage, list[Batch]]]:
    with stage("pyevm", open_tape(None, 1)) as on:
        yield on, on.perform(None)[1]


@pytest.fixture
def on(built: tuple[Stage, list[Batch]]) -> Iterator[Stage]:
    """The chain as it was before any batch."""
    before = built[0].chain.snapshot()
    yield built[0]
    built[0].chain.revert(before)


@pytest.fixture
def made(built: tuple[Stage, list[Batch]]) -> list[Batch]:
    return built[1]


@pytest.fixture
def name(tmp_path: Path) -> str:
    """A folder for the watcher."""
    return str(tmp_path / "watcher")


def test_honest_run__raises_nothing_and_challenges_nothing(on: Stage, made: list[Batch], name: str) -> None:
    on.post(made)
    watcher = on.watcher(devnet_signer(CHALLENGER), name)
    watcher.step()
    watcher.step()
    status = watcher.status
    watcher.close()
    assert (watcher.fault, watcher.challenged, list(watcher.alarms)) == (None, None, [])
    assert status["ok"] is True
    assert status["root"] == "0x" + made[-1].post_root.hex()
    assert status["batches_checked"] == status["batches_posted"] == len(made)
    assert status["segments_checked"] == sum(one.segments for one in made)
    assert status["records_checked"] == sum(one.records for one in made)
    assert status["inbox_taken"] == status["inbox_messages"] == len(on.inbox)
    assert on.read("next_batch") == len(made) + 1


@pytest.mark.parametrize("is_killed", [False, True], ids=["closed", "killed"])
def test_restart__in_the_middle__goes_on_where_it_stood(
    on: Stage, made: list[Batch], name: str, is_killed: bool
) -> None:
    on.post(made[:2])
    first = on.watcher(None, name, WatchConfig(confirmations=0, snapshot_work=1, snapshot_rest=0))
    first.step()
    assert first.batches == 2
    if is_killed:
        first._archive.close()
    else:
        first.close()
    on.post(made[2:])
    again = on.watcher(None, name)
    assert again.batches == 2  # from its own snapshot, before it has looked at L1
    again.step()
    again.close()
    assert (again.batches, again.fault) == (len(made), None)
    assert again.state.root() == made[-1].post_root


def test_snapshot__damaged__is_left_out(on: Stage, made: list[Batch], name: str) -> None:
    on.post(made)
    first = on.watcher(None, name)
    first.step()
    first.close()
    (snapshot,) = (Path(name) / "snapshots").glob("*.zst")
    snapshot.write_bytes(snapshot.read_bytes()[:-9])
    again = on.watcher(None, name)
    assert again.batches == 0
    again.step()
    again.close()
    assert (again.batches, again.fault) == (len(made), None)


def test_reorg__deeper_than_the_confirmations__takes_the_state_back_and_on(
    on: Stage, made: list[Batch], name: str
) -> None:
    on.post(made[:2])
    watcher = on.watcher(None, name)
    before = on.chain.snapshot()
    on.post(made[2:])
    watcher.step()
    assert watcher.batches == len(made)
    on.chain.revert(before)
    on.chain.mine(3)  # another branch
    watcher.step()
    assert watcher.batches == 2
    assert watcher.state.root() == made[1].post_root
    assert "reorganised" in watcher.alarms[0].what
    on.post(made[2:])
    watcher.step()
    watcher.close()
    assert (watcher.batches, watcher.fault) == (len(made), None)


def test_batch__not_deep_enough__is_not_looked_at(on: Stage, made: list[Batch], name: str) -> None:
    on.post(made)
    watcher = on.watcher(None, name, WatchConfig(confirmations=30))
    watcher.step()
    assert watcher.batches == 0
    on.chain.mine(30)
    watcher.step()
    watcher.close()
    assert watcher.batches == len(made)


def test_inbox_message__waiting_too_long__is_an_alarm(on: Stage, made: list[Batch], name: str) -> None:
    on.post(made)
    watcher = on.watcher(None, name, WatchConfig(confirmations=0, late_s=600, lag_s=2**32))
    wallet = Wallet(on.chain.rpc, devnet_signer(1), on.at)
    wallet.mint(5 * USD)
    wallet.deposit_with_permit(5 * USD)
    watcher.step()
    assert watcher.status["ok"] is True
    on.chain.set_time(on.chain.head_time_s() + 700)
    watcher.step()
    watcher.step()
    watcher.close()
    assert watcher.status["ok"] is False
    assert watcher.status["late"]["index"] == len(on.inbox)
    assert [alarm.what.split(" has ")[0] for alarm in watcher.alarms] == [f"inbox message {len(on.inbox)}"]


def test_clock__far_behind_l1__is_an_alarm_and_no_fault(on: Stage, made: list[Batch], name: str) -> None:
    on.chain.set_time(made[-1].time_s + 10_000)
    on.post(made)
    watcher = on.watcher(None, name)
    watcher.step()
    watcher.close()
    assert watcher.fault is None
    assert "seconds behind" in watcher.alarms[0].what or "s behind" in watcher.alarms[0].what


@pytest.mark.parametrize("late_s", [1, DELAY_MIN_S, DELAY_MIN_S + 1])
def test_batch__posted_past_a_deadline__is_a_fault_from_the_shortest_delay_on(
    on: Stage, made: list[Batch], name: str, late_s: int
) -> None:
    on.post(made, late_s)
    watcher = on.watcher(None, name)
    watcher.step()
    watcher.close()
    if late_s <= DELAY_MIN_S:
        assert (watcher.fault, watcher.batches) == (None, len(made))
        return
    assert watcher.fault is not None
    assert (watcher.fault.kind, watcher.fault.message) == (FaultKind.LATE, OPENING)
    assert watcher.batches == watcher.fault.batch_id - 1
    assert watcher.state.root() == made[watcher.batches - 1].post_root
    assert watcher.status["fault"]["message"] == OPENING


def test_wrong_batch__without_a_key__is_an_alarm_that_stays(on: Stage, name: str) -> None:
    lie = LIES["minted-cash"]
    on.post(bent(on.perform(lie)[1], lie))
    watcher = on.watcher(None, name)
    watcher.step()
    watcher.step()
    watcher.close()
    assert watcher.status["mode"] == "alarms only"
    assert watcher.status["fault"]["kind"] == "root"
    assert watcher.status["challenge"] is None
    assert watcher.status["batches_checked"] == watcher.status["fault"]["batch"] - 1
    assert len(watcher.alarms) == 1
    again = on.watcher(None, name)
    again.step()
    again.close()
    assert again.fault == watcher.fault


def test_several_wrong_batches__are_challenged_from_the_first(
    on: Stage, made: list[Batch], name: str
) -> None:
    """Two liars in a row: the first wrong batch goes, and all after it."""
    lie = LIES["post-root-tail"]
    wrong = chained(lie.of(one) if one.batch_id > 1 and lie.of else one for one in made)
    on.post(wrong)
    watcher = on.watcher(devnet_signer(CHALLENGER), name)
    for _ in range(6):
        watcher.step()
        on.chain.mine()
    assert watcher.challenged is not None
    assert (watcher.challenged.state, watcher.challenged.batch_id) == ("won", 2)
    assert on.read("next_batch") == 2
    assert watcher.fault is None
    on.bond()
    on.post(made[1:])
    watcher.step()
    watcher.close()
    assert (watcher.batches, watcher.fault) == (len(made), None)


class Copycat:
    """Sees what the challenger sends before it is mined, and sends the same first, under a key of its own."""

    def __init__(self, on: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = on
        self.signer = devnet_signer(CHALLENGER - 1)
        self.wallet = Wallet(on.chain.rpc, self.signer, on.at)
        self.copied: list[str] = []
        send = TxManager.send

        def after_us(manager: TxManager, intent_id: str, to: str, data: bytes, *rest: Any) -> Intent:
            self.copy(intent_id.split("-")[0], to, data)
            return send(manager, intent_id, to, data, *rest)

        monkeypatch.setattr(TxManager, "send", after_us)

    def copy(self, what: str, to: str, data: bytes) -> None:
        raise NotImplementedError


class CopiesCommitment(Copycat):
    def copy(self, what: str, to: str, data: bytes) -> None:
        if what == "commit":
            self.wallet.transact("commit", to, data)
            self.copied.append(what)


class CopiesChallenge(Copycat):
    def copy(self, what: str, to: str, data: bytes) -> None:
        if what == "challenge" and not self.copied:
            _, call = arbiter().function("challenge").decode_input(data)
            verdict = arbiter().function("check_form").decode_output(self.on.chain.rpc.eth_call(to, call))
            mine = Challenge(verdict[1], verdict[2], call)
            commitment = mine.commitment(self.signer.address, bytes(32))
            self.wallet.transact("commit", to, arbiter().encode("commit", commitment))
            self.wallet.transact("challenge", to, mine.calldata(bytes(32)), gas=2_000_000)
            self.copied.append(what)


@pytest.mark.parametrize(("copycat", "eighths"), [(CopiesCommitment, 3), (CopiesChallenge, 1)])
def test_challenge__that_is_copied_out_of_the_pool__is_won_all_the_same(
    on: Stage, name: str, copycat: type[Copycat], eighths: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copied commitment is of no use; who copies the challenge itself leaves the older commitment a third."""
    lie = LIES["header-time"]
    on.post(bent(on.perform(lie)[1], lie))
    other = copycat(on, monkeypatch)
    ours = devnet_signer(CHALLENGER)
    watcher = on.watcher(ours, name)
    balance = on.chain.rpc.balance(ours.address)
    for _ in range(6):
        watcher.step()
        on.chain.mine()
    assert other.copied
    assert watcher.challenged is not None
    assert watcher.challenged.state == "won"
    assert on.read("next_batch") == HEADER_LIE_BATCH
    on.chain.mine(50)
    watcher.step()
    assert on.chain.rpc.balance(ours.address) < balance  # batch 1 could still be challenged
    on.chain.set_time(on.chain.head_time_s() + on.at.challenge_window_s)
    on.chain.mine()
    for _ in range(3):
        watcher.step()
        on.chain.mine()
    watcher.close()
    gained = on.chain.rpc.balance(ours.address) - balance
    assert BOND_WEI * eighths // 8 - BOND_WEI // 100 < gained < BOND_WEI * eighths // 8


class Page(HTMLParser):
    """What a page says, and what it would load or run."""

    VOID = frozenset({"meta", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.red: list[str] = []
        self.headline = ""
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        for name in ("src", "href"):
            assert (named.get(name) or "/").startswith(("/", "data:,"))
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self._open.append((tag, named.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass  # li ends with its list

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1][0] == "h1":
            self.headline += data
        if self._open and self._open[-1][0] in ("th", "td"):
            self.rows[-1].append(data)
        if "bad" in [of_class for _, of_class in self._open]:
            self.red.append(data)

    def of(self, name: str) -> str:
        """The value beside a name."""
        return next(row[1] for row in self.rows if row[0] == name)


@contextlib.contextmanager
def served(watcher: Watcher) -> Iterator[Callable[[str], tuple[int, str, str]]]:
    """`get(path)`: status, content type, text."""
    with serve(lambda: watcher.status, 0) as port:

        def get(path: str) -> tuple[int, str, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
                    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                    return response.status, response.headers["Content-Type"], response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.headers["Content-Type"], error.read().decode()

        yield get


def samples(text: str) -> dict[str, int]:
    """Metrics by name with labels; each is described before it comes."""
    described = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    out = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            assert name.partition("{")[0] in described
            out[name.removeprefix("fairstrike_watcher_")] = int(value)
    return out


def test_status__of_an_honest_run__is_a_page_json_and_metrics(
    on: Stage, made: list[Batch], name: str
) -> None:
    on.post(made)
    watcher = on.watcher(None, name)
    watcher.step()
    with served(watcher) as get:
        code, kind, body = get("/status.json?x=1")
        status = json.loads(body)
        assert (code, kind, status["batches_checked"]) == (200, "application/json", len(made))
        assert status["marks_age_s"] == marks_age_s(watcher.state)
        assert status["lag_blocks"] == status["lag_batches"] == status["frozen_at"] == 0
        assert status["archive_bytes"] > sum(len(one.payload) for one in made)
        assert [one["batch"] for one in status["batches"]] == list(range(len(made), 0, -1))[:BATCHES_SHOWN]
        assert {(one["verdict"], one["is_final"]) for one in status["batches"]} == {("right", False)}
        assert status["batches"][0]["post_root"] == status["root"]
        assert status["batches"][0]["posted_at"] == on.chain.head_time_s()

        code, kind, body = get("/")
        shown = Page(body)
        assert (code, kind) == (200, "text/html; charset=utf-8")
        assert (shown.headline, shown.red) == ("all batches are right", [])
        assert shown.of("last batch found right") == f"{len(made)} of {len(made)} posted"
        assert shown.of("root") == status["root"]
        assert shown.of("inbox") == f"{len(on.inbox)} of {len(on.inbox)} messages taken"
        assert len([row for row in shown.rows if row[1:2] == ["right"]]) == min(len(made), BATCHES_SHOWN)
        assert not {"script", "img", "iframe"} & set(shown.tags)
        assert '<meta http-equiv="refresh" content="5">' in body

        found = samples(get("/metrics")[2])
        assert (found["ok"], found["wrong_batch"], found["batches_checked"]) == (1, 0, len(made))
        assert found["records_checked"] == sum(one.records for one in made)
        assert found["alarms_total"] == found['challenges{state="won"}'] == 0
        assert get("/health") == (200, "text/plain", "all batches are right\n")
        assert get("/x")[0] == 404
        on.chain.set_time(on.chain.head_time_s() + on.at.challenge_window_s)
        watcher.step()
        assert all(one["is_final"] for one in json.loads(get("/status.json")[2])["batches"])
    watcher.close()


def test_status__of_a_wrong_batch__is_red_until_it_is_won(on: Stage, made: list[Batch], name: str) -> None:
    lie = LIES["post-root-tail"]
    on.post(chained(lie.of(one) if one.batch_id > 1 and lie.of else one for one in made))
    watcher = on.watcher(devnet_signer(CHALLENGER), name, WatchConfig(confirmations=0, late_s=2**32))
    watcher.step()
    with served(watcher) as get:
        shown = Page(get("/")[2])
        assert shown.headline == "batch 2 is WRONG"
        assert any("WRONG: batch 2" in one for one in shown.red)
        verdicts = [one["verdict"] for one in json.loads(get("/status.json")[2])["batches"]]
        assert verdicts == (["not checked"] * (len(made) - 2) + ["wrong", "right"])[-BATCHES_SHOWN:]
        assert [row[1] for row in shown.rows if row[2:3] == ["can be challenged"]] == verdicts
        code, _, says = get("/health")
        assert (code, says) == (503, "batch 2 is WRONG\n")
        found = samples(get("/metrics")[2])
        assert (found["ok"], found["wrong_batch"], found["lag_batches"]) == (0, 2, len(made) - 1)
        assert found["alarms_total"] == 1
        for _ in range(6):
            watcher.step()
            on.chain.mine()
        shown = Page(get("/")[2])
        assert shown.headline == "all batches are right"
        assert [row[:2] for row in shown.rows if row[1:2] == ["won"]] == [["2", "won"]]
        assert samples(get("/metrics")[2])['challenges{state="won"}'] == 1
        assert [one["batch"] for one in json.loads(get("/status.json")[2])["roll_backs"]] == [2]
    watcher.close()


def test_status__without_an_answer_of_l1__is_no_news(on: Stage, made: list[Batch], name: str) -> None:
    on.post(made[:1])
    watcher = on.watcher(None, name)
    watcher.step()
    seen_at = watcher.status["looked_at"]
    assert headline(watcher.status, seen_at + STALE_S) == "all batches are right"
    assert "nothing seen of L1 since" in headline(watcher.status, seen_at + STALE_S + 1)
    reached, watcher.l1.rpc = watcher.l1.rpc, Rpc("http://127.0.0.1:1", attempts=1)
    assert watcher.look() is False
    with served(watcher) as get:
        code, _, says = get("/health")
        assert (code, says) == (503, "L1 does not answer as it should\n")
        assert any("no answer from http://127.0.0.1:1" in one for one in Page(get("/")[2]).red)
    watcher.l1.rpc = reached
    assert watcher.look() is True
    assert watcher.status["ok"] is True
    watcher.close()


def test_page__with_markup_in_what_it_shows__shows_it_as_text(on: Stage, name: str) -> None:
    watcher = on.watcher(None, name)
    watcher.step()
    evil = "<script>alert('1')</script>"
    alarm = {"at_s": 0, "what": evil}
    text = page(watcher.status | {"error": evil, "alarms": [alarm], "mode": evil, "rollup": evil}, 0)
    watcher.close()
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;") == 4


def test_folder__of_another_deployment__is_refused(on: Stage, tmp_path: Path) -> None:
    other = Watcher(on.chain.rpc, on.at, on.params, tmp_path)
    other._archive.put(deployment="another")
    other._archive.close()
    with pytest.raises(ValueError, match="the folder's archive is of another"):
        Watcher(on.chain.rpc, on.at, on.params, tmp_path)


def test_parameters__that_are_not_the_deployments__are_refused(on: Stage, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="parameters are not those"):
        Watcher(on.chain.rpc, on.at, devnet_params(taker_fee_ppm=1), tmp_path)


def test_command__once__prints_the_status_and_tells_by_its_exit(
    on: Stage, made: list[Batch], tmp_path: Path
) -> None:
    deployment = tmp_path / "deployment.json"
    on.at.save(deployment)

    def watch(folder: str) -> tuple[int, dict[str, object]]:
        arguments = ["watch", "--l1", on.chain.url, "--deployment", str(deployment), "--confirmations", "0"]
        result = CliRunner().invoke(main, [*arguments, "--folder", str(tmp_path / folder), "--once"])
        start = result.stdout.index("{")
        return result.exit_code, json.loads(result.stdout[start : result.stdout.rindex("}") + 1])

    on.post(made[:1])
    code, status = watch("a")
    assert (code, status["ok"], status["batches_checked"]) == (0, True, 1)
    wrong = LIES["header-time"]
    on.post([wrong.of(made[1])] if wrong.of else [])
    code, status = watch("b")
    assert (code, status["ok"]) == (2, False)
