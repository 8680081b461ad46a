-- What a session's browser calls itself, so that a writer can tell their sessions apart; sealed, and gone with the
-- session.

CREATE TABLE devices (
    session_id BLOB PRIMARY KEY REFERENCES dek_sessions (id) ON DELETE CASCADE,
    user_id    BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch      INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    sealed     BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX devices_by_user ON devices (user_id);

CREATE TRIGGER devices_new_under_a_living_key BEFORE INSERT ON devices
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER devices_changed_under_a_living_key BEFORE UPDATE OF sealed ON devices
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
