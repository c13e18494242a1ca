"""The event log of conferences, kept by triggers, and the streams in them.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_DAYS_AHEAD = 14

_TABLES = (
    """
    CREATE TABLE streams (
        conference text NOT NULL,
        cluster text NOT NULL,
        id text NOT NULL,
        participant text,
        tracks jsonb NOT NULL,
        published_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT streams_pkey PRIMARY KEY (conference, cluster, id),
        CONSTRAINT streams_placement_fkey FOREIGN KEY (conference, cluster)
            REFERENCES placements (conference, cluster) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE conference_heads (
        conference text NOT NULL CONSTRAINT conference_heads_pkey PRIMARY KEY,
        seq bigint NOT NULL,
        at timestamptz NOT NULL
    ) WITH (fillfactor = 50)
    """,
    """
    CREATE TABLE conference_events (
        conference text NOT NULL,
        seq bigint NOT NULL,
        at timestamptz NOT NULL,
        kind text NOT NULL,
        body jsonb NOT NULL,
        id uuid NOT NULL DEFAULT gen_random_uuid(),
        CONSTRAINT conference_events_pkey PRIMARY KEY (conference, seq, at)
    ) PARTITION BY RANGE (at)
    """,
    # What comes while no partition is there for it. Normally empty.
    "CREATE TABLE conference_events_default PARTITION OF conference_events DEFAULT",
    # What a transaction tells, until it commits: nobody else ever sees it, and none outlives a crash.
    """
    CREATE UNLOGGED TABLE pending_events (
        transaction bigint NOT NULL,
        n bigint GENERATED ALWAYS AS IDENTITY,
        conferences text[] NOT NULL,
        kinds text[] NOT NULL,
        bodies jsonb[] NOT NULL,
        CONSTRAINT pending_events_pkey PRIMARY KEY (transaction, n)
    )
    """,
    """
    CREATE TABLE conference_checkpoints (
        conference text NOT NULL,
        seq bigint NOT NULL,
        at timestamptz NOT NULL,
        body jsonb NOT NULL,
        CONSTRAINT conference_checkpoints_pkey PRIMARY KEY (conference, seq)
    )
    """,
)

# Attached rather than created in place: that would lock the whole log. Days are UTC's. A day that has events
# in the default partition already keeps them there.
_PARTITIONS = (
    """
    CREATE FUNCTION causeway_event_partition(of_day date) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        name text := 'conference_events_' || to_char(of_day, 'YYYYMMDD');
        low timestamptz := of_day::timestamp AT TIME ZONE 'UTC';
        high timestamptz := (of_day + 1)::timestamp AT TIME ZONE 'UTC';
    BEGIN
        IF to_regclass(quote_ident(name)) IS NOT NULL
            OR EXISTS (SELECT FROM conference_events_default WHERE at >= low AND at < high)
        THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE conference_events INCLUDING ALL)', name);
        EXECUTE format(
            'ALTER TABLE conference_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            name, low, high
        );
        RETURN true;
    END $$
    """,
    f"""
    SELECT causeway_event_partition((now() AT TIME ZONE 'UTC')::date + n)
        FROM generate_series(0, {_DAYS_AHEAD}) AS n ORDER BY n
    """,  # noqa: S608 - a number of our own
)

# Events are numbered when their transaction commits. A conference's head is locked from then until the commit
# is done: so numbers have no gaps, and whoever has seen number n will never see a smaller one appear. Times
# never run backwards within a conference either. Heads are the last that a transaction locks, in one order:
# whoever holds one waits for nothing else. They outlive their conference: the next one of that id goes on
# counting.
_WRITING = (
    """
    CREATE FUNCTION causeway_events(of_conferences text[], of_kinds text[], of_bodies jsonb[]) RETURNS void
    LANGUAGE plpgsql AS $$
    BEGIN
        IF coalesce(cardinality(of_conferences), 0) > 0 THEN
            INSERT INTO pending_events (transaction, conferences, kinds, bodies)
                VALUES (pg_current_xact_id()::text::bigint, of_conferences, of_kinds, of_bodies);
        END IF;
    END $$
    """,
    """
    CREATE FUNCTION pending_events_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        noticed bigint;
    BEGIN
        -- The first of a transaction takes all of them.
        WITH taken AS (
            DELETE FROM pending_events WHERE transaction = pg_current_xact_id()::text::bigint RETURNING *
        ), told AS MATERIALIZED (
            SELECT t.conference, t.kind, t.body, taken.n, t.place
            FROM taken CROSS JOIN LATERAL unnest(taken.conferences, taken.kinds, taken.bodies)
                WITH ORDINALITY AS t (conference, kind, body, place)
        ), counted AS MATERIALIZED (
            SELECT told.conference, count(*) AS count FROM told GROUP BY told.conference
        ), heads AS (
            INSERT INTO conference_heads AS head (conference, seq, at)
            SELECT counted.conference, counted.count, clock_timestamp()
            FROM counted ORDER BY counted.conference
            ON CONFLICT (conference) DO UPDATE
                SET seq = head.seq + excluded.seq, at = greatest(head.at, clock_timestamp())
            RETURNING head.conference, head.seq, head.at
        ), written AS (
            INSERT INTO conference_events (conference, seq, at, kind, body)
            SELECT
                told.conference,
                heads.seq - counted.count
                    + row_number() OVER (PARTITION BY told.conference ORDER BY told.n, told.place),
                heads.at, told.kind, told.body
            FROM told
                JOIN counted ON counted.conference = told.conference
                JOIN heads ON heads.conference = told.conference
        )
        SELECT count(pg_notify('causeway_event', counted.conference)) FROM counted INTO noticed;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER pending_events_commit AFTER INSERT ON pending_events
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pending_events_commit()
    """,
    """
    CREATE FUNCTION causeway_event(of_conference text, of_kind text, body jsonb) RETURNS void
    LANGUAGE sql AS $$
        SELECT causeway_events(ARRAY[of_conference], ARRAY[of_kind], ARRAY[body])
    $$
    """,
)

# What is said of each thing, as `jsonb_build_object` of a row `r`. No secrets, and nothing from inside a
# deployment: applications and their clients read this.
_PARTICIPANT = (
    "jsonb_build_object('participant', r.id, 'user', r.user_name, 'role', r.role, 'cluster', r.cluster)"
)
_STREAM = (
    "jsonb_build_object('stream', r.id, 'participant', r.participant, 'cluster', r.cluster, "
    "'tracks', r.tracks)"
)
_LINK = "jsonb_build_object('dialer', r.dialer, 'listener', r.listener)"
_PLACEMENT = (
    "jsonb_build_object('cluster', r.cluster, 'ordinal', r.ordinal, 'region', "
    "(SELECT clusters.region FROM clusters WHERE clusters.id = r.cluster))"
)
_CONFERENCE = (
    "jsonb_build_object('type', {row}.template, 'template_version', {row}.template_version, "
    "'metadata', {row}.metadata, 'locked', {row}.locked, 'participant_limit', {row}.participant_limit, "
    "'empty_ttl', {row}.empty_ttl)"
)


def _told(
    table: str, event: str, *, kind: str, body: str, key: tuple[str, ...], changed: str = ""
) -> tuple[str, str]:
    """Return the function and the trigger that write an event for each row of a statement.

    `key`: the table's, led by the conference. `changed`: for updates, which pairs of `o` (before) and `r`
    (after) are worth an event.
    """
    name = f"{table}_tell_{event.lower()}"
    rows = {
        "INSERT": "REFERENCING NEW TABLE AS rows_now",
        "DELETE": "REFERENCING OLD TABLE AS rows_now",
        "UPDATE": "REFERENCING OLD TABLE AS rows_before NEW TABLE AS rows_now",
    }[event]
    same = " AND ".join(f"o.{column} = r.{column}" for column in key)
    source = f"rows_now AS r JOIN rows_before AS o ON {same} WHERE {changed}" if changed else "rows_now AS r"
    order = ", ".join(f"r.{column}" for column in key)
    return (
        f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM causeway_events(array_agg(e.conference), array_agg(e.kind), array_agg(e.body))
                FROM (SELECT r.{key[0]} AS conference, {kind} AS kind, {body} AS body
                      FROM {source} ORDER BY {order}) AS e;
            RETURN NULL;
        END $$
        """,  # noqa: S608 - names from the table below
        f"""
        CREATE TRIGGER {name} AFTER {event} ON {table} {rows} FOR EACH STATEMENT EXECUTE FUNCTION {name}()
        """,
    )


