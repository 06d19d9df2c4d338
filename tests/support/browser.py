"""A real browser that reaches nothing but loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver

from hone_dev import packages


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Chromium of the distribution, installed where it is absent. No name but loopback's has an address."""
    packages.ensure(packages.BROWSER)
    options = webdriver.ChromeOptions()
    options.binary_location = packages.BROWSER["chromium"]
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for switch in (
        "headless=new",
        "no-sandbox",  # which Chromium refuses to root
        "disable-dev-shm-usage",
        "disable-gpu",
        "no-proxy-server",
        "disable-background-networking",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "window-size=900,700",
    ):
        options.add_argument(f"--{switch}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(packages.BROWSER["chromium-driver"]))
    try:
        yield driver
    finally:
        driver.quit()
