"""Accounts: every sign-in page in the product's style, sign-up by invitation, tokens, preferences."""

from __future__ import annotations

import re

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.test import Client
from django.urls import reverse

from annotator.errors import Conflict, Invalid
from annotator.models import ApiToken, AuditEvent, Role, User
from annotator.services import members, tokens
from tests import factories

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def alice() -> User:
    return factories.user("Alice", email="alice@example.org")


def signed_in(user: User) -> Client:
    """Signed in a moment ago with the password, as pages that ask again want it."""
    client = Client()
    client.post(reverse("account_login"), {"login": user.email, "password": PASSWORD})
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    return client


def assert_native(text: str) -> None:
    """The page stands in the product's own frame and holds nothing that the CSP would stop."""
    assert 'class="brand"' in text
    assert "annotator/app.css" in text
    assert "style=" not in text
    assert "onclick" not in text
    # Data for allauth's own scripts may be inline; code may not.
    for attributes in re.findall(r"<script([^>]*)>", text):
        assert "src=" in attributes or 'type="application/json"' in attributes
    assert text.count("<h1") == 1
    assert text.count("<main") == 1


ENTRANCE = ["account_login", "account_reset_password", "account_reset_password_done",
            "account_email_verification_sent", "account_inactive", "socialaccount_login_cancelled",
            "socialaccount_login_error"]  # fmt: skip
MANAGE = ["preferences", "account_change_password", "account_email", "account_logout",
          "account_reauthenticate", "mfa_index", "mfa_activate_totp", "mfa_list_webauthn",
          "mfa_add_webauthn", "socialaccount_connections"]  # fmt: skip


@pytest.mark.parametrize("name", ENTRANCE)
def test_entrance_pages_look_native(name: str) -> None:
    response = Client().get(reverse(name))
    assert response.status_code in (200, 401)  # 401: the other side refused
    assert_native(response.content.decode())


@pytest.mark.parametrize("name", MANAGE)
def test_account_pages_look_native(name: str, alice: User) -> None:
    response = signed_in(alice).get(reverse(name))
    assert response.status_code == 200
    assert_native(response.content.decode())


def test_second_factor_pages_look_native(alice: User) -> None:
    """Pages that exist only once there is a second factor."""
    EmailAddress.objects.create(user=alice, email=alice.email, verified=True, primary=True)
    client = signed_in(alice)
    for kind, data in (
        ("totp", {"secret": "x"}),
        ("recovery_codes", {"seed": "s", "used_mask": 0}),
    ):
        Authenticator.objects.create(user=alice, type=kind, data=data)
    key = Authenticator.objects.create(
        user=alice, type="webauthn",
        data={"name": "<b>key</b>", "credential": {"clientExtensionResults": {}}},
    )  # fmt: skip
    for name, args in (
        ("mfa_index", []),
        ("mfa_deactivate_totp", []),
        ("mfa_view_recovery_codes", []),
        ("mfa_generate_recovery_codes", []),
        ("mfa_list_webauthn", []),
        ("mfa_edit_webauthn", [key.pk]),
        ("mfa_remove_webauthn", [key.pk]),
    ):
        response = client.get(reverse(name, args=args))
        assert response.status_code == 200, name
        assert_native(response.content.decode())
        assert "<b>key</b>" not in response.content.decode()


def test_sign_in_with_a_second_factor_asks_for_it_natively(alice: User) -> None:
    Authenticator.objects.create(user=alice, type="totp", data={"secret": "x"})
    client = Client()
    response = client.post(
        reverse("account_login"), {"login": alice.email, "password": PASSWORD}, follow=True
    )
    assert response.redirect_chain[-1][0] == reverse("mfa_authenticate")
    assert_native(response.content.decode())
    assert client.get(reverse("preferences")).status_code == 302


