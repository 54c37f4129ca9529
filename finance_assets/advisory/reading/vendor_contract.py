"""What content cannot prove: the versioned contract of a vendor.

Belongs here: the models of contract files (YAML), their loading, and the reading of onboarding sheets, which say the
same in fewer words. A contract decides on fixed widths, fields without a header, implied decimals, units, the order of
dates and control totals; it never replaces the checks.
"""

from __future__ import annotations

import errno
import re
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
)
from pydantic_core import PydanticCustomError

from finance_assets.advisory.twrr import LARGE_FLOW_THRESHOLD
from finance_assets.reference.flow_timings import TIMINGS, Timing
from finance_assets.regular_files import read_regular

if TYPE_CHECKING:
    import yaml

CANONICAL = (
    "account_id",
    "period_start",
    "period_end",
    "granularity",
    "currency",
    "beginning_market_value",
    "contributions",
    "distributions",
    "net_flow",
    "ending_market_value",
    "fees",
    "income",
    "appreciation",
    "other_adjustments",
    "return_net",
    "return_gross",
    "benchmark_return",
    "flow_indicator",
)
"""Fields that a column can be mapped to."""

RETURNS = ("return_net", "return_gross", "benchmark_return")
MONEY = (
    "beginning_market_value",
    "contributions",
    "distributions",
    "net_flow",
    "ending_market_value",
    "fees",
    "income",
    "appreciation",
    "other_adjustments",
)

Unit = Literal["decimal", "percent", "bps"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldSpec(_Model):
    """One field by position (headerless, records) or by offsets (fixed width)."""

    name: str
    start: int | None = None
    end: int | None = None
    format: str | None = Field(default=None, description="strptime format of a date")
    unit: Unit | None = None
    picture: str | None = Field(default=None, description="s9(18)v99, 9(10)v99, zoned_v99, v8: implied decimals")


class Detection(_Model):
    """How the content tells that a file is this vendor's; every part that is given must hold."""

    required_headers: tuple[str, ...] = ()
    record_prefixes: tuple[str, ...] = ()
    contains: tuple[str, ...] = Field(default=(), description="texts, one of which the first lines contain")
    column_count: int | None = None


class Trailer(_Model):
    """Control record at the end."""

    prefix: str
    required: bool = False
    count_index: int | None = None
    count_after: str | None = None
    count_slice: tuple[int, int] | None = None
    count_includes_control_records: bool = False
    sums: dict[str, int] = Field(default_factory=dict, description="canonical field -> position in the record")
    sum_slices: dict[str, tuple[int, int]] = Field(default_factory=dict)
    sum_after: dict[str, str] = Field(default_factory=dict, description="canonical field -> text before the sum")
    sum_pictures: dict[str, str] = Field(default_factory=dict)


class RhythmTerms(_Model):
    """How often the vendor sends, so that a file that does not come is seen."""

    frequency: Literal["daily", "weekly", "monthly", "quarterly"] = "monthly"
    files: int = Field(default=1, ge=1, description="files per delivery")
    since: date | None = Field(
        default=None, description="from when on files are due, even before the first; by default from the first on"
    )


class TimingTerms(_Model):
    """How flows are timed, from a day on."""

    timing: Timing
    since: date | None = Field(
        default=None, description="first end of a period for which it holds; none: it holds before all others"
    )
    large_flow_threshold: Decimal = Field(
        default=LARGE_FLOW_THRESHOLD,
        gt=0,
        max_digits=20,
        description="share of the beginning value from which a net flow is large: 0.08 is 8 %",
    )

    @field_validator("since", mode="before")
    @classmethod
    def _is_day(cls, value: object) -> object:
        # Pydantic takes a number for seconds since 1970.
        if isinstance(value, str):
            is_day = re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value) is not None
        else:
            is_day = value is None or (isinstance(value, date) and not isinstance(value, datetime))
        if not is_day:
            raise PydanticCustomError("day_expected", "write a day such as 2020-01-01, or leave the key out")
        return value

    @field_validator("large_flow_threshold", mode="before")
    @classmethod
    def _is_exact(cls, value: object) -> object:
        # A float is no longer what was written.
        if isinstance(value, str):
            is_exact = re.fullmatch(r"-?[0-9]*\.?[0-9]+", value) is not None
        else:
            is_exact = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
        if not is_exact:
            raise PydanticCustomError(
                "share_expected", "write a share of the beginning value as a decimal number: 0.08 for 8 %"
            )
        return value


