"""A real Chromium against the live server. Skipped, with a plain reason, where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    sync_playwright,
)

from annotator.models import User
from tests.serving import session_cookie

ARGUMENTS = ["--disable-gpu", "--disable-background-networking"]

# Playwright's event loop runs in this thread; Django's guard against that is about servers.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/browser/" in str(item.path):
            item.add_marker(pytest.mark.browser)


# Playwright's event loop runs as long as this lives. Longer than a module, and whatever a worker
# takes next finds a running loop, in which asyncio.run() of a command or a job fails.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM to its path")
    # Chromium refuses its sandbox to root.
    arguments = [*ARGUMENTS, "--no-sandbox"] if os.geteuid() == 0 else ARGUMENTS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, live_server: Any) -> Iterator[Callable[..., Page]]:
    """``open_page(person, path, **context options)``: a signed-in page.

    The test fails if a script error, a console error or a refused resource turned up, or if
    anything was asked of another host.
    """
    contexts: list[BrowserContext] = []
    problems: list[str] = []

    def open_as(person: User | None, path: str, **options: Any) -> Page:
        context = chromium.new_context(base_url=live_server.url, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        if person is not None:
            context.add_cookies(
                [
                    {
                        "name": django_settings.SESSION_COOKIE_NAME,
                        "value": session_cookie(person),
                        "url": live_server.url,
                    }
                ]
            )
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
        page.on(
            "console",
            lambda said: _note_error(said, problems),
        )
        page.on("dialog", lambda dialog: (problems.append("a dialog opened"), dialog.dismiss()))
        page.on("request", lambda request: _note_foreign(request.url, live_server.url, problems))
        page.problems = problems
        page.goto(path)
        return page

    yield open_as
    for context in contexts:
        context.close()
    assert problems == []


# htmx reports the draft that a save aborts; anything else it says is a fault.
ABORTED = ("htmx:afterRequest", "htmx:sendAbort")


def _note_error(said: ConsoleMessage, problems: list[str]) -> None:
    if said.type == "error" and not said.text.startswith(ABORTED):
        problems.append(said.text)


def _note_foreign(url: str, home: str, problems: list[str]) -> None:
    if not url.startswith((home, "data:")):
        problems.append(f"asked another host: {url}")
