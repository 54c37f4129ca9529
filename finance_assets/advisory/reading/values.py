"""Typing of text columns: numbers, dates, currencies and account ids.

Belongs here: everything that turns the text of one column into values. The convention of a column (decimal mark, order
of day and month) is taken from all of its values, never from one cell; what cannot be read is reported by row, with a
reason that never repeats the text of the cell.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import combine_chunks

NUMBER = pa.decimal128(38, 18)
"""Type of every number before it is cast to its column's own type."""

NULL_WORDS = frozenset(
    {"", "n/a", "na", "n.a.", "n.a", "null", "none", "#n/a", "nil", "not available", "not applicable", "k.a.", "n.v."}
    | {"s.o.", "n.d.", "\\n", "<na>", "(null)"}
)
DASHES = frozenset({"-", "--", "—", "–", "−", "‒", "―", "- ", "—%", "-%", "$-", "$ -", "$—"})  # noqa: RUF001

_SIMPLE = r"^-?\d{1,20}(\.\d{1,18})?$"
_CLEAR_DOT = r"^-?(\d{1,20}(\.(\d{1,2}|\d{4,18}))?|0\.\d{3})$"
_SYMBOLS = r"(?:US\$|C\$|CA\$|A\$|AU\$|NZ\$|HK\$|S\$|R\$|[$€£¥₣₹₩])"


def trimmed(array: Any) -> Any:
    """Return text without the whitespace around it; null becomes empty.

    Parameters
    ----------
    array
        Text column.

    Returns
    -------
    pyarrow.StringArray
        One contiguous array.
    """
    return combine_chunks(pc.fill_null(pc.utf8_trim_whitespace(combine_chunks(array)), ""))


# --- numbers ---------------------------------------------------------------------------------------------------------


@dataclass
class Evidence:
    """How many values of a column prove which decimal mark, and how many read both ways."""

    dot: int = 0
    comma: int = 0
    ambiguous_dot: int = 0
    ambiguous_comma: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            self.dot + other.dot,
            self.comma + other.comma,
            self.ambiguous_dot + other.ambiguous_dot,
            self.ambiguous_comma + other.ambiguous_comma,
        )

    @property
    def proved(self) -> str | None:
        """The decimal mark that (nearly) all telling values prove."""
        if self.dot and self.dot >= 9 * self.comma:
            return "."
        if self.comma and self.comma >= 9 * self.dot:
            return ","
        return None

    @property
    def conflicting(self) -> bool:
        """Both marks are proved by a notable share of values."""
        return bool(self.dot and self.comma) and self.proved is None


def _proof(mark: str, other: str) -> str:
    d, t = re.escape(mark), re.escape(other)
    return (
        rf"^(\d*{d}(\d{{1,2}}|\d{{4,}})|0?{d}\d{{3}}|\d{{4,}}{d}\d{{3}}|\d{{1,3}}({t}\d{{2,3}})+{d}\d*"
        rf"|\d{{1,3}}({t}\d{{3}}){{2,}}|\d{{1,3}}( \d{{3}})+{d}\d+)$"
    )


def number_evidence(texts: Any, native: Any | None = None) -> Evidence:
    """Count what the values of a column prove about its decimal mark.

    Parameters
    ----------
    texts
        Trimmed text.
    native
        True where the source itself typed the number (a cell, a JSON number); such values prove nothing.

    Returns
    -------
    Evidence
        Counts.
    """
    if native is not None:
        texts = pc.filter(texts, pc.invert(native))
    if len(texts) == 0:
        return Evidence()
    clear = pc.match_substring_regex(texts, _CLEAR_DOT)
    dots = pc.sum(pc.and_(clear, pc.match_substring(texts, "."))).as_py() or 0
    rest = pc.filter(texts, pc.invert(clear))
    if len(rest) == 0:
        return Evidence(dot=dots)
    if _any(pc.match_substring_regex(rest, r"[^0-9.,-]")):
        rest = pc.replace_substring_regex(rest, r"[\x{00A0}\x{202F}\x{2009}'’]", " ")  # noqa: RUF001
        rest = pc.utf8_trim_whitespace(pc.replace_substring_regex(rest, r"[^0-9., ]", ""))
    else:
        rest = pc.replace_substring(rest, "-", "")

    def count(pattern: str) -> int:
        return int(pc.sum(pc.match_substring_regex(rest, pattern)).as_py() or 0)

    dot = count(_proof(".", ","))
    if dot == len(rest):
        return Evidence(dot=dots + dot)
    comma = count(_proof(",", "."))
    if comma == len(rest):
        return Evidence(dot=dots, comma=comma)
    return Evidence(
        dot=dots + dot,
        comma=comma,
        ambiguous_dot=count(r"^[1-9]\d{0,2}\.\d{3}$"),
        ambiguous_comma=count(r"^[1-9]\d{0,2},\d{3}$"),
    )


