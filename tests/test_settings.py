"""Settings as an operator meets them: the file, the data folder, the environment, overrides."""

import subprocess
import sys
import tomllib
from dataclasses import FrozenInstanceError, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llamora.settings import Settings, SettingsError, load_settings, resource


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of this machine reach a test."""
    import os

    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    for name in [name for name in os.environ if name.startswith("LLAMORA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LLAMORA_DATA__FOLDER", str(tmp_path / "data"))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{"llm.upstream.host": ""} of nested tables or dataclasses."""
    pairs = (
        [(f.name, getattr(value, f.name)) for f in fields(value)]
        if is_dataclass(value)
        else [*value.items()]
    )
    found: dict[str, Any] = {}
    for key, inner in pairs:
        nested = is_dataclass(inner) or isinstance(inner, dict)
        found |= flat(inner, f"{prefix}{key}.") if nested else {f"{prefix}{key}": inner}
    return found


def documented() -> dict[str, Any]:
    return flat(tomllib.loads((resource("config") / "settings.toml").read_text(encoding="utf-8")))


def test_the_documented_keys_and_defaults_are_those_of_the_program() -> None:
    typed = flat(Settings())
    typed["log.level"] = typed.pop("log_level")
    for key in ("data.folder", "data.cache", "embedding.folder", "backup.folder", "llm.ca_file"):
        typed[key] = ""  # an empty text in the file stands for a path that depends on the machine
    typed = {
        key: list(value) if isinstance(value, tuple) else value for key, value in typed.items()
    }
    assert documented() == typed


def test_every_documented_key_is_explained() -> None:
    lines = (resource("config") / "settings.toml").read_text(encoding="utf-8").splitlines()
    for before, line in pairwise(lines):
        if " = " in line and not line.startswith("#"):
            assert before.startswith("#") or line.startswith("kdf_"), line


def test_loaded_defaults_are_the_typed_defaults(tmp_path: Path) -> None:
    loaded = flat(load_settings())
    assert loaded.pop("data.folder") == tmp_path / "data"
    default = flat(Settings())
    default.pop("data.folder")
    assert loaded == default


