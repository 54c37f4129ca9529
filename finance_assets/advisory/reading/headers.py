"""What the headers of a file say: which canonical field, which unit, which currency, whose personal data.

Belongs here: everything that is known about words in headers (English, German, French, Spanish, Italian). Headers only
propose; `detection` decides with the values.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache

from finance_assets.advisory.reading.values import ISO_CURRENCIES, read_date

_LATEST = date(2099, 12, 31)

_PERSONAL = (
    r"\b(ssn|social sec\w*|soc sec|tax ?id\w*|taxpayer\w*|itin|fein|national id\w*|nino|passport\w*|dob|birth\w*"
    r"|d o b|e ?mails?|phones?|telephone\w*|mobile|fax|address\w*|street|zip ?code|postal\w*|postcode"
    r"|driver\w* licen[cs]e|geburt\w*|steuer ?(id|nr|nummer|identifikation)\w*|telefon\w*|handy|adresse|strasse|plz"
    r"|naissance|courriel|numero fiscal|nacimiento|correo|nif|dni|telefono|direccion|nascita|codice fiscale|indirizzo"
    r"|cellulare|ahv\w*)\b|^(sin|tin|ein|nas|cell|zip)( no| nr| number| id)?$"
)
_NAME = (
    r"\b(names?|desc|description|bezeichnung|nom|nombre|nome|titel|title|owner|intitule|denominazione"
    r"|registration|label|kontoname|kontobezeichnung|kundenname|inhaber|titulaire|titular|intestatario"
    r"|acctname)\b"
)
_RETURN = (
    r"\b(returns?|ret|rtn|ror|twr+s?|twror|performance|perf|\w*rendite\w*"
    r"|rendement\w*|rendimiento|rendimento"
    r"|rentabilidad|rentabilite|wertentwicklung|time weighted|mwr+|irr|dietz|rate of return)\b"
)
_BENCH = r"\b(bench\w*|bmk|bm|bmrk|index|idx|indice|indices|referenz\w*|vergleich\w*|reference)\b"
_GROSS = r"\b(bruttorendite|gross|gof|brutto\w*|brut|brute|bruto|bruta|lordo|lorda)\b"
_NET = r"\b(net|nof|netto\w*|nette|neto|neta|netta)\b"
_DATE = r"\b(date|datum|fecha|data|dt|stichtag|bewertungstag|bewertungsdatum|asofdate|dates)\b"
_PERIOD = (
    r"\b(periode?s?|period|periodo|month|monat|mois|mes|mese|quarter|quartal|trimestre|as of|asof|per|day"
    r"|monthend|periodend)\b"
)
_START = r"\b(start\w*|begin\w*|beg|from|von|debut|inicio|inizio|opening|anfang|anfangsdatum|desde|dal)\b"
_END = (
    r"\b(end\w*|to|bis|fin|fine|closing|as of|asof|valuation|val|bewertung\w*|perf\w*|through|thru"
    r"|valorizacion|valoracion|valutazione|cierre|cloture|chiusura|hasta|al|eom|eop)\b"
)
_OTHER_DATE = (
    r"\b(inception|open\w*|closed|termination|trade|settle\w*|run|created|generated|load\w*|process\w*"
    r"|updat\w*|extract\w*|file|print\w*|funded|maturity|since)\b"
)
_OTHER_SPAN = (
    r"\b(ytd|itd|mtm|1 ?yr?|3 ?yr?|5 ?yr?|10 ?yr?|1 year|3 years?|5 years?|10 years?|inception|since"
    r"|annuali[sz]ed|ann|cumulative|cum|12 ?m|12 months?|rolling|year to date|trailing|ltm)\b"
)
_BEGIN_VALUE = (
    r"\b(beg|begin\w*|start\w*|open\w*|initial\w*|prior|previous|bop|bom|bod|boy|anfang\w*|debut|inicial"
    r"|iniziale|ouverture|apertura|precedent\w*|anterior|vortrag|vorperiode)\b"
)
_END_VALUE = r"\b(end\w*|clos\w*|final\w*|current|eop|eom|eod|fin|cloture|cierre|chiusura|finale?|schluss\w*|actual)\b"
_VALUE = (
    r"\b(mv|mkt|market|marketvalue|values?|val|vals|balance|bal|nav|assets?|aum|wert\w*|bestand"
    r"|vermogen\w*|marktwert\w*|valeur|encours|solde"
    r"|valor|saldo|valore|patrimon\w*|equity|worth|amount|amt|kapital|avoirs|valuation|bewertung)\b"
)
_CONTRIBUTION = (
    r"\b(contrib\w*|deposit\w*|inflows?|additions?|adds|einzahlung\w*|zufluss\w*|zuflusse|einlage\w*"
    r"|apports?|versements?|aporta\w*"
    r"|entradas?|conferiment\w*|versament\w*|apporti|apporto|subscriptions?|sottoscrizion\w*|cash in"
    r"|cashin|money in|flows? in|transfers? in"
    r"|souscriptions?|suscripciones|receipts?|kapitalzufluss\w*|capital in|external in)\b"
)
_DISTRIBUTION = (
    r"\b(distrib\w*|withdraw\w*|wdls?|outflows?|auszahlung\w*|abfluss\w*|abflusse|entnahme\w*|retraits?"
    r"|retiros?|retiradas?|salidas?"
    r"|reembolsos?|preliev\w*|riscatt\w*|rimbors\w*|redemptions?|cash out|cashout|money out|flows? out"
    r"|transfers? out|rachats?|disbursements?"
    r"|kapitalabfluss\w*|capital out|external out|removals?)\b"
)
_FLOW = (
    r"\b(net ?flows?|flows?|cash ?flows?|ncf|nettozu\w*|nettomittel\w*|nettofluss\w*|mittelfluss\w*|flux"
    r"|flujos?|fluss[oi]|net additions?|net investment|net transfers?|net external|kapitalfluss\w*"
    r"|netto cashflow|ext flow)\b"
)
_FEES = (
    r"\b(fees?|expenses?|charges?|gebuhr\w*|verwaltungsgebuhr\w*|kosten|frais|honoraires?|comision\w*"
    r"|commission\w*|commissioni|spese|gastos|costs?|honorar\w*)\b"
)
_INCOME = (
    r"\b(income|incomes|dividends?|divs?|interest|coupons?|ertrag\w*|ertrage|zins\w*|revenus?|dividend\w*"
    r"|interets?|intereses|proventi|cedole|interessi|ingresos|rentas)\b"
)
_GAIN = (
    r"\b(apprec\w*|gains?|gl|g l|unreali[sz]ed|reali[sz]ed|price change|capital change|market change|pnl"
    r"|p l|kursgewinn\w*|kurserfolg|kursver\w*"
    r"|wertverander\w*|wertzuwachs|plus ?values?|plusval\w*|plusvalen\w*|moins values?|minusvalen\w*"
    r"|revalorizacion|rivalutazione"
    r"|change in (market )?value|market movement|investment result|valuation change|mv change)\b"
)
_ADJUST = (
    r"\b(other|others|adjust\w*|adj|misc\w*|sonstige\w*|autres?|otros?|altri|altre|korrektur\w*|ajuste\w*"
    r"|ajustement\w*|rettific\w*)\b"
)
_ACCOUNT = (
    r"\b(accounts?|acct\w*|accts?|accno|acc|a c|konto\w*|depot\w*|compte|cuenta|conto|mandat\w*|account(id"
    r"|no|number|num|code))\b"
)
_CURRENCY = (
    r"\b(currency|currencies|ccy|curr|cur|wahrung|kontowahrung|devise|moneda|divisa|valuta|monnaie"
    r"|currencycode|basecurrency)\b"
)
_IGNORED = (
    r"\b(portfolio\w*|port|portf|household|manager|advis[oe]r\w*|custodian|seq|sequence|record type|rectype|filler"
    r"|benchmark|vendor|source)\b"
)


_LONGEST = 200
"""Most characters of a header that is looked at."""


@lru_cache(maxsize=20_000)
def normalised(header: str) -> str:
    """Return a header without case, accents, punctuation, brackets and double spaces.

    Parameters
    ----------
    header
        As in the file.

    Returns
    -------
    str
        Words separated by single spaces.
    """
    header = header[:_LONGEST]  # no header is longer, and patterns are not free
    text = (
        re.sub(r"[\(\[\{][^)\]}]*[\)\]\}]", " ", header)
        if re.sub(r"[\(\[\{][^)\]}]*[\)\]\}]", "", header).strip()
        else header
    )
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    text = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold()
    text = text.replace("n°", "no ").replace("#", " no ").replace("%", " ")
    return re.sub(r"[^a-z0-9]+", " ", text).strip()


def _has(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


def is_personal(header: str) -> bool:
    """Say whether a header announces personal data.

    Parameters
    ----------
    header
        As in the file.

    Returns
    -------
    bool
        True for tax ids, dates of birth, addresses, telephone numbers.
    """
    text = normalised(header)
    return _has(_PERSONAL, text) and not _has(r"\b(value|return|balance|flow)\b", text)


@lru_cache(maxsize=20_000)
def field_of(header: str) -> tuple[str | None, float]:
    """Propose the canonical field of a header.

    Parameters
    ----------
    header
        As in the file; a dotted path for nested documents.

    Returns
    -------
    tuple
        Field, ``ignore`` for what is known and not needed, or None; and how sure the words are.
    """
    if len(header) > _LONGEST:
        return None, 0.0
    # "TWR (gross)", "Market Value (End)": here the brackets hold the word that matters.
    if re.search(
        r"(?i)[(\[].*\b(gross|net|brutto|netto|lordo|netta|brut|start|begin\w*|end\w*|open\w*|clos\w*|bench\w*)\b",
        header,
    ):
        header = re.sub(r"[\[\](){}]", " ", header)
    parts = [p for p in header.split(".") if normalised(p)]
    if len(parts) > 1 and not re.search(r"\s", header):
        last = _by_words(normalised(parts[-1]))
        two = _by_words(normalised(f"{parts[-2]} {parts[-1]}"))
        whole = _by_words(normalised(" ".join(parts)))
        if is_personal(parts[-1]):
            return "ignore", 1.0
        if last[0] == "return_net":
            special = [c for c in (two, whole) if c[0] in {"benchmark_return", "return_gross"}]
            if special:
                return special[0]
        if last[0] in {"period_end"} and two[0] == "period_start":
            return two
        if last[1] >= 0.5:
            return last
        return max((two, whole, last), key=lambda c: c[1])
    return _by_words(normalised(header))


def _by_words(t: str) -> tuple[str | None, float]:
    if not t:
        return None, 0.0
    if _has(_PERSONAL, t) and not _has(r"\b(value|return|balance|flow)\b", t):
        return "ignore", 1.0
    if _has(
        r"\b(cdt ?dbt|credit debit|debit credit|dr cr|cr dr|cd ?ind\w*|dbcr|soll haben|d c"
        r"|flow (sign|direction|indicator|type)|direction)\b",
        t,
    ):
        return "flow_indicator", 0.9
    if _has(_NAME, t) and not _has(r"\b(value|return)\b", t):
        return "ignore", 0.9
    if _has(r"\b(frequency|granularity|periodicity|period type|freq|return frequency)\b", t):
        return "granularity", 0.9
    dated = _has(_DATE, t)
    if _has(_RETURN, t) and not dated:
        if _has(_OTHER_SPAN, t) or _has(r"\b(active|excess|relative|target|name|type|difference)\b", t):
            return "ignore", 0.8
        weak = 0.2 if _has(r"\b(mwr+|irr|qtd|money weighted)\b", t) else 0.0
        if _has(_BENCH, t):
            return "benchmark_return", 1.0 - weak
        if _has(_GROSS, t) and not _has(_NET, t):
            return "return_gross", 1.0 - weak
        return "return_net", (1.0 if _has(_NET, t) else 0.9) - weak
    if _has(_OTHER_SPAN, t) and not dated:
        return "ignore", 0.8
    if t in {"gross", "net of fees", "gross of fees", "net"}:
        return ("return_gross", 0.5) if "gross" in t else ("return_net", 0.4 if t == "net" else 0.5)
    if t in {"bmk", "benchmark", "index"}:
        return "benchmark_return", 0.55
    if _has(_CURRENCY, t) and not _has(r"\b(rate|fx|effect|exchange|gain|value|market)\b", t):
        return "currency", 0.9 if _has(r"\b(base|reporting|account|code|portfolio)\b", t) or t in {
            "currency",
            "ccy",
        } else 0.85
    amounts = _VALUE + "|" + _CONTRIBUTION + "|" + _DISTRIBUTION + "|" + _FLOW + "|" + _FEES
    if dated or (_has(_PERIOD, t) and (not _has(amounts, t) or t == "valuation period")):
        if _has(_OTHER_DATE, t):
            return "ignore", 0.7
        if _has(_START, t) and not _has(r"\b(end|ending)\b", t):
            return "period_start", 0.9
        if _has(_END, t):
            return "period_end", 1.0
        if dated:
            return "period_end", 0.75 if _has(r"\breport\w*", t) else 0.85
        return "period_end", 0.8
    if _has(_ACCOUNT, t) and not _has(
        _VALUE + "|" + _FLOW + "|" + _FEES + "|" + _CONTRIBUTION + "|" + _DISTRIBUTION, t
    ):
        if _has(r"\b(type|status|class|category|manager|group|owner|kontotyp|short|alias)\b", t):
            return "ignore", 0.7
        exact = _has(
            r"\b(no|number|num|nr|id|code|key|nummer|numero|ref|accountid|accountnumber|accountno|acctno|acctid"
            r"|kontonummer|kontonr|depotnummer|depotnr)\b",
            t,
        )
        return "account_id", 1.0 if exact else 0.95
    if _has(_FEES, t):
        return "fees", 0.9
    if _has(r"\b(ein|zu) (und )?(aus|ab)(zahlung|fluss|gang)\w*|\b(ein|zu) und (aus|ab)\w*", t):
        return "net_flow", 0.9
    contribution, distribution = _has(_CONTRIBUTION, t) or t == "in", _has(_DISTRIBUTION, t) or t == "out"
    if contribution and distribution:
        return "net_flow", 0.8
    if contribution or distribution:
        if _has(r"\bnet\b", t):
            return "net_flow", 0.85
        return ("contributions" if contribution else "distributions"), 0.9
    if _has(_FLOW, t):
        return "net_flow", 0.95 if _has(_NET, t) or "net" in t else 0.8
    if _has(_INCOME, t) and not _has(r"\baccrued\b", t):
        return "income", 0.9
    if _has(_GAIN, t):
        return "appreciation", 0.9
    compound = re.search(
        r"\b(anfangs|eroffnungs|end|schluss|abschluss)(markt)?(wert|bestand|vermogen|saldo|kapital)\w*\b", t
    )
    if _has(r"\b(bmv|bmval|begmv|begmktval|startmv|bmktval|begmarketvalue|bopmv)\b", t) or (
        compound and compound[1] in {"anfangs", "eroffnungs"}
    ):
        return "beginning_market_value", 1.0
    if _has(r"\b(emv|emval|endmv|endmktval|emktval|endmarketvalue|eopmv)\b", t) or compound:
        return "ending_market_value", 1.0
    if _has(_VALUE, t) and not _has(r"\b(date|face|par|book|cost|type|currency)\b", t):
        if _has(_BEGIN_VALUE, t):
            return "beginning_market_value", 1.0
        if _has(_END_VALUE, t):
            return "ending_market_value", 1.0
        if _has(_ADJUST, t):
            return "other_adjustments", 0.8
        if t in {"amount", "amt"}:
            return "net_flow", 0.3
        return "ending_market_value", 0.8 if _has(r"\b(market|mv|marktwert|total|vermogen)\b", t) else 0.55
    if _has(_ADJUST, t):
        return "other_adjustments", 0.8
    if _has(r"\b(beginning|opening|start)\b", t) and len(t.split()) == 1:
        return "beginning_market_value", 0.4
    if _has(r"\b(ending|closing)\b", t) and len(t.split()) == 1:
        return "ending_market_value", 0.4
    if _has(r"\bportfolio (id|code|number|no|nr)\b|^portfolio$|^portefeuille$", t):
        return "account_id", 0.6
    if _has(
        r"\b(client|customer|entity|investor|policy|portfolio|kunde\w*)"
        r" ?(id|no|number|code|nr|nummer|ref|reference|key)\b",
        t,
    ):
        return "account_id", 0.5
    if t == "id":
        return "account_id", 0.4
    if _has(_IGNORED, t):
        return "ignore", 0.5
    return None, 0.0


def _alias(header: str, aliases: dict[str, str]) -> str | None:
    for name, field in aliases.items():
        if name.strip() == header.strip() or (normalised(name) and normalised(name) == normalised(header)):
            return field
    return None


def proposals(headers: list[str], aliases: dict[str, str]) -> list[tuple[str | None, float]]:
    """Propose a field for each header.

    Parameters
    ----------
    headers
        Headers of a table.
    aliases
        Header -> field, from a contract; it decides.

    Returns
    -------
    list of tuple
        Field and score.
    """
    out: list[tuple[str | None, float]] = []
    for header in headers:
        if alias := _alias(header, aliases):
            out.append((alias, 2.0))
        elif "." in header and (alias := _alias(header.rpartition(".")[2], aliases)):
            out.append((alias, 1.9))  # a key below a path that the contract leaves out
        else:
            out.append(field_of(header))
    return out


def fields_of(headers: list[str], aliases: dict[str, str]) -> dict[str, int]:
    """Return the best column of each field.

    Parameters
    ----------
    headers
        Headers of a table.
    aliases
        From a contract.

    Returns
    -------
    dict
        Field -> position; the first of equals.
    """
    best: dict[str, tuple[float, int]] = {}
    for i, (name, score) in enumerate(proposals(headers, aliases)):
        if name and name != "ignore" and score >= 0.3 and score > best.get(name, (0.0, 0))[0]:
            best[name] = (score, i)
    return {name: i for name, (_, i) in best.items()}


def header_score(cells: list[str], aliases: dict[str, str] | None = None) -> float:
    """Count the distinct fields that a row of cells names; 0 where it holds values.

    Parameters
    ----------
    cells
        One row.
    aliases
        From a contract.

    Returns
    -------
    float
        Number of fields.
    """
    filled = [c.strip() for c in cells if c.strip()]
    if len(filled) < 2 or len(filled) > 5000:
        return 0.0
    values = [c for c in filled if re.fullmatch(r"[-+($€£]*[\d.,'\s]*\d[\d.,'\s]*[)%]*-?", c[:80]) and not month_of(c)]
    if len(values) > len(filled) / 5:
        return 0.0
    months = sum(month_of(c) for c in filled)
    # "Account: 0012345678" is a line of a report, not a header.
    short = [c for c in filled if len(c) <= 80 and not month_of(c) and not re.search(r":\s*\S|\d{5}", c)]
    names = {n for n, s in proposals(short, aliases or {}) if n and n != "ignore" and s >= 0.4}
    return len(names) + (2 if months >= 2 else 0)


def is_header(cells: list[str], aliases: dict[str, str] | None = None) -> bool:
    """Say whether a row is the header of a table of performance.

    Parameters
    ----------
    cells
        One row.
    aliases
        From a contract.

    Returns
    -------
    bool
        True if it names enough fields and holds no values.
    """
    if len(cells) > 5000:
        return False
    score = header_score(cells, aliases)
    if score >= 4:
        return True
    filled = [c for c in cells if c.strip()]
    if score >= 2 and len(filled) >= 2:
        if any(re.search(r":\s*\S", c) for c in filled):
            return False
        named = {n for n, s in proposals(filled, aliases or {}) if n and s >= 0.4}
        anchored = bool(named & {"account_id", "period_end"})
        known = sum(1 for c, (n, s) in zip(filled, proposals(filled, aliases or {}), strict=True) if n or month_of(c))
        return anchored and known >= 0.6 * len(filled) and (score >= 3 or known == len(filled) or len(named) >= 2)
    return False


def find_header(rows: list[list[str]], aliases: dict[str, str] | None = None) -> int | None:
    """Find the header among the first rows.

    Parameters
    ----------
    rows
        Cells of the first rows.
    aliases
        From a contract.

    Returns
    -------
    int | None
        Its position.
    """
    for i, cells in enumerate(rows[:200]):
        if is_header(cells, aliases):
            return i
    return None


def feed_of(rows: list[list[str]]) -> str | None:
    """Recognise feeds that are no performance.

    Parameters
    ----------
    rows
        First rows of a file.

    Returns
    -------
    str | None
        ``not_performance`` for positions and transactions.
    """
    for cells in rows[:60]:
        if len(cells) > 5000:
            continue
        words = [normalised(c) for c in cells if c.strip()]
        if len(words) < 3:
            continue
        security = any(
            _has(r"\b(symbol|ticker|cusip|isin|sedol|security\w*|instrument|wkn|valoren\w*|security id)\b", w)
            for w in words
        )
        quantity = any(
            _has(r"\b(quantity|qty|shares|units|stuck|nominale?|quantite|cantidad|quantita|par value|face)\b", w)
            for w in words
        )
        price = any(
            re.fullmatch(
                r"(unit |market |close |closing |last |end )?(price|kurs|prix|precio|prezzo)( local| base)?", w
            )
            for w in words
        )
        cost = any(_has(r"\b(cost basis|book cost|unit cost|einstand\w*)\b", w) for w in words)
        trade = any(_has(r"\b(trade date|settle\w* date|transaction (type|code|id)|buy sell)\b", w) for w in words)
        if security + quantity + price + cost >= 2 or (trade and (security or quantity or price or len(words) > 3)):
            return "not_performance"
    return None


# --- hints -----------------------------------------------------------------------------------------------------------


def unit_hint(header: str) -> str | None:
    """Return the unit of a return that a header states.

    Parameters
    ----------
    header
        As in the file.

    Returns
    -------
    str | None
        ``percent``, ``bps`` or ``decimal``.
    """
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", header).casefold()
    text = re.sub(r"[_.\-/()\[\]]", " ", text)
    if re.search(r"\b(bps?|basis points?|basispunkte)\b", text):
        return "bps"
    if "%" in text or re.search(
        r"\b(pct|percent\w*|prozent|pourcent\w*|porcentaje|percentuale|pourcentage|prc)\b", text
    ):
        return "percent"
    if re.search(r"\b(decimal|fraction)\b", text):
        return "decimal"
    return None


def currency_hint(header: str) -> str | None:
    """Return the currency that a header states: ``Ending Value (USD)``.

    Parameters
    ----------
    header
        As in the file.

    Returns
    -------
    str | None
        ISO code.
    """
    codes = [c for c in re.findall(r"(?<![A-Z])[A-Z]{3}(?![A-Z])", header) if c in ISO_CURRENCIES]
    if "€" in header:
        codes.append("EUR")
    if "£" in header:
        codes.append("GBP")
    codes = [c for c in codes if c not in {"ALL", "TOP", "CUP"}]
    return codes[0] if len(set(codes)) == 1 else None


def scale_hint(header: str) -> int:
    """Return the power of ten in which a header states amounts.

    Parameters
    ----------
    header
        As in the file.

    Returns
    -------
    int
        0, 3 or 6.
    """
    if re.search(
        r"(?i)\(\s*[$€£]?\s*'?0{3}s?\s*\)|\bin thousands\b|\bthousands\b|\(\s*in\s+(k|tsd\.?|'000s?)\s*\)"
        r"|\btsd\b|['’]000",  # noqa: RUF001
        header,
    ):
        return 3
    if re.search(r"(?i)\bin millions\b|\((in )?(mio\.?|millions?|mm)\b", header):
        return 6
    return 0


# --- months across ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=20_000)
def month_of(text: str) -> bool:
    """Say whether a header is a period.

    Parameters
    ----------
    text
        One cell.

    Returns
    -------
    bool
        True for ``Jan-24``, ``2024-01-31``, ``Q1 2024``, ``202401``.
    """
    plain = text.strip()
    if not plain or len(plain) > 30 or not re.search(r"\d", plain):
        return False
    if re.fullmatch(r"\d+(\.\d+)?", plain) and not re.fullmatch(r"(19|20)\d{2}(0[1-9]|1[0-2])([0-3]\d)?", plain):
        return False
    reading = read_date(plain, _LATEST)
    return reading is not None and bool(reading.readings) and reading.kind != "serial"


_PERIOD_TEXT = (
    r"(\d{4}-\d{2}(?:-\d{2})?|\d{1,2}/\d{1,2}/\d{2,4}|\d{1,2}\.\d{1,2}\.\d{2,4}|\d{1,2}/\d{4}"
    r"|Q[1-4][\s'\-]*\d{2,4}|\d{4}[\s\-]*Q[1-4]"
    r"|[^\W\d_]{3,10}\.?[\s\-_'/]*\d{2,4}|(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:[0-3]\d)?)"
)


def month_columns(headers: list[str]) -> dict[int, tuple[str, str]]:
    """Find the columns that are periods.

    Parameters
    ----------
    headers
        Headers of a table.

    Returns
    -------
    dict
        Position -> text of the period, and the measure that the header names too (or nothing); empty unless there are
        at least two.
    """
    found: dict[int, tuple[str, str]] = {}
    for i, header in enumerate(headers):
        text = header.strip()
        if not text or len(text) > _LONGEST or not re.search(r"\d", text):
            continue
        if month_of(text):
            found[i] = (text, "")
            continue
        for pattern in (rf"^{_PERIOD_TEXT}[\s.:|_\-–/]+(.+)$", rf"^(.+?)[\s.:|_\-–/(]+{_PERIOD_TEXT}\)?$"):  # noqa: RUF001
            match = re.match(pattern, text)
            if not match:
                continue
            period, measure = (match[1], match[2]) if pattern.startswith("^(\\d") else (match[2], match[1])
            if month_of(period) and field_of(measure)[0] not in {None, "ignore", "account_id", "period_end"}:
                found[i] = (period, measure.strip())
                break
    return found if len(found) >= 2 else {}


def is_measure_column(header: str, values: list[str]) -> bool:
    """Say whether a column names the measure of its row.

    Parameters
    ----------
    header
        Its header.
    values
        Its values.

    Returns
    -------
    bool
        True for a header like "Measure", or values that are names of fields.
    """
    distinct = {v for v in values if v}
    if not distinct or len(distinct) > 40:
        return False
    known = sum(field_of(v)[0] not in {None, "account_id", "period_end"} for v in distinct)
    named = normalised(header) in {
        "measure",
        "metric",
        "item",
        "kennzahl",
        "data point",
        "mesure",
        "medida",
        "misura",
        "line item",
        "category",
        "type",
        "field",
        "value type",
        "statistic",
    }
    return known >= (0.5 if named else 0.8) * len(distinct)


def title_measure(title: str) -> str:
    """Return the measure that a title names for a table of periods.

    Parameters
    ----------
    title
        Title rows.

    Returns
    -------
    str
        Text to be read as a header, or nothing.
    """
    text = title.casefold()
    if re.search(r"\breturns?\b|\brendite|\brendement|\btwr\b|\brendimient", text):
        gross = "Gross " if re.search(r"\bgross\b", text) and not re.search(r"\bnet\b", text) else ""
        unit = unit_hint(
            " ".join(
                part
                for part in re.split("[.;]", title)
                if re.search("(?i)return|rendite|rendement|twr|rendimient", part)
            )
        )
        return f"{gross}Return" + {"percent": " %", "bps": " (bps)"}.get(unit or "", "")
    if re.search(r"market values?|ending values?|month-end values?|marktwert|endwert", text):
        return "Ending Market Value"
    return ""
