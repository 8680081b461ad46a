"""Coming in and going out: what is said, what is not, and how long it lasts."""

import asyncio
import re
from datetime import date

import pytest

from llamora.journal import sessions as sessions_module
from llamora.journal import throttle as throttle_module
from llamora.journal.throttle import FREE_ATTEMPTS, MAX_WAIT_SECONDS, AttemptLedger
from llamora.persistence.sessions import EXPIRED_GRACE_SECONDS
from llamora.settings import ServerSettings, SessionSettings
from llamora.vault import kdf as vault_kdf
from tests.app.conftest import PASSPHRASE, RunningApp, Start, Visitor, worker_states

NEW = "four unrelated words: kelp anvil dormouse"
IDLE, ABSOLUTE, TOUCH = 600, 3600, 60


@pytest.fixture
def kdf(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for every run of Argon2id."""
    runs: list[int] = []
    real = vault_kdf.argon2id

    def counted(*given: object) -> bytes:
        runs.append(1)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(vault_kdf, "argon2id", counted)
    return runs


class Clock:
    def __init__(self) -> None:
        self.now = 2_000_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def on(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that sessions and throttling go by."""
    clock = Clock()
    for module in (sessions_module, throttle_module):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(params=["session", "cookie"])
async def kept(request: pytest.FixtureRequest, start: Start) -> RunningApp:
    """An app in each of the two modes of keeping a session's key."""
    return await start(session=limits(request.param))


def limits(mode: str) -> SessionSettings:
    return SessionSettings(
        mode=mode,  # type: ignore[arg-type]
        idle_ttl=IDLE,
        absolute_ttl=ABSOLUTE,
        cookie_touch_interval=TOUCH,
    )  # type: ignore[arg-type]


async def is_in(visitor: Visitor) -> bool:
    return (await visitor.get("/you")).status == 200


def without_tokens(text: str, name: str) -> str:
    return re.sub(r'name="csrf" value="[^"]+"', "", text).replace(name, "NAME")


# -- signing in ------------------------------------------------------------------------------------------


async def test_signing_in_opens_today(app: RunningApp) -> None:
    alice = app.anonymous()
    answer = await alice.sign_in("  alice ")
    assert (answer.status, answer.location) == (303, "/d/today")
    assert (await alice.get("/")).location == "/d/today"
    assert (await alice.get("/sign-in")).location == "/d/today"
    assert (await alice.get("/register")).location == "/d/today"


async def test_a_wrong_name_and_a_wrong_passphrase_look_and_cost_the_same(
    app: RunningApp, kdf: list[int]
) -> None:
    stranger = app.anonymous()
    costs: list[int] = []
    answers = []
    for name in ("Alice", "Mallory"):
        before = len(kdf)
        answers.append(await stranger.sign_in(name, "not the passphrase"))
        costs.append(len(kdf) - before)
    assert costs == [1, 1]
    known, unknown = answers
    assert known.status == unknown.status == 403
    assert without_tokens(known.text, "Alice") == without_tokens(unknown.text, "Mallory")
    assert known.error_sentence == "That name and passphrase do not go together."
    assert sorted(name for name, _ in known.headers) == sorted(name for name, _ in unknown.headers)


async def test_a_wrong_name_and_a_wrong_code_look_and_cost_the_same(
    app: RunningApp, kdf: list[int]
) -> None:
    stranger = app.anonymous()
    wrong = app.accounts["Bob"].recovery_code
    costs: list[int] = []
    answers = []
    for name in ("Alice", "Mallory"):
        before = len(kdf)
        answers.append(
            await stranger.post("/reset", {"name": name, "code": wrong, "passphrase": NEW})
        )
        costs.append(len(kdf) - before)
    assert costs == [1, 1]
    known, unknown = answers
    assert known.status == unknown.status == 403
    assert without_tokens(known.text, "Alice") == without_tokens(unknown.text, "Mallory")


async def test_an_endless_passphrase_is_refused_at_the_same_cost(
    app: RunningApp, kdf: list[int]
) -> None:
    answer = await app.anonymous().sign_in("Alice", "x" * 50_000)
    assert answer.status == 403
    assert len(kdf) == 1


async def test_guessing_is_slowed_down(app: RunningApp, clock: Clock, kdf: list[int]) -> None:
    stranger = app.anonymous()
    for _ in range(FREE_ATTEMPTS):
        assert (await stranger.sign_in("Alice", "a guess")).status == 403
    tried = len(kdf)
    slowed = await stranger.sign_in()
    assert slowed.status == 429
    assert re.fullmatch(
        r"Too many tries\. Wait \d+ seconds, then try again\.", slowed.error_sentence
    )
    assert (
        await stranger.post("/reset", {"name": "Alice", "code": "x", "passphrase": NEW})
    ).status == 429
    assert len(kdf) == tried  # a guess that is not looked at costs nothing
    clock.on(2)
    assert (await stranger.sign_in()).status == 303
    assert (await app.anonymous().sign_in("Alice", "a guess")).status == 403  # and is forgotten


async def test_guesses_at_once_are_slowed_down_too(app: RunningApp, kdf: list[int]) -> None:
    stranger = app.anonymous()
    await stranger.get("/sign-in")
    answers = await asyncio.gather(*(stranger.sign_in("Alice", f"guess {n}") for n in range(12)))
    assert sorted(answer.status for answer in answers) == [403] * FREE_ATTEMPTS + [429] * (
        12 - FREE_ATTEMPTS
    )
    assert len(kdf) == FREE_ATTEMPTS


async def test_a_strangers_guesses_keep_nobody_out_of_a_browser_they_know(start: Start) -> None:
    app = await start(server=ServerSettings(behind_proxy=True))
    alice, stranger = (app.anonymous({"X-Forwarded-For": f"203.0.113.{host}"}) for host in (1, 2))
    assert (await alice.sign_in()).status == 303
    await alice.post("/sign-out")
    for number in range(FREE_ATTEMPTS):
        assert (await stranger.sign_in("Alice", f"guess {number}")).status == 403
    assert (await alice.sign_in()).status == 303


async def test_a_strangers_guesses_keep_nobody_waiting_who_is_signed_in(start: Start) -> None:
    app = await start(server=ServerSettings(behind_proxy=True))
    alice, stranger = (app.anonymous({"X-Forwarded-For": f"203.0.113.{host}"}) for host in (1, 2))
    assert (await alice.sign_in()).status == 303
    for number in range(FREE_ATTEMPTS):
        assert (await stranger.sign_in("Alice", f"guess {number}")).status == 403
    assert (await stranger.sign_in()).status == 429
    answer = await alice.post("/you/passphrase", {"old": PASSPHRASE, "new": NEW})
    assert answer.status == 303


async def test_an_account_of_ones_own_frees_no_guesses_at_others(app: RunningApp) -> None:
    stranger = app.anonymous()
    for number in range(FREE_ATTEMPTS - 1):
        assert (await stranger.sign_in(f"Nobody {number}", "a guess")).status == 403
    assert (await app.anonymous().sign_in("Bob")).status == 303
    assert (await stranger.sign_in("Nobody else", "a guess")).status == 403
    assert (await stranger.sign_in("And another", "a guess")).status == 429


async def test_the_wait_doubles_up_to_a_limit(clock: Clock) -> None:
    ledger = AttemptLedger()
    name, probe = (b"a" * 16, 0, FREE_ATTEMPTS, 0), (b"p" * 16, 0, FREE_ATTEMPTS, 0)
    waits: list[int] = []
    for _ in range(20):
        assert ledger.record([name])[0] == 0
        if wait := ledger.record([name, probe])[0]:
            waits.append(wait)
            clock.on(wait)
    assert waits[0] <= 2
    assert max(waits) == MAX_WAIT_SECONDS + 1
    assert waits == sorted(waits)
    assert ledger.record([(b"b" * 16, 0, FREE_ATTEMPTS, 0)])[0] == 0  # somebody else does not wait


async def test_guesses_are_counted_on_after_a_restart(start: Start, clock: Clock) -> None:
    app = await start()
    visitor = app.anonymous()
    for number in range(FREE_ATTEMPTS):
        assert (await visitor.sign_in("Alice", f"guess {number}")).status == 403
    await app.stop()
    again = await start()
    for name, status in (("Alice", 429), ("Bob", 303)):
        assert (await again.anonymous().sign_in(name)).status == status
    clock.on(2)
    assert (await again.anonymous().sign_in()).status == 303
    await again.stop()
    later = await start()
    for number in range(FREE_ATTEMPTS):  # what was right clears them
        assert (await later.anonymous().sign_in("Alice", f"guess {number}")).status == 403


async def test_guesses_are_counted_once_for_all_workers(start: Start) -> None:
    apps = [await start(shared=shared) for shared in worker_states(4)]
    visitors = [app.anonymous() for app in apps]
    answers = await asyncio.gather(
        *(visitor.sign_in("Alice", f"guess {n}") for n in range(3) for visitor in visitors)
    )
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [403] * FREE_ATTEMPTS + [429] * (12 - FREE_ATTEMPTS)


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example", "https://evil.example", "/\\evil.example", "/d/\\evil.example", "\\\\evil.example", "/you",
        "javascript:alert(1)", "/d/\r\nSet-Cookie: a=b", "/d/\tx", "d/today", " /d/today", "/ｄ/today", "/sign-out",
    ],
)  # fmt: skip
async def test_next_never_leads_outside(app: RunningApp, target: str) -> None:
    stranger = app.anonymous()
    page = await stranger.client.get("/sign-in", query_string={"next": target})
    assert b'name="next"' not in await page.get_data(as_text=False)
    assert (await stranger.sign_in(next=target)).location == "/d/today"