@dataclass
class Numbers:
    """A typed number column."""

    values: Any
    bad: dict[int, str]
    percent: Any | None = None
    dashes: Any | None = None
    decimals: int = 0
    styles: set[str] = field(default_factory=set)


def _any(mask: Any) -> bool:
    return bool(pc.any(mask).as_py())


_LONGEST = 400
"""Most characters of a number, with spaces, signs and words; patterns are not free."""


def parse_number(text: str, mark: str = ".") -> Decimal | str | None:
    """Read one number.

    Parameters
    ----------
    text
        Trimmed text.
    mark
        Decimal mark of the column.

    Returns
    -------
    decimal.Decimal | None | str
        The number, None for a word that means "no value", or the reason why it cannot be read.
    """
    if len(text) > _LONGEST:
        return "bad_number"
    text = unicodedata.normalize("NFKC", text).strip()
    if text.casefold() in NULL_WORDS:
        return None
    if text in DASHES:
        return Decimal(0)
    text = re.sub(r"^([-+])\s+", r"\1", text.replace("−", "-"))  # noqa: RUF001
    negative = False
    match = re.fullmatch(r"\((.*)\)(%?)", text)
    if match:
        negative, text = True, match[1] + match[2]
    match = re.fullmatch(r"(.*\d%?)\s*(-|CR|DR|Cr|Dr)", text)
    if match:
        # Credit and debit of a balance: a debit is negative, as in statements of account.
        negative, text = negative ^ (match[2] == "-" or match[2].upper() == "DR"), match[1]
    text = text.removesuffix("%").strip()
    text = re.sub(rf"^([-+]?)\s*(?:{_SYMBOLS}|[A-Z]{{3}})\s*", r"\1", text)
    text = re.sub(rf"\s*(?:{_SYMBOLS}|[A-Z]{{3}})$", "", text)
    if text.startswith("("):
        match = re.fullmatch(r"\((.*)\)", text)
        if match:
            negative, text = True, match[1]
    other = "," if mark == "." else "."
    text = re.sub(r"(?<=\d)[ '’](?=\d{3})", "", text)  # noqa: RUF001
    if other in text:
        if not re.fullmatch(rf"[-+]?\d{{1,3}}({re.escape(other)}\d{{2,3}})*{re.escape(other)}\d{{3}}([.,]\d*)?", text):
            return "bad_number"
        text = text.replace(other, "")
    text = text.replace(mark, ".")
    if len(text) > 80 or not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,6})?", text):
        return "bad_number"
    try:
        number = Decimal(text)
    except InvalidOperation:
        return "bad_number"
    if "e" in text.casefold() and (number.adjusted() > 300 or number.adjusted() < -300):
        return "bad_number"
    return -number if negative else number


