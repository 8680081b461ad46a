"""The model client against a server that does everything wrong that a server can do wrong."""

import asyncio
import datetime as dt
import ipaddress
import json
import logging
import socket
import ssl
import subprocess
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamora.llm.client import (
    Message,
    ModelClient,
    ModelError,
    display_address,
    estimate_tokens,
    is_loopback,
)
from llamora.settings import LlmSettings
from tests.scripted_model import Fault, Reply, ScriptedModel

SECRET = "the affair at Brampton"
KEY = "sk-very-private"
ASK = [Message("system", "Answer."), Message("user", SECRET)]
QUICK = LlmSettings(timeout_seconds=1.0)


async def say(client: ModelClient, max_tokens: int = 50) -> tuple[str, ModelError | None]:
    """The text that came, and how it failed."""
    text = ""
    try:
        async for piece in client.stream(ASK, max_tokens=max_tokens):
            text += piece
    except ModelError as error:
        return text, error
    return text, None


def assert_discreet(error: ModelError) -> None:
    chain: BaseException | None = error
    while chain is not None:
        for private in (SECRET, KEY, "Answer."):
            assert private not in repr(chain)
            assert private not in str(getattr(chain, "__dict__", ""))
        chain = chain.__cause__ or chain.__context__
    assert error.sentence.endswith(".")
    assert "\n" not in error.sentence


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_streams_what_the_server_says(suffix: str) -> None:
    async with ScriptedModel(api_key=KEY) as model:
        model.script(Reply(["You ", "were", " out 🪶", ".\n"]))
        client = ModelClient(model.url + suffix, KEY, LlmSettings(temperature=0.3))
        pieces = [
            p async for p in client.stream(ASK, max_tokens=9, stop=["END"], extra={"grammar": "g", "temperature": 0.9})
        ]
        await client.close()
    assert pieces == ["You ", "were", " out 🪶", ".\n"]
    [chat] = model.chat_requests
    assert chat.body["messages"] == [{"role": "system", "content": "Answer."}, {"role": "user", "content": SECRET}]
    assert chat.body["max_tokens"] == 9
    assert chat.body["stop"] == ["END"]
    assert chat.body["grammar"] == "g"
    assert chat.body["temperature"] == 0.9
    assert chat.body["model"] == "scripted"


async def test_tells_the_server_nothing_it_need_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Custom: something")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with ScriptedModel() as model:
        client = ModelClient(model.url, KEY, QUICK, model="m")
        assert (await say(client))[1] is None
        await client.close()
    [chat] = model.chat_requests
    assert set(chat.headers) <= {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "authorization",
        "content-type",
        "content-length",
    }
    assert chat.headers["authorization"] == f"Bearer {KEY}"
    assert chat.headers["connection"] == "close"  # a kept one may be dead, and a reply is never asked for twice


STATUSES = [
    (401, "", "refused", "api_key"),
    (403, "", "refused", "api_key"),
    (404, "", "refused", "model"),
    (400, '{"error": {"message": "PRIVATE", "type": "exceed_context_size_error"}}', "too_long", "context_tokens"),
    (400, '{"error": {"message": "PRIVATE", "code": "context_length_exceeded"}}', "too_long", "context_tokens"),
    (400, '{"error": {"code": "unsupported_value", "param": "temperature"}}', "refused", "temperature"),
    (400, '{"error": {"code": "unsupported_parameter", "param": "max_tokens"}}', "refused", "400"),
    (422, "PRIVATE", "refused", "422"),
    (429, "", "busy", "minute"),
    (500, f'{{"error": {{"message": "PRIVATE {SECRET}"}}}}', "broken", "500"),
    (503, '{"error": {"message": "Loading model"}}', "busy", "minute"),
    (302, "", "refused", "address"),
]


