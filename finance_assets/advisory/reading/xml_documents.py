"""XML that is no workbook: records in elements, and the statements of banks.

Belongs here: an XML document as the tree of dicts and lists that `layouts` reads records out of, so that nested XML and
nested JSON are one thing, and the hand-over of ISO 20022 messages to `bank_statements`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from finance_assets.advisory.reading import bank_statements, markup, spreadsheets
from finance_assets.advisory.reading.containers import FileRejected
from finance_assets.advisory.reading.layouts import LINE, RawTable, Records, titles_of
from finance_assets.advisory.reading.markup import Element
from finance_assets.advisory.reading.vendor_contract import VendorContract

_ISO_20022 = "urn:iso:std:iso:20022:"
_KEYS = frozenset({"name", "key", "field", "column", "code", "label", "id"})
"""Attributes that name the value of an element: ``<field name="EMV">5</field>``."""


@dataclass(frozen=True)
class XmlDocument:
    """A parsed document."""

    root: Element
    namespace: str
    tree: dict[str, Any]
    names: list[str]

    @property
    def head(self) -> str:
        """Text near the top, what the document calls itself, and whose statements it has, to compare with contracts."""
        return "\n".join([self.namespace, self.root.name, *self.servicers, *titles_of(self.tree)])

    @property
    def statements(self) -> list[Element]:
        """The messages of a bank with statements."""
        return [found for found in _below(self.root) if found.name == "BkToCstmrStmt"]

    @property
    def servicers(self) -> list[str]:
        """The banks whose statements are in the document."""
        return bank_statements.servicers(self.statements)


def opened(data: bytes) -> spreadsheets.Workbook | XmlDocument:
    """Parse XML.

    Parameters
    ----------
    data
        The document in the encoding that it declares.

    Returns
    -------
    Workbook or XmlDocument
        A workbook where the outermost element says that it is one.

    Raises
    ------
    FileRejected
        What :func:`markup.parse` refuses, and ``html_content`` for XHTML.
    """
    root = _root_of(data)
    read = spreadsheets.spreadsheet_of(root)
    if read is not None:
        return read(data)
    if root[1].casefold() == "html":
        raise FileRejected("html_content")
    return _parsed(data)


class _RootFound(Exception):  # noqa: N818 - ends the parsing early
    def __init__(self, space: str, name: str) -> None:
        self.root = (space, name)


def _root_of(data: bytes) -> tuple[str, str]:
    def start(space: str, name: str, _: dict[str, str], __: int) -> None:
        raise _RootFound(space, name)

    try:
        markup.parse(data, start, lambda *_: None, lambda _: None)
    except _RootFound as found:
        return found.root
    return "", ""


def _parsed(data: bytes) -> XmlDocument:
    space, root = markup.elements(data)
    repeated: set[tuple[str, ...]] = set()
    names: dict[str, None] = {}
    _look_over(root, (), repeated, names)
    return XmlDocument(root, space, _tree(root, (), repeated), list(names))


def _look_over(element: Element, path: tuple[str, ...], repeated: set[tuple[str, ...]], names: dict[str, None]) -> None:
    """Collect all names, and the paths of elements that are lists: they stand more than once in one place."""
    names |= dict.fromkeys([element.name, *element.attributes])
    seen: set[str] = set()
    for child in element.children:
        if child.name in seen:
            repeated.add((*path, child.name))
        seen.add(child.name)
        if child.children:
            _look_over(child, (*path, child.name), repeated, names)
        else:
            names |= dict.fromkeys([child.name, *child.attributes])


def _tree(element: Element, path: tuple[str, ...], repeated: set[tuple[str, ...]]) -> dict[str, Any]:
    """Return an element as a dict: attributes and children by name, a list where a child is one in any place."""
    made: dict[str, Any] = {LINE: element.line, **element.attributes}
    named = _named_values(element)
    if named is not None:
        return made | named
    if element.text and element.is_value:
        made[element.name] = element.text
    for child in element.children:
        name = f"@{child.name}" if child.name in element.attributes else child.name
        below = (*path, child.name)
        if below in repeated:
            if child.is_value and not child.attributes:
                made.setdefault(name, []).append(None if child.null else child.text)
            else:
                made.setdefault(name, []).append(_tree(child, below, repeated))
        elif child.is_value:
            if child.text or child.null or not child.attributes:
                made[name] = None if child.null else child.text
            # The currency of an amount and the like.
            made |= {f"{name}.{key}": value for key, value in child.attributes.items()}
        else:
            made[name] = _tree(child, below, repeated)
    return made


def _named_values(element: Element) -> dict[str, Any] | None:
    """Return values by the name that an attribute gives them, where all children of an element are such values."""
    children = element.children
    if len(children) < 2 or len({child.name for child in children}) > 1:
        return None
    keys = {tuple(child.attributes) for child in children}
    if len(keys) != 1 or not all(child.is_value for child in children):
        return None
    (only,) = keys
    if len(only) != 1 or only[0].casefold() not in _KEYS:
        return None
    made = {child.attributes[only[0]]: None if child.null else child.text for child in children}
    return made if len(made) == len(children) else None


def xml_tables(document: XmlDocument, contract: VendorContract | None = None) -> list[RawTable]:
    """Find the records of a document.

    Parameters
    ----------
    document
        What :func:`opened` gave.
    contract
        Contract that matched; its ``xml_rows`` leads to the elements that are records.

    Returns
    -------
    list of RawTable
        One table.

    Raises
    ------
    FileRejected
        ``not_performance`` for an ISO 20022 message that is no bank statement, ``unknown_schema`` or ``empty_file``
        where there are no records.
    """
    if statements := document.statements:
        return [bank_statements.statement_table(statements)]
    if document.namespace.startswith(_ISO_20022) or any(
        e.name in {"BkToCstmrAcctRpt", "BkToCstmrDbtCdtNtfctn"} for e in _below(document.root, 3)
    ):
        raise FileRejected("not_performance")
    path = contract.xml_rows if contract else None
    if path:
        first, _, rest = path.partition(".")
        path = rest if first == document.root.name else path
    records = Records(line_of=_same)
    records.add(document.tree, path)
    return [records.table(contract)]


def _same(line: int) -> int:
    return line


def _below(element: Element, depth: int = 6) -> Iterator[Element]:
    """Yield an element and those within it, down to a depth."""
    yield element
    if depth:
        for child in element.children:
            if child.children:
                yield from _below(child, depth - 1)
