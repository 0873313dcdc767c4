"""The base of the suite's workflows, in a module of its own: it is none itself."""

import asyncio
import time

from app import Workflow
from tests.conformance.calls import recorded


class Recording(Workflow):
    """What the workflows of the suite share."""

    def work(self, ledger: str, step: str, seconds: float) -> str:
        """Sync work: a step's function."""
        with recorded(ledger, self.run_id, step):
            time.sleep(seconds)
        return f"[{step}]"

    async def work_async(self, ledger: str, step: str, seconds: float) -> str:
        """The same without a thread."""
        with recorded(ledger, self.run_id, step):
            await asyncio.sleep(seconds)
        return f"[{step}]"

    def leave(self, word: str) -> None:
        """The run's last word."""
        self.session_state["runs"][str(self.run_id)] = word