@pytest.mark.parametrize(("status", "body", "kind", "word"), STATUSES)
async def test_a_status_becomes_a_sentence(status: int, body: str, kind: str, word: str) -> None:
    async with ScriptedModel() as model:
        model.script(
            Reply(fault="status", status=status, body=body, headers={"location": "http://127.0.0.1:1/v1/elsewhere"})
        )
        client = ModelClient(model.url, KEY, QUICK, model="m")
        text, error = await say(client)
        await client.close()
    assert text == ""
    assert error is not None
    assert error.kind == kind
    assert word in error.sentence
    assert "PRIVATE" not in error.sentence
    assert_discreet(error)
    assert len(model.chat_requests) == 1  # never asked twice


FAULTS = [
    (Reply(fault="hang_before_headers"), "", "broken"),
    (Reply(["You "], fault="hang"), "You ", "broken"),
    (Reply(["You "], fault="drip_comments"), "You ", "broken"),
    (Reply(["You "], fault="cut"), "You ", "broken"),
    (Reply(["You "], fault="cut_quietly"), "You ", "broken"),
    (Reply(["You "], fault="cut_in_character"), "You ", "broken"),
    (Reply(fault="not_sse"), "", "broken"),
    (Reply(["You "], fault="giant_line"), "You ", "broken"),
    (Reply(["You "], fault="endless_comments"), "You ", "broken"),
    (Reply(["You "], fault="bad_json"), "You ", "broken"),
    (Reply(["You "], fault="error_event"), "You ", "broken"),
    (Reply(["You "], fault="compressed"), "", "broken"),
    (Reply(["You "], fault="endless_thought"), "You ", "too_long"),
    (Reply(fault="not_http"), "", "broken"),
]


@pytest.mark.parametrize(("reply", "kept", "kind"), FAULTS, ids=[r.fault for r, _, _ in FAULTS])
async def test_a_failing_stream_becomes_a_sentence(
    reply: Reply, kept: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with ScriptedModel() as model:
        model.script(reply)
        client = ModelClient(model.url, KEY, QUICK, model="m")
        text, error = await say(client)
        assert text == kept
        assert error is not None
        assert error.kind == kind, error.sentence
        assert_discreet(error)
        [chat] = model.chat_requests
        await asyncio.wait_for(chat.ended.wait(), 60)  # the server's slot is free
        # A socket takes some megabytes more than its reader has asked for.
        assert chat.bulk_bytes < {"giant_line": 16 << 20, "endless_comments": 64 << 20}.get(reply.fault, 1)
        # and the next reply is not the worse for it
        assert await say(client) == ("It was a quiet day.", None)
        await client.close()
    assert SECRET not in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("piece", ["word ", "word " * 50])
async def test_an_endless_reply_is_ended_and_what_came_is_kept(piece: str) -> None:
    async with ScriptedModel() as model:
        model.script(Reply([piece], fault="endless"))
        client = ModelClient(model.url, KEY, QUICK, model="m")
        text, error = await say(client, max_tokens=20)
        assert error is not None
        assert error.kind == "too_long"
        assert set(text.split()) == {"word"}
        assert len(text) <= 20 * 32
        await asyncio.wait_for(model.chat_requests[0].ended.wait(), 60)
        await client.close()


async def test_a_reply_that_said_its_last_word_is_complete() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["Done."], fault="no_done"), Reply(["Long"], finish_reason="length"))
        client = ModelClient(model.url, "", replace(QUICK, timeout_seconds=30), model="m")
        assert await say(client) == ("Done.", None)
        assert await say(client) == ("Long", None)
        await client.close()


async def test_words_that_look_like_the_end_are_not_the_end() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["It ends with", " [DONE]"], fault="cut_quietly"))
        client = ModelClient(model.url, "", QUICK, model="m")
        text, error = await say(client)
        assert text == "It ends with [DONE]"
        assert error is not None
        assert error.kind == "broken"
        await client.close()


