"""What brings a store of an earlier schema up to date (`medaction.trajectories.store`)."""

SCHEMA_VERSION = "6"

_FAULTS = "faults struct(error_class varchar, message varchar, raw varchar)[] default []"
MIGRATIONS = {
    # Version 3 keeps the attempts that failed beside what came of them.
    "2": "".join(
        f"alter table {table} add column {_FAULTS}; " for table in ("cases", "turns", "failures")
    ),
    # Version 4 holds what a source tells of the publication as an object, not as its text in JSON.
    "3": (
        "update cases set publication = (publication->>'$')::json"
        " where json_type(publication) = 'VARCHAR'; "
    ),
    # Version 5 tells checks that had nothing to look at apart, and keeps the ledger of every case.
    "4": "alter table checks add column if not exists applicable boolean default true; ",
    # Version 6 has a name of its own for a trajectory that loses its wrong commitment alone.
    "5": (
        "update verdicts set reason = replace(reason, 'wrong_ending', 'commitment_dropped')"
        " where status = 'truncated'; "
    ),
}
"""What brings a store from the schema version of the key to the next one; then schema.sql makes
what is new."""
