"""Decisions in a real browser by the keyboard alone: from the report to corrections.csv, and what a reload keeps."""

import csv
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import browser, console
from decisions import with_decisions
from finished_run import change_predictions, finished_report, finished_run
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select
from small_run import run, small_config

from fastcpc.cli import clean
from fastcpc.data.corrections.decisions import COLUMNS
from fastcpc.report.html.page import run_page
from fastcpc.report.results.run import read_run
from fastcpc.report.results.samples import read_samples
from fastcpc.report.results.suspects import find_suspects

pytestmark = pytest.mark.xdist_group("browser")
TIME_LIMIT = 60  # seconds; only for what never happens


@pytest.fixture(scope="module")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def chrome(report_folder: Path) -> Iterator[Chrome]:
    with browser(report_folder) as chrome:
        yield chrome


@pytest.fixture
def page(chrome: Chrome, report_folder: Path) -> Iterator[Chrome]:
    """The report, freshly opened, without decisions of an earlier test."""
    address = (report_folder / "report.html").as_uri()
    chrome.get(address)
    chrome.execute_script("localStorage.clear()")
    chrome.get(address)
    yield chrome
    assert console(chrome) == []


@pytest.fixture(scope="module")
def worst(report_folder: Path) -> list[dict[str, Any]]:
    """The suspects of the run, worst first."""
    run = read_run(report_folder / "run")
    samples = read_samples(run)
    return [
        {
            "index": int(samples.index_N[row]),
            "path": samples.paths[row],
            "given": int(samples.given_N[row]),
            "suggested": int(samples.predicted_N[row]),
        }
        for row in find_suspects(run, samples).rows.tolist()
    ]


def press(page: Chrome, *keys: str) -> None:
    for key in keys:
        ActionChains(page).send_keys(key).perform()


def text_of(page: Chrome, name: str) -> str:
    return page.find_element(By.ID, name).text


def wait_for(page: Chrome, name: str, word: str) -> str:
    deadline = time.monotonic() + TIME_LIMIT
    while word not in text_of(page, name):
        assert time.monotonic() < deadline, text_of(page, name)
        time.sleep(0.02)
    return text_of(page, name)


