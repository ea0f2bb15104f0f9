"""Pushing a dataset version to a Hugging Face hub, and to no other host than the operator allowed.

``huggingface_hub`` does the talking. Its client is given a guard that looks at every request, so
that neither a redirect nor an address for large files leads anywhere else. Its own transfer of
large files (Xet) goes past that client, and is switched off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx2
from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from annotator.errors import Invalid, MethodFailed, NotAllowed
from annotator.models import AuditEvent, DatasetVersion, User
from annotator.services import deliveries, endpoints

PART: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
REPO: Final = re.compile(rf"{PART}/{PART}")
TIMEOUT: Final = 300.0  # seconds that a server may be silent


def checked_repo(repo: str) -> str:
    """OWNER/NAME. Raises Invalid."""
    if not REPO.fullmatch(repo) or "--" in repo or ".." in repo:
        raise Invalid("A repository is OWNER/NAME, in letters, digits, dots, dashes, underscores.")
    return repo


def checked_endpoint() -> str:
    """HF_ENDPOINT. Raises Invalid, and NotAllowed for a host that is not in HUB_HOSTS."""
    endpoint = settings.HF_ENDPOINT.rstrip("/")
    try:
        address = endpoints.address_of(httpx2.URL(endpoint))
    except (httpx2.InvalidURL, ValueError):
        raise Invalid("HF_ENDPOINT begins with https:// or http:// and names a host.") from None
    _require_allowed(address)
    return endpoint


def _require_allowed(address: endpoints.Address) -> None:
    if address not in endpoints.allowed_addresses(settings.HUB_HOSTS):
        scheme, host, port = address
        raise NotAllowed(
            f"This server may not push to {scheme}://{host}:{port}.",
            advice="The operator allows hosts with the setting HUB_HOSTS. Allowed now: "
            + (", ".join(settings.HUB_HOSTS) or "none")
            + ".",
        )


@sensitive_variables("token")
def push(*, version: DatasetVersion, repo: str, is_private: bool, by: User | None) -> str:
    """Put all files of a version into a repository, in one commit; the commit's address.

    The repository is made where it is not there; one that is there keeps its visibility. Raises
    Gone, Invalid, NotAllowed, MethodFailed.
    """
    repo, endpoint = checked_repo(repo), checked_endpoint()
    deliveries.require(version, deliveries.ARCHIVE)
    token = settings.HF_TOKEN
    if not token:
        raise Invalid("There is no token for the hub.", advice="Set HF_TOKEN.")
    with _guarded() as hub:
        try:
            address = _commit(hub, version, repo, is_private, endpoint, token)
        except (NotAllowed, MethodFailed):
            raise
        except _failures(hub) as error:
            raise MethodFailed(_said(error, token), advice=_advice(error)) from None
    AuditEvent.objects.create(
        project_id=version.project_id,
        actor=by,
        verb="dataset.push",
        subject=str(version),
        data={"repo": repo, "endpoint": endpoint, "private": is_private, "commit": address},
    )
    deliveries.record_download(
        version=version, name=deliveries.ARCHIVE, by=by, span=None, via="hub"
    )
    return address


@sensitive_variables("token")
def _commit(
    hub: Any, version: DatasetVersion, repo: str, is_private: bool, endpoint: str, token: str
) -> str:
    api = hub.HfApi(endpoint=endpoint, token=token)
    api.create_repo(repo, repo_type="dataset", private=is_private, exist_ok=True)
    done = api.create_commit(
        repo,
        [
            hub.CommitOperationAdd(name, str(deliveries.path_of(version, name)))
            for name in deliveries.file_names(version)
        ],
        commit_message=f"{version}, {version.rows:,} rows",
        commit_description=f"Built by Touchstone. Checksum {version.checksum}",
        repo_type="dataset",
    )
    return str(done.commit_url)


def _failures(hub: Any) -> tuple[type[Exception], ...]:
    """What a hub, the way to it or its answers can fail with; ValueError: answers of no sense."""
    return hub.errors.HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError


def _said(error: BaseException, token: str) -> str:
    """What went wrong, never with the token."""
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
    if isinstance(cause, NotAllowed):
        return cause.message
    response = getattr(cause, "response", None)
    if response is not None:
        return f"The hub answered {response.status_code} to {response.request.url.path}."
    text = " ".join(str(cause).split())[:300].replace(token, "…")
    return f"The hub cannot be pushed to: {type(cause).__name__}: {text}"


def _advice(error: BaseException) -> str:
    cause = error.__cause__ or error
    if isinstance(cause, NotAllowed):
        return cause.advice
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if status in (401, 403):
        return "HF_TOKEN needs the right to write to this repository."
    return "Nothing was committed. Try again."


@contextmanager
def _guarded() -> Iterator[Any]:
    """The package, with a client that goes to allowed hosts only. Raises MethodFailed."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
        from huggingface_hub.utils import _http as http
    except ImportError:
        raise MethodFailed(
            "The package huggingface_hub is not installed here.",
            advice="pip install huggingface_hub, or the extra learn, which brings it.",
        ) from None

    def look(request: httpx2.Request) -> None:
        _require_allowed(endpoints.address_of(request.url))

    def client() -> httpx2.Client:
        return httpx2.Client(
            event_hooks={"request": [look, http.hf_request_event_hook]},
            follow_redirects=True,
            timeout=TIMEOUT,
            trust_env=False,  # no proxy on the way that nobody allowed
        )

    had_xet = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    hub.utils.disable_progress_bars()
    hub.set_client_factory(client)
    try:
        yield hub
    finally:
        hub.set_client_factory(http.default_client_factory)
        constants.HF_HUB_DISABLE_XET = had_xet