def test_security_headers_allow_no_inline_code(alice: User) -> None:
    policy = signed_in(alice).get(reverse("preferences"))["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


# Signing up -------------------------------------------------------------------------------------

NEWCOMER = {"name": "Nora", "email": "nora@example.org", "password1": "a-long-new-password-1"}


def test_sign_up_is_closed_without_an_invitation() -> None:
    client = Client()
    assert "by invitation" in client.get(reverse("account_signup")).content.decode()
    client.post(reverse("account_signup"), NEWCOMER)
    assert not User.objects.exists()
    assert "Create an account" not in client.get(reverse("account_login")).content.decode()


def test_sign_up_closes_again_when_the_invitation_does(alice: User) -> None:
    project = factories.project()
    invitation, token = members.invite(
        project=project, role=Role.ANNOTATOR, note="", places=1, days=1, by=alice
    )
    client = Client()
    client.get(reverse("invitation", args=[token]))
    assert "Create an account" in client.get(reverse("account_login")).content.decode()
    members.revoke(invitation=invitation, by=alice)
    client.post(reverse("account_signup"), NEWCOMER)
    assert not User.objects.filter(email="nora@example.org").exists()


def test_sign_up_is_open_where_the_operator_says_so(settings: object) -> None:
    settings.OPEN_SIGNUP = True
    response = Client().post(reverse("account_signup"), NEWCOMER)
    assert response["Location"] == reverse("projects")
    assert User.objects.get().name == "Nora"
    assert not User.objects.get().can_create_projects


def test_wrong_password_is_an_error_in_the_form(alice: User) -> None:
    response = Client().post(reverse("account_login"), {"login": alice.email, "password": "wrong"})
    assert response.status_code == 200
    assert 'data-state="failed"' in response.content.decode()


def test_sign_in_ignores_the_case_of_the_address(alice: User) -> None:
    response = Client().post(
        reverse("account_login"), {"login": "ALICE@example.org", "password": PASSWORD}
    )
    assert response["Location"] == reverse("projects")


# Preferences ------------------------------------------------------------------------------------


def test_preferences_are_saved_and_reach_every_page(alice: User) -> None:
    client = signed_in(alice)
    response = client.post(reverse("preferences"), {"name": "Alice A.", "theme": "dark"})
    assert response.status_code == 302
    alice.refresh_from_db()
    assert (alice.name, alice.theme, alice.single_keys) == ("Alice A.", "dark", False)
    text = client.get(reverse("projects")).content.decode()
    assert 'data-theme="dark"' in text
    assert 'data-keys="off"' in text


def test_preferences_refuse_an_unknown_theme(alice: User) -> None:
    response = signed_in(alice).post(
        reverse("preferences"), {"name": "Alice", "theme": 'dark" onload="alert(1)'}
    )
    assert response.status_code == 422
    alice.refresh_from_db()
    assert alice.theme == ""


# Tokens -----------------------------------------------------------------------------------------


def test_token_is_shown_once_and_stored_as_a_hash(alice: User) -> None:
    client = signed_in(alice)
    made = client.post(reverse("tokens"), {"name": "nightly export"})
    secret = made.context["secret"]
    assert secret in made.content.decode()
    assert "no-store" in made["Cache-Control"]
    assert secret not in client.get(reverse("preferences")).content.decode()
    stored = ApiToken.objects.values().get()
    assert secret not in str(stored)
    assert tokens.user_of(secret) == alice


def test_token_ends_when_it_is_revoked(alice: User) -> None:
    client = signed_in(alice)
    secret = client.post(reverse("tokens"), {"name": "nightly-7"}).context["secret"]
    token = ApiToken.objects.get()
    client.post(reverse("token_revoke", args=[token.pk]))
    client.post(reverse("token_revoke", args=[token.pk]))
    assert tokens.user_of(secret) is None
    assert "nightly-7</th>" not in client.get(reverse("preferences")).content.decode()
    verbs = list(AuditEvent.objects.order_by("pk").values_list("verb", flat=True))
    assert verbs == ["token.create", "token.revoke"]


def test_token_of_another_cannot_be_revoked(alice: User) -> None:
    token, secret = tokens.create(user=alice, name="mine")
    mallory = signed_in(factories.user("Mallory"))
    assert mallory.post(reverse("token_revoke", args=[token.pk])).status_code == 404
    assert tokens.user_of(secret) == alice


def test_token_of_a_closed_account_opens_nothing(alice: User) -> None:
    _, secret = tokens.create(user=alice, name="mine")
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert tokens.user_of(secret) is None
    assert tokens.user_of("") is None
    assert tokens.user_of("x" * 43) is None


def test_token_use_is_noted_once_a_minute(alice: User) -> None:
    token, secret = tokens.create(user=alice, name="mine")
    tokens.user_of(secret)
    token.refresh_from_db()
    first = token.last_used_at
    assert first is not None
    tokens.user_of(secret)
    token.refresh_from_db()
    assert token.last_used_at == first


@pytest.mark.parametrize("name", ["", "   ", "x" * 81])
def test_token_needs_a_name(alice: User, name: str) -> None:
    assert signed_in(alice).post(reverse("tokens"), {"name": name}).status_code == 422
    assert not ApiToken.objects.exists()
    if not name.strip():
        with pytest.raises(Invalid):
            tokens.create(user=alice, name=name)


def test_tokens_are_bounded(alice: User) -> None:
    for number in range(tokens.MAX_TOKENS):
        tokens.create(user=alice, name=str(number))
    with pytest.raises(Conflict):
        tokens.create(user=alice, name="one more")
    response = signed_in(alice).post(reverse("tokens"), {"name": "one more"})
    assert response.status_code == 409
    assert "Revoke one" in response.content.decode()


@pytest.mark.parametrize("name", ["preferences", "tokens"])
def test_account_pages_need_an_account(name: str) -> None:
    client = Client()
    response = client.post(reverse(name), {"name": "x"})
    assert response["Location"].startswith(reverse("account_login"))
