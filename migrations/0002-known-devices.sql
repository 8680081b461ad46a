-- Failed attempts by one byte of a hash of what was guessed at, whether or not it exists, and the day of the last try:
-- so the wait after a restart says nothing of which names there are.
DROP TABLE failed_attempts;
CREATE TABLE failed_attempts (
    subject BLOB PRIMARY KEY,
    count   INTEGER NOT NULL,
    last_on TEXT NOT NULL
) WITHOUT ROWID;

-- A browser in which a user once got in has a random token; here is its hash with the user's id, so what is stolen is
-- no cookie, and two users of one browser are not linked.
CREATE TABLE known_devices (
    id      BLOB PRIMARY KEY CHECK (length(id) = 32),
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    seen_on TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX known_devices_by_user ON known_devices (user_id);