_PLACED = ("conference", "cluster")
_HERE = ("conference", "cluster", "id")
_LINKED = ("conference", "dialer", "listener")
_OTHER_STATE = "o.state IS DISTINCT FROM r.state"
_OTHER_PERSON = "(o.user_name, o.role) IS DISTINCT FROM (r.user_name, r.role)"
_OTHER_STREAM = "(o.participant, o.tracks) IS DISTINCT FROM (r.participant, r.tracks)"


def _constant(kind: str) -> str:
    return f"'{kind}'::text"


_TRIGGERS = (
    # One lock in one order, before anything is changed: those who write take these tables in this order.
    "LOCK TABLE conferences, placements, participants, links IN SHARE ROW EXCLUSIVE MODE",
    *_told(
        "conferences",
        "INSERT",
        kind=_constant("conference.created"),
        body=_CONFERENCE.format(row="r"),
        key=("id",),
    ),
    *(
        statement
        for table, event, kind, body, key, changed in (
            ("placements", "INSERT", "'placement.' || r.state", _PLACEMENT, _PLACED, ""),
            ("placements", "UPDATE", "'placement.' || r.state", _PLACEMENT, _PLACED, _OTHER_STATE),
            ("placements", "DELETE", _constant("placement.removed"), _PLACEMENT, _PLACED, ""),
            ("participants", "INSERT", _constant("participant.joined"), _PARTICIPANT, _HERE, ""),
            ("participants", "UPDATE", _constant("participant.joined"), _PARTICIPANT, _HERE, _OTHER_PERSON),
            ("participants", "DELETE", _constant("participant.left"), _PARTICIPANT, _HERE, ""),
            ("links", "INSERT", "'link.' || r.state", _LINK, _LINKED, ""),
            ("links", "UPDATE", "'link.' || r.state", _LINK, _LINKED, _OTHER_STATE),
            ("links", "DELETE", _constant("link.removed"), _LINK, _LINKED, ""),
            ("streams", "INSERT", _constant("stream.added"), _STREAM, _HERE, ""),
            ("streams", "UPDATE", _constant("stream.changed"), _STREAM, _HERE, _OTHER_STREAM),
            ("streams", "DELETE", _constant("stream.removed"), _STREAM, _HERE, ""),
        )
        for statement in _told(table, event, kind=kind, body=body, key=key, changed=changed)
    ),
    # Rows, not statements: most updates of a conference only note whether somebody is in it, and a condition
    # keeps those from costing anything.
    f"""
    CREATE FUNCTION conferences_tell_update() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM causeway_event(
            NEW.id,
            CASE WHEN OLD.state = 'active' AND NEW.state = 'ending'
                THEN 'conference.ending' ELSE 'conference.changed' END,
            {_CONFERENCE.format(row="NEW")}
        );
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER conferences_tell_update AFTER UPDATE ON conferences FOR EACH ROW
        WHEN ((OLD.state, OLD.metadata, OLD.locked, OLD.participant_limit, OLD.empty_ttl)
            IS DISTINCT FROM (NEW.state, NEW.metadata, NEW.locked, NEW.participant_limit, NEW.empty_ttl))
        EXECUTE FUNCTION conferences_tell_update()
    """,
    # When the transaction commits: what hung on the conference goes with it, and is told before.
    """
    CREATE FUNCTION conferences_tell_delete() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM causeway_event(OLD.id, 'conference.ended', '{}');
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER conferences_tell_delete AFTER DELETE ON conferences
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION conferences_tell_delete()
    """,
)