async def test_next_leads_back_to_a_day(app: RunningApp) -> None:
    stranger = app.anonymous()
    page = await stranger.get("/sign-in?next=/d/2026-11-20")
    assert 'name="next" value="/d/2026-11-20"' in page.text
    wrong = await stranger.sign_in("Alice", "a slip", next="/d/2026-11-20")
    assert 'name="next" value="/d/2026-11-20"' in wrong.text
    assert (await stranger.sign_in(next="/d/2026-11-20")).location == "/d/2026-11-20"


# -- registering -----------------------------------------------------------------------------------------


async def test_registering_shows_the_code_once_and_asks_for_a_part(app: RunningApp) -> None:
    dora = app.anonymous()
    page = await dora.post(
        "/register", {"name": " Dora  Day ", "passphrase": NEW, "zone": "Asia/Tokyo"}
    )
    assert page.status == 200
    groups = re.findall(r"<span>([0-9A-Z]+)<", page.text)
    asked = re.search(r"type the (\w+) group", page.visible_text)
    index = re.search(r'name="index" value="([^"]+)"', page.text)
    assert asked is not None
    assert index is not None
    assert not any(group in index[1] for group in groups)
    number = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh"].index(asked[1])
    wrong = await dora.post("/recovery-code", {"index": index[1], "part": "0000"})
    assert wrong.status == 422
    assert wrong.error_sentence.startswith(f"That is not the {asked[1]} group.")
    assert not any(f">{group}<" in wrong.text for group in groups)
    right = await dora.post(
        "/recovery-code", {"index": index[1], "part": f" {groups[number].lower()} "}
    )
    assert (right.status, right.location) == (303, "/d/today")
    user = await app.services.db.users.find_by_name("dora day")
    assert user is not None
    assert user.recovery_confirmed
    assert (await dora.get("/recovery-code")).location == "/d/today"
    assert 'value="Asia/Tokyo" selected' in (await dora.get("/you")).text