def downloaded(page: Chrome, report_folder: Path) -> list[tuple[str, ...]]:
    """The rows of the downloaded corrections.csv, which is moved away for the next download."""
    wait_for(page, "review-status", "saved")
    path = report_folder / "downloads" / "corrections.csv"
    deadline = time.monotonic() + TIME_LIMIT
    while not path.exists() or not path.read_bytes().endswith(b"\r\n"):
        assert time.monotonic() < deadline, f"{path} is missing or incomplete"
        time.sleep(0.05)
    path.replace(report_folder / "corrections.csv")
    with (report_folder / "corrections.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert tuple(head) == COLUMNS
    return [tuple(row) for row in rows]


def row_of(one: dict[str, Any], decision: str, label: object = "") -> tuple[str, ...]:
    return str(one["index"]), one["path"], str(one["given"]), decision, str(label)


def in_order(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return sorted(rows, key=lambda row: int(row[0]))


def test_from_keys_to_a_corrected_run(
    page: Chrome, report_folder: Path, worst: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accept, keep, remove, another class, and an undo; then the file, the list, and the run that trains with it."""
    other = next(k for k in range(10) if k not in (worst[3]["given"], worst[3]["suggested"]))
    press(page, "n", "a", "k", "r", "o", str(other), Keys.ENTER, "a", "p", "u", "s")
    expected = [
        row_of(worst[0], "relabel", worst[0]["suggested"]),
        row_of(worst[1], "keep"),
        row_of(worst[2], "remove"),
        row_of(worst[3], "relabel", other),
    ]
    assert downloaded(page, report_folder) == in_order(expected)
    assert "4 decisions saved as corrections.csv" in text_of(page, "review-status")
    cards = page.find_elements(By.CSS_SELECTOR, ".card")
    assert [card.get_attribute("data-decision") for card in cards[:5]] == ["relabel", "keep", "remove", "relabel", None]
    assert cards[3].find_element(By.CLASS_NAME, "decision").text == f"label {other}"

    arguments = [
        "--corrections",
        str(report_folder / "corrections.csv"),
        "--cleaned-list",
        str(tmp_path / "labels.csv"),
    ]
    assert clean.main([str(report_folder / "run"), *arguments]) == 0
    assert "4 decisions (2 relabelled, 1 kept, 1 removed)" in capsys.readouterr().out
    labels = dict(line.split(",") for line in (tmp_path / "labels.csv").read_text().split()[1:])
    assert labels[str(worst[0]["index"])] == str(worst[0]["suggested"]) and labels[str(worst[3]["index"])] == str(other)

    config = small_config(tmp_path / "run")
    config = replace(config, data=replace(config.data, corrections=str(report_folder / "corrections.csv")))
    run(replace(config, train=replace(config.train, epochs=2)))
    table = {row["index"]: row for row in pq.read_table(tmp_path / "run" / "clean_probabilities.parquet").to_pylist()}
    assert worst[2]["index"] not in table
    for number, label in ((0, worst[0]["suggested"]), (1, worst[1]["given"]), (3, other)):
        row = table[worst[number]["index"]]
        assert (row["given_label"], row["clean_probability"]) == (label, 1.0)


def test_decisions_survive_a_reload_and_go_with_a_file(
    page: Chrome, report_folder: Path, worst: list[dict[str, Any]]
) -> None:
    press(page, "n", "a", "r")
    page.refresh()
    assert text_of(page, "decided") == f"2 of {min(200, len(worst))} decided"
    press(page, "s")
    rows = downloaded(page, report_folder)
    assert rows == in_order([row_of(worst[0], "relabel", worst[0]["suggested"]), row_of(worst[1], "remove")])
    page.find_element(By.ID, "clear-decisions").send_keys(Keys.ENTER)
    assert text_of(page, "decided").startswith("0 of") and not page.find_element(By.ID, "save-decisions").is_enabled()
    page.refresh()
    assert text_of(page, "decided").startswith("0 of")
    page.find_element(By.ID, "load-decisions").send_keys(str(report_folder / "corrections.csv"))
    assert wait_for(page, "review-status", "loaded") == "2 decisions loaded from corrections.csv"
    press(page, "s")
    assert downloaded(page, report_folder) == rows


def test_a_file_of_excel_and_samples_elsewhere(page: Chrome, report_folder: Path, worst: list[dict[str, Any]]) -> None:
    one, head = worst[5], ";".join(COLUMNS)
    text = f'sep=;\r\n{head}\r\n{one["index"]};"{one["path"]}";{one["given"]};relabel;{one["suggested"]}\r\n'
    (report_folder / "excel.csv").write_bytes(b"\xef\xbb\xbf" + (text + "1700;train/01700;3;remove;\r\n").encode())
    page.find_element(By.ID, "load-decisions").send_keys(str(report_folder / "excel.csv"))
    wait_for(page, "review-status", "2 decisions loaded")
    assert text_of(page, "decided").endswith("decided, 1 decisions about other images")
    press(page, "s")
    assert ("1700", "train/01700", "3", "remove", "") in downloaded(page, report_folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"path": "x.png"}, "bad.csv:2: index {index} is {path} here, not x.png; load the corrections of this run"),
        ({"given_label": "{suggested}"}, "bad.csv:2: given_label {suggested} where this run has {given}; load"),
        ({"decision": "drop"}, "bad.csv:2: decision drop; write relabel, keep or remove"),
        ({"decision": "relabel", "label": "77"}, "bad.csv:2: label 77 is no class of this run; correct it"),
        ({"index": "1.5"}, "bad.csv:2: index 1.5 is not a whole number; correct it"),
    ],
)
def test_a_file_that_does_not_fit_loads_nothing(
    edit: dict[str, str], message: str, page: Chrome, report_folder: Path, worst: list[dict[str, Any]]
) -> None:
    cells = dict(zip(COLUMNS, row_of(worst[0], "keep"), strict=True)) | edit
    cells = {name: value.format(**worst[0]) for name, value in cells.items()}
    (report_folder / "bad.csv").write_text(f"{','.join(COLUMNS)}\n{','.join(cells.values())}\n")
    page.find_element(By.ID, "load-decisions").send_keys(str(report_folder / "bad.csv"))
    assert message.format(**worst[0]) in wait_for(page, "review-status", "nothing loaded")
    assert text_of(page, "decided").startswith("0 of")


def test_one_decision_for_a_group(page: Chrome, report_folder: Path, worst: list[dict[str, Any]]) -> None:
    Select(page.find_element(By.ID, "order")).select_by_value("pair")
    headers = page.find_elements(By.CSS_SELECTOR, ".group")
    shown = worst[:200]
    pairs: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for one in shown:
        pairs.setdefault((one["given"], one["suggested"]), []).append(one)
    largest = max(pairs.values(), key=len)
    given, suggested = largest[0]["given"], largest[0]["suggested"]
    assert headers[0].find_element(By.TAG_NAME, "h3").text == f"{given} → {suggested}: {len(largest)}"
    first = page.find_element(By.CSS_SELECTOR, ".card")
    assert first.find_element(By.CLASS_NAME, "path").text == largest[0]["path"]
    press(page, Keys.ESCAPE, "k", "A", "s")  # keep the first, then accept the others of the group
    rows = downloaded(page, report_folder)
    seen = largest[:20]
    assert rows == in_order([row_of(seen[0], "keep"), *(row_of(one, "relabel", suggested) for one in seen[1:])])
    buttons = headers[1].find_elements(By.TAG_NAME, "button")
    assert [one.text for one in buttons] == ["Accept all", "Keep all", "Other all", "Remove all"]


def test_the_queue_shows_what_has_no_decision(page: Chrome, worst: list[dict[str, Any]]) -> None:
    Select(page.find_element(By.ID, "show")).select_by_value("open")
    press(page, Keys.ESCAPE, "a", "a", "k")
    shown = [card for card in page.find_elements(By.CSS_SELECTOR, ".card") if card.is_displayed()]
    assert [card.find_element(By.CLASS_NAME, "path").text for card in shown] == [one["path"] for one in worst[3:23]]
    active = page.switch_to.active_element.get_attribute("aria-label")
    assert active is not None and active.startswith("Select number 4:")
    Select(page.find_element(By.ID, "show")).select_by_value("decided")
    assert len([card for card in page.find_elements(By.CSS_SELECTOR, ".card") if card.is_displayed()]) == 3


def test_undo_right_after_a_decision_takes_it_back(page: Chrome) -> None:
    """The decision has moved the focus to the next image, which has none."""
    press(page, "n", "k", "r", "u")
    cards = page.find_elements(By.CSS_SELECTOR, ".card")
    assert [card.get_attribute("data-decision") for card in cards[:3]] == ["keep", None, None]
    assert page.switch_to.active_element == cards[1].find_element(By.CSS_SELECTOR, "input")
    press(page, "u")
    assert "no decision to undo" in text_of(page, "review-status")
    assert cards[0].get_attribute("data-decision") == "keep"
    Select(page.find_element(By.ID, "show")).select_by_value("open")
    press(page, Keys.ESCAPE, "a")  # the image leaves the queue, and undo brings it back
    assert not cards[1].is_displayed() and text_of(page, "decided").startswith("2 of")
    press(page, "u")
    assert cards[1].is_displayed() and text_of(page, "decided").startswith("1 of")
    assert page.switch_to.active_element == cards[1].find_element(By.CSS_SELECTOR, "input")


def test_keys_help_and_moves(page: Chrome) -> None:
    press(page, "?")
    dialog = page.find_element(By.ID, "keys")
    assert dialog.is_displayed() and "accept the suggested class" in dialog.text and "Shift" in dialog.text
    press(page, Keys.ESCAPE)
    assert not dialog.is_displayed()
    press(page, "n", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    columns = page.execute_script(
        "const all = [...document.querySelectorAll('.card')].filter((c) => !c.hidden);"
        "return all.filter((c) => c.offsetTop === all[0].offsetTop).length"
    )
    label = page.switch_to.active_element.get_attribute("aria-label")
    assert label is not None and label.startswith(f"Select number {2 + columns}:")
    card = page.switch_to.active_element.find_element(By.XPATH, "ancestor::li")
    outline = page.execute_script("return getComputedStyle(arguments[0]).outlineWidth", card)
    assert outline == "3px"
    press(page, "o")
    assert page.switch_to.active_element.get_attribute("id") == "class-search"
    press(page, Keys.ARROW_DOWN, Keys.ESCAPE)
    assert text_of(page, "decided").startswith("0 of")
    page.find_element(By.ID, "search").send_keys("ak?")  # a field takes its letters
    assert text_of(page, "decided").startswith("0 of") and not dialog.is_displayed()


def test_after_the_last_shown_image_the_others_appear(page: Chrome) -> None:
    cards = page.find_elements(By.CLASS_NAME, "card")
    shown = [card for card in cards if card.is_displayed()]
    assert 0 < len(shown) < len(cards)
    page.execute_script("arguments[0].querySelector('input').focus()", shown[-1])
    press(page, "k")
    assert cards[len(shown)].is_displayed()
    assert page.execute_script("return arguments[0].contains(document.activeElement)", cards[len(shown)])


def test_buttons_decide_too(page: Chrome, report_folder: Path, worst: list[dict[str, Any]]) -> None:
    cards = page.find_elements(By.CSS_SELECTOR, ".card")
    cards[1].find_elements(By.CSS_SELECTOR, ".actions button")[3].click()
    cards[0].find_elements(By.CSS_SELECTOR, ".actions button")[2].click()
    Select(page.find_element(By.ID, "class-list")).select_by_value(str(worst[0]["given"]))
    page.find_element(By.ID, "class-accept").click()
    page.find_element(By.ID, "save-decisions").click()
    assert downloaded(page, report_folder) == in_order([row_of(worst[0], "keep"), row_of(worst[1], "remove")])


def test_past_decisions_are_saved_again(chrome: Chrome, report_folder: Path, tmp_path: Path) -> None:
    config = with_decisions(small_config(tmp_path / "run"), tmp_path / "c.csv", 12)
    run(replace(config, train=replace(config.train, epochs=2)))
    change_predictions(tmp_path / "run")
    (tmp_path / "r.html").write_text(run_page(read_run(tmp_path / "run")), encoding="utf-8")
    chrome.get((tmp_path / "r.html").as_uri())
    past = chrome.find_element(By.ID, "past")
    assert "12 decisions (" in past.text
    with (tmp_path / "c.csv").open(newline="") as file:
        before = [tuple(row) for row in csv.reader(file)][1:]
    rows = json.loads(chrome.execute_script("return document.getElementById('rows').textContent"))["rows"]
    assert not {row[0] for row in before} & {str(row[0]) for row in rows}
    press(chrome, "n", "k", "s")
    found = downloaded(chrome, report_folder)
    assert len(found) == 13 and set(before) <= set(found)
    assert console(chrome) == []


def test_a_page_without_suspects(chrome: Chrome, tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run")
    path = folder / "clean_probabilities.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("predicted_label")
    pq.write_table(table.set_column(place, "predicted_label", table["given_label"]), path)
    (tmp_path / "r.html").write_text(run_page(read_run(folder)), encoding="utf-8")
    chrome.get((tmp_path / "r.html").as_uri())
    press(chrome, "n", "a", "?", "s")
    assert "No label is suspected." in chrome.find_element(By.ID, "suspects").text
    assert console(chrome) == []


def test_similar_images_are_decided_together(chrome: Chrome, report_folder: Path, tmp_path: Path) -> None:
    run_folder = finished_run(tmp_path / "run")
    change_predictions(run_folder)
    run = read_run(run_folder)
    samples = read_samples(run)
    rows = find_suspects(run, samples).rows.tolist()
    features = np.random.default_rng(0).standard_normal((len(samples), 64)).astype(np.float16)
    features[rows[4]] = features[rows[30]] = features[rows[11]]
    np.save(run_folder / "features.npy", features)
    (tmp_path / "r.html").write_text(run_page(run), encoding="utf-8")
    chrome.get((tmp_path / "r.html").as_uri())
    chrome.execute_script("localStorage.clear()")
    chrome.refresh()
    Select(chrome.find_element(By.ID, "order")).select_by_value("similar")
    header = chrome.find_element(By.CSS_SELECTOR, ".group")
    assert header.find_element(By.TAG_NAME, "h3").text == "Similar images: 3"
    header.find_elements(By.TAG_NAME, "button")[3].send_keys(Keys.ENTER)
    press(chrome, "s")
    removed = [samples.index_N[row] for row in (rows[4], rows[11], rows[30])]
    found = downloaded(chrome, report_folder)
    assert {int(row[0]) for row in found} == set(removed) and {row[3] for row in found} == {"remove"}
    assert console(chrome) == []
