"""Promise 6: no state update is lost, a run's or a PATCH's that was answered 200; a stale If-Match is refused."""

import asyncio
from typing import Any

from app import Workflow
from tests.support.problems import problem_of
from tests.support.server import Client, running


class Slow(Workflow):
    """Changes what it is told to, while the test patches; ends when it may."""

    may_end: asyncio.Event
    at_work: asyncio.Event

    async def run(self, set: dict[str, Any], remove: list[str] | None = None, save: bool = False) -> None:
        Slow.at_work.set()
        self.session_state.update(set)
        for key in remove or []:
            del self.session_state[key]
        await Slow.may_end.wait()
        if save:
            await self.write_to_storage()
            raise ValueError("what was saved stays")


async def overlap(client: Client, start: dict[str, Any], patch: Any, **input: Any) -> tuple[Any, list[str]]:
    """The state after a run with a PATCH in its middle, and the conflicts that the run reported."""
    Slow.may_end, Slow.at_work = asyncio.Event(), asyncio.Event()
    session = (await client.post("/sessions", json={"workflow": "slow", "session_state": start})).json()["session_id"]
    run = await client.start("slow", {"session_id": session}, **input)
    await Slow.at_work.wait()
    assert (await client.patch(f"/sessions/{session}/state", json=patch)).status_code == 200
    Slow.may_end.set()
    await client.ended(run["run_id"])
    events = await client.events(run["run_id"])
    conflicts = [path for event in events if event.event == "StateSaved" for path in event.data["conflicts"]]
    return (await client.get(f"/sessions/{session}/state")).json(), conflicts


async def test_a_patch_during_a_run_and_the_run_both_stay(database_url: str) -> None:
    async with running(database_url, Slow) as client:
        for save in (False, True):
            state, conflicts = await overlap(client, {"a": 1}, {"theirs": 1}, set={"mine": 2}, save=save)
            assert (state, conflicts) == ({"a": 1, "theirs": 1, "mine": 2}, [])
            state, conflicts = await overlap(
                client, {"deep": {"a": 1, "b": 1}}, {"deep": {"a": 2}}, set={"deep": {"a": 1, "b": 2}}, save=save
            )
            assert (state, conflicts) == ({"deep": {"a": 2, "b": 2}}, [])
            state, conflicts = await overlap(client, {"gone": 1}, {"x": 1}, set={}, remove=["gone"], save=save)
            assert (state, conflicts) == ({"x": 1}, [])


async def test_where_both_changed_one_value_the_run_wins_and_says_so(database_url: str) -> None:
    async with running(database_url, Slow) as client:
        table: list[tuple[Any, Any, dict[str, Any], Any, list[str]]] = [
            ({"a": 0}, {"a": 1}, {"set": {"a": 2}}, {"a": 2}, ["/a"]),
            ({"a": 0}, {"a": 2}, {"set": {"a": 2}}, {"a": 2}, []),
            ({}, {"a": 1}, {"set": {"a": 2}}, {"a": 2}, ["/a"]),
            ({"a": 0}, {"a": None}, {"set": {"a": 2}}, {"a": 2}, ["/a"]),
            ({"a": 0}, {"a": 1}, {"set": {}, "remove": ["a"]}, {}, ["/a"]),
            ({"a": {"b": 0}}, {"a": {"b": 1}}, {"set": {"a": {"b": 2}}}, {"a": {"b": 2}}, ["/a/b"]),
            ({"a/b": 0}, {"a/b": 1}, {"set": {"a/b": 2}}, {"a/b": 2}, ["/a~1b"]),
            ({"a": 1}, {"a": 1.0}, {"set": {"a": 2}}, {"a": 2}, ["/a"]),
        ]
        for start, patch, done, expected, conflicts in table:
            assert await overlap(client, start, patch, **done) == (expected, conflicts), (start, patch, done)


