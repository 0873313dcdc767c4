"""The e-mail generator."""

from typing import Any

import pytest

from app.agents.errors import ModelFailed
from app.agents.models import local_model_file
from app.errors import Invalid
from app.workflows.email_generator import EmailGenerator, Lead

from .conftest import Web

LEADS = [
    Lead(company="Rye & Co", contact="Ada", notes="They bake at night."),
    Lead(company="a/b~c", contact="Ben"),
]


@pytest.mark.usefixtures("allow_private")
def test_an_email_for_each_lead_and_the_state_saved_after_each(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(
        EmailGenerator, "write_to_storage", lambda self: saved.append(len(self.session_state["generated_emails"]))
    )
    workflow = EmailGenerator()
    leads = [*LEADS, Lead(company="Web", contact="Cy", website=f"{web.url}/text")]
    responses = list(workflow.run(leads=leads, sender="Dan", offer="flour"))
    assert saved == [1, 2, 3]
    assert [(response.content["done"], response.content["total"]) for response in responses[:-1]] == [
        (0, 3),
        (1, 3),
        (2, 3),
        (3, 3),
    ]
    emails = workflow.session_state["generated_emails"]
    assert responses[-1].event == "WorkflowCompleted"
    assert responses[-1].content == emails
    assert emails.keys() == {"Rye & Co", "a/b~c", "Web"}
    assert (
        "to Ada of Rye & Co from Dan. Offer them flour. What we know of them: They bake at night." in emails["Rye & Co"]
    )
    assert "Rye keeps for a week." in emails["Web"]
    assert "What we know" not in emails["a/b~c"]


def test_what_was_written_is_not_written_again() -> None:
    state: dict[str, Any] = {"generated_emails": {"Rye & Co": "Dear Ada"}}
    workflow = EmailGenerator(session_state=state)
    *_, last = workflow.run(leads=LEADS)
    assert last.content["Rye & Co"] == "Dear Ada"
    *_, last = workflow.run(leads=LEADS, use_email_cache=False)
    assert last.content["Rye & Co"] != "Dear Ada"


def test_earlier_leads_survive_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    workflow = EmailGenerator()
    responses = workflow.run(leads=LEADS)
    while next(responses).content["done"] < 1:
        continue
    monkeypatch.setenv("MILLSTREAM_MODEL", "nobody:nothing")
    with pytest.raises(ModelFailed):
        list(responses)
    assert workflow.session_state["generated_emails"].keys() == {"Rye & Co"}


def test_a_website_that_cannot_be_read_is_done_without() -> None:
    workflow = EmailGenerator()
    list(workflow.run(leads=[Lead(company="Inside", contact="Eve", website="http://127.0.0.1/")]))
    assert workflow.session_state["company_research"] == {"Inside": ""}


def test_two_leads_of_one_company_are_refused() -> None:
    with pytest.raises(Invalid, match="Rye & Co"):
        list(EmailGenerator().run(leads=[LEADS[0], LEADS[0]]))


@pytest.mark.local_model
@pytest.mark.skipif(local_model_file() is None, reason="the extra local-llm is not installed")
def test_the_local_model_writes_an_email(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILLSTREAM_MODEL")
    *_, last = EmailGenerator().run(leads=LEADS[:1])
    assert last.content["Rye & Co"]
