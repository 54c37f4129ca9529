"""Nothing from outside moves, hides or forges anything at any exit."""

from __future__ import annotations

import ast
import io
import logging
import re
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from finance_assets import dagster_output, terminal_output
from finance_assets.cli.errors import fail
from finance_assets.text import (
    SafeLineFormatter,
    SafeLogRecord,
    SafeMessageFilter,
    code_span,
    escape_controls,
    escape_markdown,
    escape_name,
    hide_url_secrets,
    inert_markdown,
    json_line,
    redact_personal_data,
    safe_message,
    safe_traceback,
    safe_values,
    shorten,
    unescape_name,
)

PACKAGE = Path(terminal_output.__file__).parent
ATTACKS = (
    "\x1b[2J\x1b[31mred",
    "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\rb\nc\td\x0be\x0cf\x85g",
    "\x00\x07\x08\x7f",
    "\u202egnp.exe\u202c",
    "\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "zero\u200bwidth\u200c\u200d\u2060\ufeff\u00ad\u180e",
    "line\u2028and\u2029paragraph",
    "\udcff\udc80",
    "\U000e0041\U000e007f",
    "\u3164\u115f\uffa0\u2800\u034f\ufe0f",
    "\u00a0\u2003\u3000",
    "a" + "\u0301" * 50,
    "\ufff9\ufffb\u206a",
    "[red]x[/red] [link=http://evil.example]y[/link] :skull:",
    "[x](http://evil.example) ![i](http://evil.example/i.png) <img src=x onerror=alert(1)> `c` a|b",
    "back\\slash \\x1b \\",
)
ANYTHING = st.one_of(
    st.sampled_from(ATTACKS),
    st.text(st.characters(), max_size=60),
    st.text(st.sampled_from("".join(ATTACKS) + "abc\\`*_[]()<>|!&#~"), max_size=40),
)
quick = settings(derandomize=True, max_examples=300, deadline=None, database=None)


def harmful(text: str, kept: str = "") -> list[str]:
    return [
        character
        for character in text
        if character not in kept
        and (
            unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn")
            or (unicodedata.category(character) == "Zs" and character != " ")
            or 0xFE00 <= ord(character) <= 0xFE0F
        )
    ]


def drawn(renderable: object, **options: object) -> str:
    file = io.StringIO()
    terminal_output.console(file=file, width=10_000).print(renderable, **options)  # type: ignore[arg-type]
    return file.getvalue()


@quick
@given(ANYTHING)
def test_an_escaped_name_is_harmless_and_gives_the_name_back(name: str) -> None:
    shown = escape_name(name)
    assert not harmful(shown)
    assert unescape_name(shown) == name


@quick
@given(ANYTHING, ANYTHING)
def test_two_names_are_shown_alike_only_if_they_are_one(one: str, other: str) -> None:
    assert (escape_name(one) == escape_name(other)) == (one == other)


@pytest.mark.parametrize(
    "name", ["june 2013.csv", "core/quotes", "naïve_日本語-1.csv", "O'Neil & Sons (2).xlsx", "a:b"]
)
def test_a_plain_name_stays_as_it_is(name: str) -> None:
    assert escape_name(name) == escape_controls(name) == safe_message(name) == name
    assert code_span(name) == f"`{name}`"


@quick
@given(ANYTHING)
def test_a_message_may_pass_more_than_one_exit(message: str) -> None:
    once = safe_message(message)
    assert not harmful(once)
    assert safe_message(once) == once
    assert not harmful(safe_message(message, keep_newlines=True), "\n")


@quick
@given(ANYTHING)
def test_the_terminal_shows_nothing_raw(text: str) -> None:
    table = Table("name")
    table.add_row(terminal_output.shown(text))
    table.add_row(text, style="bold")
    assert not harmful(drawn(terminal_output.shown(text), soft_wrap=True)[:-1])
    for renderable in (table, Text(text), Panel(Text(text), title=terminal_output.shown(text))):
        assert not harmful(drawn(renderable), "\n")
    assert not harmful(drawn(text, markup=False, soft_wrap=True), "\n")


