-- What a model said of a day when it was asked: the line that opens one, the summary of one. `place` is a keyed hash
-- of the kind and the day.

CREATE TABLE digests (
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    place    BLOB NOT NULL CHECK (length(place) = 32),
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL,
    PRIMARY KEY (user_id, place)
) WITHOUT ROWID;
