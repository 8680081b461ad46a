import pytest

from llamora.llm.addresses import display_address, is_loopback


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:8080/v1", True),
        ("http://localhost:11434", True),
        ("http://llamora.localhost.", True),
        ("http://192.168.1.4:8080", False),
        ("http://0.0.0.0:8080", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("https://api.example.com/v1", False),
        ("", False),
    ],
)
def test_knows_what_stays_on_this_machine(address: str, *, here: bool) -> None:
    assert is_loopback(address) is here


def test_shows_no_secret_of_an_address() -> None:
    assert (
        display_address("https://me:secret@model.example:8443/v1?key=secret")
        == "https://model.example:8443"
    )
    assert display_address("http://[::1]:8080/v1") == "http://[::1]:8080"
