"""The report in a real browser: what a person clicks and types, on desktop and phone; nothing leaves the page."""

import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import browser, console, requests
from finished_run import change_predictions, finished_report, finished_run
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from fastcpc.report.html.page import run_page
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspect_files import csv_bytes
from fastcpc.report.results.suspects import find_suspects, suspects_table

pytestmark = pytest.mark.xdist_group("browser")
TIME_LIMIT = 600  # seconds; only for a download that never ends


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def chrome(report_folder: Path) -> Iterator[Chrome]:
    with browser(report_folder) as chrome:
        yield chrome


@pytest.fixture
def page(chrome: Chrome, report_folder: Path) -> Iterator[Chrome]:
    """The report, freshly opened; what it must never do is checked after each test."""
    address = (report_folder / "report.html").as_uri()
    chrome.get("about:blank")
    requests(chrome)
    chrome.get(address)
    yield chrome
    assert console(chrome) == []
    assert set(requests(chrome)) <= {address, f"{address}#suspects"}


def shown(page: Chrome) -> list[WebElement]:
    cards: list[WebElement] = page.execute_script(
        "return [...document.querySelectorAll('.card')].filter((card) => card.checkVisibility())"
    )
    return cards


def status(page: Chrome) -> str:
    return page.find_element(By.ID, "status").text


def saved(report_folder: Path) -> list[dict[str, str]]:
    """The rows of the downloaded CSV, which is deleted for the next download."""
    path = report_folder / "downloads" / "suspects.csv"
    deadline = time.monotonic() + TIME_LIMIT
    while not path.exists() or not path.read_bytes().endswith(b"\r\n"):
        assert time.monotonic() < deadline, f"{path} is missing or incomplete"
        time.sleep(0.05)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    path.unlink()
    return rows


def test_page_shows_accuracy_noisiest_class_and_twenty_cards(page: Chrome, report_folder: Path) -> None:
    run = read_run(report_folder / "run")
    facts = page.find_element(By.CLASS_NAME, "facts").text
    assert run.summary is not None and f"{run.summary['final_top1']:.2f} %" in facts
    assert "Noisiest class" in facts and "estimated: predicted noisy" in facts
    assert len(shown(page)) == 20
    suspects = find_suspects(run, samples := read_samples(run))
    paths = [card.find_element(By.CLASS_NAME, "path").text for card in shown(page)]
    assert paths == [samples.paths[row] for row in suspects.rows[:20]]
    total = min(200, len(suspects.rows))
    assert total > 20 and status(page) == f"20 of {total} shown, 0 selected"
    page.find_element(By.ID, "more").click()
    assert len(shown(page)) == total and status(page) == f"{total} shown, 0 selected"


def test_filters_and_search_narrow_the_cards(page: Chrome) -> None:
    cards = page.find_elements(By.CSS_SELECTOR, ".card")
    for choice, attribute in (("given", "data-given"), ("suggested", "data-suggested")):
        select = Select(page.find_element(By.ID, choice))
        value = select.options[1].get_attribute("value")
        select.select_by_index(1)
        expected = [card for card in cards if card.get_attribute(attribute) == value]
        assert shown(page) == expected[:20] and 0 < len(expected) < len(cards)
        select.select_by_index(0)
    path = cards[7].find_element(By.CLASS_NAME, "path").get_attribute("textContent")
    assert path
    search = page.find_element(By.ID, "search")
    search.send_keys(path.upper())
    assert shown(page) == [cards[7]] and status(page) == "1 shown, 0 selected"
    search.send_keys(" nowhere")
    assert shown(page) == [] and status(page) == "0 shown, 0 selected"
    search.send_keys(Keys.ENTER)  # must not send the form
    assert shown(page) == []


def test_saved_selection_equals_the_table(page: Chrome, report_folder: Path) -> None:
    save = page.find_element(By.ID, "save")
    assert not save.is_enabled()
    cards = shown(page)
    for number in (0, 3):
        cards[number].find_element(By.CSS_SELECTOR, "input").click()
    cards[5].find_element(By.CSS_SELECTOR, ".frame").click()  # a click on the image selects the card
    save.click()
    rows = saved(report_folder)
    run = read_run(report_folder / "run")
    suspects = find_suspects(run, samples := read_samples(run))
    chosen = [int(suspects.rows[number]) for number in (0, 3, 5)]
    assert [row["path"] for row in rows] == [samples.paths[row] for row in chosen]
    assert [int(row["index"]) for row in rows] == samples.index_N[chosen].tolist()
    assert [int(row["predicted_label"]) for row in rows] == samples.predicted_N[chosen].tolist()
    assert [float(row["label_score"]) for row in rows] == samples.p_given_N[chosen].tolist()
    assert {"given_class", "predicted_class", "is_label_issue", "clean_probability"} <= rows[0].keys()
    page.find_element(By.ID, "clear-selection").click()
    assert not save.is_enabled()


def test_hidden_cards_stay_selected(page: Chrome, report_folder: Path) -> None:
    first = shown(page)[0]
    first.find_element(By.CSS_SELECTOR, "input").click()
    page.find_element(By.ID, "search").send_keys("nowhere")
    assert shown(page) == [] and status(page) == "0 shown, 1 selected"
    page.find_element(By.ID, "save").click()
    assert len(saved(report_folder)) == 1
    page.find_element(By.ID, "search").send_keys(Keys.CONTROL, "a", Keys.DELETE)
    page.find_element(By.ID, "select-shown").click()
    page.find_element(By.ID, "save").click()
    assert len(saved(report_folder)) == 20


