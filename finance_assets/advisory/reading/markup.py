"""XML that comes from outside, as a stream of elements.

Belongs here: the one parser of XML of this package, and what it refuses: document type definitions, and with them
every entity and everything external, and documents that are too deep or too large. What elements mean is decided
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat

from finance_assets.advisory.reading.budget import current_budget
from finance_assets.advisory.reading.rejection import FileRejected

MAX_DEPTH = 100
"""Most elements around one another; records of vendors have about ten."""
MAX_ELEMENTS = 5_000_000
"""Most elements of one document."""
_AT_ONCE = 1 << 10
"""So many elements are counted at a time."""

Start = Callable[[str, str, dict[str, str], int], None]
End = Callable[[str, str], None]
Text = Callable[[str], None]

_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_XML = "http://www.w3.org/XML/1998/namespace"
_CUT_OFF = frozenset({3, 5, 6, 20})  # no element found, unclosed token, partial character, unclosed CDATA section


def split_name(name: str) -> tuple[str, str]:
    """Return namespace and local name of a name as :func:`parse` gives those of attributes.

    Parameters
    ----------
    name
        ``namespace name``, or a name without a namespace.

    Returns
    -------
    tuple
        Namespace, empty where there is none, and local name.
    """
    space, _, local = name.rpartition(" ")
    return space, local


def parse(data: bytes, start: Start, end: End, text: Text) -> None:
    """Parse a document.

    Parameters
    ----------
    data
        The document in the encoding that it declares.
    start
        Called with namespace, local name, attributes (see :func:`split_name`) and physical line of an element.
    end
        Called with namespace and local name at the end of an element.
    text
        Called with text; that of one element may come in pieces.

    Raises
    ------
    FileRejected
        ``xml_doctype`` for a document type definition, ``xml_too_deep``, ``xml_too_large``, ``truncated_file`` where
        the document ends too early, ``malformed_xml`` for whatever else is no XML; what the budget of the file refuses.
    """
    budget = current_budget()
    body = data.lstrip(b" \t\r\n")  # not allowed before the declaration, and often there
    above = data[: len(data) - len(body)].count(b"\n")
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    depth = count = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth += 1
        count += 1
        if depth > MAX_DEPTH:
            raise FileRejected("xml_too_deep", f"elements lie more than {MAX_DEPTH} deep in one another: flatten them")
        if count > MAX_ELEMENTS:
            raise FileRejected("xml_too_large", f"a document has more than {MAX_ELEMENTS:,} elements: split the file")
        if count % _AT_ONCE == 0:
            budget.take("elements", _AT_ONCE)
            budget.tick()
        space, local = split_name(name)
        start(space, local, attributes, parser.CurrentLineNumber + above)

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(*split_name(name))

    def refused(*_: object) -> int:
        raise FileRejected("xml_doctype")

    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refused
    parser.EntityDeclHandler = refused
    parser.ExternalEntityRefHandler = refused
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise FileRejected("truncated_file" if error.code in _CUT_OFF else "malformed_xml") from error
    except (LookupError, UnicodeError) as error:  # an encoding that nobody knows
        raise FileRejected("undecodable") from error


@dataclass(slots=True)
class Element:
    """An element with what stands in it: local names, attributes without their namespaces, text without its edges."""

    name: str
    line: int
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""
    null: bool = False
    """Stated as absent with ``xsi:nil``."""

    @property
    def is_value(self) -> bool:
        """Whether there is nothing but text in it."""
        return not self.children


def elements(data: bytes) -> tuple[str, Element]:
    """Parse a document into its elements.

    Parameters
    ----------
    data
        The document.

    Returns
    -------
    tuple
        Namespace of the outermost element, and the element.

    Raises
    ------
    FileRejected
        As :func:`parse`.
    """
    stack: list[Element] = []
    texts: list[list[str]] = []
    roots: list[tuple[str, Element]] = []

    def start(space: str, name: str, attributes: dict[str, str], line: int) -> None:
        made = Element(name, line, {})
        for key, value in attributes.items():
            of, local = split_name(key)
            if of == _INSTANCE:
                made.null = made.null or (local == "nil" and value in {"true", "1"})
            elif of != _XML:  # xml:lang and the like
                made.attributes[local] = value
        if stack:
            stack[-1].children.append(made)
        else:
            roots.append((space, made))
        stack.append(made)
        texts.append([])

    def end(_: str, __: str) -> None:
        stack.pop().text = "".join(texts.pop()).strip()

    parse(data, start, end, lambda piece: texts[-1].append(piece))
    return roots[0]
