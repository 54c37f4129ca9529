"""Files of contracts that are no contracts: each is one error that names the file, the reason and what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from finance_assets.advisory.reading.vendor_contract import (
    MAX_CONTRACT_BYTES,
    VendorContractError,
    load_contracts,
    read_onboarding_sheet,
)
from finance_assets.regular_files import UnreadableFileError

pytestmark = pytest.mark.timeout(5)


def _bomb(opening: str, reference: str) -> str:
    lines = ["vendor: north", f"a0: &a0 {opening}"]
    lines += [f"a{i}: &a{i} {reference.replace('*', f'*a{i - 1}')}" for i in range(1, 30)]
    return "\n".join(lines)


TEXTS = {
    "deep lists": "[" * 100_000,
    "deep mappings": "{a: " * 5_000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(1_000)),
    "deep aliases": "\n".join(["- &a0 [x]"] + [f"- &a{i} [*a{i - 1}]" for i in range(1, 3_000)]),
    "bomb of lists": _bomb("[x, x]", "[*, *, *, *, *, *, *, *, *]"),
    "bomb of mappings": _bomb("{x: 1}", "{a: *, b: *, c: *, d: *}"),
    "bomb of merges": _bomb("{x: 1}", "{<<: [*, *, *, *]}"),
    "bomb of keys": _bomb("[x, x]", "{? * : 1, ? [*, *, *] : 2}"),
    "alias in itself": "vendor: &a [*a]",
    "unknown alias": "vendor: *nothing",
    "bad bool": "vendor: !!bool perhaps",
    "bad timestamp": "vendor: !!timestamp never",
    "bad float": "vendor: !!float x",
    "object": "vendor: !!python/object/apply:os.getcwd []",
    "long number": f"vendor: {'9' * 5_000}",
    "single value": "north",
    "list": "- north",
    "zero byte": "vendor: a\0b",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_no_contract(name: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TEXTS[name])
    with pytest.raises(VendorContractError) as raised:
        load_contracts(tmp_path)
    assert str(raised.value).startswith(f"{path} is no contract of a vendor: ")
    assert str(raised.value).endswith("Mend it, or take it out of the folder")
    assert len(str(raised.value)) < 2_000


@pytest.mark.parametrize("name", TEXTS)
def test_a_sheet_of_such_text_raises_nothing_else(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sheet.yaml"
    path.write_text(TEXTS[name])
    # A sheet says nothing of a vendor where what stands under its name is no mapping.
    with suppress(VendorContractError):
        assert read_onboarding_sheet(path) == []


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a named pipe"),
    "folder": (Path.mkdir, "it is a folder"),
    "dangling link": (lambda path: path.symlink_to("gone"), "a symbolic link to a file that is not there"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "large": (lambda path: path.write_bytes(b"#" * (MAX_CONTRACT_BYTES + 1)), "is too large"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_entry_that_is_no_file(name: str, tmp_path: Path) -> None:
    make, said = FILES[name]
    path = tmp_path / "p.yaml"
    make(path)
    with pytest.raises(VendorContractError, match=said) as raised:
        load_contracts(tmp_path)
    assert str(path) in str(raised.value)
    with pytest.raises(UnreadableFileError, match=said):
        read_onboarding_sheet(path)


def test_a_contract_behind_a_link_and_with_aliases_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p").write_text(
        "vendor: north\nversion: 1\ncolumns: &c {Acct: account_id}\npictures: {<<: {fees: v2}}\n"
    )
    (tmp_path / "p.yaml").symlink_to("data/p")
    (contract,) = load_contracts(tmp_path)
    assert (contract.columns, contract.pictures) == ({"Acct": "account_id"}, {"fees": "v2"})