@pytest.mark.parametrize("index", ["", "0.", "9.x", "0.AAAA", "-1.AAAA", "²." + "A" * 200, "0.é"])
async def test_a_forged_group_leads_nowhere(app: RunningApp, index: str) -> None:
    alice = await app.visitor()
    answer = await alice.post("/recovery-code", {"index": index, "part": "0000"})
    assert (answer.status, answer.location) == (303, "/d/today")
    user = await app.services.db.users.find_by_name("Alice")
    assert user is not None
    assert not user.recovery_confirmed


@pytest.mark.parametrize(
    ("name", "passphrase", "sentence"),
    [
        ("", NEW, "Choose a name to sign in with."),
        (" \t ", NEW, "Choose a name to sign in with."),
        ("x" * 65, NEW, "A name has at most 64 characters, all of them visible."),
        ("Do\x07ra", NEW, "A name has at most 64 characters, all of them visible."),
        ("ALICE", NEW, "That name is taken here. Choose another."),
        ("Ａlice", NEW, "That name is taken here. Choose another."),
        (
            "Dora",
            "",
            "A passphrase of four or five unrelated words is easy to keep and hard to guess.",
        ),
        ("Dora", "123456789", "Guessed at once. Try four or five unrelated words."),
        ("Dora", "x" * 1025, "A passphrase has at most 1024 characters."),
    ],
)
async def test_what_does_not_do_is_said_and_the_name_is_kept(
    app: RunningApp, name: str, passphrase: str, sentence: str
) -> None:
    stranger = app.anonymous()
    answer = await stranger.post("/register", {"name": name, "passphrase": passphrase})
    assert answer.status == 422
    assert answer.error_sentence == sentence
    assert f'name="name" value="{name}"' in answer.text
    assert passphrase == "" or passphrase not in answer.text
    assert not await is_in(stranger)