async def test_the_value_that_lost_remains_in_the_history(database_url: str) -> None:
    async with running(database_url, Slow) as client:
        Slow.may_end, Slow.at_work = asyncio.Event(), asyncio.Event()
        run = await client.start("slow", {"session_id": "s"}, set={"a": "mine"})
        await Slow.at_work.wait()
        await client.patch("/sessions/s/state", json={"a": "theirs"})
        Slow.may_end.set()
        await client.ended(run["run_id"])
        assert (await client.get("/sessions/s/state")).json() == {"a": "mine"}
        assert (await client.get("/sessions/s/state?revision=1")).json() == {"a": "theirs"}


async def test_elements_appended_by_both_are_all_there(database_url: str) -> None:
    async with running(database_url, Slow) as client:
        state, conflicts = await overlap(client, {"l": [1]}, {"l": [1, 2]}, set={"l": [1, 3]})
        assert (sorted(state["l"]), conflicts) == ([1, 2, 3], [])


async def test_a_run_that_changes_nothing_undoes_nothing(database_url: str) -> None:
    async with running(database_url, Slow) as client:
        for patch, after in [({"a": 2}, {"a": 2}), ({"a": None}, {}), ({"a": [1]}, {"a": [1]})]:
            assert await overlap(client, {"a": 1}, patch, set={}) == (after, [])


async def test_patches_and_runs_in_a_heap_all_count(database_url: str) -> None:
    class Adder(Workflow):
        async def run(self, key: str) -> None:
            for part in range(3):
                self.session_state.setdefault("runs", {})[f"{key}.{part}"] = part
                await self.write_to_storage()
                await asyncio.sleep(0.001)

    async with running(database_url, Adder) as client:
        await client.post("/sessions", json={"workflow": "adder", "session_id": "s"})

        async def patch(number: int) -> None:
            for part in range(5):
                answer = await client.patch("/sessions/s/state", json={"patches": {f"{number}.{part}": part}})
                assert answer.status_code == 200
                assert answer.json()["patches"][f"{number}.{part}"] == part

        async def append(number: int) -> None:
            operations = [{"op": "add", "path": f"/appended{number}", "value": number}]
            headers = {"Content-Type": "application/json-patch+json"}
            answer = await client.request("PATCH", "/sessions/s/state", json=operations, headers=headers)
            assert answer.status_code == 200

        async def run(number: int) -> None:
            started = await client.start("adder", {"session_id": "s"}, key=f"{number}")
            assert (await client.events(started["run_id"]))[-1].data["status"] == "completed"

        await asyncio.gather(*(work(number) for number in range(12) for work in (patch, append, run)))
        state = (await client.get("/sessions/s/state")).json()
        assert state["patches"] == {f"{number}.{part}": part for number in range(12) for part in range(5)}
        assert state["runs"] == {f"{number}.{part}": part for number in range(12) for part in range(3)}
        assert {f"appended{number}" for number in range(12)} <= state.keys()
        session = (await client.get("/sessions/s")).json()
        assert session["revision"] == 12 * (5 + 1 + 3)


async def test_of_many_with_one_etag_one_writes(database_url: str) -> None:
    async with running(database_url, Slow) as client:
        await client.post("/sessions", json={"workflow": "slow", "session_id": "s", "session_state": {"n": 0}})
        answers = await asyncio.gather(
            *(
                client.patch("/sessions/s/state", json={"n": number, f"k{number}": 1}, headers={"If-Match": '"1"'})
                for number in range(1, 21)
            )
        )
        (winner,) = [answer for answer in answers if answer.status_code == 200]
        for answer in answers:
            if answer is not winner:
                assert problem_of(answer, 412)["etag"] == '"2"'
        assert (await client.get("/sessions/s/state")).json() == winner.json()


async def test_an_etag_goes_stale_by_a_run_too(database_url: str) -> None:
    async with running(database_url, Slow) as client:
        Slow.may_end, Slow.at_work = asyncio.Event(), asyncio.Event()
        Slow.may_end.set()
        await client.finish("slow", {"session_id": "s"}, set={"a": 1})
        etag = (await client.get("/sessions/s/state")).headers["etag"]
        await client.finish("slow", {"session_id": "s"}, set={"a": 2})
        headers = {"If-Match": etag}
        problem_of(await client.patch("/sessions/s/state", json={"a": 3}, headers=headers), 412)
        assert (await client.get("/sessions/s/state")).json() == {"a": 2}
