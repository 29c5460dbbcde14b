"""Exposition: metrics as Prometheus reads them, in its text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/ tells the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTER, GAUGE = "counter", "gauge"


@dataclass(frozen=True)
class Family:
    """One metric: its samples by label values, in the order of ``labels``. A counter's name ends in ``_total``."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], float] = field(default_factory=dict)


def one(name: str, kind: str, text: str, value: float) -> Family:
    """A metric without labels."""
    return Family(name, kind, text, (), {(): value})


def render(families: Iterable[Family]) -> bytes:
    r"""
    >>> print(render([Family("a_total", COUNTER, "How many.", ("to",), {('x"y',): 3.0})]).decode(), end="")
    # HELP a_total How many.
    # TYPE a_total counter
    a_total{to="x\"y"} 3
    """
    lines: list[str] = []
    for family in families:
        lines += [f"# HELP {family.name} {_escaped(family.text)}", f"# TYPE {family.name} {family.kind}"]
        for values, number in family.samples.items():
            pairs = zip(family.labels, values, strict=True)
            labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in pairs)
            lines.append(
                f"{family.name}{{{labels}}} {_number(number)}" if labels else f"{family.name} {_number(number)}"
            )
    return "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(float(number))
