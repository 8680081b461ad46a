-- What a reader of the bare file can see is listed in docs/security.md and held by a test.
-- Every `sealed` column is an envelope of docs/encryption.md, with typed JSON in it; `day`, `tag`, `draft_key` and
-- `summary_key` are keyed hashes. Tables of many records use a random integer key, so that their order in the file
-- says nothing about the order in which they were written. The triggers that refuse a record whose data key is gone
-- are made from persistence/schema.py after every migration; page size and auto_vacuum are set before the first table
-- (PRAGMAS in persistence/connection.py).

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

-- How often somebody tried to get in and failed since the user last did, and the day of the last try.
CREATE TABLE failed_attempts (
    user_id BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    count   INTEGER NOT NULL,
    last_on TEXT NOT NULL
) WITHOUT ROWID;

-- A user may have several slots of a kind, and later kinds need no new schema.
CREATE TABLE key_slots (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind    TEXT NOT NULL,
    salt    BLOB NOT NULL,
    params  TEXT,
    sealed  BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX key_slots_by_user ON key_slots (user_id, kind);

-- Sealed under the user's master key: the living slots with their public keys, and the key of the keyed hashes.
CREATE TABLE keyrings (
    user_id   BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    slots     BLOB NOT NULL,
    index_key BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE data_keys (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch   INTEGER NOT NULL,
    sealed  BLOB NOT NULL,
    PRIMARY KEY (user_id, epoch)
) WITHOUT ROWID;

CREATE TABLE dek_sessions (
    id         BLOB PRIMARY KEY CHECK (length(id) = 32),
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    sealed     BLOB,
    idle_until INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX dek_sessions_by_user ON dek_sessions (user_id);

-- What a session's browser calls itself, so that a user can tell their sessions apart; gone with the session.
CREATE TABLE devices (
    session_id BLOB PRIMARY KEY REFERENCES dek_sessions (id) ON DELETE CASCADE,
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch      INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    sealed     BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX devices_by_user ON devices (user_id);

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
    day      BLOB NOT NULL CHECK (length(day) = 32),
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
);
CREATE INDEX entries_by_day ON entries (user_id, day);
-- What search asks for after every change, answered without touching the records themselves.
CREATE INDEX entries_by_user ON entries (user_id, id, revision);

-- What entries said before they were edited.
CREATE TABLE versions (
    rid      INTEGER PRIMARY KEY,
    id       BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    entry_id BLOB NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
);
CREATE INDEX versions_by_entry ON versions (entry_id);
CREATE INDEX versions_by_user ON versions (user_id);

-- Which entries are deleted: one sealed list, since a mark on the entries would show which of them are.
CREATE TABLE trash (
    user_id  BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;

-- What is being written; `draft_key` is the hash of where it belongs.
CREATE TABLE drafts (
    user_id   BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    draft_key BLOB NOT NULL CHECK (length(draft_key) = 32),
    epoch     INTEGER NOT NULL,
    revision  INTEGER NOT NULL,
    sealed    BLOB NOT NULL,
    PRIMARY KEY (user_id, draft_key)
) WITHOUT ROWID;

CREATE TABLE tags (
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    tag      BLOB NOT NULL CHECK (length(tag) = 32),
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL,
    PRIMARY KEY (user_id, tag)
) WITHOUT ROWID;

CREATE TABLE entry_tags (
    user_id  BLOB NOT NULL,
    tag      BLOB NOT NULL,
    entry_id BLOB NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, tag, entry_id),
    FOREIGN KEY (user_id, tag) REFERENCES tags (user_id, tag) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX entry_tags_by_entry ON entry_tags (entry_id);

-- Other names of tags and which are hidden: one record, sealed anew with every change of a name or a link, so its
-- revision tells other processes to look.
CREATE TABLE tag_meta (
    user_id  BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;

-- What undoes the latest changes of tags.
CREATE TABLE tag_changes (
    id       BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX tag_changes_by_user ON tag_changes (user_id);

-- The suggestions that an entry is not to get again.
CREATE TABLE tag_rejections (
    entry_id BLOB PRIMARY KEY REFERENCES entries (id) ON DELETE CASCADE,
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX tag_rejections_by_user ON tag_rejections (user_id);

-- What a model said of a day or a tag when it was asked; `summary_key` is the hash of the kind and of what it is about.
CREATE TABLE summaries (
    user_id     BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    summary_key BLOB NOT NULL CHECK (length(summary_key) = 32),
    epoch       INTEGER NOT NULL,
    revision    INTEGER NOT NULL,
    sealed      BLOB NOT NULL,
    PRIMARY KEY (user_id, summary_key)
) WITHOUT ROWID;

CREATE TABLE search_history (
    id       BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX search_history_by_user ON search_history (user_id);

CREATE TABLE vectors (
    rid      INTEGER PRIMARY KEY,
    entry_id BLOB NOT NULL UNIQUE REFERENCES entries (id) ON DELETE CASCADE,
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
);
CREATE INDEX vectors_by_user ON vectors (user_id);

-- A user's search index as it stood, in sealed parts; `generation` is the snapshot they belong to. Part 0 is written
-- last: without it a snapshot is not whole and is not read.
CREATE TABLE search_snapshots (
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    sealed     BLOB NOT NULL,
    UNIQUE (user_id, generation, part)
);
