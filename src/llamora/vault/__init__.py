"""The vault: sealed records and the keys that open them. The one door to `cryptography` and argon2.

`envelope` is the format of a record; `keys` leads from a passphrase or recovery code to the subkey
that seals it. docs/encryption.md has both in full.
"""
