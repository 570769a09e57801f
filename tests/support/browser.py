"""A headless Chromium that reports its console and every request it makes."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def programs() -> tuple[str | None, str | None]:
    """Chromium and its driver, where they are installed."""
    return shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")


@contextmanager
def browser(folder: Path, size: tuple[int, int] = (1280, 900)) -> Iterator[webdriver.Chrome]:
    """A browser with a fresh profile below folder, whose downloads go to folder/downloads.

    Fails where there is none: `make browser` installs it on Debian and Ubuntu.
    """
    chromium, driver = programs()
    if chromium is None or driver is None:
        pytest.fail("this test needs chromium and chromedriver: run `make browser`, or install them (see the Makefile)")
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        (folder / "downloads").mkdir(exist_ok=True)
        allow = {"behavior": "allow", "downloadPath": str(folder / "downloads")}
        chrome.execute_cdp_cmd("Browser.setDownloadBehavior", allow)
        emulate = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulate)
        yield chrome
    finally:
        chrome.quit()


def console(chrome: webdriver.Chrome) -> list[str]:
    """What the page has said on its console since the last call."""
    return [entry["message"] for entry in chrome.get_log("browser")]  # type: ignore[no-untyped-call]


def requests(chrome: webdriver.Chrome) -> list[str]:
    """The address of every request since the last call, but those of data: and blob: that are in the page itself."""
    addresses = []
    for entry in chrome.get_log("performance"):  # type: ignore[no-untyped-call]
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            addresses.append(str(message["params"]["request"]["url"]))
    return [address for address in addresses if not address.startswith(("data:", "blob:"))]
