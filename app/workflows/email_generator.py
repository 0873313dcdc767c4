"""Personal e-mails to a list of leads: a step for each, and the state saved after each."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from app import Agent, RunEvent, RunResponse, Workflow
from app.errors import Invalid
from app.workflows.sources.articles import SourceFailed
from app.workflows.sources.finding import read

RESEARCH_CHARACTERS = 400
"""What is kept of a company's page; as much as a small model can use."""


class Lead(BaseModel):
    """Somebody to write to."""

    company: str
    contact: str
    website: str | None = None
    notes: str = ""


class EmailGenerator(Workflow):
    """Write a personal e-mail to each lead, from its notes and its company's website.

    `company_research` and `generated_emails` in the session's state hold, by company, what is done: should a lead fail,
    the ones before it are kept, and the next run begins with the one that failed.
    """

    writer = Agent(instructions="Write a short, friendly e-mail, nothing else: a greeting, two sentences, a closing.")

    def run(
        self,
        leads: list[Lead],
        *,
        sender: str = "Alex of Millstream",
        offer: str = "a server that runs your workflows and never loses one",
        use_research_cache: bool = True,
        use_email_cache: bool = True,
    ) -> Iterator[RunResponse]:
        """`offer` is what the e-mails are about."""
        _check(leads)
        research: dict[str, str] = self.session_state.setdefault("company_research", {})
        emails: dict[str, str] = self.session_state.setdefault("generated_emails", {})
        yield _progress(0, leads)
        for done, lead in enumerate(leads, 1):
            if not (use_email_cache and lead.company in emails):
                if not (use_research_cache and lead.company in research):
                    research[lead.company] = self.step(look_up, lead.website, name="research") if lead.website else ""
                answer = self.writer.run(_prompt(lead, research[lead.company], sender=sender, offer=offer))
                emails[lead.company] = answer.content
                self.write_to_storage()  # whatever happens to the next lead, this one is done
            yield _progress(done, leads, lead)
        written = {lead.company: emails[lead.company] for lead in leads}
        yield RunResponse(event=RunEvent.workflow_completed, content=written)


def _check(leads: Sequence[Lead]) -> None:
    companies = [lead.company for lead in leads]
    if twice := {company for company in companies if companies.count(company) > 1}:
        raise Invalid(f"two leads are of one company: {', '.join(sorted(twice))}; e-mails are kept by company")


async def look_up(website: str) -> str:
    """What the page says first; nothing when it cannot be read, for an e-mail can do without."""
    try:
        article = await read(website)
    except SourceFailed:
        return ""
    return (article.content or "")[:RESEARCH_CHARACTERS]


def _progress(done: int, leads: Sequence[Lead], lead: Lead | None = None) -> RunResponse:
    facts: dict[str, Any] = {"company": lead.company} if lead else {}
    return RunResponse(event="Writing", content={"done": done, "total": len(leads), **facts})


def _prompt(lead: Lead, research: str, *, sender: str, offer: str) -> str:
    facts = " ".join(part for part in (lead.notes, research) if part)
    about = f" What we know of them: {facts}" if facts else ""
    return f"Write an e-mail to {lead.contact} of {lead.company} from {sender}. Offer them {offer}.{about}"
