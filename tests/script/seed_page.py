"""The seed page's workflow and script in its own words, apart from the imports and what it leaves out."""

import json
import logging
from collections.abc import Iterator

from app import RunEvent, RunResponse, SqliteWorkflowStorage, Workflow

logger = logging.getLogger(__name__)


class Writer:
    """Stands for an agent: its answer is the same each time."""

    run_response = RunResponse()

    def run(self, prompt: str, stream: bool = False) -> Iterator[RunResponse]:
        for piece in ("A post ", "about ", prompt):
            yield RunResponse(content=piece)
        self.run_response = RunResponse(content=f"A post about {prompt}")


class BlogPostGenerator(Workflow):
    writer = Writer()

    def run(self, topic: str, use_cache: bool = True) -> Iterator[RunResponse]:
        # Read from the session state cache
        if use_cache and "blog_posts" in self.session_state:
            logger.info("Checking if cached blog post exists")
            for cached_blog_post in self.session_state["blog_posts"]:
                if cached_blog_post["topic"] == topic:
                    logger.info("Found cached blog post")
                    yield RunResponse(
                        run_id=self.run_id,
                        event=RunEvent.workflow_completed,
                        content=cached_blog_post["blog_post"],
                    )
                    return

        yield from self.writer.run(topic, stream=True)

        # Save to session state for future runs
        if "blog_posts" not in self.session_state:
            self.session_state["blog_posts"] = []
        self.session_state["blog_posts"].append({"topic": topic, "blog_post": self.writer.run_response.content})


if __name__ == "__main__":
    # Create the workflow
    generate_blog_post = BlogPostGenerator(
        # Fix the session_id for this demo
        session_id="my-session-id",
        storage=SqliteWorkflowStorage(
            table_name="generate_blog_post_workflows",
            db_file="tmp/workflows.db",
        ),
    )
    for response in generate_blog_post.run(topic="bread"):
        print(json.dumps([response.event, response.content, response.run_id, response.session_id]))