def numbers(texts: Any, mark: str = ".", native: Any | None = None, *, round_to: int | None = None) -> Numbers:
    """Type a text column as numbers.

    Parameters
    ----------
    texts
        Trimmed text.
    mark
        Decimal mark of the column's text.
    native
        True where the source typed the number; such text always has a decimal point.
    round_to
        Round to so many decimals rather than refuse a value with more; for rates, where the digits beyond are noise.

    Returns
    -------
    Numbers
        Values, and the reasons of the rows that cannot be read.
    """
    size = len(texts)
    simple = pc.match_substring_regex(texts, _SIMPLE)
    if mark == ",":
        # "1.000" is one thousand here, whatever it looks like.
        dotted = pc.match_substring(texts, ".")
        if native is not None:
            dotted = pc.and_(dotted, pc.invert(native))
        simple = pc.and_(simple, pc.invert(dotted))
    if pc.all(simple).as_py():
        result = Numbers(pc.cast(texts, NUMBER), {})
        result.decimals = max_decimals(texts)
        return result
    # The commonest forms after plain numbers: percent signs, and thousands separated by commas.
    signed = pc.ends_with(texts, "%")
    if mark == "." and native is None and pc.all(signed).as_py():
        plain = pc.replace_substring(texts, "%", "")
        if pc.all(pc.match_substring_regex(plain, _SIMPLE)).as_py():
            return Numbers(pc.cast(plain, NUMBER), {}, percent=signed, decimals=max_decimals(plain))
    grouped_form = r"^-?(\d{1,3}(,\d{3})*|\d{1,20})(\.\d{1,18})?$"
    if mark == "." and native is None and pc.all(pc.match_substring_regex(texts, grouped_form)).as_py():
        plain = pc.replace_substring(texts, ",", "")
        return Numbers(pc.cast(plain, NUMBER), {}, decimals=max_decimals(plain))
    work = texts
    styles: set[str] = set()
    lower = pc.utf8_lower(work)
    null = pc.is_in(lower, pa.array(sorted(NULL_WORDS)))
    dashes = pc.is_in(work, pa.array(sorted(DASHES)))
    percent = pc.match_substring(work, "%")
    if not _any(percent):
        percent = None
    else:
        work = pc.replace_substring_regex(work, r"\s*%(\)?)$", r"\1")
    if _any(pc.match_substring_regex(work, r"[−\x{00A0}\x{202F}\x{2009} '’]")):  # noqa: RUF001
        work = pc.replace_substring(work, "−", "-")  # noqa: RUF001
        for _ in range(2):  # each pass joins every other group
            work = pc.replace_substring_regex(work, r"(\d)[\s\x{00A0}\x{202F}\x{2009}'’](\d{3})", r"\1\2")  # noqa: RUF001
        work = pc.utf8_trim_whitespace(work)
    if _any(pc.match_substring_regex(work, _SYMBOLS)):
        styles.add("currency_sign")
        work = pc.replace_substring_regex(work, rf"^([-+(]?)\s*{_SYMBOLS}\s*", r"\1")
        work = pc.replace_substring_regex(work, rf"\s*{_SYMBOLS}(\)?)$", r"\1")
    if _any(pc.match_substring(work, "(")):
        work = pc.replace_substring_regex(work, r"^\(\s*([^()-]*?)\s*\)$", r"-\1")
    if _any(pc.ends_with(work, "-")):
        work = pc.replace_substring_regex(work, r"^([^-]*\d)\s*-$", r"-\1")
    if _any(pc.starts_with(work, "+")):
        work = pc.replace_substring_regex(work, r"^\+\s*", "")
    thousands = "," if mark == "." else "."
    if _any(pc.match_substring(work, thousands)) or mark == ",":
        t, d = re.escape(thousands), re.escape(mark)
        grouped = pc.match_substring_regex(work, rf"^-?\d{{1,3}}({t}\d{{2,3}})*{t}\d{{3}}({d}\d*)?$")
        if native is not None:
            grouped = pc.and_(grouped, pc.invert(native))
        work = pc.if_else(grouped, pc.replace_substring(work, thousands, ""), work)
        if mark == ",":
            marked = pc.and_(
                pc.match_substring_regex(work, r"^-?\d*,\d+$"), pc.invert(native) if native is not None else True
            )
            plain = pc.match_substring_regex(work, r"^-?\d+$")
            keep = pc.or_(marked, plain)
            if native is not None:
                keep = pc.or_(keep, native)
            # What still has a dot is not a number of this convention; the slow path says so.
            work = pc.if_else(marked, pc.replace_substring(work, ",", "."), pc.if_else(keep, work, "?"))
    simple = pc.and_(pc.match_substring_regex(work, _SIMPLE), pc.invert(pc.or_(null, dashes)))
    cleaned = pc.if_else(simple, work, pc.if_else(dashes, "0", None))
    values = pc.cast(cleaned, NUMBER)
    bad: dict[int, str] = {}
    left = pc.indices_nonzero(pc.invert(pc.or_(simple, pc.or_(null, dashes)))).to_numpy()
    decimals = max_decimals(cleaned)
    if len(left):
        patched: dict[int, Decimal | None] = {}
        cache: dict[tuple[str, bool], Decimal | str | None] = {}
        native_mask = native.to_numpy(zero_copy_only=False) if native is not None else None
        left_texts = pc.take(texts, pa.array(left)).to_pylist()
        for row, text in zip(left.tolist(), left_texts, strict=True):
            own = bool(native_mask is not None and native_mask[row])
            if (text, own) not in cache:
                cache[(text, own)] = fitted(parse_number(text, "." if own else mark), round_to)
            value = cache[(text, own)]
            if isinstance(value, str):
                bad[row] = value
            else:
                patched[row] = value
                if value is not None:
                    exponent = value.as_tuple().exponent
                    decimals = max(decimals, -exponent if isinstance(exponent, int) else 0)
        if patched:
            mask = np.zeros(size, bool)
            mask[list(patched)] = True
            values = pc.replace_with_mask(values, pa.array(mask), pa.array(list(patched.values()), NUMBER))
    return Numbers(
        combine_chunks(values),
        bad,
        percent=percent,
        dashes=dashes if _any(dashes) else None,
        decimals=decimals,
        styles=styles,
    )


