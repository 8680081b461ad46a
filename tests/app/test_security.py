"""The edge: who may ask what, from where, and what every answer carries."""

import base64
import logging
import re
import struct
from collections.abc import Mapping

import pytest

from llamora.app.edge import csrf
from llamora.app.edge.forms import MAX_FIELDS
from llamora.app.edge.hosts import HOST_PATTERN
from llamora.settings import EntrySettings, ServerSettings, SessionSettings
from tests.app.conftest import PASSPHRASE, PageResponse, RunningApp, Start, settings_for_model
from tests.scripted_model import Reply, ScriptedModel

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
WRITING = {"text": "from elsewhere"}
PATH = "/d/2026-11-20/entries"


async def nothing_was_written(app: RunningApp) -> bool:
    return not await app.services.db.entries.revisions(app.keys().user_id)


# -- what every answer carries -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/d/today", "/d/nonsense", "/search", "/you", "/sign-in", "/reset", "/e/00", "/nowhere"],
)
async def test_every_page_is_dressed(app: RunningApp, path: str) -> None:
    alice = await app.visitor()
    for visitor in (alice, app.anonymous()):
        headers = (await visitor.get(path)).headers
        assert headers.getlist("Content-Security-Policy") == [CSP]
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Permissions-Policy"].startswith("camera=(), microphone=(), geolocation=()")
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Server" not in headers


async def test_pages_hold_no_inline_script_or_style(app: RunningApp) -> None:
    alice = await app.visitor()
    await alice.write("<script>alert(1)</script> *hm* <p style='color:red' onclick=x>")
    for path in ("/d/2026-11-20", "/you", "/search", "/nowhere"):
        tags = re.findall(r"<[a-z][^>]*>", (await alice.get(path)).text)
        assert len(tags) > 20, path
        for tag in tags:
            assert not re.search(
                r"<script(?!.*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", tag
            ), (path, tag)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_flags_of_cookies(app: RunningApp, scheme: str) -> None:
    stranger = app.anonymous(scheme=scheme)
    page = await stranger.get("/sign-in")
    form = {"csrf": stranger.cookie("llamora_csrf"), "name": "Alice", "passphrase": PASSPHRASE}
    if (
        scheme == "https"
    ):  # Python's jar keeps Secure cookies from the test client, which has no address
        jar = {
            c.split("=")[0]: c.split(";")[0].split("=", 1)[1]
            for c in page.headers.getlist("Set-Cookie")
        }
        for name, value in jar.items():
            stranger.set_cookie(name, value)
        form["csrf"] = jar["__Host-llamora_csrf"]
    opened = await stranger.post("/sign-in", form)
    assert opened.status == 303
    cookies = {c.split("=")[0]: set(c.split("; ")[1:]) for c in page.headers.getlist("Set-Cookie")}
    cookies |= {
        c.split("=")[0]: set(c.split("; ")[1:]) for c in opened.headers.getlist("Set-Cookie")
    }
    secure = {"Secure"} if scheme == "https" else set()
    prefix = "__Host-" if secure else ""
    device = {flag for flag in cookies.pop(f"{prefix}llamora_device") if "=" not in flag}
    assert device == {"HttpOnly"} | secure
    assert cookies == {
        f"{prefix}llamora": {"HttpOnly", "SameSite=Lax", "Path=/"} | secure,
        f"{prefix}llamora_visit": {"HttpOnly", "SameSite=Strict", "Path=/"} | secure,
        f"{prefix}llamora_csrf": {"SameSite=Strict", "Path=/"} | secure,
    }


async def test_a_proxy_is_believed_only_when_there_is_one(start: Start) -> None:
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.9, 198.51.100.7"}
    alone = await start()
    assert "Secure" not in str(
        (await alone.anonymous(forwarded).get("/sign-in")).headers.getlist("Set-Cookie")
    )
    await alone.stop()
    behind = await start(server=ServerSettings(behind_proxy=True))
    assert "Secure" in str(
        (await behind.anonymous(forwarded).get("/sign-in")).headers.getlist("Set-Cookie")
    )
    assert "Secure" not in str(
        (await behind.anonymous().get("/sign-in")).headers.getlist("Set-Cookie")
    )


