"""The dashboard in a real Chromium: the main journeys, axe, a narrow screen, the dark, and the keyboard alone.

Skipped where no Chromium is installed.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from floop_gateway_core import Gateway
from tests.management.test_dashboard import DASHBOARD, _aiohttp, _asgi, _flask
from tests.serving import MOUNT, gateway_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NPM = shutil.which("npm")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-quic", "--no-first-run"]  # fmt: skip

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    if NPM is None:
        pytest.skip("npm is not installed, so axe cannot be fetched")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [NPM, "pack", "axe-core@4", "--silent"], cwd=folder, capture_output=True, text=True, check=True
    )
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.fixture(params=[_asgi, _flask, _aiohttp], ids=["asgi", "flask", "aiohttp"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    gateway, key = made()
    with request.param(gateway) as url:
        ask(url, key)
        ask(url, key, "")
        yield url


def made() -> tuple[Gateway, str]:
    """Make a gateway in a thread: Playwright's event loop runs in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(gateway_of).result()


def ask(url: str, key: str, prompt: str = "one two") -> httpx.Response:
    return httpx.post(url + MOUNT + "/generate", json={"prompt": prompt}, headers={"Authorization": f"Bearer {key}"})


def opened(chromium: Browser, **options: Any) -> tuple[Page, list[str]]:
    """Open a page, logged in as the operator of all projects, and collect what the browser complains about."""
    context = chromium.new_context(extra_http_headers={"X-Login": "root"}, **options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page, complaints


def test_the_first_day_of_a_newcomer(address: str, chromium: Browser, tmp_path: Path) -> None:
    page, complaints = opened(chromium)
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(address + DASHBOARD + "/")
    page.get_by_label("Name").fill("shop")
    page.get_by_label("Credits", exact=True).fill("3.5")
    page.get_by_role("button", name="Create").click()
    key = page.locator("code.big").inner_text()
    for _ in range(3):
        assert ask(address, key).status_code == 200
    page.get_by_role("link", name="Project settings").click()
    page.locator("main").get_by_role("link", name="Usage").click()
    assert page.locator("tbody[data-tail] tr").count() == 3
    page.get_by_role("button", name="Follow live").click()
    page.wait_for_timeout(300)
    ask(address, key)
    expect(page.locator("tbody[data-tail] tr")).to_have_count(4)
    page.locator("tbody[data-tail] a").first.click()
    assert "echo" in page.locator("main").inner_text()
    page.go_back()
    page.get_by_role("link", name="shop").click()
    page.get_by_role("button", name="Suspend").click()
    assert ask(address, key).status_code == 403
    page.get_by_role("button", name="Resume").click()
    page.get_by_label("Accept the old key").fill("60")
    page.get_by_role("button", name="Rotate key").click()
    assert page.locator("code.big").inner_text() != key
    page.screenshot(path=tmp_path / "key.png")
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_is_cut_off(chromium: Browser, axe: str, scheme: str) -> None:
    gateway, key = made()
    with _asgi(gateway) as url:
        id = ask(url, key).headers["x-request-id"]
        page, complaints = opened(
            chromium, color_scheme=scheme, viewport={"width": 360, "height": 800}, bypass_csp=True
        )
        for path in (
            "/",
            "/projects/p",
            "/projects/p/usage",
            "/usage",
            f"/requests/{id}",
            "/health",
            "/audit",
            "/nope",
        ):
            page.goto(url + DASHBOARD + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
            page.evaluate(axe)
            found = page.evaluate("axe.run()")
            assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == [], path
        assert [one for one in complaints if "404" not in one] == []


def test_a_search_needs_only_the_keyboard_and_no_scripts_are_needed(chromium: Browser) -> None:
    gateway, _ = made()
    with _asgi(gateway) as url:
        for scripts in (True, False):
            page, _ = opened(chromium, java_script_enabled=scripts)
            page.goto(url + DASHBOARD + "/")
            page.get_by_label("Search").focus()
            page.keyboard.type("nothing")
            page.keyboard.press("Enter")
            page.wait_for_url("**/?q=nothing*")
            assert "No project matches" in page.locator("#list").inner_text()


def test_other_sites_are_not_asked(chromium: Browser) -> None:
    gateway, _ = made()
    with _asgi(gateway) as url:
        page, _ = opened(chromium)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for path in ("/", "/projects/p", "/usage", "/health"):
            page.goto(url + DASHBOARD + path)
        assert {one.split("/")[2] for one in asked if one.startswith("http")} == {url.split("/")[2]}
