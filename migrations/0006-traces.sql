-- What a writer does with traces beside bearing them. A book for each writer: other names of traces and which are
-- hidden; it is sealed anew with every change of a name or a link, so its revision tells other processes to look.
-- `trace_changes` hold what undoes the latest changes, `trace_refusals` the suggestions that an entry is not to get again.

CREATE TABLE trace_books (
    user_id  BLOB PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;

CREATE TABLE trace_changes (
    id       BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX trace_changes_by_user ON trace_changes (user_id);

CREATE TABLE trace_refusals (
    entry_id BLOB PRIMARY KEY REFERENCES entries (id) ON DELETE CASCADE,
    user_id  BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    epoch    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sealed   BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX trace_refusals_by_user ON trace_refusals (user_id);

-- As in 0005: a record can be stored only under a data key that is there.
CREATE TRIGGER trace_books_new_under_a_living_key BEFORE INSERT ON trace_books
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER trace_books_changed_under_a_living_key BEFORE UPDATE OF sealed ON trace_books
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER trace_changes_new_under_a_living_key BEFORE INSERT ON trace_changes
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER trace_changes_changed_under_a_living_key BEFORE UPDATE OF sealed ON trace_changes
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER trace_refusals_new_under_a_living_key BEFORE INSERT ON trace_refusals
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER trace_refusals_changed_under_a_living_key BEFORE UPDATE OF sealed ON trace_refusals
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
