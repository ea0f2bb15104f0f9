"""Members and invitations: roles, the last owner, places that are exact under a race."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from annotator.accounts import INVITATION_KEY
from annotator.errors import Conflict, Gone, Invalid, NotFound
from annotator.models import Assignment, AuditEvent, Invitation, Membership, Project, Role, User
from annotator.queries import members as queries
from annotator.services import members, queue
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project() -> Project:
    return factories.project("letters")


@pytest.fixture
def alice(project: Project) -> User:
    return factories.member(project, Role.OWNER, name="Alice")


@pytest.fixture
def bob(project: Project) -> User:
    return factories.member(project, Role.REVIEWER, name="Bob")


@pytest.fixture
def charlie(project: Project) -> User:
    return factories.member(project, Role.ANNOTATOR, name="Charlie")


def membership(project: Project, user: User) -> Membership:
    return Membership.objects.get(project=project, user=user)


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def invite(project: Project, by: User, role: Role = Role.ANNOTATOR, **fields: object) -> str:
    values = {"note": "", "places": 1, "days": 14} | fields
    _, token = members.invite(project=project, role=role, by=by, **values)
    return token


def test_change_role_is_recorded(project: Project, alice: User, bob: User) -> None:
    members.change_role(membership=membership(project, bob), role=Role.OWNER, by=alice)
    assert membership(project, bob).role == Role.OWNER
    event = AuditEvent.objects.get(project=project, verb="member.role")
    assert event.actor == alice
    assert event.data == {"before": "reviewer", "now": "owner"}


@pytest.mark.parametrize("role", [Role.REVIEWER, Role.ANNOTATOR])
def test_change_role_refuses_the_last_owner(
    project: Project, alice: User, bob: User, role: Role
) -> None:
    with pytest.raises(Conflict, match="needs an owner"):
        members.change_role(membership=membership(project, alice), role=role, by=alice)
    assert membership(project, alice).role == Role.OWNER


def test_remove_refuses_the_last_owner(project: Project, alice: User, bob: User) -> None:
    with pytest.raises(Conflict):
        members.remove(membership=membership(project, alice), by=alice)
    members.change_role(membership=membership(project, bob), role=Role.OWNER, by=alice)
    members.remove(membership=membership(project, alice), by=alice)
    assert not Membership.objects.filter(user=alice).exists()


def test_remove_gives_back_what_the_person_held(
    project: Project, alice: User, charlie: User
) -> None:
    task = factories.pairwise_task(project)
    rater = factories.raters.for_member(project=project, user=charlie)
    lease = queue.claim_next(project=rater.project, rater=rater)
    assert lease is not None
    members.remove(membership=membership(project, charlie), by=alice)
    other = factories.rater(project)
    again = queue.claim_next(project=other.project, rater=other)
    assert again is not None
    assert again.task_id == task.pk
    assert Assignment.objects.get(pk=lease.assignment_id).state == "expired"


@pytest.mark.django_db(transaction=True)
def test_two_owners_leaving_at_once_leave_one(project: Project, alice: User) -> None:
    other = factories.member(project, Role.OWNER)
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def leave(user: User) -> None:
        start.wait()
        try:
            members.remove(membership=membership(project, user), by=user)
            outcomes.append("left")
        except Conflict:
            outcomes.append("kept")
        finally:
            connection.close()

    threads = [threading.Thread(target=leave, args=[user]) for user in (alice, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["kept", "left"]
    assert Membership.objects.filter(project=project, role=Role.OWNER).count() == 1


def test_invite_stores_only_the_hash(project: Project, alice: User) -> None:
    token = invite(project, alice)
    stored = Invitation.objects.get(project=project)
    assert token not in str(Invitation.objects.filter(pk=stored.pk).values().get())
    assert members.open_invitation(token) == stored


@pytest.mark.parametrize("fields", [{"places": 0}, {"places": 1001}, {"days": 0}, {"days": 91}])
def test_invite_refuses_what_is_out_of_bounds(
    project: Project, alice: User, fields: dict[str, int]
) -> None:
    with pytest.raises(Invalid):
        invite(project, alice, **fields)


@pytest.mark.django_db(transaction=True)
def test_places_are_exact_under_a_race(project: Project, alice: User) -> None:
    places, people = 3, [factories.user() for _ in range(12)]
    token = invite(project, alice, places=places)
    start = threading.Barrier(len(people))
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def take(user: User) -> None:
        start.wait()
        try:
            members.accept(token=token, user=user)
            result = "in"
        except Gone:
            result = "gone"
        finally:
            connection.close()
        with lock:
            outcomes[result] += 1

    threads = [threading.Thread(target=take, args=[user]) for user in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"in": places, "gone": len(people) - places}
    assert Membership.objects.filter(project=project, role=Role.ANNOTATOR).count() == places
    assert Invitation.objects.get(project=project).used == places


@pytest.mark.parametrize(
    ("had", "offered", "has", "changed"),
    [
        (None, Role.ANNOTATOR, Role.ANNOTATOR, True),
        (None, Role.OWNER, Role.OWNER, True),
        (Role.ANNOTATOR, Role.REVIEWER, Role.REVIEWER, True),
        (Role.REVIEWER, Role.REVIEWER, Role.REVIEWER, False),
        (Role.OWNER, Role.ANNOTATOR, Role.OWNER, False),
        (Role.REVIEWER, Role.ANNOTATOR, Role.REVIEWER, False),
    ],
)
def test_accept_only_ever_raises_a_role(
    project: Project, alice: User, had: Role | None, offered: Role, has: Role, changed: bool
) -> None:
    token = invite(project, alice, offered)
    person = factories.member(project, had) if had else factories.user()
    accepted = members.accept(token=token, user=person)
    assert accepted.changed is changed
    assert membership(project, person).role == has
    assert Invitation.objects.get(project=project).used == int(changed)


def close(how: str, token: str, by: User) -> None:
    found = Invitation.objects.get(token_hash=members.hash_token(token))
    if how == "revoked":
        members.revoke(invitation=found, by=by)
    elif how == "expired":
        Invitation.objects.filter(pk=found.pk).update(expires_at=timezone.now())
    elif how == "used up":
        members.accept(token=token, user=factories.user())
    else:
        Project.objects.filter(pk=found.project_id).update(archived_at=timezone.now())


@pytest.mark.parametrize("how", ["revoked", "expired", "used up", "closed"])
def test_closed_invitation_is_gone_for_everyone(project: Project, alice: User, how: str) -> None:
    token = invite(project, alice)
    close(how, token, alice)
    newcomer = factories.user()
    with pytest.raises(Gone, match=how):
        members.accept(token=token, user=newcomer)
    for client in (Client(), signed_in(newcomer)):
        response = client.get(reverse("invitation", args=[token]))
        assert response.status_code == 410
        assert how in response.content.decode()
        # A link that is closed tells nothing about the project behind it.
        assert project.name not in response.content.decode()
    posted = signed_in(newcomer).post(reverse("invitation", args=[token]))
    assert posted.status_code == 410
    assert not Membership.objects.filter(user=newcomer).exists()


def test_unknown_token_is_not_found() -> None:
    with pytest.raises(NotFound):
        members.open_invitation("no-such-token")
    assert Client().get(reverse("invitation", args=["no-such-token"])).status_code == 404


def test_anonymous_holder_of_a_link_signs_up_and_accepts(project: Project, alice: User) -> None:
    client = Client()
    link = reverse("invitation", args=[invite(project, alice, Role.REVIEWER)])
    page = client.get(link)
    assert project.name in page.content.decode()
    assert INVITATION_KEY in client.session
    signed = client.post(
        reverse("account_signup"),
        {"name": "Nora", "email": "Nora@Example.org", "password1": "a-long-new-password-1"},
    )
    assert signed.status_code == 302
    assert signed["Location"] == link
    assert not Membership.objects.filter(user__email="nora@example.org").exists()
    accepted = client.post(link)
    assert accepted["Location"] == reverse("overview", args=[project.slug])
    person = User.objects.get(email="nora@example.org")
    assert person.name == "Nora"
    assert membership(project, person).role == Role.REVIEWER
    assert INVITATION_KEY not in client.session


def test_post_without_signing_in_leads_to_sign_in(project: Project, alice: User) -> None:
    link = reverse("invitation", args=[invite(project, alice)])
    response = Client().post(link)
    assert response.status_code == 302
    assert response["Location"].startswith(reverse("account_login"))


def test_members_are_told_that_they_are_in(project: Project, alice: User, bob: User) -> None:
    link = reverse("invitation", args=[invite(project, alice)])
    page = signed_in(bob).get(link).content.decode()
    assert "You are in already" in page
    assert "Accept</button>" not in page


def test_link_is_shown_once(project: Project, alice: User) -> None:
    client = signed_in(alice)
    made = client.post(
        reverse("invite", args=[project.slug]),
        {"role": "annotator", "places": "3", "days": "7", "note": "the Tuesday group"},
    )
    assert made.status_code == 200
    assert "no-store" in made["Cache-Control"]
    link = made.context["link"]
    assert link in made.content.decode()
    assert Client().get(link).status_code == 200
    later = client.get(reverse("members", args=[project.slug])).content.decode()
    assert link not in later
    assert "the Tuesday group" in later
    assert "0 of 3 used" in later


@pytest.mark.parametrize(
    "bad", [{"role": "god"}, {"places": "0"}, {"places": "many"}, {"days": "1000"}, {"role": ""}]
)
def test_invite_page_says_what_is_wrong(project: Project, alice: User, bad: dict[str, str]) -> None:
    values = {"role": "annotator", "places": "1", "days": "7", "note": ""} | bad
    response = signed_in(alice).post(reverse("invite", args=[project.slug]), values)
    assert response.status_code == 422
    assert not Invitation.objects.exists()


def test_owner_revokes_a_link_of_the_own_project_only(project: Project, alice: User) -> None:
    token = invite(project, alice)
    elsewhere = factories.project()
    foreign = invite(elsewhere, factories.member(elsewhere, Role.OWNER))
    client = signed_in(alice)
    for key, status in ((token, 302), (foreign, 404)):
        pk = Invitation.objects.get(token_hash=members.hash_token(key)).pk
        response = client.post(reverse("invite_revoke", args=[project.slug, pk]))
        assert response.status_code == status
    with pytest.raises(Gone):
        members.open_invitation(token)
    assert members.open_invitation(foreign)


def test_change_page_reaches_members_of_the_own_project_only(
    project: Project, alice: User, bob: User
) -> None:
    elsewhere = factories.project()
    foreign = membership(elsewhere, factories.member(elsewhere, Role.ANNOTATOR))
    client = signed_in(alice)
    response = client.post(
        reverse("member_change", args=[project.slug, foreign.pk]), {"role": "owner"}
    )
    assert response.status_code == 404
    own = membership(project, bob)
    url = reverse("member_change", args=[project.slug, own.pk])
    assert client.post(url, {"role": "annotator"}).status_code == 302
    assert membership(project, bob).role == Role.ANNOTATOR
    assert client.post(url, {"role": "emperor"}).status_code == 422
    assert client.post(url, {"remove": "1"}).status_code == 302
    assert not Membership.objects.filter(project=project, user=bob).exists()


def test_last_owner_is_told_why(project: Project, alice: User) -> None:
    url = reverse("member_change", args=[project.slug, membership(project, alice).pk])
    response = signed_in(alice).post(url, {"remove": "1"})
    assert response.status_code == 409
    assert "needs an owner" in response.content.decode()


def test_owner_who_steps_down_lands_on_the_projects(project: Project, alice: User) -> None:
    factories.member(project, Role.OWNER)
    url = reverse("member_change", args=[project.slug, membership(project, alice).pk])
    response = signed_in(alice).post(url, {"role": "annotator"})
    assert response["Location"] == reverse("projects")


def test_member_names_are_shown_as_text(project: Project, alice: User) -> None:
    factories.member(project, name="<script>alert(1)</script>")
    page = signed_in(alice).get(reverse("members", args=[project.slug])).content.decode()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_members_are_listed_in_pages(
    project: Project, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE", 2)
    others = [factories.member(project) for _ in range(4)]
    seen: list[int] = []
    after = None
    while True:
        page = queries.members(project, after=after)
        assert len(page.rows) <= 2
        seen += [row.user_id for row in page.rows]
        if page.next is None:
            break
        after = page.next
    assert seen == [alice.pk, *(other.pk for other in others)]


def test_member_list_counts_work_and_says_when(project: Project, alice: User) -> None:
    rater = factories.rater(project, name="Worker")
    factories.judgment(rater, factories.pairwise_task(project))
    row = next(r for r in queries.members(project).rows if r.user_id == rater.user_id)
    assert row.judged == 1
    assert row.last_at is not None
    assert timezone.now() - row.last_at < timedelta(minutes=1)


def test_member_page_costs_the_same_for_many(project: Project, alice: User) -> None:
    client, url = signed_in(alice), reverse("members", args=[project.slug])
    client.get(url)  # the session is looked up once more on its first use

    def cost() -> int:
        with CaptureQueriesContext(connection) as found:
            client.get(url)
        return len(found)

    factories.rater(project)
    few = cost()
    for _ in range(12):
        factories.rater(project)
    assert cost() == few