def test_page_works_with_the_keyboard(page: Chrome, report_folder: Path) -> None:
    def press(*keys: str) -> None:
        ActionChains(page).send_keys(*keys).perform()  # send_keys of a file input would name a file

    press(Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the suspected labels"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    reached = []
    for _ in range(16):
        press(Keys.TAB)
        element = page.switch_to.active_element
        reached.append(element.get_attribute("id") or element.tag_name)
        if element.get_attribute("type") == "checkbox":
            element.send_keys(Keys.SPACE)
            break
    tools = ["given", "suggested", "search", "order", "show", "select-shown", "clear-selection"]
    assert reached == [*tools, "load-decisions", "open-keys", "input"]
    for _ in range(3):
        ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    assert page.switch_to.active_element.get_attribute("id") == "save"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(saved(report_folder)) == 1
    page.find_element(By.ID, "more").send_keys(Keys.ENTER)
    number = page.switch_to.active_element.get_attribute("aria-label")
    assert number is not None and number.startswith("Select number 21:")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_a_phone_and_dark_mode(chrome: Chrome, page: Chrome, width: int, scheme: str) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    style = "const s = getComputedStyle(arguments[0]); return [s.color, s.backgroundColor, s.fill]"
    ink, back, _ = page.execute_script(style, page.find_element(By.TAG_NAME, "body"))
    text = page.find_element(By.CSS_SELECTOR, "figure svg text")
    assert page.execute_script(style, text)[2] == ink
    assert (luminance(ink) > luminance(back)) == (scheme == "dark")
    assert contrast(ink, back) > 7


def test_figures_have_text_alternatives(page: Chrome) -> None:
    figures = page.find_elements(By.CSS_SELECTOR, ".figures figure")
    assert len(figures) >= 12
    for figure in figures:
        svg = figure.find_element(By.CSS_SELECTOR, "svg")
        assert svg.get_attribute("role") == "img"
        assert len(svg.get_attribute("aria-label") or "") > 20
        assert figure.find_element(By.TAG_NAME, "figcaption").text and figure.find_element(By.TAG_NAME, "h3").text
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    """WCAG's contrast ratio of two CSS colours, 1 to 21."""
    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_page_without_javascript_shows_all_cards(report_folder: Path) -> None:
    """What is hidden at first is hidden by the script alone."""
    text = (report_folder / "report.html").read_text(encoding="utf-8")
    rows = len(pq.read_table(report_folder / "run" / "clean_probabilities.parquet"))
    assert 20 < text.count('<li class="card" data-row=') <= rows


HOSTILE = (
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "</script><script>window.hacked=1</script>",
    "{{ 7*7 }}{% raw %}",
    r"$\frac{1}{$",
    "' onmouseover='window.hacked=1",
    "\u202egnp.exe",
    "a\nb\tc\x00\x1b[31m",
    "x" * 5000,
    '=HYPERLINK("http://127.0.0.1:9/")',
    "</style><style>*{display:none}</style>",
    "javascript:window.hacked=1",
)


def make_hostile(run: Path) -> None:
    """Names that would like to be more than names, for classes and for files."""
    with np.load(run / "labels.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    np.savez(run / "labels.npz", **arrays | {"class_names": np.array([name.strip("\x00") for name in HOSTILE[:10]])})
    table = pq.read_table(run / "clean_probabilities.parquet")
    paths = [f"{HOSTILE[row % len(HOSTILE)]}/{row}" for row in range(len(table))]
    place = table.column_names.index("path")
    pq.write_table(table.set_column(place, "path", pa.array(paths)), run / "clean_probabilities.parquet")


def test_hostile_names_are_escaped(chrome: Chrome, tmp_path: Path, report_folder: Path) -> None:
    run = finished_run(tmp_path / "<b onclick=window.hacked=1>run")
    change_predictions(run)
    make_hostile(run)
    page = tmp_path / "hostile.html"
    page.write_text(run_page(read_run(run)), encoding="utf-8")
    chrome.get("about:blank")
    requests(chrome)
    chrome.get(page.as_uri())
    chrome.find_element(By.ID, "more").click()
    for select in ("given", "suggested"):
        Select(chrome.find_element(By.ID, select)).select_by_index(1)
        Select(chrome.find_element(By.ID, select)).select_by_index(0)
    assert chrome.execute_script("return window.hacked") is None
    assert chrome.find_element(By.TAG_NAME, "h1").text == "<b onclick=window.hacked=1>run"
    tags = chrome.execute_script("return [...document.querySelectorAll('img, script, b, style')].map((e) => e.tagName)")
    assert sorted(tags) == ["SCRIPT", "SCRIPT", "SCRIPT", "STYLE"]  # rows, classes, the page's own code and style
    shown_names = {card.find_element(By.TAG_NAME, "strong").text for card in shown(chrome)[:60]}
    assert HOSTILE[0] in shown_names and HOSTILE[3] in shown_names
    assert console(chrome) == [] and requests(chrome) == [page.as_uri()]
    chrome.find_element(By.ID, "select-shown").click()
    chrome.find_element(By.ID, "save").click()
    rows = saved(report_folder)
    opened = read_run(run)
    suspects = find_suspects(opened, samples := read_samples(opened))
    table = suspects_table(opened, samples, suspects, suspects.rows[: len(rows)])
    wanted = list(csv.DictReader(io.StringIO(csv_bytes(table).decode(), newline="")))
    assert len(rows) == len(shown(chrome)) > 20
    for name in ("path", "given_class", "predicted_class", "index", "is_label_issue"):  # as fastcpc-clean writes them
        assert [row[name] for row in rows] == [row[name] for row in wanted], name
    assert sum(row["path"].startswith("'=HYPERLINK") for row in rows) > 0
