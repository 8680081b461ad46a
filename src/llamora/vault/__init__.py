"""The vault: sealed records and the keys that open them. The one door to `cryptography` and argon2.

`envelope` is the format of a record; `slots` leads from a passphrase (`kdf`) or a `recovery_code` to
the master key, `keys` from there to the subkey that seals a record. docs/encryption.md has all of it
in full.
"""
