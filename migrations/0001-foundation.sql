-- What a reader of the bare file can see is listed in docs/security.md and held by a test.
-- Every `sealed` column is an envelope of docs/encryption.md. `day` and `trace` are keyed hashes.
-- Tables of records use a random integer key, so that their order in the file says nothing
-- about the order in which they were written.

CREATE TABLE instance (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE users (
    id                 BLOB PRIMARY KEY CHECK (length(id) = 16),
    name               TEXT NOT NULL,
    name_key           TEXT NOT NULL UNIQUE,
    recovery_confirmed INTEGER NOT NULL DEFAULT 0 CHECK (recovery_confirmed IN (0, 1)),
    signed_in_on       TEXT
) WITHOUT ROWID;

CREATE TABLE key_slots (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind    TEXT NOT NULL CHECK (kind IN ('passphrase', 'recovery')),
    salt    BLOB NOT NULL,
    params  TEXT,
    sealed  BLOB NOT NULL,
    PRIMARY KEY (user_id, kind)
) WITHOUT ROWID;

CREATE TABLE data_keys (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch   INTEGER NOT NULL,
    sealed  BLOB NOT NULL,
    PRIMARY KEY (user_id, epoch)
) WITHOUT ROWID;

CREATE TABLE dek_sessions (
    id          BLOB PRIMARY KEY CHECK (length(id) = 32),
    user_id     BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    sealed      BLOB,
    idle_until  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX dek_sessions_by_user ON dek_sessions (user_id);

CREATE TABLE profiles (
    user_id  BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE entries (
    rid      INTEGER PRIMARY KEY,
    id       BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    day      BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
);
CREATE INDEX entries_by_day ON entries (user_id, day);

CREATE TABLE tags (
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    trace    BLOB NOT NULL CHECK (length(trace) = 32),
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL,
    PRIMARY KEY (user_id, trace)
) WITHOUT ROWID;

CREATE TABLE entry_tags (
    user_id  BLOB NOT NULL,
    trace    BLOB NOT NULL,
    entry_id BLOB NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, trace, entry_id),
    FOREIGN KEY (user_id, trace) REFERENCES tags (user_id, trace) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX entry_tags_by_entry ON entry_tags (entry_id);

CREATE TABLE vectors (
    rid      INTEGER PRIMARY KEY,
    entry_id BLOB NOT NULL UNIQUE REFERENCES entries (id) ON DELETE CASCADE,
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
);
CREATE INDEX vectors_by_user ON vectors (user_id);

CREATE TABLE search_history (
    id       BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX search_history_by_user ON search_history (user_id);
