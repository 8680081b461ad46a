-- A record can be stored only under a data key that is there. Without this, a change that was sealed just before an
-- old key was erased, in another process, could be stored after it and would never open again. Which key a record
-- was sealed with is in its envelope, and so it is in that of the key (docs/encryption.md): bytes 7 to 10. While a
-- backup is put back there are no keys yet, so records that did not open when it was made can come back as they were.

CREATE TRIGGER profiles_new_under_a_living_key BEFORE INSERT ON profiles
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER profiles_changed_under_a_living_key BEFORE UPDATE OF sealed ON profiles
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER entries_new_under_a_living_key BEFORE INSERT ON entries
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER entries_changed_under_a_living_key BEFORE UPDATE OF sealed ON entries
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER tags_new_under_a_living_key BEFORE INSERT ON tags
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER tags_changed_under_a_living_key BEFORE UPDATE OF sealed ON tags
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER versions_new_under_a_living_key BEFORE INSERT ON versions
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER versions_changed_under_a_living_key BEFORE UPDATE OF sealed ON versions
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER drafts_new_under_a_living_key BEFORE INSERT ON drafts
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER drafts_changed_under_a_living_key BEFORE UPDATE OF sealed ON drafts
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER digests_new_under_a_living_key BEFORE INSERT ON digests
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER digests_changed_under_a_living_key BEFORE UPDATE OF sealed ON digests
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER trash_new_under_a_living_key BEFORE INSERT ON trash
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER trash_changed_under_a_living_key BEFORE UPDATE OF sealed ON trash
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER search_history_new_under_a_living_key BEFORE INSERT ON search_history
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER search_history_changed_under_a_living_key BEFORE UPDATE OF sealed ON search_history
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER vectors_new_under_a_living_key BEFORE INSERT ON vectors
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER vectors_changed_under_a_living_key BEFORE UPDATE OF sealed ON vectors
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER search_snapshots_new_under_a_living_key BEFORE INSERT ON search_snapshots
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
CREATE TRIGGER search_snapshots_changed_under_a_living_key BEFORE UPDATE OF sealed ON search_snapshots
WHEN substr(NEW.sealed, 1, 2) = X'4C4C'
    AND EXISTS (SELECT 1 FROM data_keys WHERE user_id = NEW.user_id)
    AND NOT EXISTS (
        SELECT 1 FROM data_keys WHERE user_id = NEW.user_id AND substr(sealed, 7, 4) = substr(NEW.sealed, 7, 4))
BEGIN SELECT RAISE(ABORT, 'sealed under a key that is gone'); END;
