"""What a server does wrong becomes a sentence."""

import asyncio
import datetime as dt
import ipaddress
import logging
import socket
import ssl
from pathlib import Path

import pytest

from llamora.llm.client import ModelClient
from llamora.messages import sentence
from tests.llm.asking import KEY, QUICK, SECRET, assert_discreet, say
from tests.scripted_model import Reply, ScriptedModel

STATUSES = [
    (401, "", "refused", "api_key"),
    (403, "", "refused", "api_key"),
    (402, "", "refused", "paid"),
    (404, "", "refused", "/v1/chat/completions"),
    (404, '{"error": {"message": "model \'m\' not found"}}', "refused", "llm.upstream.model"),
    (405, "", "refused", "path"),
    (413, "PRIVATE", "too_long", "size"),
    (
        400,
        '{"error": {"message": "PRIVATE", "type": "exceed_context_size_error"}}',
        "too_long",
        "context_tokens",
    ),
    (
        400,
        '{"error": {"message": "PRIVATE", "code": "context_length_exceeded"}}',
        "too_long",
        "context_tokens",
    ),
    (
        400,
        '{"error": {"code": "unsupported_value", "param": "temperature"}}',
        "refused",
        "temperature",
    ),
    (400, '{"error": {"code": "unsupported_parameter", "param": "max_tokens"}}', "refused", "400"),
    (422, "PRIVATE", "refused", "422"),
    (429, "", "busy", "minute"),
    (429, '{"error": {"code": "insufficient_quota"}}', "refused", "paid"),
    (500, f'{{"error": {{"message": "PRIVATE {SECRET}"}}}}', "broken", "500"),
    (503, '{"error": {"message": "Loading model"}}', "busy", "minute"),
    (302, "", "refused", "address"),
]


@pytest.mark.parametrize(("status", "body", "kind", "word"), STATUSES)
async def test_a_status_becomes_a_sentence(status: int, body: str, kind: str, word: str) -> None:
    async with ScriptedModel() as model:
        model.script(
            Reply(
                fault="status",
                status=status,
                body=body,
                headers={"location": "http://127.0.0.1:1/v1/elsewhere"},
            )
        )
        client = ModelClient(model.url, KEY, QUICK, model="m")
        text, error = await say(client)
        await client.close()
    assert text == ""
    assert error is not None
    assert error.kind == kind
    assert word in sentence(error)
    assert "PRIVATE" not in sentence(error)
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
        assert error.kind == kind, sentence(error)
        assert_discreet(error)
        [chat] = model.chat_requests
        await asyncio.wait_for(chat.ended.wait(), 60)  # the server's slot is free
        # A socket takes some megabytes more than its reader has asked for.
        assert chat.bulk_bytes < {"giant_line": 16 << 20, "endless_comments": 64 << 20}.get(
            reply.fault, 1
        )
        # and the next reply is not the worse for it
        assert await say(client) == ("It was a quiet day.", None)
        await client.close()
    assert SECRET not in caplog.text
    assert KEY not in caplog.text


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    client = ModelClient(f"http://127.0.0.1:{port}", KEY, QUICK, model="m")
    text, error = await say(client)
    assert text == ""
    assert error is not None
    assert error.kind == "unreachable"
    assert f"127.0.0.1:{port}" in sentence(error)
    assert_discreet(error)
    await client.close()


async def test_a_name_nobody_knows() -> None:
    client = ModelClient("http://user:hidden@model.invalid:8080/v1", KEY, QUICK, model="m")
    _, error = await say(client)
    assert error is not None
    assert error.kind == "unreachable"
    assert "name" in sentence(error)
    assert "hidden" not in sentence(error)
    assert_discreet(error)
    await client.close()


async def test_a_certificate_nobody_vouches_for(tmp_path: Path) -> None:
    async with ScriptedModel(tls=own_certificate(tmp_path)) as model:
        client = ModelClient(model.url, KEY, QUICK, model="m")
        _, error = await say(client)
        await client.close()
    assert error is not None
    assert error.kind == "unreachable"
    assert "certificate" in sentence(error)
    assert model.requests == []
    assert_discreet(error)


async def test_a_client_of_nothing_says_so() -> None:
    client = ModelClient(lambda: "", "", QUICK, embedded=True)
    _, error = await say(client)
    assert error is not None
    assert error.kind == "unreachable"
    await client.close()
    await client.close()


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

    def sign(
        name: str, public_key: ec.EllipticCurvePublicKey, *extensions: x509.ExtensionType
    ) -> bytes:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(
            now + dt.timedelta(days=1)
        )
        for extension in extensions:
            builder = builder.add_extension(
                extension, critical=isinstance(extension, x509.BasicConstraints)
            )
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
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
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
