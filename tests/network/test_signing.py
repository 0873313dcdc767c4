"""Signatures are those of the specification of Standard Webhooks."""

import base64

import pytest

from app.network.signing import is_secret, new_secret, signatures

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, SECOND, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'


def test_the_example_of_the_specification() -> None:
    assert signatures([SECRET], ID, SECOND, BODY) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_secrets_make_two_signatures() -> None:
    other = new_secret()
    both = signatures([other, SECRET], ID, SECOND, BODY).split(" ")
    assert both == [signatures([secret], ID, SECOND, BODY) for secret in (other, SECRET)]


def test_what_a_secret_is() -> None:
    assert is_secret(SECRET)
    assert is_secret(new_secret())
    assert new_secret() != new_secret()
    for wrong in ("", "whsec_", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), "whsec_" + "A" * 100, "whsec_ä"):
        assert not is_secret(wrong)


@pytest.mark.parametrize("length", [24, 64])
def test_secrets_of_callers_have_a_length(length: int) -> None:
    assert is_secret("whsec_" + base64.b64encode(b"x" * length).decode())
    wrong = 23 if length == 24 else 65
    assert not is_secret("whsec_" + base64.b64encode(b"x" * wrong).decode())
