"""Settings: read by Dynaconf, validated once, given out as frozen typed dataclasses.

Every key, its default and its unit stand in `config/settings.toml`; the dataclasses below repeat
names, types and defaults, and a test holds the two together. Nothing else in the project reads the
environment.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

ENV_PREFIX = "LLAMORA"
# Environment variables with our prefix that are not settings: the settings file itself, and the
# folder of evaluation data for tests and benchmarks.
_NOT_SETTINGS = frozenset({"settings", "eval_data"})
# Memory times passes, to which the KDF's time is proportional; llamora.vault.slots refuses slots
# above it.
_MAX_KIB_PASSES = 8 * 1024 * 1024
_Kind = TypeVar("_Kind")


class SettingsError(Exception):
    """A setting cannot be used; the message is one sentence that names the key."""


@dataclass(slots=True, frozen=True)
class _Rule:
    """A requirement of a value, in words, and the test of it."""

    description: str
    is_valid: Callable[[Any], bool]


class _Secret:
    """The mark of a value that no message may repeat."""


def _int_between(low: int, high: int) -> _Rule:
    return _Rule(f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def _float_between(low: float, high: float) -> _Rule:
    return _Rule(f"a number from {low} to {high}", lambda value: low <= value <= high)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_complete and "@" not in parts.netloc and not any(letter.isspace() for letter in text)


_CONTEXT_OR_NONE = _Rule(
    "0 or a whole number from 1024 to 1048576",
    lambda value: value == 0 or 1024 <= value <= 1_048_576,
)
_URL = _Rule(
    'an address such as "http://127.0.0.1:8080/v1", without a name or password in it',
    lambda text: text == "" or _is_url(text),
)
_NAME = _Rule("a name", lambda text: bool(text.strip()))
_HOSTS = _Rule("a list of host names, at least one", lambda hosts: len(hosts) > 0 and all(hosts))


def _platform_folder(kind: Literal["data", "cache"]) -> Path:
    import platformdirs

    find_folder = platformdirs.user_data_path if kind == "data" else platformdirs.user_cache_path
    return find_folder("llamora", appauthor=False)


def _data_folder() -> Path:
    return _platform_folder("data")


def _cache_folder() -> Path:
    return _platform_folder("cache")


@dataclass(slots=True, frozen=True)
class ServerSettings:
    """The server's address, workers, host names and sign-up, and its shutdown in seconds."""

    host: Annotated[str, _NAME] = "127.0.0.1"
    port: Annotated[int, _int_between(0, 65535)] = 5151
    workers: Annotated[int, _int_between(1, 16)] = 1
    hosts: Annotated[tuple[str, ...], _HOSTS] = (
        "llamora.localhost",
        "localhost",
        "127.0.0.1",
        "[::1]",
    )
    registration: bool = True
    behind_proxy: bool = False
    shutdown_seconds: Annotated[float, _float_between(0, 60)] = 3.0


@dataclass(slots=True, frozen=True)
class DataSettings:
    """Folders, absolute; an empty text in the file stands for the platform's own."""

    folder: Path = field(default_factory=_data_folder)
    cache: Path = field(default_factory=_cache_folder)

    @property
    def database(self) -> Path:
        """Return the path of the SQLite file that holds everything."""
        return self.folder / "llamora.sqlite3"


@dataclass(slots=True, frozen=True)
class SessionSettings:
    """The lifetimes of a sign-in, in seconds, and the place of its key (`mode`)."""

    mode: Literal["session", "cookie"] = "session"
    idle_ttl: Annotated[int, _int_between(60, 2_592_000)] = 7200
    absolute_ttl: Annotated[int, _int_between(60, 31_536_000)] = 2_592_000
    cookie_touch_interval: Annotated[int, _int_between(1, 3600)] = 60
    csrf_ttl: Annotated[int, _int_between(60, 604_800)] = 43_200