async def test_a_browser_is_told_to_stay_with_tls_where_there_is_tls(start: Start) -> None:
    app = await start(server=ServerSettings(behind_proxy=True))
    secure = await app.anonymous({"X-Forwarded-Proto": "https"}).get("/sign-in")
    assert re.search(r"max-age=[1-9]", secure.headers.get("Strict-Transport-Security", ""))
    assert "Strict-Transport-Security" not in (await app.anonymous().get("/sign-in")).headers


# -- names of this server ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:5151", "127.0.0.1:80", "[::1]:5151", "llamora.localhost:5151"]
)
async def test_its_own_names_are_answered(app: RunningApp, host: str) -> None:
    assert (await app.anonymous({"Host": host}).get("/sign-in")).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:5151",
        "[::2]",
        "",
        "127.0.0.1.nip.io",
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/healthz", "/static/css/main.css"])
async def test_a_foreign_name_gets_no_page_and_no_cookie(
    app: RunningApp, host: str, path: str
) -> None:
    answer = await app.anonymous({"Host": host}).get(path)
    assert answer.status == 400
    assert "<" not in answer.text
    assert "Set-Cookie" not in answer.headers


async def test_the_operator_adds_names(start: Start) -> None:
    app = await start(server=ServerSettings(hosts=("journal.example",)))
    assert (await app.anonymous({"Host": "journal.example"}).get("/sign-in")).status == 200
    assert (await app.anonymous({"Host": "localhost"}).get("/sign-in")).status == 400


async def test_the_operator_adds_a_name_with_a_low_line(start: Start) -> None:
    app = await start(server=ServerSettings(hosts=("my_journal",)))
    assert (await app.anonymous({"Host": "my_journal"}).get("/sign-in")).status == 200


# -- where a request comes from ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "nonsense"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:1234"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://evil.example//localhost"},
    ],
)
async def test_what_comes_from_another_site_is_not_carried_out(
    app: RunningApp, headers: Mapping[str, str]
) -> None:
    alice = await app.visitor()
    answer = await alice.post(PATH, WRITING, headers=headers)
    assert answer.status == 403
    assert answer.error_sentence == "This request came from another site and was not carried out."
    assert await nothing_was_written(app)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {},
    ],
)
async def test_what_comes_from_here_is(app: RunningApp, headers: Mapping[str, str]) -> None:
    alice = await app.visitor()
    assert (await alice.post(PATH, WRITING, headers=headers)).status == 303


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://journal.example:8443", 303),
        ("https://journal.example", 403),
        ("https://elsewhere.example:8443", 403),
    ],
)
async def test_a_proxy_on_another_port_is_the_same_site(
    start: Start, origin: str, status: int
) -> None:
    app = await start(
        server=ServerSettings(hosts=("localhost", "journal.example"), behind_proxy=True)
    )
    alice = await app.visitor()
    forwarded = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "journal.example:8443",
        "X-Forwarded-Port": "8443",
    }
    sent = {"Host": "journal.example", "Origin": origin, **forwarded}
    assert (await alice.post(PATH, WRITING, headers=sent)).status == status


@pytest.mark.parametrize("origin", ["http://localhost:8443", "https://elsewhere.example"])
async def test_a_proxy_that_is_silent_is_told_what_to_send(app: RunningApp, origin: str) -> None:
    alice = await app.visitor()
    sent = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    refused = await alice.post(PATH, WRITING, headers=sent)
    assert refused.status == 403
    assert "X-Forwarded-Proto" in refused.text


async def test_a_forwarded_header_without_a_proxy_is_reported_once(
    app: RunningApp, caplog: pytest.LogCaptureFixture
) -> None:
    for header in ("X-Forwarded-Proto", "X-Forwarded-For"):
        await app.anonymous({header: "sent-by-somebody"}).get("/sign-in")
    reports = [each.getMessage() for each in caplog.records if "behind_proxy" in each.getMessage()]
    assert len(reports) == 1
    assert "sent-by-somebody" not in reports[0]


# -- tokens --------------------------------------------------------------------------------------------------


def forged(token: str) -> str:
    held = bytearray(base64.urlsafe_b64decode(token))
    held[20] ^= 1
    return base64.urlsafe_b64encode(held).decode()


def later(token: str) -> str:
    held = base64.urlsafe_b64decode(token)
    stamp = struct.unpack(">Q", held[:8])[0] + 10
    return base64.urlsafe_b64encode(struct.pack(">Q", stamp) + held[8:]).decode()


