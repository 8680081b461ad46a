-- Of each user one sealed sum over the ids and revisions of their records and over the links of their tags, so that a
-- row that is put back, removed or added by another program is noticed. Part 0 is made when the journal is first
-- opened; others stand for a moment while a key is changed.
CREATE TABLE checksums (
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    part     INTEGER NOT NULL,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL,
    PRIMARY KEY (user_id, part)
) WITHOUT ROWID;