@dataclass(slots=True, frozen=True)
class CryptoSettings:
    """The cost of opening a key slot; the floor is the second choice of RFC 9106, section 4."""

    kdf_target_ms: Annotated[int, _int_between(0, 5000)] = 300
    kdf_memory_kib: Annotated[int, _int_between(65_536, 1_048_576)] = 65_536
    kdf_time_cost: Annotated[int, _int_between(3, 32)] = 3
    kdf_parallelism: Annotated[int, _int_between(4, 16)] = 4


@dataclass(slots=True, frozen=True)
class UpstreamSettings:
    """A model server that the operator configured; an empty host is none.

    A temperature below 0 and a context of 0 tokens are those of `llm`.
    """

    host: Annotated[str, _URL, _Secret] = ""
    api_key: Annotated[str, _Secret] = field(default="", repr=False)
    model: str = ""
    temperature: Annotated[float, _float_between(-1, 2)] = -1.0
    context_tokens: Annotated[int, _CONTEXT_OR_NONE] = 0
    reasoning_effort: Literal["", "none", "minimal", "low", "medium", "high"] = ""
    opens_thought: bool = False


@dataclass(slots=True, frozen=True)
class LlmSettings:
    """The model that answers, and its limits."""

    enabled: bool = True
    embedded: bool = True
    max_reply_tokens: Annotated[int, _int_between(16, 32_768)] = 400
    temperature: Annotated[float, _float_between(0, 2)] = 0.7
    timeout_seconds: Annotated[float, _float_between(1, 3600)] = 120.0
    context_tokens: Annotated[int, _int_between(1024, 1_048_576)] = 4096
    slots: Annotated[int, _int_between(1, 16)] = 2
    ca_file: Path | None = None
    upstream: UpstreamSettings = field(default_factory=UpstreamSettings)
    endpoints: dict[str, UpstreamSettings] = field(default_factory=dict[str, UpstreamSettings])


@dataclass(slots=True, frozen=True)
class EmbeddingSettings:
    """The embedding model of search by meaning."""

    enabled: bool = True
    model: Annotated[str, _NAME] = "local/minilm"
    folder: Path | None = None
    threads: Annotated[int, _int_between(1, 64)] = 1


@dataclass(slots=True, frozen=True)
class SearchSettings:
    """The ranking and the page size of search."""

    hnsw_above: Annotated[int, _int_between(0, 10_000_000)] = 500_000
    lexical_weight: Annotated[float, _float_between(0, 1)] = 0.5
    page_size: Annotated[int, _int_between(1, 200)] = 20


@dataclass(slots=True, frozen=True)
class EntrySettings:
    """The limits of entries."""

    max_bytes: Annotated[int, _int_between(1000, 50_000_000)] = 2_000_000


@dataclass(slots=True, frozen=True)
class BackupSettings:
    """The automatic backups; an empty folder stands for `backups` in the data folder."""

    daily: bool = True
    keep: Annotated[int, _int_between(1, 1000)] = 7
    folder: Path | None = None