def fitted(value: Decimal | str | None, round_to: int | None = None) -> Decimal | str | None:
    """Return the value if it fits the type of numbers, else why not.

    Parameters
    ----------
    value
        A number, None or already a reason.
    round_to
        Decimals to round to where there are more than the type has.

    Returns
    -------
    decimal.Decimal | None | str
        The value as it fits, or ``too_large`` / ``too_precise``.
    """
    if not isinstance(value, Decimal):
        return value
    if not value.is_finite():
        return "bad_number"
    if value and value.adjusted() >= 20:
        return "too_large"
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -18:
        stripped = value.normalize()
        exponent = stripped.as_tuple().exponent
        if isinstance(exponent, int) and exponent < -18:
            if round_to is None:
                return "too_precise"
            return round(value, round_to)
        value = stripped
    return value


def max_decimals(texts: Any) -> int:
    """Return the most digits after a decimal point in plain numbers."""
    if len(texts) == 0:
        return 0
    found = pc.find_substring(texts, ".")
    tail = pc.if_else(pc.greater_equal(found, 0), pc.subtract(pc.subtract(pc.binary_length(texts), found), 1), 0)
    return int(pc.max(tail).as_py() or 0)


def shifted(values: Any, places: int) -> Any:
    """Divide numbers by a power of ten, exactly.

    Parameters
    ----------
    values
        Array of decimals.
    places
        Power of ten.

    Returns
    -------
    pyarrow.Decimal128Array
        The same digits with a larger scale.
    """
    if places == 0:
        return values
    buffers = values.buffers()
    return pa.Array.from_buffers(
        pa.decimal128(38, values.type.scale + places),
        len(values),
        buffers,
        null_count=values.null_count,
        offset=values.offset,
    )


# --- dates -----------------------------------------------------------------------------------------------------------

_MONTHS = {
    1: "jan january januar jänner janv janvier ene enero gen gennaio",
    2: "feb february februar fév févr février fev fevr fevrier febrero febbraio",
    3: "mar march märz mär maerz mrz mars marzo",
    4: "apr april avr avril abr abril aprile",
    5: "may mai mayo mag maggio",
    6: "jun june juni juin junio giu giugno",
    7: "jul july juli juil juillet julio lug luglio",
    8: "aug august aoû août aou aout ago agosto",
    9: "sep sept september septembre septiembre set settembre",
    10: "oct october okt oktober octobre octubre ott ottobre",
    11: "nov november novembre noviembre",
    12: "dec december dez dezember déc décembre dic diciembre dicembre decembre",
}
MONTHS = {word: month for month, words in _MONTHS.items() for word in words.split()}
"""Month names and abbreviations in English, German, French, Spanish and Italian."""

_QUARTER = re.compile(
    r"(?:(?P<y1>\d{4})[\s\-_/]*(?:Q|q|T|Trim|QTR)\s*(?P<q1>[1-4]))|"
    r"(?:(?:Q|q|T|QTR)\s*(?P<q2>[1-4])[\s\-_/']*(?P<y2>\d{4}|\d{2}))|(?:(?P<q3>[1-4])Q[\s'\-]*(?P<y3>\d{4}|\d{2}))"
)


def month_end(year: int, month: int) -> date:
    """Return the last day of a month.

    Parameters
    ----------
    year, month
        The month.

    Returns
    -------
    datetime.date
        Its last day.
    """
    return date(year + (month == 12), month % 12 + 1, 1) - timedelta(days=1)


@dataclass(frozen=True)
class DateReading:
    """The dates a text can mean: one under ``any``, or one per order of its parts."""

    kind: str  # day | month | quarter | serial
    readings: dict[str, date]


def _year(text: str, latest: date) -> int:
    number = int(text)
    if len(text) > 2:
        return number
    return 2000 + number if number <= (latest.year + 1) % 100 else 1900 + number


def _made(year: int, month: int, day: int) -> date | None:
    try:
        made = date(year, month, day)
    except ValueError:
        return None
    return made if 1900 <= year <= 2200 else None