def _in_order(several: tuple[TimingTerms, ...]) -> tuple[TimingTerms, ...]:
    """Refuse timings whose dates do not ascend."""
    if not several:
        raise PydanticCustomError("no_timing", "the list is empty: give it an entry, or leave the key out")
    for place, terms in enumerate(several[1:], 1):
        before = several[place - 1].since
        said = {"entry": place + 1, "since": str(terms.since), "before": str(before)}
        if terms.since is None:
            raise PydanticCustomError(
                "open_timing",
                "entry {entry} has no since: only the first entry may be without, which holds before all others; "
                "write since when this one holds",
                said,
            )
        if before is not None and terms.since <= before:
            raise PydanticCustomError(
                "timing_order",
                "since {since} of entry {entry} does not come after {before} of the entry before it: "
                "put the entries in the order of their dates, one entry for a date",
                said,
            )
    return several


#: Names of the two forms of `timing`; Pydantic puts them among the keys of what is wrong.
_ONE_TIMING, _SEVERAL_TIMINGS = "one timing", "several timings"


def _form_of_timing(value: object) -> str | None:
    return _ONE_TIMING if isinstance(value, str) else _SEVERAL_TIMINGS if isinstance(value, (list, tuple)) else None


TimingKey = Annotated[
    Annotated[Timing, Tag(_ONE_TIMING)]
    | Annotated[tuple[TimingTerms, ...], AfterValidator(_in_order), Tag(_SEVERAL_TIMINGS)],
    Discriminator(
        _form_of_timing,
        custom_error_type="timing_expected",
        custom_error_message=f"write one of {', '.join(TIMINGS)}, or a list of entries with timing and since",
    ),
]
"""What the key ``timing`` holds: one for all periods, or a list with the dates since when each holds."""


class VendorContract(_Model):
    """Everything agreed with one vendor about one layout."""

    vendor: str
    version: int = 1
    description: str = ""
    detect: Detection = Detection()
    layout: Literal["auto", "delimited", "fixed_width", "json", "xml", "xlsx"] = "auto"
    encoding: str | None = None
    delimiter: str | None = None
    has_header: bool = True
    fields: tuple[FieldSpec, ...] = ()
    record_length: int | None = None
    record_type_index: int | None = None
    header_prefix: str | None = None
    detail_prefix: str | None = None
    trailer: Trailer | None = None
    decimal: Literal[".", ","] | None = None
    negative_style: str | None = None
    date_order: Literal["mdy", "dmy", "ymd", "ym"] | None = None
    date_formats: tuple[str, ...] = ()
    currency_default: str | None = None
    return_unit: Unit | None = None
    columns: dict[str, str] = Field(default_factory=dict, description="header of the vendor -> canonical field")
    units: dict[str, Unit] = Field(default_factory=dict, description="canonical field -> unit")
    pictures: dict[str, str] = Field(default_factory=dict, description="canonical field -> implied decimals")
    json_rows: str | None = Field(default=None, description="path of the list of rows: data.attributes.rows")
    xml_rows: str | None = Field(
        default=None, description="path of the elements that are rows, with or without the outermost: Accounts.Account"
    )
    section_pattern: str | None = Field(default=None, description="pattern of the line that opens an account's section")
    footers: tuple[str, ...] = Field(default=(), description="beginnings of lines that are no data")
    id_width: int | None = None
    granularity: Literal["daily", "monthly", "quarterly"] | None = None
    timing: TimingKey | None = None
    gross_net: Literal["gross", "net", "both"] | None = None
    rhythm: RhythmTerms | None = None

    @property
    def positional(self) -> bool:
        """Whether fields are found by position rather than by a header."""
        return bool(self.fields)

    @property
    def timings(self) -> tuple[TimingTerms, ...]:
        """The timings that are declared, in the order of their dates; none where the key is left out."""
        if self.timing is None:
            return ()
        return (TimingTerms(timing=self.timing),) if isinstance(self.timing, str) else self.timing


#: The largest file of contracts that is read.
MAX_CONTRACT_BYTES = 1 << 20
#: Lists and mappings in each other that a file of contracts may hold.
MAX_CONTRACT_DEPTH = 50
#: What reading a value of the wrong kind raises, beside ValueError.
_WRONG_CONTENT = (ArithmeticError, AttributeError, LookupError, TypeError, RecursionError, re.error)
#: What a system says of itself, and not of the file that was to be opened.
_OF_THE_MACHINE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}
)


class VendorContractError(ValueError):
    """A contract cannot be read; the message names the file, the key and what is wrong."""

    @classmethod
    def about(cls, path: Path, error: Exception, advice: str) -> Self:
        """Return the error of a file, from what went wrong in reading it.

        Parameters
        ----------
        path
            The file.
        error
            What was raised; of a `ValidationError` every key is named that is wrong.
        advice
            What to do.
        """
        wrong = " ".join(str(error).split())
        if isinstance(error, ValidationError):
            wrong = "; ".join(f"{_key(one['loc'])}: {one['msg']}" for one in error.errors(include_url=False))
        return cls(f"{path} is no contract of a vendor: {wrong}. {advice}")


