"""Charts: where things are drawn, and what a reader needs to make sense of them."""

import re
from xml.etree import ElementTree as ET

import pytest

from loadtests.svg_chart import Bar, Bars, Chart, Point, Series, render, render_bars

NAMESPACE = {"svg": "http://www.w3.org/2000/svg"}


def chart(*series: Series, y_log: bool = False, x_log: bool = True) -> ET.Element:
    ticks = (1, 2, 4, 8) if x_log else (0, 50, 100)
    return ET.fromstring(render(Chart("Title", "things", "ms", ticks, series, y_log=y_log, x_log=x_log)))


def line(*points: tuple[float, float], label: str = "a line") -> Series:
    return Series(label, [Point(x, y, y * 0.9, y * 1.1) for x, y in points])


def texts(document: ET.Element) -> list[str]:
    return [text.text or "" for text in document.iterfind("svg:text", NAMESPACE)]


def circles(document: ET.Element) -> list[tuple[float, float]]:
    return [
        (float(c.get("cx", "")), float(c.get("cy", ""))) for c in document.iterfind("svg:circle", NAMESPACE)
    ]


def test_axes_have_titles_ticks_and_the_lines_their_names() -> None:
    """All of them as text."""
    found = texts(chart(line((1, 10), (8, 40), label="one"), line((1, 5), (8, 9), label="two")))
    assert {"Title", "things", "ms", "one", "two", "1", "2", "4", "8", "0"} <= set(found)


@pytest.mark.parametrize("y_log", [False, True])
def test_greater_values_are_drawn_higher_and_further_right(y_log: bool) -> None:
    """On either scale, and inside the picture."""
    document = chart(line((1, 1), (2, 30), (8, 700)), y_log=y_log)
    drawn = circles(document)
    assert drawn == sorted(drawn, key=lambda at: (at[0], -at[1]))
    _, _, width, height = map(float, document.get("viewBox", "").split())
    assert all(0 < x < width and 0 < y < height for x, y in drawn)


def test_a_linear_axis_begins_at_zero() -> None:
    """Half of the way is half of the value."""
    (left, _), (middle, _), (right, _) = circles(chart(line((0, 1), (50, 1), (100, 1)), x_log=False))
    assert middle - left == pytest.approx(right - middle, abs=0.11)
    first, last = circles(chart(line((1, 1), (8, 1))))
    assert (left, right) == (first[0], last[0])


def test_many_ticks_do_not_run_into_each_other() -> None:
    """Some are left out, the first one stays."""
    crowd = [float(n) for n in range(1000, 1100)]
    points = line((1000, 1), (1099, 2))
    document = render(Chart("t", "x", "y", crowd, [points]))
    shown = [text for text in texts(ET.fromstring(document)) if text.startswith("1,0")]
    assert shown[0] == "1,000"
    assert len(shown) < 10


def test_the_legend_takes_more_lines_where_names_are_long() -> None:
    """None of them leaves the picture."""
    names = [f"a curve with quite a long name, {n}" for n in range(4)]
    document = chart(*(line((1, 1), (2, 2), label=name) for name in names))
    places = {
        t.text: (float(t.get("x", "")), float(t.get("y", "")))
        for t in document.iterfind("svg:text", NAMESPACE)
    }
    assert len({places[name][1] for name in names}) > 1
    assert all(places[name][0] + 6 * len(name) < 480 for name in names)


def test_bars_show_their_value_and_spread() -> None:
    """Large ones without an exponent."""
    bars = [Bar("mine", 50, 45, 60), Bar("theirs", 13_800, 13_000, 14_000, muted=True)]
    document = ET.fromstring(render_bars(Bars("Cost", "microseconds", bars)))
    assert {"mine", "theirs", "50", "13,800", "microseconds, logarithmic"} <= set(texts(document))
    filled = [rect.get("class") for rect in document.iterfind("svg:rect", NAMESPACE)]
    assert len(set(filled)) == 3  # the ground, and one colour each


def test_bars_of_alike_values_start_at_zero() -> None:
    """A logarithmic scale would hide how alike they are, or how they are not."""
    document = ET.fromstring(render_bars(Bars("t", "x", [Bar("a", 50, 50, 50), Bar("b", 100, 100, 100)])))
    widths = [float(r.get("width", "")) for r in document.iterfind("svg:rect", NAMESPACE)][1:]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.11)


def test_there_are_colours_for_the_dark() -> None:
    """Every colour that a chart uses has another one there, the ground and the letters too."""
    document = render(Chart("t", "x", "y", (1, 2), [line((1, 1), (2, 2), label=str(n)) for n in range(4)]))
    style = document[document.index("<style>") : document.index("</style>")]
    light, dark = style.split("@media(prefers-color-scheme:dark)")
    for name in (".ground", ".axis", ".grid", ".s0", ".s3", ".f3"):
        colour = re.escape(name) + r"\{\w+:(#\w+)\}"
        in_light, in_dark = re.search(colour, light), re.search(colour, dark)
        assert in_light
        assert in_dark
        assert in_light[1] != in_dark[1]