async def test_characters_cut_in_two_are_joined() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["a ", "\ud83e", "\udeb6", " b", "\udeb6"], ascii_json=True))
        client = ModelClient(model.url, "", QUICK, model="m")
        pieces = [p async for p in client.stream(ASK, max_tokens=50)]
        await client.close()
    for piece in pieces:
        piece.encode()
    assert "".join(pieces) == "a 🪶 b\ufffd"


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = ModelClient(f"http://127.0.0.1:{port}", KEY, QUICK, model="m")
    text, error = await say(client)
    assert text == ""
    assert error is not None
    assert error.kind == "unreachable"
    assert f"127.0.0.1:{port}" in error.sentence
    assert_discreet(error)
    await client.close()


async def test_a_name_nobody_knows() -> None:
    client = ModelClient("http://user:hidden@model.invalid:8080/v1", KEY, QUICK, model="m")
    _, error = await say(client)
    assert error is not None
    assert error.kind == "unreachable"
    assert "name" in error.sentence
    assert "hidden" not in error.sentence
    assert_discreet(error)
    await client.close()


async def test_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    async with ScriptedModel(tls=own_certificate(tmp_path)) as model:
        client = ModelClient(model.url, KEY, QUICK, model="m")
        _, error = await say(client)
        await client.close()
    assert error is not None
    assert error.kind == "unreachable"
    assert "certificate" in error.sentence
    assert model.requests == []
    assert_discreet(error)


async def test_closing_the_stream_frees_the_slot_at_once() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["a"] * 500, piece_delay=0.05))
        client = ModelClient(model.url, "", LlmSettings(), model="m")
        async with aclosing(client.stream(ASK, max_tokens=600)) as pieces:
            async for _ in pieces:
                break
        await asyncio.wait_for(model.chat_requests[0].ended.wait(), 60)
        assert model.chat_requests[0].is_client_gone
        assert model.active_streams == 0
        await client.close()


@pytest.mark.parametrize("fault", ["hang_before_headers", "hang"])
async def test_cancelling_the_reader_frees_the_slot_at_once(fault: Fault) -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["a"], fault=fault))
        client = ModelClient(model.url, "", LlmSettings(), model="m")
        reader = asyncio.create_task(say(client))
        await model.chat_started.wait()
        await asyncio.sleep(0.05)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await asyncio.wait_for(model.chat_requests[0].ended.wait(), 60)
        assert model.chat_requests[0].is_client_gone
        await client.close()


async def test_twenty_replies_at_once_stay_apart() -> None:
    async with ScriptedModel() as model:
        model.script(*(Reply([f"{n}:", *("x" * 20)], piece_delay=0.001) for n in range(20)))
        client = ModelClient(model.url, "", LlmSettings(), model="m")
        said = await asyncio.gather(*(say(client) for _ in range(20)))
        await client.close()
    assert sorted(text for text, _ in said) == sorted(f"{n}:" + "x" * 20 for n in range(20))


async def test_counts_with_the_servers_own_tokenizer_in_one_request() -> None:
    async with ScriptedModel() as model:
        client = ModelClient(model.url, "", QUICK)
        assert await client.count_many(["one two three", "", "four."]) == [3, 0, 2]
        assert await client.count_tokens("one two") == 2
        await client.close()
    assert [a.path for a in model.requests] == ["/tokenize", "/tokenize"]


async def test_what_is_only_counted_is_sent_to_no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamora.llm.client.is_loopback", lambda address: False)
    async with ScriptedModel() as model:
        client = ModelClient(model.url, "", QUICK)
        assert await client.count_many(["one two three", ""]) == [estimate_tokens("one two three"), 0]
        assert not client.has_tokenizer
        await client.close()
    assert model.requests == []


async def test_estimates_where_there_is_no_tokenizer_and_does_not_ask_again() -> None:
    async with ScriptedModel(tokenizer=False) as model:
        client = ModelClient(model.url, "", QUICK)
        text = "We walked along the river until the rain came. " * 3
        assert await client.count_tokens(text) == estimate_tokens(text)
        await client.count_tokens("again")
        await client.close()
    assert len(model.requests) == 1