def _key(place: tuple[int | str, ...]) -> str:
    """Return the key that is wrong, as one finds it in the file: ``rhythm.since``, or ``timing, entry 2, since``."""
    parts = [part for part in place if part not in (_ONE_TIMING, _SEVERAL_TIMINGS)]
    if not any(isinstance(part, int) for part in parts):
        return ".".join(map(str, parts)) or "the file"
    return ", ".join(f"entry {part + 1}" if isinstance(part, int) else part for part in parts)


@cache
def _loader() -> type[yaml.SafeLoader]:
    """Return the safe loader of YAML, made exact: a number with a point is the decimal that is written."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads what `yaml.SafeLoader` reads, as deep and as large as a contract may be."""

        depth = 0

        def __init__(self, stream: str) -> None:
            super().__init__(stream)
            #: By node: its characters and nodes, and the levels below it, with every alias written out.
            self.measured: dict[int, tuple[int, int]] = {}

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            """Return the next node; refuse it where its size or its depth, without aliases, is beyond measure."""
            is_alias = self.check_event(yaml.AliasEvent)
            line = self.line + 1
            self.depth += 1
            if self.depth > MAX_CONTRACT_DEPTH:
                raise yaml.YAMLError(f"line {line}: it is nested deeper than {MAX_CONTRACT_DEPTH} levels")
            node = super().compose_node(parent, index)
            self.depth -= 1
            if is_alias and id(node) not in self.measured:
                raise yaml.YAMLError(f"line {line}: an alias stands inside of what it stands for")
            if node is not None and not is_alias:
                self.measured[id(node)] = size, height = self._measure(node)
                if size > 2 * MAX_CONTRACT_BYTES:
                    raise yaml.YAMLError(f"line {line}: its aliases, written out, are too large; use fewer")
                if height > MAX_CONTRACT_DEPTH:
                    raise yaml.YAMLError(f"line {line}: its aliases are nested deeper than {MAX_CONTRACT_DEPTH} levels")
            return node

        def _measure(self, node: yaml.Node) -> tuple[int, int]:
            if isinstance(node, yaml.ScalarNode):
                return 1 + len(node.value), 1
            parts = (
                node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
            )
            below = [self.measured[id(part)] for part in parts]
            return 1 + sum(size for size, _ in below), 1 + max((height for _, height in below), default=0)

    def number(loader: Loader, node: yaml.ScalarNode) -> Decimal | float:
        text = str(loader.construct_scalar(node)).replace("_", "")
        is_plain = re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text)
        return Decimal(text) if is_plain else loader.construct_yaml_float(node)

    def day(loader: Loader, node: yaml.ScalarNode) -> object:
        try:
            return loader.construct_yaml_timestamp(node)
        except ValueError:
            # A day that no calendar has stays text: who asks for a day says under which key it stands.
            return node.value

    Loader.add_constructor("tag:yaml.org,2002:float", number)
    Loader.add_constructor("tag:yaml.org,2002:timestamp", day)
    return Loader


def _content(path: Path, encoding: str) -> Any:
    """Return what a file of YAML, or of JSON, holds."""
    import yaml

    text = read_regular(path, max_bytes=MAX_CONTRACT_BYTES).decode(encoding)
    try:
        return yaml.load(text, Loader=_loader())
    except _WRONG_CONTENT as error:
        # What a tag promises and the value does not hold, such as "!!bool perhaps".
        raise ValueError(f"a value cannot be read ({type(error).__name__}: {error})") from None


def load_contracts(folder: Path) -> list[VendorContract]:
    """Load the contracts of a folder.

    Parameters
    ----------
    folder
        Folder of ``*.yaml`` files, one contract each.

    Returns
    -------
    list of VendorContract
        In the order of file names.

    Raises
    ------
    VendorContractError
        A file is no YAML, no contract, or no file that can be read.
    """
    import yaml

    contracts = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            contracts.append(VendorContract.model_validate(_content(path, "utf-8")))
        except (ValueError, yaml.YAMLError) as error:
            raise VendorContractError.about(path, error, "Mend it, or take it out of the folder") from None
        except OSError as error:
            if error.errno in _OF_THE_MACHINE:
                # Nothing is wrong with the contract.
                raise
            raise VendorContractError(f"{error}. Take it out of the folder of contracts, or replace it") from None
    return contracts


# --- onboarding sheets -----------------------------------------------------------------------------------------------

