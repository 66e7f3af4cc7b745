"""Colours of charts, those of the pages' style sheet among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """Colours as `#rrggbb`.

    Attributes:
        card: behind a chart.
        text: of titles.
        dim: of axes and labels.
        line: of grids.
        accent: what is shown now.
        reference: what it is compared with.
        good: within bounds.
        bad: beyond them.
        wait: unsure.
        series: of several lines in one chart; told apart by those who see few colours.
        heat: score over threshold: up to 25, 50, 75 and 100 %, and above.
        void: cells where nothing can be said.
    """

    card: str
    text: str
    dim: str
    line: str
    accent: str
    reference: str
    good: str
    bad: str
    wait: str
    series: tuple[str, ...]
    heat: tuple[str, ...]
    void: str


LIGHT: Final = Palette(
    card="#ffffff",
    text="#1b1f24",
    dim="#59636e",
    line="#d5dae0",
    accent="#0b5fb3",
    reference="#8a949f",
    good="#1a6b35",
    bad="#b3261e",
    wait="#855100",
    series=("#0b5fb3", "#c25100", "#1a7f5a", "#a0318a", "#6b5b00", "#3f4fb5", "#8c564b", "#00798c"),
    heat=("#e6f0fa", "#bcd7f0", "#8ab8e2", "#f0b95a", "#b3261e"),
    void="#e3e6ea",
)

DARK: Final = Palette(
    card="#1b2127",
    text="#e6e9ed",
    dim="#9aa5b1",
    line="#363f49",
    accent="#6cb2ff",
    reference="#8d98a4",
    good="#6fd58d",
    bad="#ff938a",
    wait="#f0b95a",
    series=("#6cb2ff", "#ffa261", "#5fd3a8", "#e58ad2", "#d9c65a", "#a3aefc", "#c9a197", "#62cfe0"),
    heat=("#1d3145", "#24507a", "#2f74b5", "#c98f2c", "#ff7d72"),
    void="#2a3139",
)

THEMES: Final[Mapping[str, Palette]] = {"light": LIGHT, "dark": DARK}