async def test_the_strength_is_said_while_typing(app: RunningApp) -> None:
    stranger = app.anonymous()
    weak = await stranger.post(
        "/register/strength", {"passphrase": "alice1990", "name": "alice"}, fragment=True
    )
    strong = await stranger.post("/register/strength", {"passphrase": NEW}, fragment=True)
    assert weak.visible_text.startswith("Guessed")
    assert strong.visible_text == "Very hard to guess."


async def test_a_zone_nobody_knows_becomes_utc(app: RunningApp) -> None:
    dora = app.anonymous()
    await dora.post("/register", {"name": "Dora", "passphrase": NEW, "zone": "../../etc/passwd"})
    assert 'value="UTC" selected' in (await dora.get("/you")).text


# -- sessions, in both modes -----------------------------------------------------------------------------


async def test_a_session_ends_when_idle(kept: RunningApp, clock: Clock) -> None:
    alice = kept.anonymous()
    await alice.sign_in()
    clock.on(IDLE - 1)
    assert await is_in(alice)
    clock.on(IDLE)
    assert not await is_in(alice)
    assert kept.services.sessions.open_keyrings() == []
    assert not await is_in(alice)


async def test_activity_moves_the_idle_limit_on(kept: RunningApp, clock: Clock) -> None:
    alice = kept.anonymous()
    await alice.sign_in()
    for _ in range(4):
        clock.on(IDLE - 1)
        assert await is_in(alice)


async def test_a_look_within_the_interval_writes_nothing(kept: RunningApp, clock: Clock) -> None:
    alice = kept.anonymous()
    await alice.sign_in()
    (row,) = await kept.services.db.sessions.list_for_user(kept.keys().user_id)
    clock.on(TOUCH - 1)
    await is_in(alice)
    assert await kept.services.db.sessions.list_for_user(kept.keys().user_id) == [row]
    clock.on(1)
    await is_in(alice)
    (later,) = await kept.services.db.sessions.list_for_user(kept.keys().user_id)
    assert later.idle_until == row.idle_until + TOUCH


