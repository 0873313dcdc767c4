"""The shortest workflow."""

from app.workflows.hello import Hello


def test_greetings_are_counted_in_the_session() -> None:
    hello = Hello()
    assert [response.content for response in hello.run()] == ["Hello, world! Greeting number 1 of this session."]
    assert [response.content for response in hello.run(name="Ada")] == [
        "Hello, Ada! Greeting number 2 of this session."
    ]
    assert hello.session_state == {"greetings": 2}