_NAMES = {
    "return": "return_net",
    "net_return": "return_net",
    "ror": "return_net",
    "twr": "return_net",
    "gross_return": "return_gross",
    "benchmark": "benchmark_return",
    "index_return": "benchmark_return",
    "bmv": "beginning_market_value",
    "emv": "ending_market_value",
    "begin_market_value": "beginning_market_value",
    "end_market_value": "ending_market_value",
    "market_value": "ending_market_value",
    "account": "account_id",
    "account_number": "account_id",
    "date": "period_end",
    "as_of_date": "period_end",
    "flow": "net_flow",
    "net_flows": "net_flow",
    "cash_flow": "net_flow",
    "fee": "fees",
    "contribution": "contributions",
    "distribution": "distributions",
    "withdrawals": "distributions",
    "deposits": "contributions",
    "other": "other_adjustments",
    "adjustments": "other_adjustments",
    "credit_debit": "flow_indicator",
    "credit_debit_indicator": "flow_indicator",
    "sign": "flow_indicator",
    "start_date": "period_start",
}
_UNITS: dict[str, Unit] = {
    "percent": "percent",
    "pct": "percent",
    "%": "percent",
    "percentage": "percent",
    "decimal": "decimal",
    "fraction": "decimal",
    "decimal_fraction": "decimal",
    "bps": "bps",
    "bp": "bps",
    "basis_points": "bps",
}


