"""A real browser that reaches nothing but loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver

from hone_dev.tools import npm, packages

AXE = "4.14.1"
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
ATTACKS = [
    "<script>document.title = 'ran'</script>",
    "</pre></td></title><img src=x onerror=\"document.title = 'ran'\">",
    "<svg onload=\"document.title = 'ran'\"></svg>",
    '"><iframe srcdoc="<script>parent.document.title = \'ran\'</script>"></iframe>',
    "<style>body { display: none }</style><base href=https://example.org>",
]


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


CONTRASTS = r"""
const parts = color => color.match(/[\d.]+/g).map(Number);
const luminance = color => {
  const [r, g, b] = parts(color).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const color = getComputedStyle(e).backgroundColor;
    if ((parts(color)[3] ?? 1) > 0) return color;
  }
  return 'rgb(255, 255, 255)';
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.closest('style')) continue;
  const style = getComputedStyle(element);
  const color = element.closest('svg') ? style.fill : style.color;
  const [a, b] = [luminance(color), luminance(behind(element))].sort((x, y) => y - x);
  found.push([walker.currentNode.data.trim().slice(0, 40), (a + 0.05) / (b + 0.05)]);
}
return found;
"""
"""Of each text on the page its first characters and its contrast, by WCAG 2.1 (1.4.3)."""


def assert_readable(page: Any, scheme: str) -> None:
    """The contrast that WCAG 2.1 asks for (1.4.3: 4.5 to 1) in this colour scheme; no text beyond the window."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    contrasts = page.execute_script(CONTRASTS)
    assert len(contrasts) > 50
    assert {text: ratio for text, ratio in contrasts if ratio < 4.5} == {}
    lightness = page.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0]")
    assert (int(lightness) > 127) == (scheme == "light")
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def axe_violations(page: Any) -> list[str]:
    """What axe-core finds on the page that is serious or critical, a line each."""
    file = npm.file_of("axe-core", AXE, AXE_SHA256, "package/axe.min.js")
    page.execute_script(file.read_text())
    found = page.execute_async_script("const done = arguments[0]; axe.run(document).then(r => done(r.violations))")
    return [
        f"{each['id']}: {node['html'][:120]}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
