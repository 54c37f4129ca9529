r"""Text from outside, made harmless for where it goes: a terminal, a line of a log, Markdown.

What belongs here: pure functions on text, one or two for each exit. File names, accounts, merchants, messages of
providers and exceptions may hold anything; what moves a cursor, forges a line, turns the direction of reading, hides,
opens a link or carries a password is shown as what it is, or masked.

Two kinds of function escape characters, in Python's own notation (``\x1b``, ``\n``, ``\u202e``, ``\udc80``):

- ``escape_name`` is for one value, such as a file's name. It doubles backslashes, so that ``unescape_name`` gives back
  the very same value.
- ``escape_controls`` is for whole messages, at an exit. It leaves backslashes alone, so doing it twice changes nothing.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
import unicodedata
from collections.abc import Mapping
from types import TracebackType
from typing import Any

MASK = "***"
#: Longest message that an exit lets through, in characters.
LONGEST = 10_000
#: Marks that may stand on one letter: more cover the lines above and below.
MARKS = 4

#: Printable by Python's rules, yet nothing is seen of them: joiners, variation selectors, fillers, a blank pattern.
_UNSEEN = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x2800, 0x2800),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFA0, 0xFFA0),
        (0x16FE4, 0x16FE4),
        (0x1D159, 0x1D159),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = re.compile(r"\\(?:([nrt\\])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_LONG = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def is_plain(text: str) -> bool:
    """Return whether every character of a text is seen, and is what it looks like."""
    # str.isprintable is false for controls, format characters, surrogates, separators and every space but the usual.
    if text.isascii():
        return text.isprintable()
    return text.isprintable() and _UNSEEN.isdisjoint(text) and not any(map(unicodedata.combining, text))


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape(text: str, kept: str, double: bool) -> str:
    out = []
    marks = MARKS
    for character in text:
        if character == "\\" and double:
            out.append("\\\\")
        elif character in kept:
            out.append(character)
        elif not character.isprintable() or character in _UNSEEN:
            out.append(_escaped(character))
        elif unicodedata.category(character)[0] == "M":
            marks += 1
            out.append(character if marks <= MARKS else _escaped(character))
            continue
        else:
            out.append(character)
        # One without a letter before it would sit on what is ours.
        marks = 0 if character.isalnum() else MARKS
    return "".join(out)


def escape_controls(text: object, *, keep_newlines: bool = False) -> str:
    r"""Return a message of which every character is seen: what moves, hides or turns text is spelled out.

    Parameters
    ----------
    text
        The message; anything else is made text first.
    keep_newlines
        Leave ``\n`` as it is, where the lines are our own.

    Returns
    -------
    str
        Escaped. Backslashes stay, so that a message may pass more than one exit.
    """
    message = str(text)
    if is_plain(message):
        return message
    return _escape(message, "\n" if keep_newlines else "", double=False)


def escape_name(name: object) -> str:
    r"""Return one value as it is shown: no other value is shown the same way, and a plain one stays as it is.

    Parameters
    ----------
    name
        Such as a file's name, a key or an account.

    Returns
    -------
    str
        With ``\x1b``, ``\n`` or ``\u202e`` for what is not seen, and ``\\`` for a backslash.
    """
    value = str(name)
    return value if "\\" not in value and is_plain(value) else _escape(value, "", double=True)


def unescape_name(shown: str) -> str:
    """Return the value that :func:`escape_name` shows as ``shown``."""

    def meant(match: re.Match[str]) -> str:
        short, *codes = match.groups()
        code = int(next((digits for digits in codes if digits), "0"), 16)
        return _LONG[short] if short else chr(code) if code <= 0x10FFFF else match[0]

    return _ESCAPED.sub(meant, shown)


def shorten(text: str, limit: int = LONGEST) -> str:
    """Return a text of at most about ``limit`` characters; what is cut off is counted at its end."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def safe_message(text: object, *, keep_newlines: bool = False) -> str:
    """Return a message as an exit shows it: secrets of addresses masked, controls seen, not overlong.

    Parameters
    ----------
    text
        The message.
    keep_newlines
        Leave line ends as they are, where the lines are our own.
    """
    return shorten(escape_controls(hide_url_secrets(str(text)), keep_newlines=keep_newlines))


