"""What to write in place of a value that YAML reads as another type than it looks."""

from __future__ import annotations

import math
import re
from typing import Any

from velocitune_core.config.credentials import without_credentials

_NUMBER = re.compile(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?")
_SEPARATED = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{3})+")  # 16,000; in 0,002 the comma stands before decimals
_SEPARATED_POINT = re.compile(rf"{_SEPARATED.pattern}\.\d+")  # 1,234.5
_WITH_COMMA = re.compile(r"[-+]?[\d_.]*(,[\d_.]*)+([eE][-+]?\d+)?")
_SCALED = re.compile(r"([-+]?\d[\d_]*(?:\.\d+)?|[-+]?\.\d+) ?([kKMgGbBtT%])")  # 200k, 1.5 M, 10%; 5m are minutes, too
_SCALES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "%": 1e-2}
_NO_BLANK = re.compile(r"['\"]?(?P<key>[A-Za-z0-9_-]+)['\"]?:(?P<value>[^\s:/][^\s,}\]]*)")  # seed:1, but not http://a
_EXACT = 2**53  # below it, floats hold every whole number
_WANTED = {"float_type": "number", "int_type": "integer", "int_from_float": "integer", "string_type": "string"}


def advice_on(value: Any, error: str) -> str:
    """Return what to write in place of a value that was refused, if it looks like what was wanted; else "".

    Args:
        error: pydantic's type of the error.
    """
    wanted = _WANTED.get(error, "")
    if isinstance(value, str) and wanted in {"number", "integer"}:
        return _advice_on_text(value.strip(), wanted)
    if isinstance(value, float) and wanted == "integer" and value.is_integer():
        return f"a whole number: write {int(value)}"
    if not isinstance(value, str | list | dict) and value is not None and wanted == "string":
        return f"YAML reads it as a {_kind(value)}: quote it"
    return ""


def _advice_on_text(text: str, wanted: str) -> str:
    if scaled := _SCALED.fullmatch(text):
        number = float(f"{float(scaled[1].replace('_', '')) * _SCALES[scaled[2].lower()]:.15g}")  # 0.07, from 7%
        if not math.isfinite(number):
            return ""
        whole = wanted == "number" or number.is_integer()
        return f"YAML reads it as text: write {as_yaml(number)}" if whole else "write a whole number"
    return _advice_on_digits(text, wanted)


def _advice_on_digits(text: str, wanted: str) -> str:
    if _SEPARATED.fullmatch(text):
        or_decimals = wanted == "number" and text.count(",") == 1
        either = f", or {text.replace(',', '.')} if decimals follow the comma" if or_decimals else ""
        return f"YAML reads it as text: write {text.replace(',', '')}{either}"
    if _SEPARATED_POINT.fullmatch(text):
        text = text.replace(",", "")
    pointed = text.replace(",", ".").replace("_", "")
    number = float(pointed) if _NUMBER.fullmatch(pointed) else None
    if wanted == "integer" and number is not None and not number.is_integer():
        return "write a whole number"
    if number is not None and "," not in text:
        return f"YAML reads it as text: write {as_yaml(number)}"
    if number is not None and wanted == "integer":
        return f"YAML reads it as text: write {as_yaml(number)}, without the comma"
    if not _WITH_COMMA.fullmatch(text):
        return ""
    return f"YAML reads it as text: write the decimals with a point{'' if number is None else f': {as_yaml(number)}'}"


def missing_blank(text: str) -> str:
    """Return what to write in place of a text that begins with a key, a colon and a value; "" for any other text."""
    if (found := _NO_BLANK.match(text)) is None:
        return ""
    value = found["value"] if found["value"][0] not in "{[|>&*!'\"" else f"{found['value'][0]}…"
    return without_credentials(f"a blank is missing after the colon: write {found['key']}: {value}")


def as_yaml(number: float) -> str:
    """Return a number as YAML 1.1 reads it: a whole one without a point, any other with a sign in its exponent."""
    if number.is_integer() and abs(number) < _EXACT and str(number) != "-0.0":
        return str(int(number))  # a field may take integers only
    text = repr(number)
    mantissa, e, exponent = text.partition("e")
    if not e:
        return text
    sign, digits = ("-", exponent[1:]) if exponent.startswith("-") else ("+", exponent.lstrip("+"))
    return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{sign}{int(digits)}"


def _kind(value: Any) -> str:
    return {bool: "truth value", int: "number", float: "number"}.get(type(value), type(value).__name__)