def read_date(text: str, latest: date, formats: tuple[str, ...] = ()) -> DateReading | None:
    """Read one date in every order in which it can be read.

    Parameters
    ----------
    text
        Trimmed text.
    latest
        The day the file was received; decides the century of two-digit years.
    formats
        ``strptime`` formats that a contract declares; nothing else is tried then.

    Returns
    -------
    DateReading | None
        None if it is no date at all. A date that looks right and does not exist (31 February) has no readings.
    """
    from datetime import datetime

    text = text.strip().strip("'").strip()
    if formats:
        for form in formats:
            try:
                return DateReading("day", {"any": datetime.strptime(text, form).date()})  # noqa: DTZ007
            except ValueError:
                continue
        return DateReading("day", {})
    # A time of day is not part of the date, and no zone shifts it.
    text = re.sub(r"^(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4})[T ]+\d{1,2}:\d{2}.*$", r"\1", text)
    text = re.sub(r"^(\d{8})T\d{4,6}Z?$", r"\1", text)

    def single(kind: str, found: date | None) -> DateReading:
        return DateReading(kind, {"any": found} if found else {})

    if match := re.fullmatch(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})", text):
        return single("day", _made(int(match[1]), int(match[3]), int(match[4])))
    if match := re.fullmatch(r"(\d{1,2})([-/. ])(\d{1,2})\2(\d{4}|\d{2})", text):
        first, second = int(match[1]), int(match[3])
        year = _year(match[4], latest)
        orders = {"dmy": (year, second, first)}
        if match[2] != ".":  # nobody writes the month first with dots
            orders["mdy"] = (year, first, second)
        if len(match[4]) == 2 and len(match[1]) == 2 and match[2] != ".":
            orders["ymd"] = (_year(match[1], latest), second, int(match[4]))
        earliest = latest.year - 50 if len(match[4]) == 2 else 1900
        return DateReading("day", {k: d for k, v in orders.items() if (d := _made(*v)) and d.year >= earliest})
    if re.fullmatch(r"\d{8}", text):
        a, b, c, middle = text[:4], text[4:6], text[6:], text[2:4]
        orders = {
            "ymd": (int(a), int(b), int(c)),
            "mdy": (int(text[4:]), int(text[:2]), int(middle)),
            "dmy": (int(text[4:]), int(middle), int(text[:2])),
        }
        return DateReading("day", {k: x for k, v in orders.items() if (x := _made(*v)) and x.year >= 1950})
    if re.fullmatch(r"\d{6}", text):
        a, b, c = text[:2], text[2:4], text[4:]
        orders = {
            "ymd": (_year(a, latest), int(b), int(c)),
            "mdy": (_year(c, latest), int(a), int(b)),
            "dmy": (_year(c, latest), int(b), int(a)),
        }
        # A year of two digits is one of the last fifty.
        readings = {k: x for k, v in orders.items() if (x := _made(*v)) and x.year >= latest.year - 50}
        if 1950 <= int(text[:4]) <= 2100 and 1 <= int(c) <= 12:
            readings["ym"] = month_end(int(text[:4]), int(c))
        return DateReading("day", readings)
    if match := re.fullmatch(r"(\d{4})[-/.](\d{1,2})", text):
        ok = 1 <= int(match[2]) <= 12
        return single("month", month_end(int(match[1]), int(match[2])) if ok else None)
    if match := re.fullmatch(r"(\d{1,2})[-/.](\d{4})", text):
        ok = 1 <= int(match[1]) <= 12
        return single("month", month_end(int(match[2]), int(match[1])) if ok else None)
    if match := _QUARTER.fullmatch(text):
        quarter = int(match["q1"] or match["q2"] or match["q3"])
        year = _year(match["y1"] or match["y2"] or match["y3"], latest)
        return single("quarter", month_end(year, 3 * quarter))
    if re.fullmatch(r"\d{5}(\.0+)?", text):
        return single("serial", date(1899, 12, 30) + timedelta(days=int(text[:5])))
    words = re.findall(r"\d+|[^\W\d_]+", text.casefold())
    words = [
        w for w in words if w not in {"de", "of", "den", "der", "the", "st", "nd", "rd", "th", "del", "di", "ending"}
    ]
    if words and re.fullmatch(r"(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?", words[0]):
        words = words[1:]
    named = [i for i, w in enumerate(words) if w in MONTHS]
    if len(named) == 1 and all(w.isdigit() or w in MONTHS for w in words) and len(words) in (2, 3):
        month, rest = MONTHS[words[named[0]]], [w for i, w in enumerate(words) if i != named[0]]
        if len(rest) == 1 and len(rest[0]) in (2, 4):
            return single("month", month_end(_year(rest[0], latest), month))
        if len(rest) == 2:
            day, year_text = (rest[1], rest[0]) if len(rest[0]) == 4 else (rest[0], rest[1])
            if len(day) <= 2 and len(year_text) in (2, 4):
                return single("day", _made(_year(year_text, latest), month, int(day)))
    return None


