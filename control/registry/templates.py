"""Templates: saved as versions, read by name, retired; and the one version that a conference has.

All functions work inside the caller's transaction. A version's row is never changed or deleted (see tables),
so what was read of it stays true.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from sqlalchemy import Text, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on, insert

from causeway.api import DEFAULT_TEMPLATE, Template, TemplateView
from control.errors import ConferenceUnknownError, TemplateDefaultError, TemplateUnknownError
from control.registry.tables import conferences, templates

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["InUse", "current", "list_newest", "of_conference", "retire", "save", "seed", "show"]

_NAMES_LISTED: Final = 50
_LOCK: Final = 0x74656D70
"""First key of the advisory locks that stand for a template's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """One version of a template."""

    name: str
    version: int
    template: Template


# --- what conferences have --------------------------------------------------------------------


async def of_conference(connection: AsyncConnection, conference: str) -> InUse:
    """Return the version that the conference was created with. Raises ConferenceUnknownError."""
    row = (
        await connection.execute(
            select(templates.c.name, templates.c.version, templates.c.body.cast(Text).label("body"))
            .join(
                conferences,
                (conferences.c.template == templates.c.name)
                & (conferences.c.template_version == templates.c.version),
            )
            .where(conferences.c.id == conference)
        )
    ).one_or_none()
    if row is None:
        raise ConferenceUnknownError(f"no conference {conference}")
    return InUse(name=row.name, version=row.version, template=_template(row.body))


async def current(connection: AsyncConnection, name: str) -> InUse:
    """Return the version that a new conference gets. Raises TemplateUnknownError, which lists the names."""
    row = (await connection.execute(_newest(name))).one_or_none()
    if row is None or row.retired_at is not None:
        raise TemplateUnknownError(await _unknown(connection, name, retired=row is not None))
    return InUse(name=name, version=row.version, template=_template(row.body))


# --- what operators do ------------------------------------------------------------------------


async def show(connection: AsyncConnection, name: str, version: int | None = None) -> TemplateView:
    """Return a version of the template, by default the newest. Raises TemplateUnknownError."""
    query = _newest(name)
    if version is not None:
        query = query.where(templates.c.version == version)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise TemplateUnknownError(await _unknown(connection, name, version=version))
    return _view(row, await _conferences(connection, name))


async def list_newest(connection: AsyncConnection, *, retired: bool = False) -> list[TemplateView]:
    """Return the newest version of every template, by name; retired ones only if asked for."""
    rows = (
        await connection.execute(
            _columns()
            .ext(distinct_on(templates.c.name))
            .order_by(templates.c.name, templates.c.version.desc())
        )
    ).all()
    counted = await connection.execute(
        select(conferences.c.template, func.count().label("number")).group_by(conferences.c.template)
    )
    numbers = {row.template: row.number for row in counted.all()}
    return [_view(row, numbers.get(row.name, 0)) for row in rows if retired or row.retired_at is None]


async def save(
    connection: AsyncConnection,
    name: str,
    template: Template,
    *,
    check: Callable[[TemplateView | None], None],
) -> tuple[TemplateView, bool]:
    """Make a new version, unless the newest one says the same; return it, and whether the name is new.

    `check` gets what is there now (None: nothing) and may raise. A retired template is taken up again.
    """
    row = await _locked(connection, name)
    used = await _conferences(connection, name)
    check(None if row is None else _view(row, used))
    if row is None or row.retired_at is not None or row.version == 0 or _template(row.body) != template:
        row = (
            await connection.execute(
                insert(templates)
                .values(
                    name=name,
                    version=1 if row is None else row.version + 1,
                    body=msgspec.to_builtins(template),
                )
                .returning(*_columns().selected_columns)
            )
        ).one()
        return _view(row, used), row.version == 1
    return _view(row, used), False


async def retire(
    connection: AsyncConnection, name: str, *, check: Callable[[TemplateView | None], None]
) -> None:
    """Take no new conferences of this type; those that are there go on, with the version that they have.

    `check` as for `save`. Raises TemplateUnknownError, and TemplateDefaultError for the default template.
    """
    row = await _locked(connection, name)
    if row is None:
        raise TemplateUnknownError(await _unknown(connection, name))
    check(_view(row, await _conferences(connection, name)))
    if name == DEFAULT_TEMPLATE:
        raise TemplateDefaultError(f"template {name} is the one of conferences that name none; it must stay")
    if row.retired_at is None:
        await connection.execute(
            update(templates)
            .where(templates.c.name == name, templates.c.version == row.version)
            .values(retired_at=func.clock_timestamp())
        )


async def seed(connection: AsyncConnection, found: Mapping[str, Template]) -> list[str]:
    """Make version 1 of every template that was never saved; return their names."""
    made: list[str] = []
    for name, template in sorted(found.items()):
        row = await _locked(connection, name)
        if row is None or row.version == 0:
            await connection.execute(
                insert(templates).values(name=name, version=1, body=msgspec.to_builtins(template))
            )
            made.append(name)
    return made


# --- rows -------------------------------------------------------------------------------------


def _columns() -> Select[str, int, str, datetime, datetime | None]:
    return select(
        templates.c.name,
        templates.c.version,
        templates.c.body.cast(Text).label("body"),
        templates.c.created_at,
        templates.c.retired_at,
    )


def _newest(name: str) -> Select[str, int, str, datetime, datetime | None]:
    return _columns().where(templates.c.name == name).order_by(templates.c.version.desc()).limit(1)


async def _locked(connection: AsyncConnection, name: str) -> Any:
    """Return the newest version's row or None; nobody else saves or retires the template meanwhile."""
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(name))))
    return (await connection.execute(_newest(name))).one_or_none()


async def _conferences(connection: AsyncConnection, name: str) -> int:
    counted = await connection.scalars(
        select(func.count()).select_from(conferences).where(conferences.c.template == name)
    )
    return counted.one()


async def _unknown(
    connection: AsyncConnection, name: str, *, retired: bool = False, version: int | None = None
) -> str:
    if version is not None and (await connection.execute(_newest(name))).one_or_none() is not None:
        return f"template {name} has no version {version}"
    newest = select(templates.c.name, templates.c.retired_at).ext(distinct_on(templates.c.name))
    rows = await connection.execute(newest.order_by(templates.c.name, templates.c.version.desc()))
    names = [row.name for row in rows.all() if row.retired_at is None]
    listed = ", ".join(names[:_NAMES_LISTED]) + (", …" if len(names) > _NAMES_LISTED else "")
    said = f"template {name} is retired" if retired else f"no template {name}"
    return f"{said}; there are: {listed}"


def _view(row: Any, used: int) -> TemplateView:
    return TemplateView(
        name=row.name,
        version=row.version,
        created_at=row.created_at,
        retired_at=row.retired_at,
        conferences=used,
        template=_template(row.body),
    )


@lru_cache(maxsize=256)
def _template(body: str) -> Template:
    """Read a stored template. Fields that a newer release has saved are left out."""
    stored = cast("dict[str, Any]", msgspec.json.decode(body))
    return msgspec.convert({k: v for k, v in stored.items() if k in Template.__struct_fields__}, Template)