# Streams go with whoever published them, and with the room; nobody has to report that.
_STREAMS = (
    """
    CREATE FUNCTION participants_take_streams() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM streams USING rows_now AS r
            WHERE streams.conference = r.conference AND streams.cluster = r.cluster
            AND streams.participant = r.id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER participants_tell_streams AFTER DELETE ON participants REFERENCING OLD TABLE AS rows_now
        FOR EACH STATEMENT EXECUTE FUNCTION participants_take_streams()
    """,
    """
    CREATE FUNCTION placements_take_streams() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM streams USING rows_now AS r JOIN rows_before AS o
                ON o.conference = r.conference AND o.cluster = r.cluster
            WHERE streams.conference = r.conference AND streams.cluster = r.cluster
            AND ((o.state = 'ready' AND r.state <> 'ready') OR (o.token IS NOT NULL AND r.token IS NULL));
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER placements_tell_streams AFTER UPDATE ON placements
        REFERENCING OLD TABLE AS rows_before NEW TABLE AS rows_now
        FOR EACH STATEMENT EXECUTE FUNCTION placements_take_streams()
    """,
)

# History begins with what is there.
_BEGINNING = (
    f"""
    SELECT causeway_events(
        array_agg(e.conference ORDER BY e.step, e.key),
        array_agg(e.kind ORDER BY e.step, e.key),
        array_agg(e.body ORDER BY e.step, e.key)
    ) FROM (
        SELECT 1 AS step, r.id AS key, r.id AS conference, 'conference.created' AS kind,
            {_CONFERENCE.format(row="r")} AS body FROM conferences AS r
        UNION ALL
        SELECT 2, r.id, r.id, 'conference.ending', {_CONFERENCE.format(row="r")}
            FROM conferences AS r WHERE r.state = 'ending'
        UNION ALL
        SELECT 3, to_char(r.ordinal, '0000000000'), r.conference, 'placement.' || r.state, {_PLACEMENT}
            FROM placements AS r
        UNION ALL
        SELECT 4, r.cluster || ' ' || r.id, r.conference, 'participant.joined', {_PARTICIPANT}
            FROM participants AS r
        UNION ALL
        SELECT 5, r.dialer || ' ' || r.listener, r.conference, 'link.' || r.state, {_LINK} FROM links AS r
    ) AS e
    """,  # noqa: S608 - expressions from above
)


def upgrade() -> None:
    for statement in (*_TABLES, *_PARTITIONS, *_WRITING, *_TRIGGERS, *_STREAMS, *_BEGINNING):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("migrations run forward only")