def safe_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of which every text, at any depth, went through :func:`safe_message`; the rest is as it was."""

    def safe(value: Any) -> Any:
        if isinstance(value, str):
            return safe_message(value)
        if type(value) is dict:
            return {safe(key): safe(each) for key, each in value.items()}
        return [safe(each) for each in value] if type(value) in (list, tuple) else value

    return {key: safe(value) for key, value in values.items()}


def json_line(value: object) -> str:
    """Return JSON in ASCII: nothing in it moves a cursor, whoever prints it."""
    return json.dumps(value, ensure_ascii=True, default=str)


# --- Markdown --------------------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"[\\`*\[\]<>|~&#{}$]|(?<!\w)_|_(?!\w)|^[-+=](?=\s|$)|^\d+[.)](?=\s|$)")
#: GitHub's Markdown makes links of these without any brackets.
_AUTOLINK = re.compile(r"(?i)\b(?:https?|ftp)(?=://)|\b(?:mailto|xmpp)(?=:)|\bwww(?=\.)|(?<=\w)(?=@\w)")
_ACTIVE = re.compile(r"!?\[(?=[^\]\n]*\][(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def escape_markdown(text: object) -> str:
    """Return a text that Markdown shows as it is: no link, image, tag, emphasis, code or cell of a table comes of it.

    Parameters
    ----------
    text
        From outside; one line comes out.

    Returns
    -------
    str
        Escaped; for the middle of a line of Markdown. A plain name stays as it is.
    """
    marked = _MARKUP.sub(lambda match: "".join(f"\\{each}" if not each.isalnum() else each for each in match[0]),
                         safe_message(text))  # fmt: skip
    return _AUTOLINK.sub(lambda match: f"{match[0]}\\", marked)


def inert_markdown(text: object) -> str:
    """Return a message of ours that Markdown may show: what it quotes opens no link, no image, no tag.

    Unlike :func:`escape_markdown` it leaves emphasis and code of our own sentences alone.
    """
    told = _ACTIVE.sub(lambda match: "".join(f"\\{each}" for each in match[0]), safe_message(text))
    return _AUTOLINK.sub(lambda match: f"{match[0]}\\", told)


def code_span(text: object) -> str:
    r"""Return a value as code in Markdown: to be copied as it is, whatever it holds.

    A value with backticks gets longer ones around it; a bar, which ends a table's cell even in code, is ``\x7c``.
    """
    value = shorten(escape_name(text)).replace("|", "\\x7c")
    fence = "`" * (max((len(run) for run in re.findall("`+", value)), default=0) + 1)
    room = " " if value[:1] in ("`", " ") or value[-1:] in ("`", " ") or not value else ""
    return f"{fence}{room}{value}{room}{fence}"


# --- secrets of addresses --------------------------------------------------------------------------------------------

_SECRET_WORDS = (
    r"(?:[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|pwd|signature|credential|api[_-]?key|access[_-]?key|auth)"
    r"[\w.-]*|key|sig|code|pass|pw|session|jwt|sas|x-amz-[\w-]+)"
)
_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*)://([^\s\"'<>]+)")
#: What ends with @ before the path, and what looks like user:password before an @, wherever the password has a slash.
_USER = re.compile(r"^(?:[^/?#]*@|[^/?#@:]+:(?!\d{1,5}(?:[/?#]|$))\S*@)")
_PAIR = re.compile(r"([^&;=#?]+)=([^&;#]*)")
_SECRET_NAME = re.compile(rf"(?i)^{_SECRET_WORDS}$")
_ASSIGNED = re.compile(
    r"(?i)(?<![\w?&])((?:[\w-]*_)?(?:password|passwd|pwd|secret|token|api[_-]?key|secret[_-]?access[_-]?key))"
    r"(\s?=\s?)(?!\*\*\*)([^\s&;,'\"]+|'[^']*'|\"[^\"]*\")"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")


def _is_token(part: str) -> bool:
    """Return whether a part of a path looks made by chance, as the secret of a webhook is."""
    return (
        len(part) >= 20
        and re.fullmatch(r"[A-Za-z0-9_.~%:@=+-]+", part) is not None
        and re.search(r"[A-Za-z]", part) is not None
        and re.search(r"\d", part) is not None
    )


def _shown_url(match: re.Match[str]) -> str:
    scheme, rest = match[1], match[2]
    user = _USER.match(rest)
    if user:
        rest = f"{MASK}@{rest[user.end() :]}"
    head, mark, query = re.match(r"([^?#]*)([?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if scheme.lower() in ("http", "https"):
        host, *path = head.split("/")
        hooks = "services" in path[:1] or "hooks" in host.split(".")[:1] or "webhook" in head.lower()
        path = [MASK if part and (_is_token(part) or (hooks and _is_hook_id(part))) else part for part in path]
        head = "/".join([host, *path])

    def pair(found: re.Match[str]) -> str:
        name, value = found.groups()
        secret = value and (_SECRET_NAME.match(name) or _is_token(value))
        return f"{name}={MASK if secret else value}"

    query = MASK if query and "=" not in query and _is_token(query) else _PAIR.sub(pair, query)
    return f"{scheme}://{head}{mark}{query}"


def _is_hook_id(part: str) -> bool:
    """Return whether a part of a webhook's path is one of its secrets: longer than its words are."""
    return len(part) >= 8 and re.fullmatch(r"(?i)services|workflows|triggers|[a-z]*webhooks?[a-z]?\d?", part) is None


