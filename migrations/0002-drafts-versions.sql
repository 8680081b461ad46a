-- What is being written, what entries said before they were edited, and which of them are deleted.
-- `place` is a keyed hash of where a draft belongs. `trash` is one sealed list for each writer: a mark on the
-- entries would show which of them are deleted.

CREATE TABLE drafts (
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    place    BLOB NOT NULL CHECK (length(place) = 32),
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL,
    PRIMARY KEY (user_id, place)
) WITHOUT ROWID;

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

CREATE TABLE trash (
    user_id  BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;