@pytest.mark.parametrize(
    "how", ["missing", "empty", "forged", "later", "short", "not base64", "not ascii"]
)
@pytest.mark.parametrize("place", ["field", "header"])
async def test_a_token_that_is_not_ours_is_refused(app: RunningApp, how: str, place: str) -> None:
    alice = await app.visitor()
    good = alice.cookie("llamora_csrf")
    bad = {
        "missing": "",
        "empty": "",
        "forged": forged(good),
        "later": later(good),
        "short": good[:20],
        "not base64": "*" * 56,
        "not ascii": "é" * 56 if place == "field" else "%" * 56,
    }[how]
    form = {"csrf": bad, **WRITING}
    if how == "missing":
        form.pop("csrf")
        answer = await alice.client.post(PATH, form=form)
        answer = PageResponse(answer, await answer.get_data(as_text=False))
    elif place == "field":
        answer = await alice.post(PATH, form)
    else:
        answer = await alice.post(
            PATH, WRITING, headers={"X-CSRF-Token": bad}
        )  # the header is the one that counts
    assert answer.status == 403
    assert answer.error_sentence.startswith(
        "This page had been open too long, so nothing was changed yet."
    )
    assert answer.field("words") == "from elsewhere"
    assert await nothing_was_written(app)


async def test_the_header_alone_is_enough(app: RunningApp) -> None:
    alice = await app.visitor()
    answer = await alice.client.post(
        PATH, form=WRITING, headers={"X-CSRF-Token": alice.cookie("llamora_csrf")}
    )
    assert answer.status_code == 303


async def test_a_token_is_good_for_one_session_only(app: RunningApp) -> None:
    alice, again, bob = await app.visitor(), await app.visitor(), await app.visitor("Bob")
    stranger = app.anonymous()
    await stranger.get("/sign-in")
    for other in (again, bob, stranger):
        answer = await alice.post(PATH, {"csrf": other.cookie("llamora_csrf"), **WRITING})
        assert answer.status == 403
    assert await nothing_was_written(app)
    other = app.anonymous()
    await other.get("/sign-in")
    crossed = await other.post(
        "/sign-in", {"csrf": stranger.cookie("llamora_csrf"), "name": "Alice", "passphrase": "x"}
    )
    assert crossed.status == 403
    assert crossed.error_sentence.startswith("This page had been open too long")


