"""Where a project's judges are asked: added, changed, archived, and only on allowed hosts."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from annotator.errors import AppError, Conflict, Invalid, NotAllowed
from annotator.models import AuditEvent, Endpoint, Project, User
from annotator.services import secrets
from rubrics.llm.budget import ANY_MODEL
from rubrics.llm.server import Server, is_loopback
from rubrics.llm.types import CallFailed, Message, Request

log = logging.getLogger(__name__)

MAX_CONCURRENCY: Final = 512
MAX_PER_MINUTE: Final = 1_000_000
MAX_TIMEOUT: Final = 600  # seconds
MAX_PRICES: Final = 500
MAX_PRICE: Final = 1e6
MAX_NAME: Final = 60
MAX_URL: Final = 300
MAX_MODEL: Final = 200
CHECK_SECONDS: Final = 10.0
KEY: Final = re.compile(r"[\x21-\x7e]{1,2000}")  # what fits into a header
STRANGE: Final = re.compile(r"[\x00-\x20\x7f\\@]")  # read differently by different readers
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
FIELDS: Final = (
    "name", "base_url", "concurrency", "per_minute", "timeout_seconds",
    "has_schema", "has_logprobs", "has_images", "prices",
)  # fmt: skip

Address = tuple[str, str, int]  # scheme, host, port


@dataclass(frozen=True)
class Checked:
    """Whether an endpoint answers, in words fit for a page; ``models`` as it names them."""

    is_ok: bool
    reason: str
    models: tuple[str, ...] = ()
    latency_ms: int = 0


def allowed_addresses(entries: Iterable[str] | None = None) -> set[Address]:
    """What LLM_HOSTS allows, or another setting's ``entries``.

    "host" and "host:port" mean https, and http as well where the host is this machine;
    "http://host:port" allows http to another machine.
    """
    allowed = set()
    for entry in settings.LLM_HOSTS if entries is None else entries:
        scheme, _, rest = entry.rpartition("://")
        schemes = [scheme] if scheme else ["https", "http"]
        for one in schemes:
            try:
                address = address_of(httpx2.URL(f"{one}://{rest}"))
            except (httpx2.InvalidURL, ValueError):
                log.warning("%r is no host", entry)
                continue
            if scheme or one == "https" or is_loopback(address[1]):
                allowed.add(address)
    return allowed


def address_of(url: httpx2.URL) -> Address:
    """Scheme, host and port. Raises ValueError."""
    if url.scheme not in DEFAULT_PORTS or not url.host:
        raise ValueError("not an address")
    host = url.raw_host.decode("ascii").lower().rstrip(".")
    port = DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if not 0 < port < 65_536:
        raise ValueError("not a port")
    return url.scheme, host, port


def checked_url(text: str) -> str:
    """A base URL in its one spelling. Raises Invalid, and NotAllowed for a host not in LLM_HOSTS.

    It is read by the library that will call it, so that both see the same host.
    """
    text = text.strip()
    if not text or len(text) > MAX_URL or STRANGE.search(text):
        raise Invalid(
            f"The address is a URL of at most {MAX_URL} characters, without spaces, user names"
            " and passwords, such as https://api.example.org/v1."
        )
    try:
        url = httpx2.URL(text)
        scheme, host, port = address_of(url)
    except (httpx2.InvalidURL, ValueError):
        raise Invalid("The address begins with https:// or http:// and names a host.") from None
    if url.userinfo or url.query or url.fragment or "?" in text or "#" in text:
        raise Invalid("The address has no user name, no question mark and no fragment.")
    if (scheme, host, port) not in allowed_addresses():
        raise NotAllowed(
            f"This server may not call {scheme}://{host}:{port}.",
            advice="The operator allows hosts with the setting LLM_HOSTS. Allowed now: "
            + (", ".join(allowed_hosts()) or "none")
            + ".",
        )
    shown = f"[{host}]" if ":" in host else host
    shown += "" if port == DEFAULT_PORTS[scheme] else f":{port}"
    return f"{scheme}://{shown}{url.raw_path.decode('ascii').rstrip('/')}"


def allowed_hosts() -> list[str]:
    """Hosts an owner may name, as the operator wrote them."""
    return sorted(dict.fromkeys(settings.LLM_HOSTS))


def is_simulated(base_url: str) -> bool:
    """Whether this is the simulated judge of this installation, whose verdicts are marked so."""
    return base_url.partition("://")[2].split("/")[0] == settings.SIMULATED_JUDGE


@sensitive_variables("secret")
def add(
    *,
    project: Project,
    name: str,
    base_url: str,
    by: User | None,
    secret: str = "",
    simulated: bool = False,
    **limits: Any,
) -> Endpoint:
    """A new endpoint. ``limits`` are fields of FIELDS, the model's defaults where not given.

    Raises Invalid, NotAllowed (host), Conflict (name taken).
    """
    endpoint = Endpoint(project=project)
    _set(endpoint, {"name": name, "base_url": base_url, **limits})
    endpoint.is_simulated = simulated or is_simulated(endpoint.base_url)
    if secret:
        _seal(endpoint, secret)
    with transaction.atomic():
        _save(endpoint)
        _note(endpoint, by, "add", secret="set" if secret else "none", **_shown(endpoint))
    return endpoint


@sensitive_variables("secret")
def change(
    *,
    endpoint: Endpoint,
    by: User | None,
    secret: str = "",
    removes_secret: bool = False,
    **values: Any,
) -> Endpoint:
    """Change fields of FIELDS. An empty ``secret`` keeps the key, which never goes to a new host.

    Raises Invalid, NotAllowed (host), Conflict (name taken, key not given anew).
    """
    with transaction.atomic():
        fresh = Endpoint.objects.select_for_update().get(pk=endpoint.pk)
        before = _shown(fresh)
        _set(fresh, values)
        fresh.is_simulated = fresh.is_simulated or is_simulated(fresh.base_url)
        moved = address_of(httpx2.URL(before["base_url"])) != address_of(httpx2.URL(fresh.base_url))
        if secret:
            _seal(fresh, secret)
        elif removes_secret:
            fresh.secret, fresh.secret_set_at = None, None
        elif fresh.secret is not None and moved:
            raise Conflict(
                "The stored key was given for another host.",
                advice="Enter the key for the new host, or remove the stored one.",
            )
        _save(fresh)
        changed = {name: value for name, value in _shown(fresh).items() if before[name] != value}
        word = "set" if secret else "removed" if removes_secret else "kept"
        _note(fresh, by, "change", secret=word, **changed)
    return fresh


def archive(*, endpoint: Endpoint, by: User | None) -> None:
    """Take an endpoint out of use and forget its key. What it answered stays."""
    with transaction.atomic():
        changed = Endpoint.objects.filter(pk=endpoint.pk, archived_at=None).update(
            archived_at=timezone.now(), secret=None, secret_set_at=None
        )
        if changed:
            _note(endpoint, by, "archive", secret="removed")


def server_of(endpoint: Endpoint) -> Server:
    """What a Client needs, checked anew: the operator's list may have changed.

    Raises Conflict (archived, key not readable), NotAllowed (host).
    """
    if endpoint.archived_at is not None:
        raise Conflict(f"The endpoint {endpoint.name} is archived.")
    checked_url(endpoint.base_url)
    return Server(
        base_url=endpoint.base_url,
        key="" if endpoint.secret is None else secrets.unseal(endpoint.secret),
        timeout=float(endpoint.timeout_seconds),
        concurrency=endpoint.concurrency,
        has_schema=endpoint.has_schema,
        has_logprobs=endpoint.has_logprobs,
        has_images=endpoint.has_images,
    )


def check(*, endpoint: Endpoint, model: str = "") -> Checked:
    """Ask an endpoint for its models and for one word; says what came back.

    ``model`` names whom to ask; else the first that has a price or that the endpoint lists. Takes
    ``CHECK_SECONDS`` at most for either request. The word is not in the ledger.
    """
    try:
        server = server_of(endpoint)
    except AppError as error:
        return Checked(False, f"{error.message} {error.advice}".strip())
    priced = next((name for name in endpoint.prices if name != ANY_MODEL), "")
    return asyncio.run(_check(server, model or priced))


async def _check(server: Server, model: str) -> Checked:
    short = Server(base_url=server.base_url, key=server.key, timeout=CHECK_SECONDS)
    from rubrics.llm.client import Client  # brings the SDK, which no page needs

    async with Client(short) as client:
        models: tuple[str, ...] = ()
        try:
            models = await client.models()
        except CallFailed as failed:
            if not model:
                return Checked(False, _unlisted(server.base_url, failed))
        model = model or (models[0] if models else "")
        if not model:
            return Checked(False, "It answers, and lists no model.")
        tiny = Request(model=model, messages=(Message("user", ("Say OK.",)),), max_tokens=1)
        try:
            reply = await client.ask(tiny, tiny.key(server.base_url))
        except CallFailed as failed:
            return Checked(False, f"{model}: {failed.detail}.", models)
    return Checked(True, f"{model} answers.", models, reply.latency_ms)


def _unlisted(base_url: str, failed: CallFailed) -> str:
    """Why there is no list of models, and what to look at."""
    says = f"It does not list its models: {failed.detail}."
    if failed.kind == "connection":
        return f"{says} Does a server run at {base_url}?"
    return f"{says} The address asked is {base_url}/models; most APIs begin at /v1."


def _set(endpoint: Endpoint, values: Mapping[str, Any]) -> None:
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise Invalid(f"An endpoint has no {', '.join(unknown)}.")
    for name, value in values.items():
        setattr(endpoint, name, CLEAN[name](value))


def _name(value: Any) -> str:
    text = " ".join(str(value).split())
    if not text or len(text) > MAX_NAME or not text.isprintable():
        raise Invalid(f"Give the endpoint a name of at most {MAX_NAME} characters.")
    return text


def _whole(label: str, least: int, most: int) -> Any:
    def clean(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Invalid(f"{label} is a whole number from {least:,} to {most:,}.")
        return value

    return clean


def clean_prices(value: Any) -> dict[str, list[float]]:
    """``{model: [per million tokens in, per million tokens out]}``. Raises Invalid."""
    if not isinstance(value, Mapping) or len(value) > MAX_PRICES:
        raise Invalid(f"Prices are a table of at most {MAX_PRICES} models.")
    return {_model(model): _price(model, pair) for model, pair in value.items()}


def _model(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= MAX_MODEL or not name.isprintable():
        raise Invalid(f"A model's name has 1 to {MAX_MODEL} characters.")
    return name


def _price(model: str, pair: Any) -> list[float]:
    is_pair = isinstance(pair, list | tuple) and len(pair) == 2
    if not is_pair or not all(_is_price(one) for one in pair):
        raise Invalid(
            f"The price of {model} is two numbers, 0 or more: per million tokens in and out."
        )
    return [float(one) for one in pair]


def _is_price(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= MAX_PRICE
        and math.isfinite(value)
    )


CLEAN: Final = {
    "name": _name,
    "base_url": checked_url,
    "concurrency": _whole("Calls at once", 1, MAX_CONCURRENCY),
    "per_minute": _whole("Requests per minute", 0, MAX_PER_MINUTE),
    "timeout_seconds": _whole("The timeout in seconds", 1, MAX_TIMEOUT),
    "has_schema": bool,
    "has_logprobs": bool,
    "has_images": bool,
    "prices": clean_prices,
}


@sensitive_variables("secret")
def _seal(endpoint: Endpoint, secret: str) -> None:
    secret = secret.strip()
    if not KEY.fullmatch(secret):
        raise Invalid("A key has only letters, digits and signs, no spaces.")
    endpoint.secret = secrets.seal(secret)
    endpoint.secret_set_at = timezone.now()


def _save(endpoint: Endpoint) -> None:
    try:
        with transaction.atomic():
            endpoint.save()
    except IntegrityError:
        raise Conflict(f"The project has an endpoint named {endpoint.name} already.") from None


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return {name: getattr(endpoint, name) for name in FIELDS}


def _note(endpoint: Endpoint, by: User | None, verb: str, **data: Any) -> None:
    """An audit row: whether the key was changed, never the key."""
    AuditEvent.objects.create(
        project_id=endpoint.project_id,
        actor=by,
        verb=f"endpoint.{verb}",
        subject=f"endpoint {endpoint.name}"[:120],
        data=data,
    )
