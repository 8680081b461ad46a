-- A writer's search index as it stood, in sealed parts; `generation` is the snapshot they belong to. Part 0 is
-- written last: without it a snapshot is not whole and is not read.

CREATE TABLE search_snapshots (
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    sealed     BLOB NOT NULL,
    UNIQUE (user_id, generation, part)
);

-- What search asks for after every change, answered without touching the records themselves.
CREATE INDEX entries_by_user ON entries (user_id, id, revision);