@dataclass(slots=True, frozen=True)
class Settings:
    """All settings. `log_level` is `level` under `[log]` in the file."""

    server: ServerSettings = field(default_factory=ServerSettings)
    data: DataSettings = field(default_factory=DataSettings)
    session: SessionSettings = field(default_factory=SessionSettings)
    crypto: CryptoSettings = field(default_factory=CryptoSettings)
    llm: LlmSettings = field(default_factory=LlmSettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    entries: EntrySettings = field(default_factory=EntrySettings)
    backup: BackupSettings = field(default_factory=BackupSettings)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def resource(name: Literal["config", "migrations", "frontend"]) -> Path:
    """Return the folder `name`: in the package if installed from a wheel, else beside `src`."""
    package = Path(__file__).resolve().parent
    packaged = package / name
    return packaged if packaged.is_dir() else package.parents[1] / name


def has_display() -> bool:
    """Return True if programs with windows can be opened here, as far as the environment tells."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def overwrite_freed_memory() -> None:
    """Start this program once more so that memory is overwritten when it is freed.

    Python's debug hooks (c.PyMem_SetupDebugHooks of its manual) and glibc (M_PERTURB of mallopt(3),
    without the cache of threads, which it passes over) do that if the environment says so at the
    start. Does nothing the second time, where PYTHONMALLOC is set otherwise, and on Windows, where
    a program cannot take the place of another.
    """
    if sys.platform != "win32" and "PYTHONMALLOC" not in os.environ:
        os.environ["PYTHONMALLOC"] = "debug"
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.perturb=221:glibc.malloc.tcache_count=0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- this program


def load_settings(
    *,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Read and check all settings once.

    `file` stands in for the file that LLAMORA_SETTINGS names. `overrides` is nested like the file,
    `{"server": {"port": 0}}`, and wins over everything; `defaults` wins over the shipped file only.
    Raise SettingsError.
    """
    named_file, environment = _read_environment()
    named_file = file or named_file
    if named_file is not None and not _is_file(named_file):
        raise SettingsError(f"The settings file {named_file} is not there.")
    shipped = _read_file(resource("config") / "settings.toml")
    upper_layers = [
        _read_file(named_file) if named_file else {},
        environment,
        _lowercase_keys(overrides or {}),
    ]
    # The data folder may hold settings of its own, below the named file: it has to be known first.
    lower_layers = [shipped, _lowercase_keys(defaults or {})]
    settings = _validate([*lower_layers, *upper_layers])
    own_file = settings.data.folder / "settings.toml"
    if not _is_file(own_file):
        return settings
    own_settings = _read_file(own_file)
    if "folder" in _require_table("data", own_settings.get("data", {})):
        raise SettingsError(
            f"data.folder cannot be set in {own_file}, because that file lies in the data folder."
        )
    return _validate([*lower_layers, own_settings, *upper_layers])


class _EnvironmentText(str):
    """A value of the environment: text to be read as whatever type the key has."""

    __slots__ = ()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None


def _load_dynaconf(file: Path | None, prefix: str | None) -> dict[str, Any]:
    """Return what Dynaconf reads: a file and its `.local.toml`, or the environment."""
    from dynaconf import Dynaconf  # pyright: ignore[reportMissingTypeStubs]  # it has none

    # Imported here because it takes a third of a second, and built once per layer because its own
    # merging joins lists where a later layer must replace them.
    options: dict[str, Any] = {"load_dotenv": False, "auto_cast": False, "merge_enabled": True}
    files = [str(file)] if file else []
    loaded = Dynaconf(settings_files=files, core_loaders=["TOML"], envvar_prefix=prefix, **options)
    # It hands its own options back among the settings.
    return {
        key: value for key, value in _lowercase_keys(loaded.to_dict()).items() if key not in options
    }


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return _load_dynaconf(file, None)
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise SettingsError(f"The settings file {file} cannot be read: {error}.") from None


def _read_environment() -> tuple[Path | None, dict[str, Any]]:
    """Return the file that LLAMORA_SETTINGS names, and the other variables as a nested table.

    The values of the table are `_EnvironmentText`.
    """
    texts = {name.upper(): value for name, value in os.environ.items()}

    def as_text(table: dict[str, Any], name: str) -> dict[str, Any]:
        # Dynaconf guesses types ("0123", "true"); here the key decides, so the text itself is
        # wanted.
        result: dict[str, Any] = {}
        for key, value in table.items():
            variable = f"{name}{key.upper()}"
            if variable in texts:
                result[key] = _EnvironmentText(texts[variable])
            elif isinstance(value, dict):
                result[key] = as_text(cast(dict[str, Any], value), f"{variable}__")
        return result

    loaded = {
        key: value
        for key, value in _load_dynaconf(None, ENV_PREFIX).items()
        if key not in _NOT_SETTINGS
    }
    named_file = texts.get(f"{ENV_PREFIX}_SETTINGS", "")
    return (Path(named_file).expanduser() if named_file else None), as_text(
        loaded, f"{ENV_PREFIX}_"
    )


