import pytest

from llamora.llm.addresses import display_address, display_endpoint, is_loopback, read_address


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


@pytest.mark.parametrize(
    ("given", "base", "root"),
    [
        ("http://h:1", "http://h:1/v1", "http://h:1"),
        ("http://h:1/v1/", "http://h:1/v1", "http://h:1"),
        (" http://h/llama ", "http://h/llama/v1", "http://h/llama"),
        ("https://h/v1beta/openai/", "https://h/v1beta/openai", "https://h"),
        (
            "https://h/api/coding/paas/v4",
            "https://h/api/coding/paas/v4",
            "https://h/api/coding/paas",
        ),
        ("https://h/v1/chat/completions#x", "https://h/v1", "https://h"),
        ("https://h/chat/completions?a=b", "https://h", "https://h"),
        ("https://v2.example/openai", "https://v2.example/openai/v1", "https://v2.example/openai"),
        ("http://v1/", "http://v1/v1", "http://v1"),
        ("", "", ""),
    ],
)
def test_an_address_is_read_as_it_was_given(given: str, base: str, root: str) -> None:
    where = read_address(given)
    assert (where.base, where.root) == (base, root)


def test_an_endpoint_is_shown_without_secrets() -> None:
    given = "https://me:secret@h:8443/v1beta/openai?key=secret"
    assert display_endpoint(given) == "https://h:8443/v1beta/openai/chat/completions"
    assert display_endpoint(given, "/props") == "https://h:8443/props"