def hide_url_secrets(text: str) -> str:
    """Return a text in which no address shows user, password or token, and no ``password=`` its value.

    Parameters
    ----------
    text
        An address, or a message that holds some.

    Returns
    -------
    str
        Masked: user and password before the host, values of the query that are secret by name or by look, parts of a
        path that look like a token. Host, path and names stay, so that a person knows which address it is.
    """
    if "://" in text:
        text = _URL.sub(_shown_url, text)
    if "=" in text:
        text = _ASSIGNED.sub(rf"\1\2{MASK}", text)
    return _BEARER.sub(rf"\1 {MASK}", text) if "earer " in text or "asic " in text else text


# --- personal data ---------------------------------------------------------------------------------------------------

#: Between the groups of a number: blanks, dashes, or what stands between two cells.
_GAP = r"[ \-./·|,;\t]{0,3}"
_DIGIT_RUN = re.compile(rf"(?<!\d)\d(?:{_GAP}\d){{12,60}}(?!\d)")
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}\s?@\s?[\w-]{1,64}(?:\.[\w-]{1,64}){0,8}")
#: Looked for at every letter, since words before it may look like the beginning of another one.
_IBAN = re.compile(rf"(?i)(?<![A-Z0-9])(?=([A-Z]{{2}}\d{{2}}(?:{_GAP}[A-Z0-9]){{11,30}}))")
#: Also behind the digits of another cell, and with its last digits cut off.
_TAX_ID = re.compile(r"\d{3}[- ]\d{2}[- ]\d{4}(?!\d)|(?<!\d)\d{3}-\d{2}-\d{0,3}(?![\d-])")
_PHONE = re.compile(
    r"(?<![\w+])(?:\+\d{1,3}[ .-]\(?\d{1,4}\)?[ .-][\d .-]{5,12}\d"
    r"|(?:\+\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?!\w)"
)
_HIDDEN = "[hidden]"


def _is_card(digits: str) -> bool:
    """Return whether digits pass the check of card numbers (Luhn)."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [int(each) * 2 for each in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(each - 9 * (each > 9) for each in doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Return whether a text passes the check of IBANs (ISO 7064, modulo 97)."""
    plain = re.sub(r"[^A-Za-z0-9]", "", text).upper()
    return 15 <= len(plain) <= 34 and int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def redact_personal_data(text: str) -> str:
    """Return a text without card numbers, e-mail addresses, IBANs, tax ids and telephone numbers.

    They are found anywhere in the text, with blanks, dashes or the bars of cells between their digits, in digits of
    any script; card numbers and IBANs are known by their check digits.

    Parameters
    ----------
    text
        Such as what is said of a row. Redact before a text is cut, and again after texts are joined.

    Returns
    -------
    str
        With ``[hidden]`` in the place of each.
    """
    if text.isascii() and "@" not in text and sum(map(str.isdigit, text)) < 5:
        return text
    plain = _with_ascii_digits(text)
    spans: list[tuple[int, int]] = []
    for pattern in (_EMAIL, _TAX_ID, _PHONE):
        spans += [match.span() for match in pattern.finditer(plain)]
    spans += [span for match in _IBAN.finditer(plain) for span in _iban_spans(match)]
    for match in _DIGIT_RUN.finditer(plain):
        spans += _card_spans(match)
    if not spans:
        return text
    out, at = [], 0
    for start, end in sorted(spans):
        if end <= at:
            continue
        if start >= at:
            out += [text[at:start], _HIDDEN]
        at = end
    return "".join([*out, text[at:]])


