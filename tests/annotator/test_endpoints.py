"""Endpoints: which hosts, which values, and a key that nobody sees again."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from cryptography.fernet import MultiFernet
from django.test import Client as Browser
from django.urls import reverse
from django.utils.log import AdminEmailHandler

from annotator.errors import Conflict, Invalid, NotAllowed
from annotator.models import AuditEvent, Endpoint, Role, User
from annotator.services import endpoints, secrets
from tests import factories
from tests.rubrics.llm_server import Seen, always, completion, http, serving

pytestmark = pytest.mark.django_db

KEY = "sk-planted-0123456789abcdef"


@pytest.fixture(autouse=True)
def _hosts(settings: Any) -> None:
    settings.LLM_HOSTS = [
        "api.example.org", "Models.Example.org:8443", "http://vllm:8000", "127.0.0.1:8790",
        "localhost", "[::1]:9000", "bücher.example", "https://only-tls.example",
    ]  # fmt: skip


def add(**values: Any) -> Endpoint:
    values = {"name": "E", "base_url": "https://api.example.org/v1", "by": None, **values}
    return endpoints.add(project=values.pop("project", None) or factories.project(), **values)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://api.example.org/v1", "https://api.example.org/v1"),
        (" https://API.example.org:443/v1/ ", "https://api.example.org/v1"),
        ("https://models.example.org:8443", "https://models.example.org:8443"),
        ("http://vllm:8000/v1", "http://vllm:8000/v1"),
        ("http://127.0.0.1:8790/v1", "http://127.0.0.1:8790/v1"),
        ("https://127.0.0.1:8790/v1", "https://127.0.0.1:8790/v1"),
        ("http://localhost/v1", "http://localhost/v1"),
        ("http://[::1]:9000/v1", "http://[::1]:9000/v1"),
        ("https://Bücher.example/v1", "https://xn--bcher-kva.example/v1"),
        ("https://xn--bcher-kva.example/v1", "https://xn--bcher-kva.example/v1"),
        ("https://only-tls.example./v1", "https://only-tls.example/v1"),
    ],
    ids=str,
)
def test_checked_url_takes_allowed_hosts(text: str, kept: str) -> None:
    assert endpoints.checked_url(text) == kept
    assert endpoints.checked_url(kept) == kept


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example/v1",
        "https://api.example.org.evil.example/v1",
        "https://xapi.example.org/v1",
        "https://sub.api.example.org/v1",
        "http://api.example.org/v1",
        "https://api.example.org:8443/v1",
        "https://models.example.org/v1",
        "http://models.example.org:8443/v1",
        "http://only-tls.example/v1",
        "https://vllm:8000/v1",
        "http://127.0.0.1:6379/",
        "http://127.0.0.1/",
        "http://127.1:8790/",
        "http://2130706433:8790/",
        "http://0x7f000001:8790/",
        "http://localhost:8790/",
        "http://[::ffff:127.0.0.1]:8790/",
        "http://169.254.169.254/",
    ],
    ids=str,
)
def test_checked_url_refuses_other_hosts(text: str) -> None:
    with pytest.raises((NotAllowed, Invalid)):
        endpoints.checked_url(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "api.example.org", "ftp://api.example.org", "file:///etc/passwd", "https://",
        "https://user@api.example.org", "https://api.example.org@evil.example",
        "https://api.example.org\\@evil.example", "https://api.example.org\t.evil.example",
        "https://api.example.org/v1?key=1", "https://api.example.org/#", "https://api.example.org/?",
        "https://api.example.org:99999/", "https://api.example.org:0/", "https://api.example.org:x/", "https://[::1/",
        "https://api.example.org/" + "x" * 300, "https://api.exam\x00ple.org", "javascript:alert(1)",
        "//api.example.org/v1", "https:api.example.org", "https://ex ample.org",
    ],
    ids=ascii,
)  # fmt: skip
def test_checked_url_refuses_what_is_no_plain_address(text: str) -> None:
    with pytest.raises(Invalid):
        endpoints.checked_url(text)


def test_checked_url_says_what_is_allowed() -> None:
    with pytest.raises(NotAllowed) as caught:
        endpoints.checked_url("https://evil.example/v1")
    assert "https://evil.example:443" in caught.value.message
    assert "api.example.org" in caught.value.advice


def test_bad_entry_of_the_operator_allows_nothing(settings: Any) -> None:
    settings.LLM_HOSTS = ["", "http://", "https://[", "*", "x:y", "ftp://api.example.org"]
    with pytest.raises(NotAllowed):
        endpoints.checked_url("https://api.example.org/v1")


@pytest.mark.parametrize(
    "values",
    [
        {"name": ""}, {"name": "x" * 61}, {"name": "a\x00b"}, {"concurrency": 0},
        {"concurrency": 513}, {"concurrency": True}, {"concurrency": "8"}, {"per_minute": -1},
        {"timeout_seconds": 0}, {"timeout_seconds": 601}, {"prices": []},
        {"prices": {"m": [1]}}, {"prices": {"m": [1, -1]}}, {"prices": {"m": [1, float("nan")]}},
        {"prices": {"m": [1, float("inf")]}}, {"prices": {"m": ["1", 2]}}, {"prices": {"": [1, 2]}},
        {"prices": {"m\x00": [1, 2]}}, {"prices": {1: [1, 2]}},
        {"prices": {str(n): [1, 2] for n in range(501)}},
        {"secret": "with space"}, {"secret": "line\r\nX-Evil: 1"}, {"secret": "é"},
        {"secret": "x" * 2001}, {"archived_at": None}, {"project_id": 1},
    ],
    ids=ascii,
)  # fmt: skip
def test_add_refuses_bad_values(values: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        add(**values)


def test_names_are_taken_once() -> None:
    project = factories.project()
    first = add(project=project)
    with pytest.raises(Conflict):
        add(project=project)
    other = add(project=project, name="F")
    with pytest.raises(Conflict):
        endpoints.change(endpoint=other, by=None, name=first.name)


def test_change_keeps_sets_and_removes_the_key() -> None:
    endpoint = add(secret=KEY)
    kept = endpoints.change(endpoint=endpoint, by=None, concurrency=3)
    assert secrets.unseal(kept.secret) == KEY
    assert kept.concurrency == 3
    changed = endpoints.change(endpoint=endpoint, by=None, secret="another-key-0")
    assert endpoints.server_of(changed).key == "another-key-0"
    removed = endpoints.change(endpoint=endpoint, by=None, removes_secret=True)
    assert removed.secret is None
    assert endpoints.server_of(removed).key == ""


def test_change_never_sends_a_key_to_a_new_host() -> None:
    endpoint = add(secret=KEY)
    with pytest.raises(Conflict, match="another host"):
        endpoints.change(endpoint=endpoint, by=None, base_url="http://vllm:8000/v1")
    moved = endpoints.change(endpoint=endpoint, by=None, base_url="https://api.example.org/v2")
    assert endpoints.server_of(moved).key == KEY
    anew = endpoints.change(
        endpoint=endpoint, by=None, base_url="http://vllm:8000/v1", secret="another-key-0"
    )
    assert endpoints.server_of(anew).key == "another-key-0"


def test_archive_forgets_the_key() -> None:
    endpoint = add(secret=KEY)
    endpoints.archive(endpoint=endpoint, by=None)
    endpoint.refresh_from_db()
    assert endpoint.secret is None
    with pytest.raises(Conflict, match="archived"):
        endpoints.server_of(endpoint)


def test_host_is_checked_again_when_it_is_called(settings: Any) -> None:
    endpoint = add()
    settings.LLM_HOSTS = []
    with pytest.raises(NotAllowed):
        endpoints.server_of(endpoint)
    assert not endpoints.check(endpoint=endpoint).is_ok


def test_key_is_on_no_page_and_in_no_audit_row() -> None:
    owner = User.objects.create_superuser("root@example.org", "x" * 12)
    endpoint = add(secret=KEY, by=owner)
    endpoints.change(endpoint=endpoint, by=owner, secret=KEY[::-1], concurrency=2)
    endpoints.change(endpoint=endpoint, by=owner, removes_secret=True)
    endpoints.change(endpoint=endpoint, by=owner, secret=KEY)
    sealed = bytes(Endpoint.objects.get().secret).decode()
    rows = str(list(AuditEvent.objects.values()))
    assert rows.count("'secret': 'set'") == 3
    browser = Browser()
    browser.force_login(owner)
    pages = [rows, repr(endpoints.server_of(Endpoint.objects.get()))]
    for name in ("endpoint", "auditevent"):
        pages.append(browser.get(reverse(f"admin:annotator_{name}_changelist")).text)
    pages.append(browser.get(reverse("admin:annotator_endpoint_change", args=[endpoint.pk])).text)
    for secret in (KEY, KEY[::-1], sealed):
        assert secret not in "".join(pages)


def checked(settings: Any, answer: Any, **values: Any) -> endpoints.Checked:
    with serving(answer) as fake:
        settings.LLM_HOSTS = [fake.host]
        return endpoints.check(endpoint=add(base_url=fake.base_url, secret=KEY, **values))


def test_key_is_not_in_what_the_operator_is_told_of_an_error(
    settings: Any, monkeypatch: pytest.MonkeyPatch, mailoutbox: list[Any]
) -> None:
    """Mail to ADMINS holds the form that was sent and the variables of every frame."""
    settings.DEBUG, settings.ADMINS = False, [("Ops", "ops@example.org")]
    project = factories.project()
    browser = Browser(raise_request_exception=False)
    browser.force_login(factories.member(project, Role.OWNER))

    def fail(self: object, *args: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(MultiFernet, "__init__", fail)
    handler = AdminEmailHandler(include_html=True)
    logger = logging.getLogger("django.request")
    logger.addHandler(handler)
    try:
        answer = browser.post(
            reverse("endpoint_new", args=[project.slug]),
            {"name": "E", "base_url": "https://api.example.org/v1", "key": KEY,
             "concurrency": 1, "per_minute": 0, "timeout_seconds": 5},
        )  # fmt: skip
    finally:
        logger.removeHandler(handler)
    assert answer.status_code == 500, answer.text[:3000]
    mail = mailoutbox[0]
    told = mail.body + str(mail.alternatives)
    assert "the disk is full" in told
    assert "services/endpoints.py" in told
    at = told.find(KEY)
    assert at < 0, told[at - 400 : at + 60]


def test_check_asks_for_models_and_a_word(settings: Any) -> None:
    async def answer(seen: Seen, writer: Any) -> bytes:
        assert seen.headers["authorization"] == f"Bearer {KEY}"
        if seen.path == "/v1/models":
            return http({"data": [{"id": "big"}, {"id": "small"}, {"id": 3}]})
        return http(completion(seen.json["model"]))

    done = checked(settings, answer)
    assert done.is_ok
    assert done.reason == "big answers."
    assert done.models == ("big", "small")


def test_check_says_why_it_does_not_answer(settings: Any) -> None:
    refused = http({"error": {"message": f"no such key {KEY}"}}, status=401)
    done = checked(settings, always(refused))
    assert not done.is_ok
    assert "HTTP 401: no such key [key]" in done.reason
    done = checked(settings, always(refused), prices={"m": [1, 1]})
    assert done.reason == "m: HTTP 401: no such key [key]."
    assert "lists no model" in checked(settings, always(http({"data": []}))).reason


def test_check_says_that_the_key_cannot_be_opened(settings: Any) -> None:
    endpoint = add(secret=KEY)
    settings.SECRET_KEY = "another"
    done = endpoints.check(endpoint=endpoint)
    assert not done.is_ok
    assert "SECRET_KEY" in done.reason
