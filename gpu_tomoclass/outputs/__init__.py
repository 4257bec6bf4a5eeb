"""Outputs appear complete or not at all, and never in the place of an input.

The names are imported at once, unlike those of other rooms: every command needs them, and they ask for the
standard library alone.
"""

from gpu_tomoclass.outputs.disk import StrPath, check_space, folder_bytes, free_bytes, write_error, writing
from gpu_tomoclass.outputs.hidden_names import discard, leftovers, remove_stale, temporary_name
from gpu_tomoclass.outputs.inputs import claim, outputs_made, protect, protecting, refuse_inputs
from gpu_tomoclass.outputs.publishing import AtomicOutput, atomic, check_output, check_suffix, publish, write_json
from gpu_tomoclass.outputs.removal import wait_for_removals
from gpu_tomoclass.outputs.sizes import size_bytes, size_text
from gpu_tomoclass.outputs.syncing import SyncAhead, sync_entry

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
    "wait_for_removals",
    "write_error",
    "write_json",
    "writing",
]