def canonical_name(name: str) -> str:
    """Return the canonical field that a sheet's name means.

    Parameters
    ----------
    name
        Name as written in the sheet.

    Returns
    -------
    str
        Canonical name, or the name itself in lower case with underscores.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.strip().casefold()).strip("_")
    return plain if plain in CANONICAL else _NAMES.get(plain, plain)


def _unit(value: object) -> Unit | None:
    return _UNITS.get(re.sub(r"[\s-]+", "_", str(value).strip().casefold()))


def _annotated(text: str) -> dict[str, Any]:
    """Read ``return:percent``, ``period_end:%Y%m%d``, ``fees:s9(18)v99``."""
    name, _, note = text.partition(":")
    spec: dict[str, Any] = {"name": canonical_name(name)}
    spec.update(_note(note))
    return spec


def _note(note: str) -> dict[str, Any]:
    note = note.strip()
    if not note or note in {"text", "string", "str"}:
        return {}
    if "%" in note and note != "%":
        return {"format": note}
    if _unit(note):
        return {"unit": _unit(note)}
    date_words = {"yyyymmdd": "%Y%m%d", "mmddyyyy": "%m%d%Y", "ddmmyyyy": "%d%m%Y", "yymmdd": "%y%m%d"}
    date_words |= {"mmddyy": "%m%d%y", "ddmmyy": "%d%m%y", "yyyy-mm-dd": "%Y-%m-%d", "mm/dd/yyyy": "%m/%d/%Y"}
    date_words |= {"dd/mm/yyyy": "%d/%m/%Y", "dd.mm.yyyy": "%d.%m.%Y", "yyyy-mm": "%Y-%m", "iso": "%Y-%m-%d"}
    if note.casefold() in date_words:
        return {"format": date_words[note.casefold()]}
    if re.fullmatch(r"(?i)(zoned[_ ]?|s?9*(\(\d+\))?|comp3_)?v(9+(\(\d+\))?|\d+)", note):
        return {"picture": note}
    return {}


def _field(entry: object, one_based: bool = False) -> FieldSpec:
    if isinstance(entry, str):
        return FieldSpec(**_annotated(entry))
    if isinstance(entry, (list, tuple)):
        return FieldSpec(**_annotated(str(entry[0])), start=int(entry[1]) - one_based, end=int(entry[2]))
    if isinstance(entry, dict):
        spec = _annotated(str(entry.get("name") or entry.get("field") or entry.get("canonical")))
        start = entry.get("start", entry.get("from", entry.get("offset")))
        end = entry.get("end", entry.get("to"))
        length = entry.get("length", entry.get("width"))
        if start is not None:
            spec["start"] = int(start) - one_based
            spec["end"] = int(end) if end is not None else spec["start"] + int(length or 0)
        for key in ("format", "date_format", "type", "unit", "picture", "pic"):
            if entry.get(key):
                spec.update(_note(str(entry[key])))
        if entry.get("implied_decimals") is not None:
            spec["picture"] = f"v{int(entry['implied_decimals'])}"
        return FieldSpec(**spec)
    raise ValueError(f"no field: {type(entry).__name__}")


def _first(sheet: dict[str, Any], *names: str) -> Any:
    return next((sheet[name] for name in names if sheet.get(name) is not None), None)


def _path(value: object) -> str:
    if isinstance(value, list):
        return ".".join(str(part) for part in value)
    return re.sub(r"^\$\.?|\[\*?\]", "", str(value)).strip(".").replace("/", ".").strip(".")


def _trailer(sheet: dict[str, Any], one_based: bool) -> Trailer | None:
    nested = _first(sheet, "trailer", "trailer_record", "footer_record")
    nested = nested if isinstance(nested, dict) else {"prefix": nested}
    prefix = _first(sheet, "trailer_prefix", "trailer_record_type") or nested.get("prefix") or nested.get("record_type")
    if not prefix:
        return None
    made: dict[str, Any] = {"prefix": str(prefix)}
    made["required"] = bool(_first(sheet, "trailer_required") or nested.get("required"))
    after = _first(sheet, "trailer_count_after") or nested.get("count_after")
    if after:
        made["count_after"] = str(after)
        made["required"] = bool(_first(sheet, "trailer_required", "required") if "trailer_required" in sheet else True)
    sums: dict[str, int] = {}
    slices: dict[str, tuple[int, int]] = {}
    afters: dict[str, str] = {}
    pictures: dict[str, str] = {}
    fields = _first(sheet, "trailer_fields") or nested.get("fields") or []
    items: list[tuple[Any, Any]] = list(fields.items()) if isinstance(fields, dict) else list(enumerate(fields))
    for key, value in items:
        text, where = (str(value), key) if isinstance(key, int) else (str(key), value)
        name, _, note = text.partition(":")
        plain = re.sub(r"[^a-z0-9]+", "_", name.strip().casefold()).strip("_")
        where_any: Any = where
        span = isinstance(where_any, (list, tuple))
        place: Any = (int(where_any[0]) - one_based, int(where_any[1])) if span else where_any
        if re.search(r"count|records|num_rows", plain):
            made["count_slice" if span else "count_index"] = place
        elif match := re.fullmatch(
            r"(?:sum|total|hash|hash_total|control)_(?:of_)?(.+)|(.+)_(?:sum|total|hash)", plain
        ):
            field = canonical_name(match[1] or match[2])
            if field in CANONICAL:
                (slices if span else sums)[field] = place
                if note and "picture" in _note(note):
                    pictures[field] = note
    for key in ("trailer_sums", "hash_totals", "control_totals", "sums"):
        entry = _first(sheet, key) or nested.get(key.removeprefix("trailer_"))
        if isinstance(entry, dict):
            for name, where in entry.items():
                field, _, note = str(name).partition(":")
                field = canonical_name(re.sub(r"^(sum|total|hash)_(of_)?", "", field))
                if isinstance(where, (list, tuple)):
                    slices[field] = (int(where[0]) - one_based, int(where[1]))
                elif isinstance(where, int):
                    sums[field] = where
                elif isinstance(where, str):
                    afters[field] = where
                if note:
                    pictures[field] = note
        elif isinstance(entry, list):
            known = {int(v) for v in [*sums.values(), made.get("count_index", 0)]}
            for name in entry:
                field = canonical_name(re.sub(r"^(sum|total|hash)_(of_)?", "", str(name)))
                if field in CANONICAL and field not in sums:
                    sums[field] = max([*known, 0]) + 1
                    known.add(sums[field])
    for key in ("trailer_count_index", "trailer_count_column", "trailer_count_field", "trailer_count"):
        if isinstance(sheet.get(key), int) and not isinstance(sheet.get(key), bool):
            made["count_index"] = sheet[key]
        elif isinstance(sheet.get(key), (list, tuple)):
            made["count_slice"] = (int(sheet[key][0]) - one_based, int(sheet[key][1]))
    for key, name in (("count", "count_index"), ("count_index", "count_index"), ("count_slice", "count_slice")):
        if nested.get(key) is not None:
            made[name] = nested[key]
    after = _first(sheet, "trailer_sum_after") or nested.get("sum_after")
    if isinstance(after, dict):
        afters.update({canonical_name(str(k)): str(v) for k, v in after.items()})
    made.update(sums=sums, sum_slices=slices, sum_after=afters, sum_pictures=pictures)
    made["count_includes_control_records"] = bool(
        _first(sheet, "count_includes_header_trailer", "count_includes_control_records", "trailer_count_includes_all")
    )
    return Trailer.model_validate(made)


def contract_from_sheet(vendor: str, sheet: dict[str, Any]) -> VendorContract:
    """Turn one entry of an onboarding sheet into a contract.

    Parameters
    ----------
    vendor
        Name of the entry.
    sheet
        Its keys; those that mean nothing here are ignored.

    Returns
    -------
    VendorContract
        The contract, with what the sheet says.
    """
    if "vendor" in sheet and "detect" in sheet:
        return VendorContract.model_validate(sheet)
    made: dict[str, Any] = {"vendor": vendor, "version": int(sheet.get("version", 1) or 1)}
    base = _first(sheet, "offset_base", "offsets_start_at", "index_base")
    said = " ".join(v for v in sheet.values() if isinstance(v, str))
    one_based = (
        str(base) == "1" or bool(sheet.get("one_based")) or re.search(r"(?i)\b1-based|one-based", said) is not None
    )
    fixed = (
        bool(_first(sheet, "fixed_width", "fixed")) or str(_first(sheet, "layout", "format", "type")) == "fixed_width"
    )
    raw_fields = _first(sheet, "detail_fields", "fields", "positions", "field_order", "column_order")
    columns = _first(sheet, "columns", "column_aliases", "aliases", "header_map", "column_map", "headers", "mapping")
    explicit = _first(sheet, "has_header", "header_row")
    headerless = bool(_first(sheet, "headerless", "no_header", "no_header_row")) or explicit is False
    headerless = headerless or sheet.get("header") is False
    headerless = headerless or (raw_fields is None and isinstance(_first(sheet, "headerless_fields"), list))
    raw_fields = raw_fields or _first(sheet, "headerless_fields")
    if isinstance(columns, list) and raw_fields is None:
        raw_fields, columns, headerless = columns, None, True
    specs: list[FieldSpec] = []
    if isinstance(raw_fields, dict):
        for name, where in raw_fields.items():
            if isinstance(where, (list, tuple)) and len(where) >= 2:
                note = _note(str(where[2])) if len(where) > 2 else {}
                spec = {**_annotated(str(name)), **note}
                specs.append(FieldSpec(**spec, start=int(where[0]) - one_based, end=int(where[1])))
            elif isinstance(where, dict):
                specs.append(_field({"name": name, **where}, one_based))
            elif isinstance(where, int):
                specs.append(FieldSpec(**_annotated(str(name)), start=where - one_based))
            elif isinstance(where, str) and columns is None:
                columns = raw_fields
                break
        if specs and all(s.end is None for s in specs):
            # Positions of columns, not offsets of characters.
            by_place = {s.start: s for s in specs}
            last = max(k for k in by_place if k is not None)
            specs = [
                by_place[i].model_copy(update={"start": None}) if i in by_place else FieldSpec(name="filler")
                for i in range(last + 1)
            ]
    elif isinstance(raw_fields, (list, tuple)):
        specs = [_field(entry, one_based) for entry in raw_fields]
    fixed = fixed or any(s.end is not None for s in specs)
    made["fields"] = tuple(specs)
    made["layout"] = "fixed_width" if fixed else "auto"
    made["has_header"] = not (headerless or specs)
    if isinstance(columns, dict):
        renamed: dict[str, str] = {}
        units: dict[str, Unit] = {}
        pictures: dict[str, str] = {}
        formats: list[str] = []
        for left, right in columns.items():
            for alias in right if isinstance(right, list) else [right]:
                a, b = str(left), str(alias)
                a_name, b_name = canonical_name(a.partition(":")[0]), canonical_name(b.partition(":")[0])
                a_known, b_known = a.partition(":")[0] in {*CANONICAL, "return"}, b_name in CANONICAL
                if a_known and b.partition(":")[0] not in {*CANONICAL, "return"}:
                    title, target, said_note = b, a_name, a.partition(":")[2]
                elif b_known:
                    title, target, said_note = a, b_name, b.partition(":")[2]
                elif a_name in CANONICAL:
                    title, target, said_note = b, a_name, a.partition(":")[2]
                else:
                    title, target, said_note = a, "ignore", ""
                renamed[title] = target
                noted = _note(said_note)
                if "unit" in noted:
                    units[target] = noted["unit"]
                if "picture" in noted:
                    pictures[target] = noted["picture"]
                if "format" in noted:
                    formats.append(noted["format"])
        made.update(columns=renamed, units=units, pictures=pictures, date_formats=tuple(formats))
    delimiter = _first(sheet, "delimiter", "separator", "sep")
    if delimiter:
        made["delimiter"] = {"tab": "\t", "\\t": "\t", "pipe": "|", "comma": ",", "semicolon": ";"}.get(
            str(delimiter), str(delimiter)
        )
    for key in ("header_prefix", "header_record_type"):
        if isinstance(sheet.get(key), str):
            made["header_prefix"] = sheet[key]
    if isinstance(sheet.get("header"), str):
        made["header_prefix"] = sheet["header"]
    detail = _first(sheet, "detail_prefix", "detail", "record_prefix", "detail_record_type")
    prefixes = _first(sheet, "record_prefixes", "record_types")
    if isinstance(prefixes, dict):
        made.setdefault("header_prefix", _first(prefixes, "header", "bof", "head"))
        detail = detail or _first(prefixes, "detail", "data", "row")
        if not _first(sheet, "trailer_prefix") and _first(prefixes, "trailer", "eof"):
            sheet = {**sheet, "trailer_prefix": _first(prefixes, "trailer", "eof")}
    elif isinstance(prefixes, list) and prefixes and not detail:
        detail = prefixes[0] if len(prefixes) == 1 else prefixes[len(prefixes) // 2]
        if len(prefixes) == 3:
            made.setdefault("header_prefix", str(prefixes[0]))
            if not _first(sheet, "trailer_prefix"):
                sheet = {**sheet, "trailer_prefix": prefixes[2]}
    if isinstance(detail, str):
        made["detail_prefix"] = detail
    made["record_type_index"] = _first(sheet, "record_type_column", "record_type_index")
    made["trailer"] = _trailer(sheet, one_based)
    made["record_length"] = _first(sheet, "record_length", "line_length")
    for key in ("encoding", "negative_style"):
        made[key] = str(sheet[key]) if sheet.get(key) else None
    mark = _first(sheet, "decimal", "decimal_separator", "decimal_mark")
    made["decimal"] = (
        {"comma": ",", "dot": ".", "point": "."}.get(str(mark), mark)
        if mark in (".", ",", "comma", "dot", "point")
        else None
    )
    order = _first(sheet, "date_order")
    if order:
        letters = re.sub(r"[^dmy]", "", re.sub(r"(.)\1+", r"\1", str(order).casefold()))
        named = {"day_first": "dmy", "dayfirst": "dmy", "month_first": "mdy", "european": "dmy", "us": "mdy"}
        made["date_order"] = named.get(str(order).casefold(), letters if letters in {"mdy", "dmy", "ymd"} else None)
    if sheet.get("dayfirst") is not None or sheet.get("day_first") is not None:
        made["date_order"] = "dmy" if _first(sheet, "dayfirst", "day_first") else "mdy"
    formats_given = _first(sheet, "date_format", "date_formats")
    if formats_given:
        given = formats_given if isinstance(formats_given, list) else [formats_given]
        made["date_formats"] = tuple(f for g in given if (f := _note(str(g)).get("format")))
    currency = _first(sheet, "currency_default", "default_currency", "currency")
    made["currency_default"] = str(currency).upper() if currency else None
    made["return_unit"] = _unit(_first(sheet, "return_unit", "return_units", "returns")) or None
    decimals = _first(sheet, "implied_decimals")
    if isinstance(decimals, int):
        made["pictures"] = {**made.get("pictures", {}), **dict.fromkeys(MONEY, f"v{decimals}")}
    elif isinstance(decimals, dict):
        given_pictures = {
            canonical_name(str(k)): f"v{v}" if isinstance(v, int) else str(v) for k, v in decimals.items()
        }
        made["pictures"] = {**made.get("pictures", {}), **given_pictures}
    rows = _first(sheet, "json_rows", "rows_path", "row_path", "json_row_path", "json_path", "records_path", "rows")
    made["json_rows"] = _path(rows) if rows else None
    elements = _first(sheet, "xml_rows", "xml_path", "row_element")
    made["xml_rows"] = _path(elements) if elements else None
    pattern = _first(sheet, "section_pattern", "section_regex", "account_section_pattern")
    prefix = _first(sheet, "section_prefix", "section_header", "account_line_prefix", "section_marker", "section_start")
    sections = _first(sheet, "sections", "sectioned", "section")
    if isinstance(sections, dict):
        pattern = pattern or _first(sections, "pattern", "regex", "account_pattern")
        prefix = prefix or _first(sections, "prefix", "header", "starts_with", "account_prefix", "marker")
    elif isinstance(sections, str):
        prefix = prefix or sections
    if prefix and not pattern:
        pattern = rf"^\s*{re.escape(str(prefix).strip())}\s*[:#=,;|]?\s*(?P<account>[^\s,;|]+)"
    made["section_pattern"] = str(pattern) if pattern else None
    footers = _first(
        sheet, "footers", "footer", "footer_prefixes", "footer_prefix", "footer_patterns", "skip_rows_starting_with"
    )
    if footers:
        made["footers"] = tuple(str(f) for f in (footers if isinstance(footers, list) else [footers]))
    width = _first(
        sheet,
        "id_width",
        "account_id_width",
        "account_id_digits",
        "id_digits",
        "account_width",
        "account_id_length",
        "digits",
        "zero_pad",
        "pad_ids_to",
    )
    if isinstance(width, dict):
        width = _first(width, "account_id", "account")
    made["id_width"] = int(width) if width else None
    grain = _first(sheet, "granularity", "frequency", "period")
    made["granularity"] = (
        {"day": "daily", "month": "monthly", "quarter": "quarterly"}.get(str(grain), str(grain)) if grain else None
    )
    if made["granularity"] not in {None, "daily", "monthly", "quarterly"}:
        made["granularity"] = None
    timing = _first(sheet, "timing", "flow_timing")
    # A word may be a note for people; entries with dates are meant.
    made["timing"] = timing if isinstance(timing, (list, dict)) or timing in TIMINGS else None
    net = _first(sheet, "gross_net", "return_basis", "net_or_gross")
    made["gross_net"] = net if net in {"gross", "net", "both"} else None
    headers = _first(sheet, "required_headers", "detect_headers")
    contains = _first(sheet, "contains", "title_contains", "identifier")
    detect: dict[str, Any] = sheet["detect"] if isinstance(sheet.get("detect"), dict) else {}
    made["detect"] = Detection(
        required_headers=tuple(headers or detect.get("required_headers") or ()),
        contains=tuple([contains] if isinstance(contains, str) else contains or detect.get("contains") or ()),
    )
    return VendorContract.model_validate({k: v for k, v in made.items() if v is not None})


def read_onboarding_sheet(path: Path) -> list[VendorContract]:
    """Read contracts from an onboarding sheet, or from a file in the form of our own contracts.

    Parameters
    ----------
    path
        JSON or YAML: vendor -> what is agreed, or one contract, or a list of contracts.

    Returns
    -------
    list of VendorContract
        One per vendor.

    Raises
    ------
    VendorContractError
        The file is neither, or a key of it is wrong.
    UnreadableFileError
        It is no regular file, or larger than a megabyte.
    """
    import yaml

    try:
        return _contracts_of(_content(path, "utf-8-sig"))
    except (ValueError, yaml.YAMLError, *_WRONG_CONTENT) as error:
        raise VendorContractError.about(path, error, "Mend it") from None


def _contracts_of(content: Any) -> list[VendorContract]:
    if isinstance(content, dict) and isinstance(content.get("vendor"), str):
        return [VendorContract.model_validate(content)]
    if isinstance(content, list):
        return [VendorContract.model_validate(entry) for entry in content]
    if isinstance(content, dict) and isinstance(content.get("vendors"), dict):
        content = content["vendors"]
    if content is not None and not isinstance(content, dict):
        raise ValueError("it holds a single value; write vendors with what is agreed")
    return [
        contract_from_sheet(str(vendor), sheet)
        for vendor, sheet in (content or {}).items()
        if isinstance(sheet, dict) and not str(vendor).startswith("_")
    ]


# --- implied decimals ------------------------------------------------------------------------------------------------

_OVERPUNCH = {c: (str(i), "") for i, c in enumerate("{ABCDEFGHI")}
_OVERPUNCH |= {c: (str(i), "-") for i, c in enumerate("}JKLMNOPQR")}
_OVERPUNCH |= {c: (str(i), "-") for i, c in enumerate("pqrstuvwxy")}


def implied(text: str, picture: str) -> str:
    """Write out a number whose decimal point, and perhaps sign, is implied.

    Parameters
    ----------
    text
        Digits as they stand in the file.
    picture
        ``s9(18)v99``, ``v8``, ``zoned_v99``.

    Returns
    -------
    str
        Plain number, empty for blanks, or ``?`` when it does not follow the picture.
    """
    value = text.strip()
    if not value:
        return ""
    match = re.fullmatch(r"(?i).*v(?:(9+)(?:\((\d+)\))?|(\d+))", picture)
    if not match:
        return value
    # v99 means two digits, v9(4) four, v8 eight; "v9" alone is the COBOL form of one.
    places = int(match[2] or len(match[1])) if match[1] else int(match[3])
    sign = ""
    if picture.casefold().startswith("zoned"):
        digit, sign = _OVERPUNCH.get(value[-1], (value[-1], ""))
        value = value[:-1] + digit
    if value[0] in "+-":
        sign, value = value[0].replace("+", ""), value[1:]
    elif value[-1] in "+-":
        sign, value = value[-1].replace("+", ""), value[:-1]
    value = value.strip()
    if not value.isascii() or not value.isdigit():
        return "?"
    value = value.rjust(places + 1, "0")
    return f"{sign}{value[:-places]}.{value[-places:]}" if places else sign + value