class AmbiguousDatesError(Exception):
    """The values of the file allow more than one order of day and month."""


@dataclass
class Dates:
    """A typed date column."""

    values: Any
    bad: dict[int, str]
    kind: str = "day"
    order: str = "any"


def choose_order(readings: list[DateReading], latest: date, given: str | None = None) -> str:
    """Decide the one order of the parts of dates that all values of a file allow.

    Parameters
    ----------
    readings
        Readings of all distinct dates of the file.
    latest
        The day the file was received.
    given
        Order that a contract declares.

    Returns
    -------
    str
        ``any`` where no value depends on it, else ``mdy``, ``dmy``, ``ymd`` or ``ym``.

    Raises
    ------
    AmbiguousDatesError
        If more than one order, or none, fits the values.
    """
    if given:
        return given
    # A year ahead of the delivery is no date of a report: such a reading does not count as possible.
    horizon = latest + timedelta(days=366)
    open_ones = [
        {o: d for o, d in r.readings.items() if d <= horizon}
        for r in readings
        if r.readings and "any" not in r.readings
    ]
    open_ones = [r for r in open_ones if r]
    if not open_ones:
        return "any"
    fits = {o: sum(o in r for r in open_ones) for o in ("mdy", "dmy", "ymd", "ym")}
    best = max(fits.values())
    leaders = [order for order, count in fits.items() if count == best]
    if len(leaders) > 1 and len({tuple(r.get(o) for r in open_ones) for o in leaders}) == 1:
        return leaders[0]
    if len(leaders) > 1:
        # Dates lie in the past: an order that puts a good part of them into the future is refuted.
        future = {o: sum(r[o] > latest for r in open_ones if o in r) for o in leaders}
        if min(future.values()) == 0:
            leaders = [o for o in leaders if future[o] < max(2, len(open_ones) / 4)]
    if len(leaders) != 1:
        raise AmbiguousDatesError
    leader = leaders[0]
    for rival in fits:
        only_rival = sum(1 for r in open_ones if rival in r and leader not in r)
        only_leader = sum(1 for r in open_ones if leader in r and rival not in r)
        if rival != leader and only_rival and only_leader < 3 * only_rival:
            raise AmbiguousDatesError
    return leader


def unique_readings(
    texts: Any, latest: date, formats: tuple[str, ...] = ()
) -> tuple[Any, list[str], list[DateReading | None]]:
    """Read the distinct texts of a date column.

    Parameters
    ----------
    texts
        Trimmed text.
    latest
        The day the file was received.
    formats
        Declared formats.

    Returns
    -------
    tuple
        Index of each row into the distinct texts, the texts, and their readings.
    """
    encoded = combine_chunks(pc.dictionary_encode(texts))
    distinct = encoded.dictionary.to_pylist()
    return encoded.indices, distinct, [read_date(t, latest, formats) if t else None for t in distinct]


def _places_of(codes: list[int], positions: Any) -> list[tuple[int, int]]:
    """Return code and row of each place where one of some codes stands, by code and row, after one look."""
    rows = np.flatnonzero(np.isin(positions, codes))
    found = positions[rows]
    order = np.argsort(found, kind="stable")
    return list(zip(found[order].tolist(), rows[order].tolist(), strict=True))


def dates(
    indices: Any, distinct: list[str], readings: list[DateReading | None], order: str, latest: date, *, required: bool
) -> Dates:
    """Type a date column in the order that the file proved.

    Parameters
    ----------
    indices, distinct, readings
        What `unique_readings` gave.
    order
        What `choose_order` gave.
    latest
        No date may lie after this day.
    required
        Whether an empty cell is an error.

    Returns
    -------
    Dates
        Values, and the reasons of the rows that cannot be read.
    """
    values: list[date | None] = []
    reasons: list[str | None] = []
    kinds: dict[str, int] = {}
    for text, reading in zip(distinct, readings, strict=True):
        found = None
        if reading is not None:
            found = reading.readings.get("any", reading.readings.get(order))
            if found is None and order == "any" and len(set(reading.readings.values())) == 1:
                found = next(iter(reading.readings.values()))
        reason = None
        if text.casefold() in NULL_WORDS:
            reason = "missing_required" if required else None
        elif found is None:
            reason = "bad_date"
        elif found > latest and required:
            reason, found = "future_date", None
        elif reading is not None:
            kind = "month" if order == "ym" and "any" not in reading.readings else reading.kind
            kinds[kind] = kinds.get(kind, 0) + 1
        values.append(found)
        reasons.append(reason)
    positions = indices.to_numpy(zero_copy_only=False)
    bad: dict[int, str] = {}
    for code, row in _places_of([code for code, reason in enumerate(reasons) if reason], positions):
        bad[row] = str(reasons[code])
    typed = pc.take(pa.array(values, pa.date32()), indices)
    kind = max(kinds, key=lambda k: kinds[k]) if kinds else "day"
    return Dates(combine_chunks(typed), bad, kind=kind, order=order)