def _with_ascii_digits(text: str) -> str:
    """Return a text of the same length in which digits, letters and signs of other widths and scripts are ASCII."""
    if text.isascii():
        return text

    def plain(character: str) -> str:
        digit = unicodedata.digit(character, None)
        if digit is not None:
            return str(digit)
        folded = unicodedata.normalize("NFKC", character)
        if unicodedata.category(character) == "Pd" or not (character.isprintable() or character.isspace()):
            return "-"
        return folded if len(folded) == 1 else character

    return "".join(character if character.isascii() else plain(character) for character in text)


def _iban_spans(match: re.Match[str]) -> list[tuple[int, int]]:
    """Return where the IBAN ends, if there is one: words that follow are no part of it."""
    found, start = match[1], match.start(1)
    for end in range(len(found), 14, -1):
        if found[end - 1].isalnum() and _is_iban(found[:end]):
            return [(start, start + end)]
    return []


def _card_spans(match: re.Match[str]) -> list[tuple[int, int]]:
    """Return where in a run of digits card numbers stand: whole groups of digits that pass the check."""
    groups = [(found.start(), found.end()) for found in re.finditer(r"\d+", match[0])]
    spans = []
    for first in range(len(groups)):
        for last in range(min(len(groups), first + 19), first, -1):
            digits = "".join(match[0][start:end] for start, end in groups[first:last])
            if _is_card(digits):
                spans.append((match.start() + groups[first][0], match.start() + groups[last - 1][1]))
                break
    return spans


def shows_personal_data(text: str) -> bool:
    """Return whether a text holds personal data, or what is left of some."""
    return redact_personal_data(text) != text


# --- logs ------------------------------------------------------------------------------------------------------------


class SafeLineFormatter(logging.Formatter):
    """Writes one line per record; lines of a traceback are indented, so that none of them looks like a record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line of a record."""
        return safe_message(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Return a traceback."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Return a stack."""
        return _indented(super().formatStack(stack_info))


class SafeMessageFilter(logging.Filter):
    """Makes the message of each record one harmless line, whoever handles it; events of Dagster stay as they are.

    Parameters
    ----------
    keep_newlines
        Leave line ends as they are, where each message is lines of our own.
    """

    def __init__(self, *, keep_newlines: bool = False) -> None:
        super().__init__()
        self._keep_newlines = keep_newlines

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, and let it pass."""
        if not hasattr(record, "dagster_event"):
            try:
                message = record.getMessage()
            except (TypeError, ValueError):
                return True
            record.msg, record.args = safe_message(message, keep_newlines=self._keep_newlines), ()
            if record.exc_info and not record.exc_text:
                record.exc_text = SafeLineFormatter().formatException(record.exc_info)
        return True


class SafeLogRecord(logging.LogRecord):
    """A record whose message holds no control characters but line ends, whoever wrote it."""

    def getMessage(self) -> str:  # noqa: N802
        """Return the message."""
        return safe_message(super().getMessage(), keep_newlines=True)


def safe_logger(name: str, *, keep_newlines: bool = False) -> logging.Logger:
    """Return a logger whose every message is one harmless line; with ``keep_newlines``, lines of our own."""
    logger = logging.getLogger(name)
    if not any(isinstance(each, SafeMessageFilter) for each in logger.filters):
        logger.addFilter(SafeMessageFilter(keep_newlines=keep_newlines))
    return logger


def guard_log_records() -> None:
    """Let no record of this process, of ours or of a library, hold control characters."""
    logging.setLogRecordFactory(SafeLogRecord)


def safe_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None, *, limit: int | None = None
) -> str:
    """Return a traceback whose messages hold no control characters."""
    return safe_message("".join(traceback.format_exception(kind, error, trace, limit=limit)), keep_newlines=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in safe_message(text, keep_newlines=True).splitlines())