async def test_a_token_runs_out_and_the_cookie_stays_fresh(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(session=SessionSettings(csrf_ttl=100))
    alice = await app.visitor()
    token = alice.cookie("llamora_csrf")
    made = struct.unpack(">Q", base64.urlsafe_b64decode(token)[:8])[0]
    now = made

    class Clock:
        @staticmethod
        def time() -> float:
            return now

    monkeypatch.setattr(csrf, "time", Clock)
    now = made + 100
    assert (await alice.post(PATH, {"csrf": token, **WRITING})).status == 303
    now = made + 101
    assert (await alice.post(PATH, {"csrf": token, **WRITING})).status == 403
    # The cookie that our script reads was renewed with the answer.
    assert alice.cookie("llamora_csrf") != token
    assert (await alice.post(PATH, WRITING)).status == 303


@pytest.mark.parametrize(
    "path", ["/sign-out", "/you/settings", "/search", "/e/" + "0" * 32 + "/delete"]
)
async def test_every_form_needs_the_token(app: RunningApp, path: str) -> None:
    alice = await app.visitor()
    answer = await alice.client.post(path, form={"q": "x"})
    assert answer.status_code == 403
    assert (await alice.get("/you")).status == 200


@pytest.mark.parametrize("path", ["/register", "/reset", "/sign-in"])
async def test_a_page_that_let_somebody_in_may_be_sent_again(app: RunningApp, path: str) -> None:
    alice = await app.visitor()
    answer = await alice.client.post(
        path, form={"name": "Eve", "passphrase": "x", "csrf": "of the visit before"}
    )
    assert (answer.status_code, answer.headers["Location"]) == (303, "/you")
    assert await app.services.db.users.find_by_name("Eve") is None


# -- bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=b", "application/json", "text/plain"]
)
async def test_a_body_in_another_shape_is_not_even_read(
    app: RunningApp, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the body was parsed")

    alice = await app.visitor()
    monkeypatch.setattr("quart.formparser.FormDataParser.parse", never)
    body = '--b\r\nContent-Disposition: form-data; name="text"; filename="x"\r\n\r\nprivate\r\n--b--\r\n'
    answer = await alice.client.post(
        PATH,
        data=body,
        headers={"Content-Type": kind, "X-CSRF-Token": alice.cookie("llamora_csrf")},
    )
    assert answer.status_code == 415
    assert b"private" not in await answer.get_data(as_text=False)
    assert await nothing_was_written(app)


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
async def test_other_methods_are_not_understood(app: RunningApp, method: str) -> None:
    alice = await app.visitor()
    send = getattr(alice.client, method)
    answer = await send("/d/2026-11-20", headers={"X-CSRF-Token": alice.cookie("llamora_csrf")})
    assert answer.status_code == 405


async def test_a_get_changes_nothing(app: RunningApp) -> None:
    alice = await app.visitor()
    entry = await alice.write("Stays.")
    for path in (
        "/sign-out",
        f"/e/{entry}/delete",
        f"/e/{entry}/restore",
        f"/e/{entry}/replies",
        "/you/settings",
    ):
        assert (await alice.get(path)).status in (404, 405), path
    assert (await alice.get("/d/2026-11-20")).ids == [entry]


# -- Alice, Bob, and Charlie who must see nothing ------------------------------------------------------------------


async def test_nobody_reaches_what_is_anothers(start: Start, model: ScriptedModel) -> None:
    app = await start(llm=settings_for_model(model))
    model.script(Reply(["A reply about herons."]))
    alice, bob, charlie = [await app.visitor(name) for name in ("Alice", "Bob", "Charlie")]
    entry = await alice.write("Alice saw the heron.")
    await bob.write("Bob saw no heron.")
    asked = await alice.post(f"/e/{entry}/replies", fragment=True)
    reply = asked.ids[0]
    await alice.follow(reply)
    answer = await alice.add_answer(reply, "Alice's answer to the heron.")
    for message in (entry, reply, answer):
        assert "heron" not in await charlie.follow(message)
        for path in (f"/e/{message}", f"/e/{message}/edit"):
            for fragment in (False, True):
                assert (await charlie.get(path, fragment=fragment)).status == 404, path
        for path in (
            f"/e/{message}",
            f"/e/{message}/delete",
            f"/e/{message}/restore",
            f"/e/{message}/answers",
            f"/e/{message}/replies",
            f"/r/{message}/stop",
        ):
            refused = await charlie.post(
                path, {"text": "Charlie was here", "revision": "1", "ask": "1"}
            )
            assert refused.status == 404, path
            assert "heron" not in refused.visible_text, path
            assert refused.error_sentence == "There is no such entry."
    assert (await charlie.get("/d/2026-11-20")).ids == []
    found = await charlie.get((await charlie.post("/search", {"q": "heron"})).location)
    assert "Nothing found." in found.visible_text
    own = await bob.get((await bob.post("/search", {"q": "heron"})).location)
    assert "One place." in own.visible_text
    # Nothing of what Charlie sent arrived.
    page = await alice.get("/d/2026-11-20")
    assert page.ids == [entry, reply, answer]
    assert "Charlie" not in page.text
    assert len(model.chat_requests) == 1


@pytest.mark.parametrize(
    "text", ["0" * 31, "0" * 33, "0" * 32, "A" * 32, "g" * 32, "..", "%2e%2e", "é"]
)
@pytest.mark.parametrize("path", ["/e/{}", "/e/{}/edit"])
async def test_an_address_that_is_none_is_a_sentence(app: RunningApp, path: str, text: str) -> None:
    alice = await app.visitor()
    assert (await alice.get(path.format(text))).status == 404


async def test_two_slashes_lead_to_one_and_never_elsewhere(app: RunningApp) -> None:
    alice = await app.visitor()
    answer = await alice.get("/d//2026-11-20")
    assert (answer.status, answer.location) == (308, "http://localhost/d/2026-11-20")
    assert (
        not (await alice.get("//evil.example"))
        .location.removeprefix("http://localhost/")
        .startswith(("/", "http"))
    )


@pytest.mark.parametrize("path", ["/d/today", "/you", "/search", "/e/" + "0" * 32])
async def test_strangers_see_the_door(app: RunningApp, path: str) -> None:
    stranger = app.anonymous()
    assert (await stranger.get(path)).location.startswith("/sign-in")
    assert (await stranger.get(path, fragment=True)).status == 401


# -- logs ------------------------------------------------------------------------------------------------------


async def test_no_word_of_the_writer_reaches_the_log(
    start: Start,
    model: ScriptedModel,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    app = await start(llm=settings_for_model(model), entries=EntrySettings(max_bytes=1000))
    model.script(
        Reply(["canaryreply one"]),
        Reply(["canaryreply two"], fault="bad_json"),
        Reply(status=500, body="canaryreply"),
    )
    alice = app.anonymous()
    await alice.sign_in("Alice", "canarywrongpassphrase")
    await alice.sign_in()
    cookie = alice.cookie("llamora")
    entry = await alice.write("canarytext in an entry")
    await alice.post(f"/e/{entry}", {"text": "canarytext edited", "revision": "7"})
    await alice.post(f"/e/{entry}", {"text": "canarytext edited", "revision": "1"})
    asked = [await alice.post(f"/e/{entry}/replies", fragment=True) for _ in range(3)]
    for reply in asked:
        await alice.follow(reply.ids[0])
    await alice.add_answer(asked[-1].ids[0], "canaryanswer")
    await alice.post("/search", {"q": 'canaryquery "canaryphrase" -canarynot'})
    await alice.post(PATH, {"text": "canarytext " * 500})
    await alice.post(PATH, {"text": "canarytext", "csrf": "canarytoken"})

    async def explode(*_: object, **__: object) -> None:
        raise RuntimeError("canarytext in an exception")

    with monkeypatch.context() as broken:
        broken.setattr(app.services.journal.__class__, "write", explode)
        assert (await alice.post(PATH, {"text": "canarytext"})).status == 500
    await app.stop()
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert "unexpected RuntimeError at" in logged
    assert "canary" not in logged
    assert PASSPHRASE not in logged
    assert cookie not in logged


async def test_bodies_are_as_large_as_their_page_has_a_use_for(app: RunningApp) -> None:
    alice, stranger = await app.visitor(), app.anonymous()
    await stranger.get("/sign-in")
    assert (
        await stranger.post("/sign-in", {"name": "x" * 100_000, "passphrase": "x"})
    ).status == 413
    assert (await alice.post("/you/settings", {"zone": "x" * 100_000})).status == 413
    assert (await alice.post(PATH, {"text": "x" * 100_000})).status == 303
    many = {f"field{number}": "x" for number in range(MAX_FIELDS)}
    assert (await alice.post(PATH, {"text": "x", **many})).status == 413


@pytest.mark.parametrize("host", ["127.0.0.1:6161@evil.example", "localhost:", ""])
async def test_a_host_is_a_name_and_a_port(app: RunningApp, host: str) -> None:
    assert (await app.anonymous().client.get("/healthz", headers={"Host": host})).status_code == 400


@pytest.mark.parametrize("host", ["[::1]x", "[::1]:1@evil.example", "[::1", "::1]"])
def test_a_bracketed_host_is_an_address_and_a_port(host: str) -> None:
    # No test client sends these: Python's own parser refuses them first, in some of its versions.
    assert HOST_PATTERN.fullmatch(host) is None


async def test_a_long_text_after_the_session_ended_asks_to_sign_in(app: RunningApp) -> None:
    stranger = app.anonymous()
    await stranger.get("/sign-in")
    for length in (1_000, 100_000):
        answer = await stranger.post("/d/today/entries", {"text": "x" * length}, fragment=True)
        assert answer.status == 401
        assert "Sign in again" in answer.visible_text


async def test_nobody_is_held_up_by_a_name_of_combining_marks(app: RunningApp) -> None:
    stranger = app.anonymous()
    await stranger.get("/sign-in")
    answer = await stranger.post(
        "/sign-in", {"name": "a" + "\u0301\u0316" * 10_000, "passphrase": "x"}
    )
    assert answer.status == 413 or answer.status == 403


async def test_words_that_came_too_late_can_be_sent_again(app: RunningApp) -> None:
    alice = await app.visitor()
    token = alice.cookie("llamora_csrf")
    await alice.post("/sign-out", {})
    lost = await alice.post(
        PATH, {"csrf": token, "text": "Written a while ago.", "form_token": "0" * 32}
    )
    assert lost.status == 401
    assert 'action="/d/' in lost.text
    assert "Written a while ago." in lost.field("text")
    assert 'name="form_token" value="00000000000000000000000000000000"' in lost.text
    assert 'href="/sign-in"' in lost.text
