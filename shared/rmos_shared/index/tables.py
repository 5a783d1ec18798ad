"""The tables of the index, the same on SQLite and PostgreSQL.

Each list that a filter may ask for is an index on (field, place), read downwards from the cursor: so a page
costs the same wherever it is. Nothing here is ever migrated: another ``FINGERPRINT`` means a rebuild.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Column, Index, Integer, MetaData, SmallInteger, Table, Text
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from rmos_shared.index.row import EQUALITIES

#: To be raised when the same fields mean something else.
_MEANING = 1
#: Code points in order, as Python and the store sort them.
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")

METADATA = MetaData()

RUN = Table(
    "run",
    METADATA,
    Column("place", _TEXT, primary_key=True),
    Column("created_at_utc", _TEXT, nullable=False),
    Column("status", _TEXT, nullable=False),
    Column("mode", _TEXT, nullable=False),
    Column("tool_id", _TEXT, nullable=False),
    Column("event_type", _TEXT),
    Column("risk_level", _TEXT, nullable=False),
    Column("score", _TEXT),
    Column("feasibility_sha256", _TEXT, nullable=False),
    Column("toolpaths_sha256", _TEXT),
    Column("request_id", _TEXT),
    Column("session_id", _TEXT),
    Column("batch_label", _TEXT),
    Column("parent_run_id", _TEXT),
    Column("machine_id", _TEXT),
    Column("material_id", _TEXT),
    Column("explanation", _TEXT, nullable=False),
    # Numbers, for both databases treat truth values in ways of their own.
    Column("needs_review", SmallInteger, nullable=False),
    Column("links", Integer, nullable=False),
    Column("reviews", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    sqlite_with_rowid=False,
)

CORRUPT = Table(
    "corrupt",
    METADATA,
    Column("place", _TEXT, primary_key=True),
    Column("reason", _TEXT, nullable=False),
    Column("seen", _TEXT),
    sqlite_with_rowid=False,
)

#: The stamps of a day's directories when all that was in them was in the index; null: to be looked at again.
DAY = Table(
    "day",
    METADATA,
    Column("day", _TEXT, primary_key=True),
    Column("runs", _TEXT),
    Column("reviews", _TEXT),
    Column("attempts", _TEXT),
    sqlite_with_rowid=False,
)

#: What the index says of itself, by name: see ``State``.
STATE = Table(
    "state",
    METADATA,
    Column("name", _TEXT, primary_key=True),
    Column("value", _TEXT, nullable=False),
    sqlite_with_rowid=False,
)


def _listed_by(column: Column[str]) -> Index:
    # What a run does not have no filter asks for.
    there = column.is_not(None) if column.nullable else None
    return Index(f"run_by_{column.name}", column, RUN.c.place, sqlite_where=there, postgresql_where=there)


#: Made once the rows are in, in a rebuild.
INDEXES = [
    *(_listed_by(RUN.c[name]) for name in (*EQUALITIES, "explanation")),
    # Runs of which some advisories are judged and others wait: what comes next for them no stamp tells.
    Index(
        "run_partly_reviewed",
        RUN.c.place,
        sqlite_where=(RUN.c.needs_review == 1) & (RUN.c.reviews > 0),
        postgresql_where=(RUN.c.needs_review == 1) & (RUN.c.reviews > 0),
    ),
]


def _fingerprint() -> str:
    dialect = sqlite.dialect()
    parts = [
        str(_MEANING),
        *(str(CreateTable(table).compile(dialect=dialect)) for table in METADATA.sorted_tables),
        *(str(CreateIndex(index).compile(dialect=dialect)) for index in INDEXES),
    ]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


#: Names this version of the tables.
FINGERPRINT = _fingerprint()
