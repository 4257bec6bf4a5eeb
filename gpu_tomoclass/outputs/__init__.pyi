from .disk import StrPath, check_space, folder_bytes, free_bytes, write_error, writing
from .hidden_names import discard, leftovers, remove_stale, temporary_name
from .inputs import claim, outputs_made, protect, protecting, refuse_inputs
from .publishing import AtomicOutput, atomic, check_output, check_suffix, publish, write_json
from .sizes import size_bytes, size_text
from .syncing import SyncAhead, sync_entry

__all__ = [
    "AtomicOutput",
    "StrPath",
    "SyncAhead",
    "atomic",
    "check_output",
    "check_space",
    "check_suffix",
    "claim",
    "discard",
    "folder_bytes",
    "free_bytes",
    "leftovers",
    "outputs_made",
    "protect",
    "protecting",
    "publish",
    "refuse_inputs",
    "remove_stale",
    "size_bytes",
    "size_text",
    "sync_entry",
    "temporary_name",
    "write_error",
    "write_json",
    "writing",
]