async def test_the_absolute_limit_holds_whatever_is_done(kept: RunningApp, clock: Clock) -> None:
    alice = kept.anonymous()
    await alice.sign_in()
    for _ in range(ABSOLUTE // 500):
        clock.on(500)
        assert await is_in(alice)
    clock.on(ABSOLUTE % 500)
    assert not await is_in(alice)


async def test_signing_out_ends_the_row_and_the_cookie(kept: RunningApp) -> None:
    alice = kept.anonymous()
    await alice.sign_in()
    cookie = alice.cookie("llamora")
    answer = await alice.post("/sign-out")
    assert answer.location == "/sign-in"
    assert "llamora=; Expires=Thu, 01 Jan 1970" in str(answer.headers.getlist("Set-Cookie"))
    assert await kept.services.db.sessions.list_for_user(kept.keys().user_id) == []
    alice.set_cookie("llamora", cookie)
    assert not await is_in(alice)


async def test_the_sweep_ends_what_ran_out(kept: RunningApp, clock: Clock) -> None:
    alice = kept.anonymous()
    await alice.sign_in()
    clock.on(IDLE + EXPIRED_GRACE_SECONDS)
    await kept.services.sessions.end_expired_sessions()
    assert await kept.services.db.sessions.list_for_user(kept.keys().user_id) == []
    assert not await is_in(alice)


async def test_signing_in_again_ends_the_session_before(kept: RunningApp) -> None:
    alice = kept.anonymous()
    await alice.sign_in()
    before = alice.cookie("llamora")
    await alice.sign_in()
    assert len(await kept.services.db.sessions.list_for_user(kept.keys().user_id)) == 1
    alice.set_cookie("llamora", before)
    assert not await is_in(alice)


@pytest.mark.parametrize("mode", ["session", "cookie"])
async def test_no_cookie_opens_anything_after_a_restart(start: Start, mode: str) -> None:
    first = await start(session=limits(mode))
    alice = first.anonymous()
    await alice.sign_in()
    assert await is_in(alice)
    rows = await first.services.db.sessions.list_for_user(first.keys().user_id)
    await first.stop()
    second = await start(session=limits(mode))
    assert await second.services.db.sessions.list_for_user(second.keys().user_id) == []
    again = second.anonymous()
    again.set_cookie("llamora", alice.cookie("llamora"))
    assert not await is_in(again)
    # Even with its row put back, as from a stolen file: the secret that opens it was in memory only.
    await second.services.db.sessions.add(rows[0], date(2026, 11, 20))
    again.set_cookie("llamora", alice.cookie("llamora"))
    assert not await is_in(again)


@pytest.mark.parametrize("mode", ["session", "cookie"])
async def test_a_cookie_opens_the_keys_anew_in_another_worker(start: Start, mode: str) -> None:
    app = await start(session=limits(mode))
    alice = app.anonymous()
    await alice.sign_in()
    app.services.sessions._open_sessions.clear()  # a worker that has not seen this session yet
    assert await is_in(alice)


@pytest.mark.parametrize("cookie", ["", "x", "é", "A" * 43, "A" * 400, "=" * 44, "../" * 20])
async def test_a_cookie_that_is_none_opens_nothing(kept: RunningApp, cookie: str) -> None:
    stranger = kept.anonymous()
    stranger.set_cookie("llamora", cookie)
    assert not await is_in(stranger)


async def test_a_damaged_sealed_cookie_opens_nothing(start: Start) -> None:
    app = await start(session=limits("cookie"))
    alice = app.anonymous()
    await alice.sign_in()
    app.services.sessions._open_sessions.clear()
    cookie = alice.cookie("llamora")
    alice.set_cookie("llamora", cookie[:-8] + ("A" if cookie[-8] != "A" else "B") + cookie[-7:])
    assert not await is_in(alice)


# -- the recovery code -----------------------------------------------------------------------------------


async def test_the_recovery_code_sets_a_passphrase_and_ends_all_else(kept: RunningApp) -> None:
    elsewhere, lost = kept.anonymous(), kept.anonymous()
    await elsewhere.sign_in()
    code = kept.accounts["Alice"].recovery_code
    form = {"name": "Alice", "code": f" {code.lower().replace('-', ' ')} ", "passphrase": NEW}
    page = await lost.post("/reset", form)
    assert page.status == 200
    new_code = "-".join(re.findall(r"<span>([0-9A-Z]+)<", page.text))
    assert new_code != code
    assert await is_in(lost)
    assert not await is_in(elsewhere)
    assert (await kept.anonymous().post("/reset", form)).status == 403
    assert (await kept.anonymous().sign_in()).status == 403
    assert (await kept.anonymous().sign_in("Alice", NEW)).status == 303
    assert (
        await kept.anonymous().post("/reset", {**form, "code": new_code, "passphrase": PASSPHRASE})
    ).status == 200


async def test_a_weak_new_passphrase_leaves_everything_as_it_was(app: RunningApp) -> None:
    stranger = app.anonymous()
    form = {"name": "Alice", "code": app.accounts["Alice"].recovery_code, "passphrase": "hunter2"}
    answer = await stranger.post("/reset", form)
    assert answer.status == 422
    assert answer.error_sentence.startswith("Guessed")
    assert (await stranger.sign_in()).status == 303


@pytest.mark.parametrize("length", [72, 73, 100, 1024])
async def test_a_passphrase_may_be_a_long_sentence(app: RunningApp, length: int) -> None:
    sentence = ("the long sentence I always use because it is easy to remember, is it not " * 20)[
        :length
    ]
    stranger = app.anonymous()
    await stranger.get("/register")
    judged = await stranger.post("/register/strength", {"name": "Eve", "passphrase": sentence})
    assert judged.status == 200
    assert "ard to guess" in judged.visible_text
    made = await stranger.post(
        "/register", {"name": f"Eve {length}", "passphrase": sentence, "zone": "UTC"}
    )
    assert made.status == 200
    assert (await app.anonymous().sign_in(f"Eve {length}", sentence)).status == 303


async def test_registration_can_be_closed(start: Start) -> None:
    app = await start(server=ServerSettings(registration=False))
    stranger = app.anonymous()
    assert (await stranger.get("/register")).status == 403
    refused = await stranger.post("/register", {"name": "Eve", "passphrase": NEW, "zone": "UTC"})
    assert refused.status == 403
    assert await app.services.db.users.find_by_name("Eve") is None
    assert (await stranger.sign_in()).status == 303


def test_one_address_makes_only_so_many_users() -> None:
    ledger, subject = AttemptLedger(), throttle_module.registration("203.0.113.1")[0]
    record = [(b"r" * 16, 0, subject.free, 0)]
    for _ in range(subject.free):
        assert ledger.record(record)[0] == 0
    assert ledger.record(record)[0] > 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("::ffff:203.0.113.1", "203.0.113.1"),
        ("2001:db8:0:1::5", throttle_module.network_of("2001:db8:0:1:ffff::9")),
        ("<local>", "<local>"),
    ],
)
def test_addresses_of_one_household_count_as_one(address: str, network: str) -> None:
    assert throttle_module.network_of(address) == network