# --- currencies ------------------------------------------------------------------------------------------------------

ISO_CURRENCIES = frozenset(
    [
        "AED",
        "AFN",
        "ALL",
        "AMD",
        "ANG",
        "AOA",
        "ARS",
        "AUD",
        "AWG",
        "AZN",
        "BAM",
        "BBD",
        "BDT",
        "BGN",
        "BHD",
        "BIF",
        "BMD",
        "BND",
        "BOB",
        "BRL",
        "BSD",
        "BTN",
        "BWP",
        "BYN",
        "BZD",
        "CAD",
        "CDF",
        "CHF",
        "CLF",
        "CLP",
        "CNH",
        "CNY",
        "COP",
        "CRC",
        "CUP",
        "CVE",
        "CZK",
        "DJF",
        "DKK",
        "DOP",
        "DZD",
        "EGP",
        "ERN",
        "ETB",
        "EUR",
        "FJD",
        "FKP",
        "GBP",
        "GEL",
        "GHS",
        "GIP",
        "GMD",
        "GNF",
        "GTQ",
        "GYD",
        "HKD",
        "HNL",
        "HTG",
        "HUF",
        "IDR",
        "ILS",
        "INR",
        "IQD",
        "IRR",
        "ISK",
        "JMD",
        "JOD",
        "JPY",
        "KES",
        "KGS",
        "KHR",
        "KMF",
        "KPW",
        "KRW",
        "KWD",
        "KYD",
        "KZT",
        "LAK",
        "LBP",
        "LKR",
        "LRD",
        "LSL",
        "LYD",
        "MAD",
        "MDL",
        "MGA",
        "MKD",
        "MMK",
        "MNT",
        "MOP",
        "MRU",
        "MUR",
        "MVR",
        "MWK",
        "MXN",
        "MXV",
        "MYR",
        "MZN",
        "NAD",
        "NGN",
        "NIO",
        "NOK",
        "NPR",
        "NZD",
        "OMR",
        "PAB",
        "PEN",
        "PGK",
        "PHP",
        "PKR",
        "PLN",
        "PYG",
        "QAR",
        "RON",
        "RSD",
        "RUB",
        "RWF",
        "SAR",
        "SBD",
        "SCR",
        "SDG",
        "SEK",
        "SGD",
        "SHP",
        "SLE",
        "SOS",
        "SRD",
        "SSP",
        "STN",
        "SVC",
        "SYP",
        "SZL",
        "THB",
        "TJS",
        "TMT",
        "TND",
        "TOP",
        "TRY",
        "TTD",
        "TWD",
        "TZS",
        "UAH",
        "UGX",
        "USD",
        "UYU",
        "UZS",
        "VED",
        "VES",
        "VND",
        "VUV",
        "WST",
        "XAF",
        "XCD",
        "XOF",
        "XPF",
        "YER",
        "ZAR",
        "ZMW",
        "ZWG",
    ]
)
"""Codes of ISO 4217 that stand for money."""

_CURRENCY_WORDS = {
    "$": "USD", "us$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "c$": "CAD", "ca$": "CAD", "a$": "AUD", "au$": "AUD",
    "hk$": "HKD", "s$": "SGD", "nz$": "NZD", "r$": "BRL", "₹": "INR", "₩": "KRW", "fr.": "CHF", "sfr": "CHF",
    "sfr.": "CHF", "us dollar": "USD", "us dollars": "USD", "u.s. dollar": "USD", "euro": "EUR", "euros": "EUR",
    "pound sterling": "GBP", "british pound": "GBP", "pounds sterling": "GBP", "swiss franc": "CHF",
    "japanese yen": "JPY", "yen": "JPY", "canadian dollar": "CAD", "australian dollar": "AUD",
}  # fmt: skip
_MINOR_UNITS = {
    "GBX": "GBP",
    "GBp": "GBP",
    "GBPENCE": "GBP",
    "pence": "GBP",
    "Pence": "GBP",
    "PENCE": "GBP",
    "p": "GBP",
}
_MINOR_UNITS |= {"ZAc": "ZAR", "ZAC": "ZAR", "ILA": "ILS", "gbx": "GBP", "USX": "USD", "USc": "USD", "EUX": "EUR"}


