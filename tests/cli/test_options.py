"""Where a command's key comes from, and how it says that there is none."""

import json
from pathlib import Path

import pytest
from click import ClickException
from eth_account import Account

from sequencer.cli.options import address_of_key, in_order, key_of

KEY = bytes(range(1, 33))


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY", "KEYSTORE", "PASSWORD"):
        monkeypatch.delenv(f"FAIRSTRIKE_{name}", raising=False)


def keystore(folder: Path) -> Path:
    path = folder / "key.json"
    path.write_text(json.dumps(Account.encrypt(KEY, "word", kdf="pbkdf2", iterations=2)))
    return path


def test_key__comes_from_option_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSTRIKE_PASSWORD", "word")
    path = keystore(tmp_path)
    assert key_of(path, None) == KEY
    monkeypatch.setenv("FAIRSTRIKE_KEYSTORE", str(path))
    assert key_of(None, None) == KEY
    assert key_of(None, 1) != KEY
    monkeypatch.delenv("FAIRSTRIKE_KEYSTORE")
    monkeypatch.setenv("FAIRSTRIKE_KEY", "0x" + KEY.hex())
    assert key_of(None, None) == KEY
    assert address_of_key(KEY) == Account.from_key(KEY).address.lower()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "no key: give --keystore FILE, --devnet-key N, or set FAIRSTRIKE_KEY or FAIRSTRIKE_KEYSTORE"),
        ({"KEY": "12"}, "FAIRSTRIKE_KEY must hold a private key, 64 hex digits"),
        ({"KEY": "zz" * 32}, "FAIRSTRIKE_KEY must hold a private key, 64 hex digits"),
        ({"KEY": "00" * 32}, "FAIRSTRIKE_KEY: no key of the curve"),
        ({"KEY": "ff" * 32}, "FAIRSTRIKE_KEY: no key of the curve"),
        ({"KEY": KEY.hex(), "KEYSTORE": "x"}, "are both set: unset one of them"),
        ({"KEYSTORE": "/nowhere/key.json"}, "/nowhere/key.json: cannot be read"),
    ],
)
def test_key__that_is_none__says_why_and_never_what(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"FAIRSTRIKE_{name}", value)
    with pytest.raises(ClickException) as refused:
        key_of(None, None)
    assert says in refused.value.message
    assert variables.get("KEY", "nothing")[:8] not in refused.value.message


def test_key__with_a_wrong_password__says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSTRIKE_PASSWORD", "wrong")
    with pytest.raises(ClickException, match=r"key\.json: MAC mismatch"):
        key_of(keystore(tmp_path), None)
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(ClickException, match=r"none\.json: "):
        key_of(tmp_path / "none.json", None)


def test_side_and_instrument__in_either_order__are_understood() -> None:
    assert in_order("BTC-2JAN22-48000-C", "buy") == ("BTC-2JAN22-48000-C", "buy")
    assert in_order("sell", "BTC-2JAN22-48000-C") == ("BTC-2JAN22-48000-C", "sell")
    with pytest.raises(ClickException, match="SIDE must be buy or sell"):
        in_order("BTC-2JAN22-48000-C", "hold")