@pytest.mark.parametrize("key", sorted(documented()))
def test_every_key_can_be_set_from_the_environment(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = documented()[key]
    other: dict[type, str] = {
        bool: "false" if default else "true",
        int: str(default),
        float: "1",
        list: "a.b, c",
    }
    special = {
        "session.mode": "cookie",
        "log.level": "DEBUG",
        "llm.upstream.host": "https://models.example/v1",
        "llm.upstream.context_tokens": "8192",
        "llm.upstream.reasoning_effort": "low",
        "crypto.kdf_memory_kib": "70000",
    }
    text = special.get(key) or other.get(type(default), "/some/where")
    if type(default) is int and key not in special:
        text = str(default + 1)
    monkeypatch.setenv("LLAMORA_" + key.upper().replace(".", "__"), text)
    settings = load_settings()
    value = settings.log_level if key == "log.level" else flat(settings)[key]
    expected: dict[type, Any] = {bool: not default, list: ("a.b", "c"), float: 1.0}
    if type(default) is int:
        expected[int] = int(text)
    if isinstance(value, Path):
        assert value == Path(text)
    else:
        assert value == expected.get(type(default), text)


def test_later_places_win_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    own = tmp_path / "data" / "settings.toml"
    named = tmp_path / "named.toml"
    own.write_text(
        "[search]\npage_size = 11\nhnsw_above = 11\n[llm]\nslots = 11\n[server]\nport = 11\n"
    )
    named.write_text("[search]\nhnsw_above = 22\n[llm]\nslots = 12\n[server]\nport = 22\n")
    monkeypatch.setenv("LLAMORA_SETTINGS", str(named))
    monkeypatch.setenv("LLAMORA_LLM__SLOTS", "13")
    monkeypatch.setenv("LLAMORA_SERVER__PORT", "33")
    settings = load_settings(overrides={"server": {"port": 44}})
    assert (settings.search.page_size, settings.search.hnsw_above) == (11, 22)
    assert (settings.llm.slots, settings.server.port) == (13, 44)
    assert settings.search.lexical_weight == 0.5


def test_a_file_given_by_name_stands_in_for_the_one_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given.toml"
    given.write_text('[server]\nhosts = ["journal.example"]\n')
    monkeypatch.setenv("LLAMORA_SETTINGS", str(tmp_path / "not-there.toml"))
    assert load_settings(file=given).server.hosts == ("journal.example",)


def test_text_stays_what_it_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (
        "0012",
        "12",
        "true",
        "1e5",
        "@int 3",
        "@format {env[HOME]}",
        "",
        '"quoted"',
        "[a]",
    ):
        monkeypatch.setenv("LLAMORA_LLM__UPSTREAM__API_KEY", text)
        assert load_settings().llm.upstream.api_key == text


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("SERVER__PORT", "80a", "server.port"),
        ("SERVER__PORT", "", "server.port"),
        ("SERVER__PORT", "70000", "server.port"),
        ("SERVER__HOSTS", " ", "server.hosts"),
        ("SERVER__BEHIND_PROXY", "perhaps", "server.behind_proxy"),
        ("SESSION__MODE", "both", "session.mode"),
        ("SESSION__IDLE_TTL", "59", "session.idle_ttl"),
        ("SESSION__ABSOLUTE_TTL", "7199", "session.idle_ttl"),
        ("SESSION__COOKIE_TOUCH_INTERVAL", "7200", "session.cookie_touch_interval"),
        ("CRYPTO__KDF_MEMORY_KIB", "65535", "crypto.kdf_memory_kib"),
        ("CRYPTO__KDF_MEMORY_KIB", "1048577", "crypto.kdf_memory_kib"),
        ("LLM__TEMPERATURE", "nan", "llm.temperature"),
        ("LLM__UPSTREAM__HOST", "localhost:8080", "llm.upstream.host"),
        ("LLM__UPSTREAM__HOST", "file:///etc/passwd", "llm.upstream.host"),
        ("LLM__UPSTREAM", "x", "llm.upstream"),
        ("LLM__UPSTREAM__HSOT", "x", "llm.upstream.host"),
        ("SERCH__PAGE_SIZE", "3", "search"),
        ("LOG__LEVEL", "LOUD", "log.level"),
        ("LOG__COLOUR", "red", "log.level"),
        ("LOG_LEVEL", "INFO", "log.level"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_sentence(
    name: str, text: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LLAMORA_{name}", text)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        {"server": {"port": True}},
        {"server": {"port": 5151.0}},
        {"server": {"port": None}},
        {"server": 3},
        {"server": {"hosts": "localhost"}},
        {"server": {"hosts": [1]}},
        {"search": {"lexical_weight": "0.5"}},
        {"embedding": {"folder": 3}},
        {"nothing": {}},
        {"crypto": {"kdf_memory_kib": 1_048_576, "kdf_time_cost": 9}},
    ],
)
def test_a_value_of_another_type_is_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        load_settings(overrides=overrides)


def test_secrets_are_neither_in_messages_nor_in_the_representation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(overrides={"llm": {"upstream": {"api_key": 123454321}}})
    assert "123454321" not in str(refused.value)
    monkeypatch.setenv("LLAMORA_LLM__UPSTREAM__HOST", "http://me:hunter@models.example")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "hunter" not in str(refused.value)
    monkeypatch.setenv("LLAMORA_LLM__UPSTREAM__HOST", "http://models.example")
    monkeypatch.setenv("LLAMORA_LLM__UPSTREAM__API_KEY", "open sesame")
    assert "sesame" not in repr(load_settings())


@pytest.mark.parametrize(
    "content",
    [b"[server\n", b"port = \n", b"[server]\nport = 1\nport = 2\n", b"[server]\nhost = '\xff'\n"],
)
def test_a_broken_file_is_named(content: bytes, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_bytes(content)
    with pytest.raises(SettingsError, match=r"broken\.toml"):
        load_settings(file=broken)


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMORA_SETTINGS", str(tmp_path / "gone.toml"))
    with pytest.raises(SettingsError, match=r"gone\.toml"):
        load_settings()


def test_the_data_folder_cannot_move_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "settings.toml").write_text('[data]\nfolder = "/elsewhere"\n')
    with pytest.raises(SettingsError, match=r"data\.folder"):
        load_settings()


def test_folders_are_absolute_and_know_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = load_settings(overrides={"data": {"folder": "~/journal", "cache": Path("here")}})
    assert settings.data.database == tmp_path / "journal" / "llamora.sqlite3"
    assert settings.data.cache == tmp_path / "here"


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load_settings().server.port = 1  # pyright: ignore[reportAttributeAccessIssue]  # what is being tried


def test_importing_settings_leaves_dynaconf_alone() -> None:
    """The command line starts fast: the slow import waits until settings are read."""
    code = "import sys, llamora.settings; sys.exit('dynaconf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_further_model_servers_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[llm.endpoints.study]\nhost = "http://127.0.0.1:1234"\n', encoding="utf-8")
    monkeypatch.setenv("LLAMORA_LLM__ENDPOINTS__STUDY__API_KEY", "a secret")
    study = load_settings(file=file).llm.endpoints["study"]
    assert (study.host, study.api_key, study.temperature) == (
        "http://127.0.0.1:1234",
        "a secret",
        -1.0,
    )
    assert "a secret" not in repr(study)
    file.write_text('[llm.endpoints.study]\nhots = "x"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"llm\.endpoints\.study\.hots"):
        load_settings(file=file)


def test_a_command_may_have_a_default_that_every_setting_wins_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = {"server": {"registration": False}}
    assert not load_settings(defaults=closed).server.registration
    monkeypatch.setenv("LLAMORA_SERVER__REGISTRATION", "true")
    assert load_settings(defaults=closed).server.registration