@quick
@given(ANYTHING)
def test_a_failure_is_one_harmless_line(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        error, output = io.StringIO(), io.StringIO()
        patch.setattr("sys.stderr", error)
        patch.setattr("sys.stdout", output)
        fail(f"{text}: is wrong")
        terminal_output.say(text, stderr=True)
        terminal_output.print_text(text)
    assert not harmful(error.getvalue(), "\n")
    assert error.getvalue().count("\n") == 2
    assert not harmful(output.getvalue(), "\n")


def test_markup_and_emoji_from_outside_are_text() -> None:
    attack = "[red]x[/red] [link=http://evil.example]y[/link] :skull:"
    file = io.StringIO()
    console = terminal_output.console(file=file, width=200)
    console._force_terminal, console._color_system = True, None
    console.print(terminal_output.shown(attack))
    assert file.getvalue() == f"{attack}\n"


@quick
@given(ANYTHING)
def test_a_log_line_is_one_line(text: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeLineFormatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.error("%s is wrong", text)
    assert not harmful(stream.getvalue()[:-1])
    try:
        raise ValueError(f"{text}\nERROR forged")
    except ValueError:
        logger.exception("%s", text)
    lines = stream.getvalue().splitlines()
    assert not harmful(stream.getvalue(), "\n")
    assert [line for line in lines if not line.startswith("    ")] == [f"ERROR {safe_message(text)} is wrong", lines[1]]


@quick
@given(ANYTHING)
def test_a_filtered_logger_and_every_record_are_harmless(text: str) -> None:
    record = SafeLogRecord("x", logging.ERROR, "p", 1, "%s", (text,), None)
    assert not harmful(record.getMessage(), "\n")
    record = logging.LogRecord("x", logging.ERROR, "p", 1, "%s", (text,), None)
    assert SafeMessageFilter().filter(record)
    assert not harmful(record.getMessage())
    assert not harmful(json_line({"message": text}))
    error = ValueError(text)
    assert not harmful(safe_traceback(ValueError, error, None), "\n")


@quick
@given(ANYTHING)
def test_dagster_gets_nothing_raw(text: str) -> None:
    checked = dagster_output.asset_check(passed=False, description=text, metadata={"why": text, "all": [{text: text}]})
    failed = dagster_output.failure(text, metadata={"why": text})
    made = dagster_output.materialized(metadata={"uri": text, "n": 1, "page": dagster_output.path(text)})
    for said in (
        checked.description,
        str(failed.description),
        str(dagster_output.skip(text).skip_message),
        dagster_output.markdown(text).md_str,
        repr(checked.metadata),
        str(checked.metadata),
        str(failed.metadata),
        str(made.metadata),
    ):
        assert said is not None
        assert not harmful(said, "\n")
    assert made.metadata is not None
    assert made.metadata["n"] == 1


def test_a_log_of_dagster_is_filtered_once() -> None:
    context = SimpleNamespace(log=logging.Logger("run"))
    heard: list[str] = []
    context.log.addHandler(handler := logging.Handler())
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    for _ in range(2):
        dagster_output.log(context).info("\x1b[2J%s", "a\nb")
    assert heard == ["\\x1b[2Ja\\nb"] * 2
    assert len(context.log.filters) == 1


@quick
@given(ANYTHING)
def test_markdown_shows_a_value_as_it_is(text: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    for inside in (f"- {escape_markdown(text)}: said", f"x {code_span(text)} y"):
        tokens = parser.parse(inside)
        inline = [child for token in tokens for child in token.children or ()]
        kinds = {token.type for token in [*tokens, *inline]}
        assert not kinds & {"link_open", "image", "html_inline", "html_block", "em_open", "strong_open", "heading_open"}
        assert not harmful(inside)
    (code,) = [
        child for child in parser.parseInline(f"x {code_span(text)} y")[0].children if child.type == "code_inline"
    ]
    if text.strip():
        assert unescape_name(code.content) == text
    row = parser.parse(f"| a | b |\n|---|---|\n| {escape_markdown(text)} | {code_span(text)} |")
    assert sum(token.type == "td_open" for token in row) == 2


def test_what_a_description_quotes_opens_nothing() -> None:
    told = inert_markdown(
        "core/quotes: run `finance-assets materialize`; first by [x](http://evil.example) <img src=x>"
    )
    assert "`finance-assets materialize`" in told
    assert "\\[x](http\\://evil.example)" in told
    assert "\\<img" in told
    assert "www\\.evil.example" in inert_markdown("www.evil.example")


def test_overlong_text_is_cut_and_says_so() -> None:
    assert shorten("a" * 20, 10) == "a" * 10 + "… (10 more characters)"
    assert len(safe_message("x" * 10**6)) < 11_000
    assert safe_values({"a": ("x" * 10**6, 1)})["a"][1] == 1


# --- secrets of addresses ---------------------------------------------------------------------------------------------

SECRET = "s3cr3tPASSw0rd"
ADDRESSES = (
    f"http://user:{SECRET}@sqs.local:9324/000000000000/transactions",
    f"https://{SECRET}@host/queue",
    f"http://user:{SECRET}/with/slash@host/queue",
    f"http://user:{SECRET}@{SECRET}@host/queue",
    f"postgresql+psycopg://user:{SECRET}@host:5432/db?sslmode=require",
    f"postgresql://host/db?user=u&password={SECRET}",
    f"https://host/hook?token={SECRET}&x=1",
    f"https://host/hook?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
    f"https://hooks.slack.com/services/T00000000/B00000000/{SECRET}{SECRET}",
    f"https://discord.com/api/webhooks/123456789012345678/{SECRET}-{SECRET}",
    f"https://host/x#access_token={SECRET}",
    f"s3://key:{SECRET}@bucket/prefix",
    f"smtp://me:{SECRET}@mail.example:587",
    f"host=db user=u password={SECRET} dbname=x",
    f"password='{SECRET}'",
    f"Authorization: Bearer {SECRET}{SECRET}",
    f"HTTPS://USER:{SECRET}@HOST/",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_shows_its_secret(address: str) -> None:
    for text in (address, f"reading {address!r} failed: {address}", f'endpoint URL: "{address}"'):
        assert SECRET not in hide_url_secrets(text)
        assert SECRET not in safe_message(text)
        assert SECRET not in drawn(text, markup=False, soft_wrap=True)
        assert SECRET not in str(dagster_output.skip(text).skip_message)
    assert hide_url_secrets(hide_url_secrets(address)) == hide_url_secrets(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9324/000000000000/transactions",
        "https://sqs.us-east-1.amazonaws.com/123456789012/transactions-dlq",
        "s3://bucket/lake/landing/vendor_files/" + "0a" * 32,
        "GET https://www.alphavantage.co/query?function=TIME_SERIES_DAILY&symbol=IBM&apikey=***",
        "https://api.stlouisfed.org/fred/series/observations?series_id=DGS10&file_type=json",
        "sqlite:////home/me/ledger.sqlite",
        "write postgresql+psycopg://user@host/db",
    ],
)
def test_an_address_without_secrets_stays(address: str) -> None:
    assert hide_url_secrets(address).replace("***@", "user@") == address


# --- personal data ----------------------------------------------------------------------------------------------------

WIDE, ARABIC = ({ord("0") + n: zero + n for n in range(10)} for zero in (0xFF10, 0x0660))
CARD = "4111111111111111"
PERSONAL = (
    CARD,
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111 | 1111 | 1111 | 1111",
    "4111,1111,1111,1111",
    "4111\u200b1111\u200b1111\u200b1111",
    "4111\u00a01111\u00a01111\u00a01111",
    "4111\u20111111\u20111111\u20111111",
    CARD.translate(WIDE),
    CARD.translate(ARABIC),
    "3782 822463 10005",
    "DE89370400440532013000",
    "DE89 3704 0044 0532 0130 00",
    "de89 3704 0044 0532 0130 00",
    "GB82-WEST-1234-5698-7654-32",
    "900-12-3456",
    "900 12 3456",
    "900-12-34",
    "jane.smith@example.com",
    "jane.smith@example",
    "jane.smith\uff20example.com",
    "(555) 123-4567",
    "+49 30 1234567",
)


@pytest.mark.parametrize("secret", PERSONAL)
def test_personal_data_is_hidden_wherever_it_stands(secret: str) -> None:
    for text in (secret, f"A-1 | {secret} | 5.00", f"the cell {secret} is no number", f"Jane: {secret}; line 5"):
        told = redact_personal_data(text)
        assert "[hidden]" in told
        digits = "".join(str(unicodedata.digit(c)) for c in told if c.isdigit())
        assert CARD not in digits
        assert secret[-4:] not in told
    assert redact_personal_data(f"{secret} x").endswith(" x")


@pytest.mark.parametrize(
    "text",
    ["9756-0034", "3 fields where the header has 12", "2013-01-31", "1010.00", "wrong_field_count", "001234567", ""],
)
def test_what_is_not_personal_stays(text: str) -> None:
    assert redact_personal_data(text) == text


@pytest.mark.parametrize("text", ["a" * 50_000, "1 " * 25_000, "1" * 50_000, "DE12" + "A " * 20_000, "a@" * 20_000])
def test_no_text_takes_long(text: str) -> None:
    import time

    begun = time.monotonic()
    redact_personal_data(text)
    hide_url_secrets(f"http://{text}")
    escape_markdown(text)
    assert time.monotonic() - begun < 8


# --- nothing goes past the exits --------------------------------------------------------------------------------------

#: What is built in one module alone -> where.
EXITS = {
    r"\brich\.console import .*\bConsole\b": {"terminal_output.py"},
    r"\brich\.markup import\b": {"terminal_output.py"},
    r"\b(typer|click)\.(echo|secho)\(": set(),
    r"\bdg\.(Failure|SkipReason|AssetCheckResult|MaterializeResult)\(": {"dagster_output.py"},
    r"\bdg\.MetadataValue\.(md|text|path|url)\(": {"dagster_output.py"},
    r"\bcontext\.log\.(debug|info|warning|error)": set(),
    r"\blogging\.(getLogger|Formatter)\(": {"text.py"},
}
#: Imports for types, and the one call that sets a level.
ALLOWED = re.compile(r'^ {4}from rich\.console import Console$|getLogger\("finance_assets"\)\.setLevel')


@pytest.mark.parametrize("pattern", EXITS)
def test_nothing_is_written_past_the_exits(pattern: str) -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name not in EXITS[pattern]
        for line in path.read_text("utf-8").splitlines()
        if re.search(pattern, line) and not ALLOWED.search(line)
    ]
    assert not found


def test_the_module_of_text_is_light() -> None:
    tree = ast.parse((PACKAGE / "text.py").read_text("utf-8"))
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert names <= {
        "__future__",
        "collections.abc",
        "json",
        "logging",
        "re",
        "traceback",
        "types",
        "typing",
        "unicodedata",
    }


def test_dagster_types_are_what_they_were() -> None:
    assert isinstance(dagster_output.failure("x"), dg.Failure)
    assert isinstance(dagster_output.skip("x"), dg.SkipReason)
    assert isinstance(dagster_output.asset_check(passed=True), dg.AssetCheckResult)