def read_currency(text: str) -> tuple[str | None, str | None, int]:
    """Read one currency.

    Parameters
    ----------
    text
        Trimmed text.

    Returns
    -------
    tuple
        ISO code, or None; a warning or (with no code) a reason; power of ten by which amounts are divided.
    """
    if text.casefold() in NULL_WORDS or text in DASHES:
        return None, "missing_currency", 0
    if text in _MINOR_UNITS:
        return _MINOR_UNITS[text], "minor_unit_currency", 2
    if text in ISO_CURRENCIES:
        return text, None, 0
    if text.upper() in ISO_CURRENCIES:
        return text.upper(), "currency_normalised", 0
    if text.casefold() in _CURRENCY_WORDS:
        return _CURRENCY_WORDS[text.casefold()], "currency_symbol", 0
    return None, "unknown_currency", 0


# --- ids -------------------------------------------------------------------------------------------------------------

_SCIENTIFIC_ID = r"^[-+]?\d(?:[.,]\d+)?[eE]\+?\d{1,3}$"
#: Nothing is to be said of such an id: it is not quoted, no word for nothing, and no number of a person.
_PLAIN_ID = r"^[A-Za-z_]{0,32}\d[A-Za-z0-9_]{0,95}$"
#: ``12E45678`` is an id and ``1.23E+11`` was one; only a single leading digit is what a spreadsheet writes.
PERSONAL_VALUE = (
    r"^\d{3}-\d{2}-\d{4}$|^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$|^(\+\d{1,3}[ .-]?)?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}$"
    r"|^\+\d{1,3}[ .-]\(?\d{1,4}\)?[ .-][\d .-]{5,12}$"
)
"""What looks like a social security number, an e-mail address or a telephone number."""


def account_ids(
    texts: Any, native: Any | None = None, width: int | None = None
) -> tuple[Any, dict[int, str], set[str]]:
    """Type a column of account ids: they are text, and nothing is done to their characters.

    Parameters
    ----------
    texts
        Trimmed text.
    native
        True where a spreadsheet or a table stored the id as a number.
    width
        Digits of an id, from a contract: shorter ids of digits get their zeros back.

    Returns
    -------
    tuple
        Ids as a dictionary (empty where there is none), reasons by row, warnings.
    """
    warnings: set[str] = set()
    bad: dict[int, str] = {}
    encoded = combine_chunks(pc.dictionary_encode(texts))
    reasons: dict[int, str] = {}
    is_plain = pc.match_substring_regex(encoded.dictionary, _PLAIN_ID)
    is_plain = pc.and_not(is_plain, pc.match_substring_regex(encoded.dictionary, _SCIENTIFIC_ID))
    to_look_at = range(len(encoded.dictionary)) if width else pc.indices_nonzero(pc.invert(is_plain)).to_pylist()
    # Most often there is none.
    out = encoded.dictionary.to_pylist() if to_look_at else []
    for code in to_look_at:
        text = out[code]
        inner = re.fullmatch(r'=?"(.*)"', text) or re.fullmatch(r"'(\w[\w.-]*)'?", text)
        value = inner[1].strip() if inner and text else text
        if not value or value.casefold() in NULL_WORDS or value in DASHES:
            reasons[code], value = "missing_required", ""
        elif re.fullmatch(_SCIENTIFIC_ID, value) and ("." in value or "," in value or "+" in value or len(value) <= 5):
            reasons[code] = "id_scientific_notation"
        elif re.fullmatch(PERSONAL_VALUE, value):
            reasons[code], value = "personal_data_as_id", ""
        elif len(value) > 128:
            reasons[code], value = "bad_account_id", value[:16]
        elif width and value.isascii() and value.isdigit():
            if len(value) < width:
                value = value.zfill(width)
                warnings.add("id_zeros_restored")
            elif len(value) > width:
                reasons[code] = "bad_account_id"
        out[code] = value
    positions = encoded.indices.to_numpy(zero_copy_only=False)
    for code, row in _places_of(list(reasons), positions):
        bad[row] = reasons[code]
    if native is not None and _any(native):
        long = pc.and_(native, pc.greater_equal(pc.utf8_length(texts), 16))
        for row in pc.indices_nonzero(long).to_pylist():
            bad[row] = "id_precision_lost"
    ids = pa.DictionaryArray.from_arrays(encoded.indices, pa.array(out, pa.string())) if out else encoded
    # Texts that were written differently may be the same id.
    if pc.count_distinct(ids.dictionary).as_py() != len(ids.dictionary):
        ids = combine_chunks(ids.cast(pa.string())).dictionary_encode()
    return ids, bad, warnings