async def test_counting_never_fails() -> None:
    client = ModelClient("http://127.0.0.1:9", "", QUICK)
    assert await client.count_tokens("a few words") > 0
    await client.close()


@given(st.text())
def test_the_estimate_grows_with_the_text(text: str) -> None:
    assert 0 <= estimate_tokens(text) <= 2 * len(text)
    assert estimate_tokens(text + " and a heron") > estimate_tokens(text)


async def test_describes_the_server() -> None:
    async with ScriptedModel(models=["heron-8b"], context_tokens=2048) as model:
        client = ModelClient(model.url + "/v1", KEY, QUICK)
        info = await client.describe()
        assert await client.describe() == info
        await client.close()
    assert info.name == "heron-8b"
    assert info.endpoint == model.url
    assert info.is_local
    assert not info.is_embedded
    assert info.context_tokens == 2048
    assert len(model.requests) == 2  # remembered
    async with ScriptedModel(props=False) as model:
        client = ModelClient(model.url, KEY, QUICK, model="chosen")
        info = await client.describe()
        await client.close()
    assert (info.name, info.context_tokens) == ("chosen", QUICK.context_tokens)


async def test_a_client_of_nothing_says_so() -> None:
    client = ModelClient(lambda: "", "", QUICK, embedded=True)
    _, error = await say(client)
    assert error is not None
    assert error.kind == "unreachable"
    await client.close()
    await client.close()


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
    assert display_address("https://me:secret@model.example:8443/v1?key=secret") == "https://model.example:8443"
    assert display_address("http://[::1]:8080/v1") == "http://[::1]:8080"


def test_importing_the_client_imports_no_sdk() -> None:
    import subprocess
    import sys

    code = "import sys, llamora.llm.client, llamora.llm.embedded; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", "import json;" + code], capture_output=True, check=True, text=True)
    assert not {"openai", "httpx2", "xllamacpp"} & set(json.loads(out.stdout))


def own_certificate(folder: Path) -> ssl.SSLContext:
    """A server context with a certificate of an authority that nobody knows."""
    return server_certificate(folder)[0]


def server_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server context, and the certificate of the authority that signed its own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = dt.datetime.now(dt.UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "home")])
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)

    def sign(name: str, public_key: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType) -> bytes:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(root_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority = folder / "authority.pem"
    authority.write_bytes(
        sign(
            "home",
            root_key.public_key(),
            x509.BasicConstraints(ca=True, path_length=0),
            signs,
            root_id,
        )
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + sign(
            "127.0.0.1",
            key.public_key(),
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, authority


# Another thread (in the server it is fastembed's) has begun to import httpx, slowly, when the first reply is asked for.
SLOW_IMPORT = """
import asyncio, importlib.util, sys, threading, time
import openai.resources.chat
from llamora.llm.client import Message, ModelClient
from llamora.settings import LlmSettings

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name != "httpx":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def slowly(module):
            begun.set()
            time.sleep(3)
            execute(module)
        spec.loader.exec_module = slowly
        return spec

async def ask():
    client = ModelClient(sys.argv[1], "", LlmSettings())
    print("".join([piece async for piece in client.stream([Message("user", "Well?")], max_tokens=9)]))
    await client.close()

begun = threading.Event()
sys.meta_path.insert(0, Slow())
importing = threading.Thread(target=lambda: __import__("httpx"))
importing.start()
begun.wait()
asyncio.run(ask())
importing.join()
"""


async def test_the_first_reply_waits_for_a_module_that_another_thread_imports() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["Well."]))
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SLOW_IMPORT, model.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, errors = await child.communicate()
    assert (said.decode().strip(), child.returncode) == ("Well.", 0), errors.decode()[-2000:]
