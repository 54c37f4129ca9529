"""Which currency codes are money.

What belongs here: the active codes of ISO 4217 list one that stand for the money of a country or a monetary union, and
how a sender's spelling becomes one of them. Funds codes (``CLF``, ``USN``, …), metals (``XAU``, …), units of
account (``XDR``, …), the code for tests (``XTS``) and for no currency (``XXX``) are no money that a card can pay with.
"""

from __future__ import annotations

from datetime import UTC, datetime

#: Codes in force. Source: ISO 4217 list one, with the amendments up to 2026.
ACTIVE = frozenset(
    """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY COP
    CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR
    IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU
    MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG
    SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV
    WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905, three lines instead of a hundred and fifty
)

#: Codes withdrawn of late, with the first instant at which nobody pays with them any more. A payment made before is
#: good for ever, so that an old message means tomorrow what it means today.
WITHDRAWN = {
    "ANG": datetime(2025, 7, 1, tzinfo=UTC),  # Netherlands Antillean guilder; XCG since 2025-03-31
    "BGN": datetime(2026, 2, 1, tzinfo=UTC),  # Bulgarian lev; the euro since 2026-01-01, both for one month
}


def currency_code(text: str) -> str | None:
    """Return the code that ``text`` spells, trimmed and in upper case; None where it is no code of money.

    A code of :data:`WITHDRAWN` is returned: whether it was in force depends on the instant of the payment.
    """
    code = text.strip()
    # Only ASCII: the upper case of the long s is S.
    if not code.isascii():
        return None
    code = code.upper()
    return code if code in ACTIVE or code in WITHDRAWN else None