def _lowercase_keys(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key.lower(): _lowercase_keys(cast(Mapping[str, Any], value))
        if isinstance(value, Mapping)
        else value
        for key, value in table.items()
    }


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; any other value, lists too, is replaced."""
    result = dict(base)
    for key, value in override.items():
        old = result.get(key)
        are_tables = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = (
            _merge(cast(Mapping[str, Any], old), cast(Mapping[str, Any], value))
            if are_tables
            else value
        )
    return result


def _validate(layers: Sequence[Mapping[str, Any]]) -> Settings:
    table = dict(reduce(_merge, layers))
    log = _require_table("log", table.pop("log", {}))
    if "log_level" in table or log.keys() - {"level"}:
        raise SettingsError("Under log there is only log.level.")
    settings = _build(Settings, table, "")
    if "level" in log:
        level = _parse_value(Settings.__annotations__["log_level"], log["level"], "log.level")
        settings = replace(settings, log_level=level)
    if settings.llm.ca_file is None and (named := os.environ.get("SSL_CERT_FILE")):
        settings = replace(settings, llm=replace(settings.llm, ca_file=Path(named).absolute()))
    session = settings.session
    if session.idle_ttl > session.absolute_ttl:
        raise SettingsError("session.idle_ttl must not be longer than session.absolute_ttl.")
    if session.cookie_touch_interval >= session.idle_ttl:
        raise SettingsError("session.cookie_touch_interval must be shorter than session.idle_ttl.")
    if settings.crypto.kdf_memory_kib * settings.crypto.kdf_time_cost > _MAX_KIB_PASSES:
        raise SettingsError(
            "crypto.kdf_memory_kib times crypto.kdf_time_cost must be at most 8388608 (8 GiB)."
        )
    return settings


def _require_table(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name} must be a table of settings.")
    return dict(cast(Mapping[str, Any], value))


def _build(kind: type[_Kind], table: Mapping[str, Any], prefix: str) -> _Kind:
    """Build the dataclass `kind` from a table.

    Raise SettingsError for the first thing that does not fit.
    """
    hints = get_type_hints(kind, include_extras=True)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            near = get_close_matches(key, hints, 1)
            hint = f" Is {prefix}{near[0]} meant?" if near else ""
            raise SettingsError(f"There is no setting {prefix}{key}.{hint}")
        # An empty folder stands for the default one.
        if not (value == "" and hints[key] in {Path, Path | None}):
            values[key] = _parse_value(hints[key], value, prefix + key)
    return kind(**values)


def _parse_value(hint: Any, value: object, key: str) -> Any:
    kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if is_dataclass(kind):
        return _build(cast(type[Any], kind), _require_table(key, value), f"{key}.")
    if get_origin(kind) is dict:
        _, item_type = get_args(kind)
        return {
            name: _parse_value(item_type, item, f"{key}.{name}")
            for name, item in _require_table(key, value).items()
        }
    rules = [mark for mark in marks if isinstance(mark, _Rule)]
    try:
        result = _convert(kind, value)
        is_valid = all(rule.is_valid(result) for rule in rules)
    except (TypeError, ValueError, LookupError):
        result, is_valid = None, False
    if not is_valid:
        expected = rules[0].description if rules else _describe_type(kind)
        rejected = (
            ""
            if _Secret in marks
            else f", not {json.dumps(value, default=str, ensure_ascii=False)}"
        )
        raise SettingsError(f"{key} must be {expected}{rejected}.")
    return result


def _describe_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(json.dumps(choice) for choice in get_args(kind))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}.get(
        kind, "a folder"
    )


def _convert(kind: Any, value: object) -> Any:
    """Convert `value` to `kind`. Raise TypeError, ValueError or LookupError if it does not fit."""
    from_text = isinstance(value, _EnvironmentText)
    if kind is bool and from_text:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
            value.lower()
        ]
    if kind in {int, float} and from_text:
        return kind(value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in {bool, int, float} and type(value) is kind:
        return value
    if kind is str and isinstance(value, str):
        return str(value)
    if get_origin(kind) is Literal and value in get_args(kind):
        return str(value)
    if get_origin(kind) is tuple:
        parts = [part.strip() for part in value.split(",")] if from_text else value
        if isinstance(parts, list | tuple) and all(
            isinstance(part, str) for part in cast(list[object], parts)
        ):
            return tuple(cast(list[str], parts))
    if kind in {Path, Path | None} and isinstance(value, str | Path):
        return Path(value).expanduser().absolute()
    raise TypeError
